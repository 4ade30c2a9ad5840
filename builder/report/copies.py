"""Copies in the report: documents of each cluster that occur more than once in the corpus."""

from collections.abc import Sequence
from html import escape

from climbstream.loader.core.console import counted
from climbstream.loader.core.html_page import listed, paragraph, section, table
from climbstream.loader.formats.clusters import ClusterInfo

_NOTE = (
    "Documents that were kept, and whose copies were left out. A source is a known domain or, for "
    "documents without one, a file. A copy that an append left out is counted only if the same "
    "append added its original. climb dropped counts all copies, also those of documents that were "
    "left out themselves. An exact copy of a near copy is counted as near here, and as exact there."
)


def copy_sections(clusters: Sequence[ClusterInfo]) -> list[str]:
    """Return a list with the section on copies; [] if no copies were left out or counted."""
    rows = [
        (
            f"<code>{escape(c.name)}</code>",
            listed(c.terms[:3]),
            f"{counts.documents:,}",
            f"{counts.documents / max(c.documents, 1):.1%}",
            f"{counts.exact:,}",
            f"{counts.near:,}",
            f"{counts.mean:.1f}",
            f"{counts.several_sources:,}",
        )
        for c in clusters
        if (counts := c.copy_counts) is not None and counts.documents
    ]
    if not rows:
        return []
    others = sum(c.copy_counts is not None for c in clusters) - len(rows)
    more = f" Not in the table: {counted(others, 'cluster')} without copies." if others else ""
    heads = (
        *("cluster", "words", "occur more than once", "part", "exact copies", "near copies"),
        *("mean number of copies", "in several sources"),
    )
    numbers = tuple(range(2, len(heads)))
    return [
        section("Copies", paragraph(_NOTE + more), table(heads, rows, numbers=numbers, texts=(1,)))
    ]
