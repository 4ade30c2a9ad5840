"""WeightsRecord: one change of weights, which is one line of the weights log.

Each record alone determines the weights from its step up to the next record. For this, the record
of a ramp (a linear change over several steps) contains the weights at which the ramp starts. And
every record lists all capped clusters: those that have used up their epochs. So a saved state needs
no earlier records.
"""

from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import IntegrityError, InvalidDataError, UsageError
from climbstream.loader.core.files import hash_json
from climbstream.loader.core.typed import Count, convert, short
from climbstream.loader.formats.mixture import ONE, Mixture, integer_weights, some_names

from .interpolation import MOST_STEPS, interpolate, without_clusters

KINDS = ("set", "ramp", "cap")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsRecord:
    """One line of the weights log; fields with their default value are not written."""

    v: Count
    """Number of the record, from 0."""
    at_step: Count
    """First step for which the record is in force."""
    kind: str
    """How the weights change. ``set``: at once. ``ramp``: linearly over ``steps`` steps. ``cap``:
    the weights of the previous record continue, but more clusters are capped, and get no rows."""
    weights: dict[str, int | float]
    """Weights that were asked for, by name of cluster, also those of capped clusters. A ramp also
    lists clusters whose weight becomes 0."""
    why: str
    """Reason of the change."""
    prev: str
    """Hash of the record before; "" for the first record."""
    hash: str
    """Hash of all other fields."""
    steps: Count = 0
    """Number of steps from ``at_step`` until ``weights`` are reached."""
    start: tuple[Count, ...] = ()
    """Weights at ``at_step`` in units of 1 / `ONE`, in the order of the sorted names in
    ``weights``; empty if ``steps`` is 0."""
    capped: tuple[str, ...] = ()
    """All clusters that have used up their epochs so far. They get no rows; other clusters share
    their weight."""

    @classmethod
    def after(
        cls, prev: Self | None, mixture: Mixture, at_step: int, why: str, ramp: int = 0
    ) -> Self:
        """Return the record that follows ``prev`` and reaches ``mixture`` in ``ramp`` steps.

        ``prev`` is None for the first record. If ``ramp`` is 0, the weights change at ``at_step``.

        Raises:
            UsageError: The first record has a ramp, the ramp is too long, or only capped clusters
                have weight.
        """
        weights = {name: w for name, w in mixture.weights.items() if w > 0}
        if not ramp:
            return cls._make(prev, at_step=at_step, kind="set", weights=weights, why=why)
        if prev is None:
            raise UsageError(
                "the first weights cannot be a ramp, because no weights come before them; set them "
                "without a ramp"
            )
        if not 0 < ramp <= MOST_STEPS:
            raise UsageError(f"a ramp takes 1 to {MOST_STEPS:,} steps, not {ramp:,}")
        units = prev.units(at_step)
        names = sorted(units.keys() | weights.keys())
        return cls._make(
            prev,
            at_step=at_step,
            kind="ramp",
            weights={name: weights.get(name, 0.0) for name in names},
            why=why,
            steps=ramp,
            start=tuple(units.get(name, 0) for name in names),
        )

    @classmethod
    def capping(cls, prev: Self, names: Iterable[str], at_step: int, why: str) -> Self:
        """Return the record that follows ``prev`` and caps the clusters ``names``.

        A ramp that is under way at ``at_step`` goes on.

        Raises:
            UsageError: All clusters with weight would be capped.
        """
        left = max(0, prev.at_step + prev.steps - at_step)
        return cls._make(
            prev,
            at_step=at_step,
            kind="cap",
            weights=prev.weights if left else {n: w for n, w in prev.weights.items() if w > 0},
            why=why,
            steps=left,
            start=tuple(prev._line(at_step).tolist()) if left else (),
            capped=tuple(sorted({*prev.capped, *names})),
        )

    @classmethod
    def _make(cls, prev: Self | None, **content: Any) -> Self:
        """Return the record after ``prev``, with the fields ``content``.

        It gets the next number, the hash of ``prev``, and its own hash. If ``content`` has no
        ``capped``, the capped clusters are those of ``prev``.

        Raises:
            UsageError: Only capped clusters have weight.
        """
        body: dict[str, Any] = {
            "v": prev.v + 1 if prev else 0,
            "prev": prev.hash if prev else "",
            "capped": prev.capped if prev else (),
            **content,
        }
        bare = cls(**body, hash="")
        if not bare._left():
            raise UsageError(
                "all clusters with weight have used up their epochs: "
                f"{some_names(sorted(n for n, w in bare.weights.items() if w > 0))}; "
                "give weight to another one, or allow more epochs"
            )
        return cls(**body, hash=hash_json(bare._content()))

    def _left(self) -> bool:
        """Whether ``weights`` has a weight above 0 for a cluster that is not capped."""
        capped = set(self.capped)
        return any(w > 0 for name, w in self.weights.items() if name not in capped)

    def _content(self) -> dict[str, Any]:
        """Return the record as JSON values without ``hash``, which is the hash of these values."""
        value = self.to_json()
        del value["hash"]
        return value

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        value = {f.name: getattr(self, f.name) for f in fields(self)}
        kept = {f.name: value[f.name] for f in fields(self) if _needed(f.default, value[f.name])}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in kept.items()}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the value that `to_json` returned, and check its hash.

        Raises:
            InvalidDataError: ``value`` is no record, or its fields contradict each other.
            IntegrityError: The hash in ``value`` is not the hash of its content.
        """
        record = convert(value, cls, "record of weights")
        Mixture.of(record.weights)
        if record.kind not in KINDS:
            raise InvalidDataError(f"record {record.v} is of unknown kind {short(record.kind)}")
        if record._content() | {"hash": record.hash} != value:
            raise InvalidDataError(f"record {record.v} has a field that it does not need")
        if record.hash != hash_json(record._content()):
            raise IntegrityError(f"record {record.v} of the weights log does not match its hash")
        if fault := record._fault():
            raise InvalidDataError(f"record {record.v}, a {record.kind}, {fault}")
        return record

    def _fault(self) -> str:
        """Return what is wrong with the fields, as the end of a message; "" if nothing is wrong."""
        if self.steps > MOST_STEPS or (self.kind, self.steps > 0) in (
            ("set", True),
            ("ramp", False),
        ):
            return f"takes {self.steps} steps"
        fits = len(self.start) == len(self.weights) and sum(self.start) == ONE
        if not fits if self.steps else self.start:
            return "does not start from weights"
        if not self._left() or (self.kind == "cap" and not self.capped):
            return "caps every cluster that has weight, or none"
        return ""

    def units(self, step: int) -> dict[str, int]:
        """Return the weights above 0 at ``step``, by name, as integers that sum to `ONE`.

        This record must be the one that is in force at ``step``.
        """
        pairs = zip(
            sorted(self.weights), Trajectory.of(self).rows(step, 1)[0].tolist(), strict=True
        )
        return {name: n for name, n in pairs if n}

    def _line(self, step: int) -> NDArray[np.int64]:
        """Return the weights at ``step`` as if no cluster were capped, int64 ``[k]``."""
        way = Trajectory.of(self)
        at = np.array([step - self.at_step], np.int64)
        row: NDArray[np.int64] = interpolate(way.start, way.end, self.steps, at)[0]
        return row


def _needed(default: Any, value: Any) -> bool:
    """Whether a field is written to JSON: it has no default, or ``value`` is not its default."""
    return default is MISSING or value != default


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The integer weights of a record over time, for the k clusters that the record names.

    Arrays are ``[k]``, in the order of the sorted names.
    """

    at_step: int
    """First step for which the record is in force."""
    steps: int
    """Number of steps from ``start`` to ``end``."""
    start: NDArray[np.int64]
    """Weights at ``at_step``, with sum `ONE`, as if no cluster were capped."""
    end: NDArray[np.int64]
    """Weights after ``steps`` steps, with sum `ONE`, as if no cluster were capped."""
    out: NDArray[np.bool_]
    """Whether each cluster is capped."""

    @classmethod
    def of(cls, record: WeightsRecord) -> Self:
        """Return the trajectory of ``record``."""
        names, capped = sorted(record.weights), set(record.capped)
        # Names are sorted, so that equal remainders are rounded in the same way for any order of
        # the clusters in the shards or in the file.
        end = integer_weights(np.array([record.weights[name] for name in names], np.float64))
        start = np.array(record.start, np.int64) if record.steps else end
        out = np.array([name in capped for name in names], np.bool_)
        return cls(record.at_step, record.steps, start, end, out)

    def rows(self, step: int, count: int) -> NDArray[np.int64]:
        """Return the weights of ``count`` steps from ``step`` on, int64 ``[count, k]``.

        The result is ``[1, k]`` if no ramp changes the weights in these steps.
        """
        first = min(step - self.at_step, self.steps)
        way = self.end[np.newaxis]
        if first < self.steps:
            at = np.minimum(np.arange(first, first + count, dtype=np.int64), self.steps)
            way = interpolate(self.start, self.end, self.steps, at)
        if not self.out.any():
            return way
        rows = without_clusters(way, self.out)
        # At the start of a ramp, capped clusters may have all the weight. These steps get the
        # weights at the end of the ramp.
        rows[~rows.any(axis=1)] = without_clusters(self.end[np.newaxis], self.out)[0]
        return rows


def check_chain(records: tuple[WeightsRecord, ...]) -> None:
    """Raise `IntegrityError` unless each record follows the one before it."""
    for before, record in pairwise(records):
        if (record.v, record.prev) != (before.v + 1, before.hash):
            raise IntegrityError(f"record {record.v} does not follow record {before.v}")
        if record.at_step < before.at_step:
            raise IntegrityError(f"record {record.v} takes effect before record {before.v}")
