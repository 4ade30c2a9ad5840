"""LoaderState: what a loader must know to go on after a batch; the same on every rank."""

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
"""Rows that a cluster is owed at most, or has had too many, for each cluster that there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderState:
    """The position after the last batch that was returned, as plain JSON."""

    step: Count
    """Batches returned."""
    served: Count
    """Rows of all global batches returned."""
    seed: int
    seq_len: Count
    batch_rows: Count
    lanes: Count
    pack: str
    data: str
    """Fingerprint of the manifest."""
    clusters: list[str]
    consumed: list[list[Whole]]
    """Rows served by cluster and lane, ``[K][C]``."""
    credit: list[Whole]
    """Rows owed by cluster, ``[K]``, in units of 2**-40 row; they sum to 0."""
    weights: list[dict[str, Any]]
    """Records of the weights log from the one in force on."""
    part: float = 1.0
    """Fraction of each cluster that is served."""

    version = 1

    def __repr__(self) -> str:
        return (
            f"LoaderState(step={self.step}, {len(self.clusters)} clusters, {self.batch_rows} rows "
            f"of {self.seq_len} tokens a batch)"
        )

    @classmethod
    def at(cls, position: Position, run: RunSettings, manifest: Manifest, log: WeightsLog) -> Self:
        """Return the state of a run at ``position``."""
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
        """Return the position that a run goes on from."""
        consumed, credit = np.array(self.consumed, np.int64), np.array(self.credit, np.int64)
        return Position(self.step, self.served, consumed, credit)

    def check_run(self, run: RunSettings, manifest: Manifest) -> None:
        """Check that a loader of ``run`` over the shards of ``manifest`` can go on from here.

        Raises:
            InvalidDataError: It serves other shards, or in another order; the message says which.
        """
        if self.data != manifest.fingerprint and self.data in manifest.earlier:
            raise InvalidDataError(
                f"the state is of these shards as they were with fingerprint {self.data}; "
                "documents were appended since, and rows are in another order now. "
                "Begin a new run with the weights of the model, or go on with a copy of "
                "the shards from before"
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
                    f"{name}={short(ours)}; make the loader with the state's"
                )

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON values.

        Of ``consumed`` each lane says what it has more than the one before: lanes go abreast, so
        that keeps the state of 1,000 clusters under 100 kB.
        """
        steps = [[b - a for a, b in pairwise([0, *row])] for row in self.consumed]
        return {"version": self.version, **asdict(self), "consumed": steps}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what `to_json` gave.

        Raises:
            InvalidDataError: It is no state of a version that this climbstream reads, or says two
                things that cannot both be.
            IntegrityError: A record of weights is not the one that its hash is of, or does not
                follow the one before it.
        """
        fields = check_version(value, cls.version, "state of a loader")
        state = convert(fields, cls, "state of a loader")
        state = replace(state, consumed=[list(accumulate(row)) for row in state.consumed])
        if fault := state._misfit() or state._miscount() or state._misweigh():
            raise InvalidDataError(f"this state of a loader contradicts itself: {fault}")
        return state

    def _misfit(self) -> str:
        """Say which sizes do not fit each other; nothing, if all do."""
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
        """Say which counts cannot be; nothing, if all can."""
        if any(min(row) < 0 for row in self.consumed):
            return "it has served less than no rows from a lane"
        # Another size of batch may have been chosen on the way, so no more is known than this.
        if (self.step == 0) != (self.served == 0) or self.step > self.served:
            return f"{self.step:,} batches cannot have had {self.served:,} rows"
        for lane, rows in enumerate(map(sum, zip(*self.consumed, strict=True))):
            # Rows go round the lanes, one after the other.
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

    def _misweigh(self) -> str:
        """Say in what the weights are not those of the step; nothing, if they are."""
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
        return ""

    def records(self) -> tuple[WeightsRecord, ...]:
        """Return the weights, checked."""
        records = tuple(WeightsRecord.from_json(value) for value in self.weights)
        check_chain(records)
        return records
