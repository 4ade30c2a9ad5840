"""LoaderState: what a loader must know to go on after a batch; the same on every rank."""

from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from typing import Any, Self

from .errors import InvalidDataError
from .versioned import check_version
from .weights import WeightsRecord, check_chain


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderState:
    """The position after the last batch that was returned, as plain JSON."""

    step: int
    """Batches returned."""
    served: int
    """Rows of all global batches returned."""
    seed: int
    seq_len: int
    batch_rows: int
    lanes: int
    pack: str
    data: str
    """Fingerprint of the manifest."""
    clusters: list[str]
    consumed: list[list[int]]
    """Rows served by cluster and lane, ``[K][C]``."""
    credit: list[int]
    """Rows owed by cluster, ``[K]``, in units of 2**-40 row; they sum to 0."""
    weights: list[dict[str, Any]]
    """Records of the weights log from the one in force on."""
    part: float = 1.0
    """Of each cluster that is served."""

    version = 1

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
            InvalidDataError: It is no state of a version that this climbstream reads.
        """
        try:
            fields = check_version(value, cls.version, "state of a loader")
            fields["consumed"] = [list(accumulate(row)) for row in fields["consumed"]]
            state = cls(**fields)
            state._check()
            return state
        except (TypeError, KeyError, ValueError) as error:
            raise InvalidDataError(f"this is no state of a loader: {error!r}") from None

    def _check(self) -> None:
        """Raise `InvalidDataError` unless the sizes fit each other."""
        shape = (len(self.clusters), self.lanes)
        counts = [*self.credit, *(n for row in self.consumed for n in row)]
        if (
            len(self.credit) != shape[0]
            or [len(row) for row in self.consumed] != [shape[1]] * shape[0]
            or any(type(n) is not int for n in [self.step, self.served, *counts])
            or not self.weights
        ):
            raise InvalidDataError(
                f"this is no state of a loader: it does not hold whole numbers for {shape[0]} "
                f"clusters in {shape[1]} lanes, and the weights in force"
            )

    def records(self) -> tuple[WeightsRecord, ...]:
        """Return the weights, checked."""
        records = tuple(WeightsRecord.from_json(value) for value in self.weights)
        check_chain(records)
        return records
