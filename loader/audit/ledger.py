"""Ledger: a file that records what a run served, so that an audit can compute the same again.

The file consists of lines of JSON; lines are only added, and each has the hash of the line before.
There are two kinds of lines. An `Opening` is written when a loader begins or resumes: it has the
step and the settings. A `Block` says what was served in some consecutive steps.

If a run resumes at an earlier step, it serves the steps from there on again. So an opening replaces
all earlier records of its own step and of later steps, but these lines stay in the file. The number
of rows that a run has served is the number in the state of the last opening, plus the rows of the
blocks after this opening.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import IntegrityError, InvalidDataError
from climbstream.loader.core.files import append_line, hash_bytes, hash_json, read_lines
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.typed import Count, Finite, convert, located, short
from climbstream.loader.core.workdir import check_same_config, differences_text
from climbstream.loader.state import LoaderState
from climbstream.loader.weights.log import WeightsLog

logger = get_logger(__name__)

LEDGER = "served.jsonl"
"""Name of the ledger in the folder of a run."""
_BLOCK = 1024
"""Number of steps that are collected in memory before they are written."""
_FIXED = ("data", "seed", "seq_len", "lanes", "pack", "part", "clusters")
"""Fields of `LoaderState` that have the same values in all states of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpeningValue:
    """An `Opening` whose state is still a JSON value."""

    shards: str
    max_epochs: dict[str, Finite]
    state: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The state and settings with which a loader began or resumed."""

    shards: str
    """Folder or URL of the shards."""
    max_epochs: dict[str, float]
    """Largest number of epochs, by name of the cluster; a cluster without a limit is left out."""
    state: LoaderState
    """State of the loader before its first step."""

    kind = "opening"

    def to_json(self) -> dict[str, Any]:
        """Return the opening as JSON values."""
        return {
            "shards": self.shards,
            "max_epochs": self.max_epochs,
            "state": self.state.to_json(),
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the value that `to_json` returned.

        Raises:
            InvalidDataError: ``value`` is no opening.
        """
        opening = convert(value, _OpeningValue, "opening of a ledger")
        state = located(LoaderState.from_json, opening.state, "state")
        return cls(shards=opening.shards, max_epochs=opening.max_epochs, state=state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Consecutive steps that were served with the weights of one record."""

    step: Count
    """First step of the block."""
    steps: Count
    """Number of steps."""
    v: Count
    """Number of the weights record."""
    weights: str
    """Hash of the weights record."""
    rows: list[Count]
    """Number of rows of each cluster, over all steps and ranks, in the order of the clusters."""
    tokens: Count
    """Number of tokens in all rows of the block."""
    marks: str
    """The last four hex digits of the hash of each step, as one text. They let an audit find the
    first step that differs. `PlannedSteps` says what is hashed."""
    digest: str
    """Hash of the full hashes of all steps in the block."""

    kind = "steps"

    @property
    def end(self) -> int:
        """The step after the last step of the block."""
        return self.step + self.steps

    def to_json(self) -> dict[str, Any]:
        """Return the block as JSON values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the value that `to_json` returned.

        Raises:
            InvalidDataError: ``value`` is no block.
        """
        block = convert(value, cls, "block of steps")
        if len(block.marks) != 4 * block.steps:
            raise InvalidDataError(
                f"the {block.steps} steps from {block.step} on have marks of {len(block.marks)} "
                f"hex digits, not {4 * block.steps}"
            )
        return block


Line = Opening | Block
_KINDS: dict[str, type[Line]] = {kind.kind: kind for kind in (Opening, Block)}


def short_marks(marks: NDArray[np.uint64]) -> str:
    """Return the last four hex digits of each hash in ``marks``, uint64 ``[n]``, as one text."""
    return (marks & np.uint64(0xFFFF)).astype(">u2").tobytes().hex()


def hash_marks(marks: NDArray[np.uint64]) -> str:
    """Return one hash of all hashes in ``marks``, uint64 ``[n]``, as 32 hex digits."""
    return hash_bytes(marks.astype("<u8").tobytes())


class Ledger:
    """Writes the ledger of a run to the file ``path``; only one process may write.

    The file is not flushed to disk (fsync) after each block, so a power cut may lose the last
    blocks. This does little harm. If the run then resumes at a step before the lost blocks, their
    steps are served and recorded again. If it resumes at a later step, an audit plans the lost
    steps, but cannot compare them with a record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = 0
        """The step after the last step in the file, as it was when the file was opened."""
        self._head = ""
        self._seq_len = 0
        self._opening: Opening | None = None
        self._step = 0
        self._held: list[tuple[NDArray[np.int64], NDArray[np.uint64]]] = []

    def open(self, opening: Opening) -> None:
        """Begin or continue the file with ``opening``, which is written with its first block.

        Raises:
            InvalidDataError: The file is the ledger of a run with other settings, which the message
                names; or the beginning of the file is missing.
        """
        if lines := read_lines(self.path):
            first = _parse(self.path, lines[0])
            if not isinstance(first, Opening):
                raise InvalidDataError(
                    f"{self.path} does not begin as a ledger: its first line tells of steps, so "
                    "lines before it are gone; put them back, or name another file"
                )
            check_same_config(_fixed(first), _fixed(opening), self.path)
            last = _parse(self.path, lines[-1], len(lines))
            self.end = last.end if isinstance(last, Block) else last.state.step
            if opening.state.step:
                self._warn_of_other_limits(lines, opening)
        self._opening, self._step, self._held = opening, opening.state.step, []
        self._seq_len = opening.state.seq_len

    def _warn_of_other_limits(self, lines: list[Any], opening: Opening) -> None:
        """Warn if ``opening`` has other ``max_epochs`` than the last opening in ``lines``."""
        numbered = [*enumerate(lines, start=1)]
        number, value = next(
            (n, v) for n, v in reversed(numbered) if isinstance(v, dict) and "state" in v
        )
        last = _parse(self.path, value, number)
        now = {"max_epochs": opening.max_epochs}
        if isinstance(last, Opening) and (
            differences := differences_text({"max_epochs": last.max_epochs}, now)
        ):
            logger.warning(f"after step {opening.state.step:,}, {differences} ({self.path})")

    def add(
        self,
        step: int,
        quotas: NDArray[np.int64],
        marks: NDArray[np.uint64],
        log: WeightsLog,
    ) -> None:
        """Record the steps from ``step`` on; steps that were added before are skipped.

        Steps are collected in memory, and written to the file 1,024 or more at a time.

        Args:
            step: The first step.
            quotas: Number of rows of each cluster in each step, as in `PlannedSteps`.
            marks: Hash of each step, as in `PlannedSteps`.
            log: The weights log.
        """
        new = self._step - step
        if new < len(marks):
            self._held.append((quotas[new:], marks[new:]))
            self._step += len(marks) - new
        if sum(len(marks) for _, marks in self._held) >= _BLOCK:
            self.write(log)

    def write(self, log: WeightsLog) -> None:
        """Write the steps in memory to the file; ``log`` is the weights log."""
        if not self._held:
            return
        quotas, marks = (np.concatenate(parts) for parts in zip(*self._held, strict=True))
        begin = self._step - len(marks)
        if self._opening is not None:
            # Read the last line only now, when the writer of an earlier loader has written all of
            # its lines.
            lines = read_lines(self.path)
            if lines:
                _parse(self.path, lines[-1], len(lines))
                self._head = lines[-1]["hash"]
            self._append(self._opening)
            self._opening = None
        first = begin
        while first < self._step:
            record, *later = log.since(first)[:2]
            end = min([self._step, *(r.at_step for r in later)])
            part = slice(first - begin, end - begin)
            rows = quotas[part].sum(axis=0)
            self._append(
                Block(
                    step=first,
                    steps=end - first,
                    v=record.v,
                    weights=record.hash,
                    rows=rows.tolist(),
                    tokens=int(rows.sum()) * self._seq_len,
                    marks=short_marks(marks[part]),
                    digest=hash_marks(marks[part]),
                )
            )
            first = end
        self._held = []

    def _append(self, line: Line) -> None:
        value = {"kind": line.kind, **line.to_json(), "prev": self._head}
        self._head = hash_json(value)
        append_line(self.path, {**value, "hash": self._head}, sync=False)


def read_ledger(path: Path) -> list[Line]:
    """Return the lines of the ledger in the file ``path``.

    Raises:
        InvalidDataError: There is no ledger, or a line is malformed.
        IntegrityError: The chain of hashes is broken.
    """
    lines, head = [], ""
    for number, value in enumerate(read_lines(path), start=1):
        line = _parse(path, value, number)
        content = {name: v for name, v in value.items() if name != "hash"}
        if value.get("prev") != head or value.get("hash") != hash_json(content):
            said = f" (step {line.step + 1})" if isinstance(line, Block) else ""
            raise IntegrityError(
                f"{path}, line {number}{said}: it was changed, or lines before it were"
            )
        head = value["hash"]
        lines.append(line)
    if not lines or not isinstance(lines[0], Opening):
        raise InvalidDataError(
            f"{path} lists no step; name the folder of a run that writes a ledger, as climb "
            f"train and MixtureLoader(ledger=...) do"
        )
    return lines


def segments(lines: list[Line]) -> Iterator[tuple[Opening, int]]:
    """Yield (opening, end) for each opening; its steps before step ``end`` are valid.

    The steps of an opening are those in the blocks between it and the next opening. Its steps from
    ``end`` on, if there are any, were served again after a later opening. If all its steps were
    served again, ``end`` is at or before its first step.
    """
    openings = [(i, line) for i, line in enumerate(lines) if isinstance(line, Opening)]
    begins = [opening.state.step for _, opening in openings]
    # For each opening, the earliest step at which a later opening begins.
    least = list(accumulate(reversed(begins[1:]), min))[::-1]
    stops = [i for i, _ in openings[1:]] + [len(lines)]
    for number, ((i, opening), stop) in enumerate(zip(openings, stops, strict=True)):
        last = lines[stop - 1]
        end = last.end if isinstance(last, Block) and stop - 1 > i else opening.state.step
        yield opening, min([end, *least[number : number + 1]])


def _fixed(opening: Opening) -> dict[str, Any]:
    """Return the settings that must not change during a run, named as parameters of the loader."""
    fixed = {name: getattr(opening.state, name) for name in _FIXED}
    return {**fixed, "fraction": fixed.pop("part")}


def _parse(path: Path, value: Any, number: int = 1) -> Line:
    """Return ``value``, the JSON of line ``number`` of the file ``path``, as opening or block.

    Raises:
        InvalidDataError: ``value`` is no line of a ledger.
    """
    return located(_read_line, value, f"{path}, line {number}")


def _read_line(value: Any) -> Line:
    if not isinstance(value, dict) or not all(
        isinstance(value.get(name), str) for name in ("kind", "prev", "hash")
    ):
        raise InvalidDataError("this is not a line of a ledger, which has a kind and two hashes")
    fields = {name: v for name, v in value.items() if name not in ("kind", "prev", "hash")}
    if value["kind"] not in _KINDS:
        raise InvalidDataError(f"no line of a ledger is of kind {short(value['kind'])}")
    if not value["prev"] and value["kind"] != Opening.kind:
        raise InvalidDataError("a ledger begins with an opening")
    return _KINDS[value["kind"]].from_json(fields)
