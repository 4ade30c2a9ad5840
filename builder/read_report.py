"""Report: what became of the records of a source, or of all sources."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from climbstream.loader.typed import convert

LISTED = 100
"""Records that are listed of each source, with where they stand; all are counted."""


@dataclass(slots=True)
class Report:
    """What every reader counts; a reader's own report adds to it."""

    units: list[str] = field(default_factory=list)
    documents: int = 0
    bytes: int = 0
    """Of text."""
    bad: Counter[str] = field(default_factory=Counter)
    """Records that could not be used, by reason."""
    listed: list[dict[str, str]] = field(default_factory=list)
    """Where the first of them stand, and why."""

    def add(self, other: Self) -> None:
        """Count what another source gave too."""
        for name in (f.name for f in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, Counter):
                mine.update(theirs)  # unlike +=, this keeps those of 0
            else:
                setattr(self, name, mine + theirs)

    def note(self, origin: str, reason: str) -> None:
        """List a record, unless many are."""
        if len(self.listed) < LISTED:
            self.listed.append({"origin": origin, "reason": reason})

    def stage(self) -> dict[str, Any]:
        """Say what came in, went out and was dropped, as later stages do."""
        return {
            "stage": "read",
            "in": {"documents": self.documents + self.bad.total()},
            "out": {"documents": self.documents, "bytes": self.bytes},
            "dropped": {reason: {"documents": n} for reason, n in sorted(self.bad.items())},
        }

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            InvalidDataError: It is no such report.
        """
        report = convert(value, cls, "report of what was read")
        for name in (f.name for f in fields(cls) if f.default_factory is Counter):
            setattr(report, name, Counter(getattr(report, name)))
        return report
