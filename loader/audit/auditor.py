"""Auditor: compare the ledger of a run with the steps that follow from its weights log.

Every step in the ledger is planned again, with the weights record that the ledger names for this
step. The weights log has this record, because no record is ever removed from the log. If the run
was resumed at an earlier step, the steps from there on were served again, and later blocks of the
ledger replace the earlier ones. Replaced steps are checked as well. For a step that was not
replaced, the audit also checks that the named record is the one in force by the weights log.
"""

import sys
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import IntegrityError
from climbstream.loader.formats.mixture import ONE
from climbstream.loader.sampling.planner import Position
from climbstream.loader.weights.log import WeightsLog

from .ledger import Block, Opening, hash_marks, short_marks
from .replay import Replay


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterShare:
    """What one cluster should have got in the audited steps, and what it got."""

    name: str
    target: float
    """Share of all rows that was due to the cluster by the weights, from 0 to 1."""
    served: float
    """Share of all rows that the cluster got, from 0 to 1."""
    tokens: int
    """Number of tokens that the cluster got."""
    epochs: float
    """Number of epochs of the cluster since the start of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Result of an audit."""

    first: int
    """Number of steps before the first step of the ledger. Rows that these steps served are not
    audited; they count only in `ClusterShare.epochs`."""
    steps: int
    """Number of steps in the ledger; a step that was served several times counts once."""
    again: int
    """Number of steps that were served again, after the run was resumed from an earlier step. Only
    steps in the ledger count; see `resumed`."""
    abandoned: int
    """Number of steps that were served, but no longer count: the run was then resumed from an
    earlier step, and has not reached them again."""
    unwritten: int
    """Number of steps that are missing in the ledger, although the run was resumed after them; for
    example, a power cut may have lost their lines."""
    resumed: tuple[int, ...]
    """Steps at which the run was resumed, in the order of time. If the job before had been killed,
    it may have served more steps than it wrote to the ledger; `again` does not count them."""
    clusters: tuple[ClusterShare, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """A position in a run, with the number of rows due to each cluster before the position."""

    position: Position
    due: NDArray[np.float64]
    """Sum over steps of weight times rows of a batch, not rounded to whole rows, ``[K]``."""

    def same(self, position: Position) -> bool:
        """Whether ``position`` equals the position of this place."""
        ours = self.position
        return (
            (ours.step, ours.served) == (position.step, position.served)
            and bool((ours.consumed == position.consumed).all())
            and bool((ours.credit == position.credit).all())
        )


class _Auditor:
    """Plans the steps of a ledger again, line by line, and compares them with the ledger."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._openings = [line for line in replay.lines if isinstance(line, Opening)]
        self.resumed = tuple(opening.state.step for opening in self._openings[1:])
        self._begins = sorted({opening.state.step for opening in self._openings})
        self._places: dict[int, list[_Place]] = {}
        """Places by step, for those steps at which an opening begins. A step has one place for each
        time that the run has reached it."""
        self._opening = self._openings[0]
        self.base = self._opening.state.position()
        """Position at which the ledger begins."""
        self._here = _Place(self.base, np.zeros(len(replay.names)))
        self.again = self.unwritten = 0
        self.furthest = self.base.step
        """The largest step that the run has reached so far."""

    def walk(self) -> _Place:
        """Check all lines of the ledger; return the place after the last line.

        Raises:
            IntegrityError: A line differs from the plan; the message names the first step that
                differs.
        """
        begins = [
            line.state.step if isinstance(line, Opening) else sys.maxsize
            for line in self._replay.lines
        ]
        # For each line, the earliest step at which a later opening begins.
        later = [*list(accumulate(reversed(begins[1:]), min))[::-1], sys.maxsize]
        self._start(self._openings[0], self._here)
        for line, again in zip(self._replay.lines[1:], later[1:], strict=True):
            if isinstance(line, Opening):
                self._open(line)
            else:
                self._check(line, again)
        return self._here

    def _start(self, opening: Opening, place: _Place) -> None:
        self._opening, self._here = opening, place
        self._places.setdefault(place.position.step, []).append(place)

    def _open(self, opening: Opening) -> None:
        """Go to the position of ``opening``.

        Raises:
            IntegrityError: The run has reached this step, but at another position.
        """
        start, here = opening.state.position(), self._here
        if start.step > here.position.step:
            self.unwritten += start.step - here.position.step
            self._advance(start.step, self._replay.log, None)
            place: _Place | None = self._here
        else:
            places = self._places.get(start.step, [])
            # None if this opening begins before the first step of the ledger.
            place = next((p for p in places if p.same(start)), places[-1] if places else None)
        if place is not None and not place.same(start):
            raise IntegrityError(
                f"after step {start.step:,}, the run continued from another position than it had "
                "reached; it continued from a state of another run, or the ledger was changed"
            )
        if place is None:
            self._places, self.base = {}, start
        self._start(opening, place or _Place(start, np.zeros(len(start.credit))))

    def _check(self, block: Block, again: int) -> None:
        """Check one block of the ledger; later blocks replace its steps from step ``again`` on.

        Raises:
            IntegrityError: The block does not follow the line before, differs from the plan, or
                names another weights record than the log.
        """
        step, log = self._here.position.step, self._replay.log
        if block.step != step:
            raise _fault(
                step, f"it is missing in the ledger, which continues at step {block.step + 1:,}"
            )
        record = log.records[block.v] if block.v < len(log.records) else None
        if record is None or record.hash != block.weights or record.at_step > step:
            raise _fault(
                step,
                f"it was served by weights {block.v} ({block.weights:.8}), which the weights log "
                "does not have at this step",
            )
        counts = min(block.end, again)
        if step < counts:
            following = next((r for r in log.since(step)[1:]), None)
            if log.at(step).v != block.v:
                raise _other_weights(step, block.v, log.at(step).v)
            if following is not None and following.at_step < counts:
                raise _other_weights(following.at_step, block.v, following.v)
        self._advance(block.end, WeightsLog((record,)), block)

    def _advance(self, end: int, log: WeightsLog, block: Block | None) -> None:
        """Plan the steps up to ``end`` - 1 by ``log``, and compare them with ``block``, if given.

        Raises:
            IntegrityError: A step differs, or needs more rows than ``max_epochs`` allows.
        """
        names, here = self._replay.names, self._here
        first, rows, marks = here.position.step, np.zeros(len(names), np.int64), []
        stops = [s for s in self._begins if first < s < end]
        for stop in [*stops, end]:
            position, due = here.position, here.due
            count = stop - position.step
            for steps, weights in self._replay.plan(self._opening, position, count, log):
                planned = weights[: steps.planned].sum(axis=0, dtype=np.float64)
                due = due + planned * (self._opening.state.batch_rows / ONE)
                position = steps.after
                rows += steps.quotas.sum(axis=0)
                marks.append(steps.marks)
            if position.step < stop:
                raise _fault(
                    position.step,
                    "it takes more than max_epochs of a cluster, and the weights log does not say "
                    "that the cluster is used up",
                )
            here = _Place(position, due)
            if stop in self._begins:
                self._places.setdefault(stop, []).append(here)
        self.again += max(0, min(end, self.furthest) - first)
        self.furthest = max(self.furthest, end)
        if block is not None:
            _compare(block, rows, np.concatenate(marks), self._opening.state.seq_len)
        self._here = here


def _compare(
    block: Block, rows: NDArray[np.int64], marks: NDArray[np.uint64], seq_len: int
) -> None:
    """Raise `IntegrityError` unless ``block`` has the planned hashes and numbers of rows.

    ``rows``, int64 ``[K]``, is the number of planned rows of each cluster; ``marks``, uint64
    ``[steps]``, is the hash of each planned step.
    """
    short = short_marks(marks)
    for i in range(block.steps):
        if short[4 * i : 4 * i + 4] != block.marks[4 * i : 4 * i + 4]:
            raise _fault(block.step + i, "other rows were served than the weights log says")
    if (block.digest, block.rows, block.tokens) != (
        hash_marks(marks),
        rows.tolist(),
        int(rows.sum()) * seq_len,
    ):
        raise _fault(
            block.step,
            f"for the {block.steps:,} steps from this step on, the ledger counts other rows than "
            "the weights log says",
        )


def _fault(done: int, what: str) -> IntegrityError:
    """Return the error for the step that the run served after ``done`` steps.

    Users count steps from 1: after step N, N steps are done.
    """
    return IntegrityError(f"step {done + 1:,}: {what}")


def _other_weights(done: int, served: int, logged: int) -> IntegrityError:
    """Return the error for a step that was served by another record than the log says."""
    return _fault(
        done,
        f"it was served by weights {served}, but by the weights log, weights {logged} are in force",
    )


def audit_run(replay: Replay) -> Audit:
    """Return the result of an audit, in which all steps are planned again and compared.

    Raises:
        IntegrityError: The ledger differs from the plan; the message names the first step that
            differs.
    """
    auditor = _Auditor(replay)
    end = auditor.walk()
    begin, last = auditor.base, end.position
    rows = last.consumed.sum(axis=1) - begin.consumed.sum(axis=1)
    epochs = last.consumed.sum(axis=1) / np.maximum(replay.epoch_rows, 1)
    total = max(1, int(rows.sum()))
    clusters = tuple(
        ClusterShare(
            name=name,
            target=float(end.due[k] / total),
            served=float(rows[k] / total),
            tokens=int(rows[k]) * replay.settings.seq_len,
            epochs=float(epochs[k]),
        )
        for k, name in enumerate(replay.names)
    )
    return Audit(
        first=begin.step,
        steps=last.step - begin.step,
        again=auditor.again,
        abandoned=auditor.furthest - last.step,
        unwritten=auditor.unwritten,
        resumed=auditor.resumed,
        clusters=clusters,
    )
