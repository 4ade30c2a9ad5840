"""LoaderState: the state of a loader between two batches; a checkpoint holds it.

All ranks have the same state, so a run can resume with another number of ranks.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Self

import numpy as np

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.typed import Count, Whole, check_version, convert, short
from climbstream.loader.formats.manifest import Manifest
from climbstream.loader.formats.mixture import ONE, some_names
from climbstream.loader.sampling.planner import Position, RunSettings
from climbstream.loader.weights.log import WeightsLog, WeightsRecord, check_chain

_MOST_OWED = 4
"""Limit of the credit of a cluster: with K clusters, a state in which a credit is above ``4 * K``
rows or below ``-4 * K`` rows is invalid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderState:
    """The position after the last batch that was returned, and the settings of the run.

    In shapes, K is the number of clusters and C the number of lanes.
    """

    step: Count
    """Number of batches returned."""
    served: Count
    """Number of rows in all batches returned, over all ranks."""
    seed: int
    seq_len: Count
    batch_rows: Count
    lanes: Count
    pack: str
    data: str
    """Fingerprint of the manifest of the shards."""
    clusters: list[str]
    """Names of the clusters."""
    consumed: list[list[Whole]]
    """Number of rows served, by cluster and lane, ``[K][C]``."""
    credit: list[Whole]
    """Credit of each cluster: rows by which it has received less than its share, in units of 2**-40
    row, ``[K]``. It is below 0 if the cluster has received more. The sum is 0."""
    weights: list[dict[str, Any]]
    """Records of the weights log, as JSON values: the record in force at ``step``, and all later
    records."""
    part: float = 1.0
    """Fraction of each cluster that is served."""
    batches: list[tuple[Count, Count]] | None = None
    """Numbers of rows that batches had so far: a pair (first step, rows of a batch) for the first
    batch and for each change. None: unknown, as in a state of an earlier version."""

    version = 1

    def __repr__(self) -> str:
        return (
            f"LoaderState(step={self.step}, {len(self.clusters)} clusters, {self.batch_rows} rows "
            f"of {self.seq_len} tokens a batch)"
        )

    @classmethod
    def at(
        cls,
        position: Position,
        run: RunSettings,
        manifest: Manifest,
        log: WeightsLog,
        batches: list[tuple[int, int]] | None,
    ) -> Self:
        """Return the state at ``position`` of a run with settings ``run``.

        ``batches`` is as in `LoaderState`.
        """
        return cls(
            step=position.step,
            served=position.served,
            seed=run.seed,
            seq_len=run.seq_len,
            batch_rows=run.batch_rows,
            lanes=run.lanes,
            pack=run.pack,
            data=manifest.fingerprint,
            clusters=manifest.names,
            consumed=position.consumed.tolist(),
            credit=position.credit.tolist(),
            weights=[record.to_json() for record in log.since(position.step)],
            part=run.fraction,
            batches=batches,
        )

    @property
    def run(self) -> RunSettings:
        """The settings of the run."""
        return RunSettings(
            seed=self.seed,
            seq_len=self.seq_len,
            batch_rows=self.batch_rows,
            lanes=self.lanes,
            pack=self.pack,
            fraction=self.part,
        )

    def position(self) -> Position:
        """Return the position from which a run resumes."""
        consumed, credit = np.array(self.consumed, np.int64), np.array(self.credit, np.int64)
        return Position(self.step, self.served, consumed, credit)

    def check_run(self, run: RunSettings, manifest: Manifest) -> None:
        """Check that a loader with settings ``run`` and ``manifest`` can resume from this state.

        Raises:
            InvalidDataError: The shards or a setting differ from those of the state; the message
                says which.
        """
        if self.data != manifest.fingerprint and self.data in manifest.earlier:
            raise InvalidDataError(
                f"the state is of these shards as they were with fingerprint {self.data}; "
                "documents were appended since, and rows are in another order now. Begin a new "
                "run from the model's parameters, or continue with a copy of the shards from "
                "before"
            )
        for name, theirs, ours in (
            ("data", self.data, manifest.fingerprint),
            ("clusters", self.clusters, manifest.names),
            ("seed", self.seed, run.seed),
            ("seq_len", self.seq_len, run.seq_len),
            ("lanes", self.lanes, run.lanes),
            ("pack", self.pack, run.pack),
            ("fraction", self.part, run.fraction),
        ):
            if theirs != ours:
                raise InvalidDataError(
                    f"the state was saved with {name}={short(theirs)}, this loader has "
                    f"{name}={short(ours)}; make the loader with the value of the state"
                )

    def check_rows(self, epoch_rows: Mapping[str, int]) -> None:
        """Check this state against ``epoch_rows``, the number of rows of each cluster by name.

        Raises:
            InvalidDataError: The state counts served rows of a cluster that has no rows.
        """
        for name, row in zip(self.clusters, self.consumed, strict=True):
            if sum(row) and not epoch_rows[name]:
                raise InvalidDataError(
                    f"the state has served {sum(row):,} rows of cluster {name}, which has none of "
                    f"{self.seq_len} tokens"
                )

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values.

        ``consumed`` is written as differences: for each lane, its number of rows minus that of the
        lane before. All lanes serve nearly the same number of rows, so the differences are small
        numbers, and the state of 1,000 clusters takes less than 100 kB.
        """
        steps = [[b - a for a, b in pairwise([0, *row])] for row in self.consumed]
        batches = None if self.batches is None else [list(size) for size in self.batches]
        return {
            "version": self.version,
            **asdict(self),
            "consumed": steps,
            "batches": batches,
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the value that `to_json` returned.

        Raises:
            InvalidDataError: ``value`` is no state, has an unknown version, or contradicts itself.
            IntegrityError: A weights record was changed: it does not match its hash, or does not
                follow the record before it.
        """
        fields = check_version(value, cls.version, "state of a loader")
        state = convert(fields, cls, "state of a loader")
        state = replace(state, consumed=[list(accumulate(row)) for row in state.consumed])
        if fault := state._misfit() or state._miscount() or state._misweigh():
            raise InvalidDataError(f"this state of a loader contradicts itself: {fault}")
        return state

    def _misfit(self) -> str:
        """Return a message if names, lengths of lists or settings are inconsistent; else ""."""
        clusters = len(self.clusters)
        if len(set(self.clusters)) < clusters:
            return "two of its clusters have one name"
        if not 0 < self.part <= 1:
            return f"part is {self.part}; it is above 0 and at most 1"
        for name, number in (
            ("seq_len", self.seq_len),
            ("batch_rows", self.batch_rows),
            ("lanes", self.lanes),
        ):
            if not number:
                return f"{name} is 0"
        for name, length in (("credit", len(self.credit)), ("consumed", len(self.consumed))):
            if length != clusters:
                return f"{name} is of {length} clusters, and it names {clusters}"
        for cluster, row in zip(self.clusters, self.consumed, strict=True):
            if len(row) != self.lanes:
                return f"cluster {cluster} was served from {len(row)} lanes of {self.lanes}"
        return ""

    def _miscount(self) -> str:
        """Return a message if numbers of rows or batches, or credits, are impossible; else ""."""
        if any(min(row) < 0 for row in self.consumed):
            return "it has served less than no rows from a lane"
        # Only limits are checked: the number of rows of a batch may have changed during the run,
        # and a state of an early version does not record these changes.
        if (self.step == 0) != (self.served == 0) or self.step > self.served:
            return f"{self.step:,} batches cannot have had {self.served:,} rows"
        if fault := self._misbatch():
            return fault
        for lane, rows in enumerate(map(sum, zip(*self.consumed, strict=True))):
            # Rows are assigned to the lanes in turn.
            if rows != (due := (self.served + self.lanes - 1 - lane) // self.lanes):
                return (
                    f"of {self.served:,} rows in {self.lanes} lanes {due:,} are of lane {lane}, "
                    f"and it has {rows:,}"
                )
        if total := sum(self.credit):
            return f"credit sums to {total}; what one cluster is owed, others had before"
        most = _MOST_OWED * ONE * len(self.credit)
        if over := [n for n in self.credit if abs(n) > most]:
            return f"credit is {over[0]}; with {len(self.credit)} clusters it is within {most}"
        return ""

    def _misbatch(self) -> str:
        """Return a message if ``batches`` contradicts the numbers of steps and rows; else ""."""
        if self.batches is None:
            return ""
        steps = [step for step, _ in self.batches]
        if steps[:1] != [0] or steps != sorted({*steps}) or steps[-1] > self.step:
            return f"batches of another size begin at steps {steps}, up to step {self.step:,}"
        if (size := self.batches[-1][1]) != self.batch_rows:
            return f"its last batches have {size:,} rows, and batch_rows is {self.batch_rows:,}"
        counts = [end - begin for begin, end in pairwise([*steps, self.step])]
        rows = sum(count * size for count, (_, size) in zip(counts, self.batches, strict=True))
        if rows != self.served:
            return f"its {self.step:,} batches had {rows:,} rows, and {self.served:,} were served"
        return ""

    def batches_from(self, batch_rows: int) -> list[tuple[int, int]] | None:
        """Return `batches` for a run that continues with batches of ``batch_rows`` rows."""
        if self.batches is None:
            return None
        before = [(step, rows) for step, rows in self.batches if step < self.step]
        same = bool(before) and before[-1][1] == batch_rows
        return before if same else [*before, (self.step, batch_rows)]

    def _misweigh(self) -> str:
        """Return a message if ``weights`` cannot be what a log has from ``step`` on; else ""."""
        records = self.records()
        if not records:
            return "it has no weights"
        first, *later = records
        if first.at_step > self.step or (later and later[0].at_step <= self.step):
            return f"its first weights, record {first.v}, are not those of step {self.step:,}"
        if (first.v == 0) != (first.prev == "") or (first.v == 0 and first.at_step):
            return f"its weights begin with record {first.v}, which is not the first of a log"
        names = {name for record in records for name in (*record.weights, *record.capped)}
        if unknown := sorted(names.difference(self.clusters)):
            return f"its weights name {some_names(unknown)}, which is none of its clusters"
        return self._misshare(first) if first.v == 0 else ""

    def _misshare(self, first: WeightsRecord) -> str:
        """Return a message if the rows of a cluster do not match its weight in ``first``; else "".

        ``first`` is the first record of the log, and was in force in all steps so far. So the rows
        of a cluster plus its credit must be exactly its weight times the number of all rows.
        """
        units = first.units(0)
        for name, row, credit in zip(self.clusters, self.consumed, self.credit, strict=True):
            weight = units.get(name, 0)
            if sum(row) * ONE + credit != weight * self.served:
                due = weight * self.served / ONE
                return (
                    f"cluster {name} was served {sum(row):,} rows and is owed {credit / ONE:.3f}, "
                    f"and its share of {self.served:,} is {due:,.3f}"
                )
        return ""

    def records(self) -> tuple[WeightsRecord, ...]:
        """Return ``weights`` as records.

        Raises:
            IntegrityError: A record does not match its hash, or does not follow the record before.
        """
        records = tuple(WeightsRecord.from_json(value) for value in self.weights)
        check_chain(records)
        return records
