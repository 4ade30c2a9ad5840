"""Cells in the report: descriptions of topics, made from their cells, and tokens of each cell."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from html import escape

from climbstream.loader.core.console import counted, short_number
from climbstream.loader.core.html_page import listed, paragraph, section, table, warning
from climbstream.loader.formats.clusters import ClusterInfo, score_title

ROW = 2_048
"""Usual number of tokens of a training row; the report warns of cells that have fewer tokens."""
_NAMED = 8
"""Maximum number of cells that a message names."""
_SHOWN = 4
"""Maximum number of documents that are shown for a topic, each from a different cell."""


def by_topic(cells: Sequence[ClusterInfo]) -> list[ClusterInfo]:
    """Return one description per topic, which joins the descriptions of its cells.

    A topic is a cluster that was divided into cells. Other clusters keep their descriptions.
    """
    topics: dict[str, list[ClusterInfo]] = {}
    for cell in cells:
        topics.setdefault(cell.axes.get("topic", cell.name), []).append(cell)
    return [
        members[0]
        if members[0].name == name
        else replace(
            reduce(join_described, members),
            name=name,
            terms=_joined_terms(members),
            axes={},
            samples=tuple(c.samples[0] for c in reversed(members) if c.samples)[:_SHOWN],
        )
        for name, members in topics.items()
    ]


def _joined_terms(cells: Sequence[ClusterInfo]) -> tuple[str, ...]:
    """Return the terms that describe several cells best; their number is the largest of any cell.

    The terms of a cell are sorted, the best first. In a cell, the last term has one point, the term
    before it two points, and so on. Points are multiplied by the cell's number of documents, and
    added over the cells.
    """
    counts: Counter[str] = Counter()
    for cell in cells:
        for place, term in enumerate(cell.terms):
            counts[term] += (len(cell.terms) - place) * max(cell.documents, 1)
    return tuple(term for term, _ in counts.most_common(max(len(c.terms) for c in cells)))


def join_described(old: ClusterInfo, new: ClusterInfo) -> ClusterInfo:
    """Return the description of the documents of ``old`` and ``new`` together.

    Name, terms, samples and axes are those of ``old``.
    """
    documents = old.documents + new.documents
    micro = _joined_micro(old, new)
    return replace(
        old,
        documents=documents,
        tokens=old.tokens + new.tokens,
        bytes=old.bytes + new.bytes,
        quality={
            name: round(
                (value * old.documents + new.quality[name] * new.documents) / max(documents, 1), 3
            )
            for name, value in old.quality.items()
        },
        labels=_joined_counts(old.labels, new.labels),
        micro=tuple(micro),
        micro_documents=tuple(micro.values()) if old.micro_documents else (),
        spread={name: _added(n, new.spread[name]) for name, n in old.spread.items()},
        copies=old.copies + new.copies,
        effective_tokens=old.effective_tokens + new.effective_tokens,
        languages=_joined_counts(old.languages, new.languages) if old.languages else {},
        copy_counts=(
            None
            if old.copy_counts is None or new.copy_counts is None
            else old.copy_counts + new.copy_counts
        ),
    )


def _joined_counts(old: Mapping[str, int], new: Mapping[str, int]) -> dict[str, int]:
    """Return the sum of two counts by name, the most frequent name first."""
    joined = {name: old.get(name, 0) + new.get(name, 0) for name in {**old, **new}}
    return dict(sorted(joined.items(), key=lambda item: -item[1]))


def _joined_micro(old: ClusterInfo, new: ClusterInfo) -> dict[int, int]:
    """Return, by micro-cluster, the number of documents of both; 0 where the number is unknown."""
    joined = dict.fromkeys((*old.micro, *new.micro), 0)
    for info in (old, new):
        for micro, documents in zip(info.micro, info.micro_documents, strict=False):
            joined[micro] += documents
    return joined


def _added(old: Sequence[int], new: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(old, new, strict=True))


def cell_sections(clusters: Sequence[ClusterInfo]) -> list[str]:
    """Return a list with the section on the tokens of each cell; [] if there are no cells."""
    cells = {tuple(c.axes.values()): c for c in clusters if c.axes}
    if not cells:
        return []
    first = next(iter(cells.values())).axes
    heads = [axis for axis in first if axis != "tier"]
    tiers: list[str] = sorted({cell.axes["tier"] for cell in cells.values() if "tier" in cell.axes})
    places = dict.fromkeys(place[: len(heads)] for place in cells)
    ends: list[tuple[str, ...]] = [(tier,) for tier in tiers] or [()]
    words = _words_of_micro(clusters)
    rows = [
        (
            *(f"<code>{escape(part)}</code>" for part in place),
            *([words[place[:2]]] if words else []),
            *(_tokens(cells.get((*place, *tier))) for tier in ends),
        )
        for place in places
    ]
    names = [*heads, "words"] if words else heads
    numbers = range(len(names), len(names) + len(ends))
    texts = (len(heads),) if words else ()
    head = (*names, *(tiers or ["tokens"]))
    note = (
        "Number of tokens of each cell. A cell is the part of a topic that the head of its column "
        "names. The last quality tier is the best. Point at a cell to read its name, number of "
        "documents and scores."
    )
    small = [warning(text)] if (text := small_cells(clusters)) else []
    return [section("Cells", paragraph(note), *small, table(head, rows, numbers, texts))]


def _words_of_micro(clusters: Sequence[ClusterInfo]) -> dict[tuple[str, ...], str]:
    """Return typical words by topic and micro-cluster; {} if cells are parts of whole topics."""
    return {
        (cell.axes["topic"], cell.axes["micro"]): listed(cell.terms[:4])
        for cell in clusters
        if "micro" in cell.axes
    }


def small_cells(clusters: Sequence[ClusterInfo]) -> str:
    """Return a warning that names the cells of fewer than `ROW` tokens; "" if there are none."""
    cells = [cluster for cluster in clusters if cluster.axes]
    small = sorted((c for c in cells if c.tokens < ROW), key=lambda c: (c.tokens, c.name))
    if not small:
        return ""
    names = ", ".join(f"{c.name} ({c.tokens:,})" for c in small[:_NAMED])
    more = f" and {len(small) - _NAMED:,} more" if len(small) > _NAMED else ""
    have = "has" if len(small) == 1 else "have"
    return (
        f"{len(small):,} of {counted(len(cells), 'cell')} {have} fewer than {ROW:,} tokens, so "
        f"training with rows of that length leaves out all text of {names}{more}. This is "
        f"{counted(sum(c.tokens for c in small), 'token')} in total. Build with fewer tiers, "
        "languages or micro-clusters, or train with shorter rows."
    )


def _tokens(cell: ClusterInfo | None) -> str | tuple[str, str]:
    """Return a table entry with the tokens of a cell, rounded so that five tiers fit on a phone."""
    if cell is None:
        return ""
    scores = ", ".join(f"{score_title(name)} {value:.1f}" for name, value in cell.quality.items())
    size = f"{counted(cell.tokens, 'token')} in {counted(cell.documents, 'document')}"
    tip = f'data-tip="{escape(f"{cell.name}: {size}, {scores}")}" tabindex="0"'
    return f"class=n data-v={cell.tokens}", f"<span {tip}>{short_number(cell.tokens)}</span>"
