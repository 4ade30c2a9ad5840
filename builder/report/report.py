"""The report of a build: what the clusters hold, and what was left out and why."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.read_report import losses
from climbstream.loader.core.files import write_bytes
from climbstream.loader.core.html_page import page, paragraph, section, table
from climbstream.loader.formats.cluster_tables import cluster_table
from climbstream.loader.formats.clusters import ClusterInfo
from climbstream.loader.formats.manifest import Manifest

from .cells import by_topic, cell_sections
from .cluster_plot import plot_clusters
from .licenses import license_sections

REPORT = "report.html"
_SHOWN = 100
"""Clusters that are shown at once; the rest unfolds."""


def write_report(
    out: Path,
    manifest: Manifest,
    clusters: Sequence[ClusterInfo],
    agreement: dict[str, float] | None,
    centroids: NDArray[np.float32] | None = None,
    kmeans: Mapping[str, Any] | None = None,
    more: Sequence[str] = (),
) -> None:
    """Write ``report.html`` into ``out``; with the ``centroids`` it has a map.

    ``kmeans`` is what `Centroids.to_json` gave, and ``more`` are further sections.
    """
    topics = by_topic(clusters)
    of_cells = f"{len(clusters):,} cells of " if len(topics) < len(clusters) else ""
    lead = (
        f"{manifest.tokens:,} tokens in {of_cells}{len(topics)} clusters, "
        f"{sum(c.documents for c in clusters):,} documents. Licence: {manifest.license}."
    )
    if agreement:
        lead += (
            f" The clusters agree with the known domains by NMI {agreement['nmi']:.2f}, "
            f"purity {agreement['purity']:.2f}."
        )
    sections = []
    if centroids is not None and (plot := plot_clusters(centroids, topics)):
        note = (
            "A dot is a micro-cluster, as large as its documents, in the colour of its cluster; "
            "what lies near is alike. Hover to read names."
        )
        if kmeans:
            note += (
                f" k-means found {kmeans['centroids']:,} micro-clusters, {kmeans['empty']:,} of "
                f"them empty; a document of the sample is alike to its centroid by "
                f"{kmeans['objective']:.3f} in the mean, the best of {len(kmeans['tried'])} starts."
            )
        sections.append(section("Map", paragraph(note), plot))
    shown, rest = topics[:_SHOWN], topics[_SHOWN:]
    tables = [cluster_table(shown, topics)]
    if rest:
        summary = f"<summary>{len(rest):,} smaller clusters</summary>"
        tables.append(f"<details>{summary}{cluster_table(rest, topics)}</details>")
    sections.append(section("Clusters", *tables))
    sections += cell_sections(clusters)
    if any(cluster.spread for cluster in clusters):
        note = "Documents by score, from 0 at the left to 5 at the right, and near duplicates."
        sections.append(section("Quality", paragraph(note), _quality(shown)))
    sections += license_sections(manifest)
    sections += more
    sections.append(section("Stages", _stages(manifest)))
    write_bytes(out / REPORT, page("What the shards hold", lead, sections))


def _quality(clusters: Sequence[ClusterInfo]) -> str:
    """Draw the histogram of scores in each cluster, and say how much of the cluster repeats."""
    scores = list(clusters[0].spread)
    rows = [
        (
            f"<code>{escape(c.name)}</code>",
            escape(", ".join(c.terms[:3])),
            *(_histogram(c.spread.get(name, ())) for name in scores),
            f"{c.copies:,}",
            f"{c.effective_tokens:,}",
        )
        for c in clusters
    ]
    heads = ("cluster", "words", *scores, "near duplicates", "effective tokens")
    return table(heads, rows, numbers=(2 + len(scores), 3 + len(scores)))


def _histogram(counts: Sequence[int]) -> str:
    """Draw counts as columns, the largest as high as a line of text."""
    most = max(counts, default=0) or 1
    columns = "".join(
        f'<rect x="{9 * i}" y="{20 - 20 * n / most:.1f}" width="8" height="{20 * n / most:.1f}"/>'
        for i, n in enumerate(counts)
    )
    return f'<svg viewBox="0 0 90 20" width="90" height="20" fill="var(--blue)">{columns}</svg>'


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
