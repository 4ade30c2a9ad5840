"""Report: how many records of a source were used, and why others were left out."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from climbstream.loader.core.console import counted
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.typed import convert
from climbstream.loader.formats.clusters import reason_title

logger = get_logger(__name__)

LISTED = 100
"""Number of bad records that are listed for each source, with their places; all are counted."""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that cannot be used."""

    origin: str
    reason: str
    count: int = 1
    """Number of records lost with it: more than one where a part of a file is damaged."""


@dataclass(frozen=True, slots=True)
class BadFile:
    """A file or folder that is not used, or not read to its end."""

    origin: str
    reason: str


@dataclass(slots=True)
class Report:
    """The counts that every reader makes; the report of a reader adds to them."""

    units: list[str] = field(default_factory=list)
    documents: int = 0
    bytes: int = 0
    """Bytes of text."""
    bad: Counter[str] = field(default_factory=Counter)
    """Records that could not be used, by reason."""
    files: Counter[str] = field(default_factory=Counter)
    """Number of files and folders that were not used, or not read to their end, by reason."""
    listed: list[dict[str, str]] = field(default_factory=list)
    """Places of the first bad records, and the reasons."""
    examples: dict[str, str] = field(default_factory=dict)
    """Place of the first bad record of each reason."""

    def add(self, other: Self) -> None:
        """Add the counts of another source."""
        for name in (f.name for f in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, Counter):
                mine.update(theirs)  # unlike +=, this keeps counts of 0
            elif isinstance(mine, list):
                mine.extend(theirs)  # there may be many, so they are not copied
            elif isinstance(mine, dict):
                setattr(self, name, {**theirs, **mine})
            else:
                setattr(self, name, mine + theirs)

    def lose(self, what: BadRecord | BadFile) -> None:
        """Count and list a record, file or folder that is not used."""
        if isinstance(what, BadFile):
            self.files[what.reason] += 1
        else:
            self.bad[what.reason] += what.count
        self.examples.setdefault(what.reason, what.origin)
        self.note(what.origin, what.reason)

    def note(self, origin: str, reason: str) -> None:
        """List a record, unless many are listed."""
        if len(self.listed) < LISTED:
            self.listed.append({"origin": origin, "reason": reason})

    def stage(self) -> dict[str, Any]:
        """Return the counts of documents in, out and dropped, as of later stages, and of files."""
        stage = {
            "stage": "read",
            "in": {"documents": self.documents + self.bad.total()},
            "out": {"documents": self.documents, "bytes": self.bytes},
            "dropped": {reason: {"documents": n} for reason, n in sorted(self.bad.items())},
        }
        if self.files:
            stage["files"] = dict(sorted(self.files.items()))
        if self.examples:
            stage["examples"] = dict(sorted(self.examples.items()))
        return stage

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            InvalidDataError: It is no such report.
        """
        return convert(value, cls, "report of what was read")


def losses(stages: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a line for each reason why ``stages`` left something out, with count and example.

    >>> stage = {"dropped": {"empty text": {"documents": 2}}, "examples": {"empty text": "a:7"}}
    >>> losses([stage])
    ['2 documents: empty text (the first: a:7)']
    """
    lines = []
    for stage in stages:
        counts = [
            *((n, "file", reason) for reason, n in stage.get("files", {}).items()),
            *((size["documents"], "document", why) for why, size in stage["dropped"].items()),
        ]
        for n, what, reason in sorted(counts, key=lambda count: -count[0]):
            example = stage.get("examples", {}).get(reason)
            place = f" ({'the first: ' if n > 1 else ''}{example})" if example else ""
            lines.append(f"{counted(n, what)}: {reason_title(reason)}{place}")
    return lines


def check_losses(stages: Iterable[Mapping[str, Any]], *, strict: bool) -> None:
    """Log what ``stages`` left out.

    Raises:
        InvalidDataError: ``strict``, and there is something.
    """
    lines = losses(stages)
    if strict and lines:
        listed = "".join(f"\n  {line}" for line in lines)
        raise InvalidDataError(f"these are not used, and --strict allows no such thing:{listed}")
    for line in lines:
        logger.warning(f"  left out {line}")
