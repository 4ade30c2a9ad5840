"""WeightsLog: the weights of a run over time, as numbered records that are never changed.

A record takes effect at its step, and is in force until the next record takes effect. It alone
determines the weights while it is in force. Each record has the hash of the record before it. So
one hash is enough to compare two whole logs: two ranks whose last records have the same hash have
the same weights at all steps.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import IntegrityError, InvalidDataError, UsageError
from climbstream.loader.core.files import append_line, read_lines
from climbstream.loader.core.typed import located
from climbstream.loader.formats.mixture import ONE, Mixture, some_names

from .record import Trajectory, WeightsRecord, check_chain

__all__ = ["WeightsLog", "WeightsRecord", "check_chain"]

_COMPILED = 8
"""Number of records whose integer weights are kept in memory: only few are in use at a time."""


class WeightsLog:
    """The weights records of a run.

    Args:
        records: The records so far.
        path: File of JSON lines with the records; None: they are only in memory.
        write: Whether `append` and `cap` also write their records to the file.
    """

    def __init__(
        self,
        records: tuple[WeightsRecord, ...] = (),
        path: Path | None = None,
        *,
        write: bool = False,
    ) -> None:
        self.records = list(records)
        self.path = path
        self._write = write
        self._at_steps = [record.at_step for record in records]
        self._names: list[str] = []
        self._index: dict[str, int] = {}
        self._compiled: dict[str, tuple[Trajectory, NDArray[np.int64]]] = {}

    def __repr__(self) -> str:
        return f"WeightsLog({len(self.records)} records, {self.path or 'in memory'})"

    @classmethod
    def open(cls, path: str | Path, *, write: bool = False) -> Self:
        """Read the log in the file ``path``; if the file is missing, the log is empty.

        ``write`` says whether `append` and `cap` also write their records to the file.

        Raises:
            InvalidDataError: A line is no record.
            IntegrityError: The chain of hashes is broken.
        """
        path = Path(path)
        try:
            records = tuple(
                located(WeightsRecord.from_json, line, f"line {number}")
                for number, line in enumerate(read_lines(path), start=1)
            )
            check_chain(records)
            if records and (records[0].v, records[0].at_step) != (0, 0):
                raise InvalidDataError(
                    f"the first record is number {records[0].v}, for step {records[0].at_step}; "
                    "a log begins with number 0, for step 0"
                )
        except (InvalidDataError, IntegrityError) as error:
            raise type(error)(f"{path}: {error}") from None
        return cls(records, path, write=write)

    @property
    def head(self) -> str:
        """Hash of the last record; it depends on all records. "" if there are no records."""
        return self.records[-1].hash if self.records else ""

    @property
    def capped(self) -> tuple[str, ...]:
        """Clusters that have used up their epochs, as the last record lists them."""
        return self.records[-1].capped if self.records else ()

    def append(self, mixture: Mixture, at_step: int, why: str, ramp: int = 0) -> WeightsRecord:
        """Append and return a record that changes the weights to ``mixture`` from ``at_step`` on.

        ``ramp`` is the number of steps until ``mixture`` is reached; 0: it is reached at
        ``at_step``.

        Raises:
            UsageError: ``at_step`` is before the step of the last record, the ramp is too long, the
                first record has a ramp, or only capped clusters have weight.
        """
        last = self._before(at_step)
        return self._add(WeightsRecord.after(last, mixture, at_step, why, ramp))

    def cap(self, names: Iterable[str], at_step: int, why: str) -> WeightsRecord:
        """Append and return a record that caps the clusters ``names``.

        Capped clusters get no rows from ``at_step`` on. Clusters that were capped before stay
        capped.

        Raises:
            UsageError: ``at_step`` is before the step of the last record, or no other cluster has
                weight.
        """
        last = self._before(at_step)
        if last is None:
            raise UsageError("nothing can be capped before the first weights are set")
        return self._add(WeightsRecord.capping(last, names, at_step, why))

    def _before(self, at_step: int) -> WeightsRecord | None:
        """Return the last record, to which a record for ``at_step`` is to be added.

        None: the log is empty.

        Raises:
            UsageError: ``at_step`` is before the step of the last record; or the log is empty, and
                ``at_step`` is not 0.
        """
        last = self.records[-1] if self.records else None
        if last is None and at_step != 0:
            raise UsageError(f"the first weights hold from step 0 on, not from step {at_step}")
        if last and at_step < last.at_step:
            raise UsageError(
                f"weights for step {at_step} cannot follow weights for step {last.at_step}; "
                f"name step {last.at_step} or later"
            )
        return last

    def _add(self, record: WeightsRecord) -> WeightsRecord:
        if self.path is not None and self._write:
            append_line(self.path, record.to_json())
        self.records.append(record)
        self._at_steps.append(record.at_step)
        return record

    def at(self, step: int) -> WeightsRecord:
        """Return the record in force at ``step``.

        Raises:
            UsageError: ``step`` is before the first record's step.
        """
        return self.records[self._find(step)]

    def since(self, step: int) -> list[WeightsRecord]:
        """Return the record in force at ``step`` and all later records; a state stores these."""
        return self.records[self._find(step) :]

    def mixture(self, step: int) -> Mixture:
        """Return the weights in force at ``step``, without clusters of weight 0."""
        record = self.at(step)
        if step >= record.at_step + record.steps and not record.capped:
            return Mixture.of({n: w for n, w in record.weights.items() if w > 0})
        return Mixture.of({name: n / ONE for name, n in record.units(step).items()})

    def integers(self, step: int, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the weights at ``step`` in the order of ``names``: int64 ``[K]``, sum `ONE`.

        Raises:
            InvalidDataError: A cluster with weight is not in ``names``.
        """
        row: NDArray[np.int64] = self._rows(self._find(step), step, 1, names)[0]
        return row

    def table(self, step: int, count: int, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the weights of ``count`` steps from ``step`` on, in the order of ``names``.

        The result is int64 ``[count, K]``, and each row sums to `ONE`. If one record gives all
        these steps the same weights, the result is this one row, ``[1, K]``.

        Raises:
            InvalidDataError: A cluster with weight is not in ``names``.
        """
        parts, first = [], step
        while first < step + count:
            index = self._find(first)
            later = self._at_steps[index + 1] if index + 1 < len(self.records) else step + count
            here = min(later, step + count) - first
            rows = self._rows(index, first, here, names)
            if here == count:
                return rows
            parts.append(np.broadcast_to(rows, (here, len(names))))
            first += here
        return np.concatenate(parts)

    def _find(self, step: int) -> int:
        """Return the index of the record in force at ``step``."""
        index = bisect_right(self._at_steps, step) - 1
        if index < 0:
            begins = f"step {self._at_steps[0]}" if self.records else "no step, it is empty"
            raise UsageError(f"weights were asked for step {step}, but the log begins at {begins}")
        return index

    def _rows(self, index: int, step: int, count: int, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the weights of ``count`` steps from ``step`` on, all by record number ``index``.

        The result is int64 ``[count, K]``, or ``[1, K]`` if the weights do not change.
        """
        way, places = self._compile(self.records[index], names)
        rows = way.rows(step, count)
        result = np.zeros((len(rows), len(names)), np.int64)
        result[:, places] = rows
        return result

    def _compile(
        self, record: WeightsRecord, names: Sequence[str]
    ) -> tuple[Trajectory, NDArray[np.int64]]:
        """Return the integer weights of ``record``, and the index in ``names`` of its clusters.

        Raises:
            InvalidDataError: A cluster of the record is not in ``names``.
        """
        if self._names != names:
            self._names = list(names)
            self._index = {name: place for place, name in enumerate(names)}
            self._compiled = {}
        if record.hash not in self._compiled:
            theirs = sorted(record.weights)
            if any(name not in self._index for name in theirs):
                raise InvalidDataError(
                    f"weights {record.v} of the log are for {some_names(theirs)}, "
                    f"but the clusters are {some_names(self._names)}"
                )
            while len(self._compiled) >= _COMPILED:
                del self._compiled[next(iter(self._compiled))]
            places = np.array([self._index[name] for name in theirs], np.int64)
            self._compiled[record.hash] = Trajectory.of(record), places
        return self._compiled[record.hash]
