"""WeightsLog: the mixtures of a run over time, append-only, numbered and hash-chained.

A record takes effect at the step it names and stays until the next one does. Each carries the
hash of the one before, so a single hash in a checkpoint vouches for the whole history, and two
ranks that compare one hash know that they follow the same weights.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from .errors import IntegrityError, InvalidDataError, UsageError
from .mixture import Mixture
from .storage import append_line, hash_json, read_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsRecord:
    """One line of the log."""

    v: int
    """Number of the record, from 0."""
    at_step: int
    """First step that it holds for."""
    kind: str
    """``set``: the weights hold as they are."""
    weights: dict[str, float]
    why: str
    prev: str
    """Hash of the record before; empty for the first."""
    hash: str

    @classmethod
    def after(cls, prev: Self | None, mixture: Mixture, at_step: int, why: str) -> Self:
        """Make the record that follows ``prev``."""
        body: dict[str, Any] = {
            "v": prev.v + 1 if prev else 0,
            "at_step": at_step,
            "kind": "set",
            "weights": {name: w for name, w in mixture.weights.items() if w > 0},
            "why": why,
            "prev": prev.hash if prev else "",
        }
        return cls(**body, hash=hash_json(body))

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what `to_json` gave, and check its hash.

        Raises:
            InvalidDataError: It is no such record.
            IntegrityError: Its hash is not that of its content.
        """
        try:
            record = cls(**value)
            Mixture.of(record.weights)
        except TypeError as error:
            raise InvalidDataError(f"this is no record of weights: {error}") from None
        if record.kind != "set":
            raise InvalidDataError(f"record {record.v} is of unknown kind {record.kind!r}")
        body = record.to_json()
        if body.pop("hash") != hash_json(body):
            raise IntegrityError(f"record {record.v} of the weights log does not match its hash")
        return record


class WeightsLog:
    """The records of a run, in memory and, if it has a path, in a file of JSON lines."""

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

    @classmethod
    def open(cls, path: Path, *, write: bool) -> Self:
        """Read the log at ``path``, if there is one yet; with ``write``, `append` goes there too.

        Raises:
            InvalidDataError: A line is no record.
            IntegrityError: The chain of hashes is broken.
        """
        try:
            records = tuple(WeightsRecord.from_json(line) for line in read_lines(path))
            check_chain(records)
            if records and (records[0].v, records[0].at_step) != (0, 0):
                raise InvalidDataError(
                    f"the first record is number {records[0].v}, for step {records[0].at_step}; "
                    "a log begins with number 0, for step 0"
                )
        except (InvalidDataError, IntegrityError) as error:
            raise type(error)(f"{path}: {error}") from None
        return cls(records, path, write=write)

    def append(self, mixture: Mixture, at_step: int, why: str) -> WeightsRecord:
        """Add a record and make it last.

        Raises:
            UsageError: ``at_step`` lies before the last record's.
        """
        last = self.records[-1] if self.records else None
        if last is None and at_step != 0:
            raise UsageError(f"the first weights hold from step 0 on, not from step {at_step}")
        if last and at_step < last.at_step:
            raise UsageError(
                f"weights for step {at_step} come after weights for step {last.at_step}; "
                f"name step {last.at_step} or later"
            )
        record = WeightsRecord.after(last, mixture, at_step, why)
        if self.path is not None and self._write:
            append_line(self.path, record.to_json())
        self.records.append(record)
        return record

    def at(self, step: int) -> WeightsRecord:
        """Return the record in force at ``step``."""
        return next(r for r in reversed(self.records) if r.at_step <= step)

    def since(self, step: int) -> list[WeightsRecord]:
        """Return the record in force at ``step`` and those after it."""
        return self.records[self.records.index(self.at(step)) :]


def check_chain(records: tuple[WeightsRecord, ...]) -> None:
    """Raise `IntegrityError` unless each record follows the one before it."""
    for before, record in pairwise(records):
        if (record.v, record.prev) != (before.v + 1, before.hash):
            raise IntegrityError(f"record {record.v} does not follow record {before.v}")
        if record.at_step < before.at_step:
            raise IntegrityError(f"record {record.v} takes effect before record {before.v}")
