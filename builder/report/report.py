"""The report of a build: what the clusters contain, what was left out, and why."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.read_report import losses
from climbstream.builder.licenses import OTHERS
from climbstream.loader.core.console import counted
from climbstream.loader.core.files import write_bytes
from climbstream.loader.core.html_page import facts, listed, page, paragraph, section, table
from climbstream.loader.formats.cluster_tables import cluster_table
from climbstream.loader.formats.clusters import ClusterInfo, score_title
from climbstream.loader.formats.licenses import UNKNOWN
from climbstream.loader.formats.manifest import Manifest, join_licenses, single_licenses
from climbstream.loader.formats.mixture import some_names

from .cells import by_topic, cell_sections
from .cluster_plot import plot_clusters
from .copies import copy_sections
from .licenses import license_sections

REPORT = "report.html"
_DRAWN = 300
"""Maximum number of clusters whose histograms are drawn; the histograms of a thousand clusters
would be half of the page."""


_LICENSES = 3
"""Maximum number of licences that the first paragraph names."""


def write_report(out: Path, report: bytes) -> None:
    """Write ``report``, the HTML of `report_page`, to ``report.html`` in ``out``."""
    write_bytes(out / REPORT, report)


def report_page(
    manifest: Manifest,
    clusters: Sequence[ClusterInfo],
    agreement: dict[str, float] | None,
    centroids: NDArray[np.float32] | None = None,
    kmeans: Mapping[str, Any] | None = None,
    more: Sequence[str] = (),
    pruned: Mapping[int, str] | None = None,
) -> bytes:
    """Return the report as HTML, with a map if ``centroids`` are given.

    ``kmeans`` is the result of `Centroids.to_json`. ``more`` are additional sections. ``pruned``
    has the reason for each pruned micro-cluster.
    """
    topics = by_topic(clusters)
    of_cells = f"{len(clusters):,} cells of " if len(topics) < len(clusters) else ""
    lead = (
        f"{counted(manifest.tokens, 'token')} in {of_cells}{counted(len(topics), 'cluster')}, "
        f"{counted(sum(c.documents for c in clusters), 'document')}. {_license(manifest)}"
    )
    if agreement:
        lead += (
            f" {agreement['purity']:.0%} of the documents are of the most frequent known domain of "
            f"their cluster (purity {agreement['purity']:.2f}). Normalised mutual information of "
            f"clusters and known domains (NMI): {agreement['nmi']:.2f}; 0 means that the two are "
            "unrelated, and 1 that each determines the other."
        )
    sections = [facts(_figures(manifest, topics))]
    if centroids is not None and (plot := plot_clusters(centroids, topics, pruned or {})):
        sections.append(section("Map", paragraph(_map_note(kmeans, pruned)), plot))
    sections.append(section("Clusters", cluster_table(topics)))
    sections += cell_sections(clusters)
    if any(cluster.spread for cluster in clusters):
        note = (
            "The bars show the number of documents by score, from 0 at the left to 5 at the "
            "right. A near copy is nearly equal to another document; near copies are "
            "left out, unless the settings keep them. Each is counted in the cluster to which it "
            "belongs by its own content. Effective tokens are the tokens of "
            "documents that are not near copies."
        )
        if len(topics) > _DRAWN:
            note += f" These are the first {_DRAWN} of {len(topics):,} clusters."
        sections.append(section("Quality", paragraph(note), _quality(topics[:_DRAWN])))
    sections += copy_sections(topics)
    sections += license_sections(manifest)
    sections += more
    sections += _appends(manifest)
    sections.append(section("Stages", _stages(manifest)))
    return page("What the shards hold", lead, sections)


def _figures(manifest: Manifest, topics: Sequence[ClusterInfo]) -> list[tuple[str, str]]:
    """Return the main numbers of the build, each with words that say what it counts."""
    documents = sum(cluster.documents for cluster in topics)
    figures = [
        (f"{manifest.tokens:,}", "tokens"),
        (f"{documents:,}", "documents"),
        (f"{len(topics):,}", "clusters"),
    ]
    read = manifest.conservation[0]["out"]["documents"] if manifest.conservation else 0
    if read:
        figures.append((f"{documents / read:.0%}", f"of {read:,} documents read were kept"))
    return figures


def _license(manifest: Manifest) -> str:
    """Return a sentence that names the licences; if there are many, it says how many there are."""
    totals = join_licenses(cluster.licenses for cluster in manifest.clusters)
    count = len(single_licenses(totals).keys() - {UNKNOWN, OTHERS})
    if count > _LICENSES:
        none = "; some documents state none" if UNKNOWN in totals else ""
        return f"{'More than ' if OTHERS in totals else ''}{count} licences{none}."
    return f"Licence: {manifest.license}."


def _map_note(kmeans: Mapping[str, Any] | None, pruned: Mapping[int, str] | None) -> str:
    """Return a text that explains the map, and says how well the micro-clusters fit."""
    note = (
        "Each dot is a micro-cluster: the more documents, the larger the dot. Its colour is that "
        "of its cluster. Dots near each other are similar. Point at a dot, or at a row of the "
        "next table, to see its cluster."
    )
    if pruned:
        note += f" Each cross is a micro-cluster that was pruned; there are {len(pruned):,}."
    if kmeans:
        note += (
            f" k-means found {kmeans['centroids']:,} micro-clusters, {kmeans['empty']:,} of them "
            "empty; the mean similarity of a document of the sample to its centroid is "
            f"{kmeans['objective']:.3f}, the best of {len(kmeans['tried'])} starts."
        )
    return note


def _quality(clusters: Sequence[ClusterInfo]) -> str:
    """Return a table with the scores, near copies and effective tokens of each cluster."""
    scores = list(clusters[0].spread)
    rows: list[tuple[str | tuple[str, str], ...]] = [
        (
            f"<code>{escape(c.name)}</code>",
            listed(c.terms[:3]),
            *(_histogram(c.spread.get(name, ())) for name in scores),
            f"{c.copies:,}",
            f"{c.effective_tokens:,}",
        )
        for c in clusters
    ]
    heads = ("cluster", "words", *map(score_title, scores), "near copies", "effective tokens")
    numbers = (2 + len(scores), 3 + len(scores))
    return table(heads, rows, numbers=numbers, texts=(1,), clusters=[c.name for c in clusters])


def _histogram(counts: Sequence[int]) -> tuple[str, str]:
    """Return a table cell with a histogram (SVG) and its mean, by which the column is sorted."""
    most = max(counts, default=0) or 1
    heights = [round(20 * n / most) for n in counts]
    path = "".join(f"M{9 * i} 20v-{high}h8v{high}z" for i, high in enumerate(heights) if high)
    mean = sum((i + 0.5) * n for i, n in enumerate(counts)) / 2 / max(sum(counts), 1)
    return (
        f'data-v="{mean:.3f}"',
        f'<svg viewBox="0 0 90 20" width="90"><path d="{path}" fill="var(--blue)"/></svg>',
    )


def _appends(manifest: Manifest) -> list[str]:
    """Return a list with the section on appends, the first append first; [] if there were none."""
    appended = manifest.provenance.get("appended", [])
    if not appended:
        return []
    note = (
        "Documents that were added to the first build, in the order of time. All figures above "
        "include them."
    )
    rows = [
        (
            f"{number}",
            escape(some_names([*entry["sources"]])),
            f"{entry['documents']:,}",
            f"{entry['tokens']:,}",
        )
        for number, entry in enumerate(appended, start=1)
    ]
    heads = ("append", "sources", "documents", "tokens")
    return [section("Appends", paragraph(note), table(heads, rows, numbers=(2, 3), texts=(1,)))]


def _stages(manifest: Manifest) -> str:
    rows = []
    for stage in manifest.conservation:
        dropped = "<br>".join(map(escape, losses([stage])))
        rows.append(
            (
                escape(stage["stage"]),
                f"{stage['in']['documents']:,}",
                f"{stage['out']['documents']:,}",
                f"{stage['out'].get('bytes', 0) / 1e6:,.1f}",
                dropped,
            )
        )
    return table(("stage", "documents in", "out", "MB out", "dropped"), rows, numbers=(1, 2, 3))
