"""Document: one text of the corpus and where it comes from."""

from dataclasses import dataclass

from .given import NOTHING, Given


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text of the corpus."""

    id: str
    """Unique within the corpus."""
    text: str
    label: str = ""
    """Known domain, if the corpus says one; used to report, never to cluster."""
    license: str = ""
    origin: str = ""
    """Where it was read: file, or URL."""
    given: Given = NOTHING
