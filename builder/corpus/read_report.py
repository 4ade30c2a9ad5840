"""Report: how many records of a source were used, and why other records were left out."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from climbstream.loader.core.console import counted
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.typed import convert
from climbstream.loader.core.visible_text import visible_cell
from climbstream.loader.formats.clusters import reason_title

logger = get_logger(__name__)

LISTED = 100
"""Maximum number of bad records and files that are listed per source; all are counted."""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that cannot be used."""

    origin: str
    reason: str
    count: int = 1
    """Number of records that are lost: more than 1 if a part of a file is damaged."""


@dataclass(frozen=True, slots=True)
class BadFile:
    """A file or folder that is not used, or not read to its end."""

    origin: str
    reason: str


@dataclass(slots=True)
class Report:
    """Counts of what was read and left out; a subclass adds counts that only one command has."""

    units: list[str] = field(default_factory=list)
    documents: int = 0
    bytes: int = 0
    """Bytes of text."""
    bad: Counter[str] = field(default_factory=Counter)
    """Number of records that could not be used, by reason."""
    files: Counter[str] = field(default_factory=Counter)
    """Number of files and folders that were not used, or only in part, by reason."""
    listed: list[dict[str, str]] = field(default_factory=list)
    """Place and reason of each of the first bad records and files."""
    examples: dict[str, str] = field(default_factory=dict)
    """Place of the first bad record or file, by reason."""

    def add(self, other: Self) -> None:
        """Add the counts of ``other``, the report on another source."""
        for name in (f.name for f in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, Counter):
                mine.update(theirs)  # unlike +=, this keeps counts of 0
            elif isinstance(mine, list):
                mine.extend(theirs)  # unlike +, this does not copy a long list
            elif isinstance(mine, dict):
                setattr(self, name, {**theirs, **mine})
            else:
                setattr(self, name, mine + theirs)

    def lose(self, what: BadRecord | BadFile) -> None:
        """Count and list ``what``, which is not used."""
        if isinstance(what, BadFile):
            self.files[what.reason] += 1
        else:
            self.bad[what.reason] += what.count
        self.examples.setdefault(what.reason, what.origin)
        self.note(what.origin, what.reason)

    def note(self, origin: str, reason: str) -> None:
        """List a record or file with its place and reason, unless `LISTED` are listed already."""
        if len(self.listed) < LISTED:
            self.listed.append({"origin": origin, "reason": reason})

    def stage(self) -> dict[str, Any]:
        """Return the counts of the stage: documents (read, kept, dropped) and unused files."""
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
        """Read the value that `to_json` returned.

        Raises:
            InvalidDataError: ``value`` is no report of this class.
        """
        return convert(value, cls, "report of what was read")


def losses(stages: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return one line for each reason why ``stages`` left something out, with count and example.

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
            example = visible_cell(stage.get("examples", {}).get(reason, ""))
            place = f" ({'the first: ' if n > 1 else ''}{example})" if example else ""
            lines.append(f"{counted(n, what)}: {reason_title(reason)}{place}")
    return lines


def check_losses(stages: Iterable[Mapping[str, Any]], *, strict: bool) -> None:
    """Log what ``stages`` left out or, with ``strict``, raise an error that lists it.

    Raises:
        InvalidDataError: With ``strict``, a stage left something out.
    """
    lines = losses(stages)
    if strict and lines:
        listed = "".join(f"\n  {line}" for line in lines)
        raise InvalidDataError(
            "these cannot be used, and --strict refuses them; correct or remove them, or leave "
            f"out --strict:{listed}"
        )
    for line in lines:
        logger.warning(f"  left out {line}")
