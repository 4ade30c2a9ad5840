"""The report of a build: what the clusters hold, and what was left out and why."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from climbstream.loader.clusters import ClusterInfo
from climbstream.loader.manifest import Manifest
from climbstream.loader.page import cluster_table, page, section, table
from climbstream.loader.storage import write_bytes

REPORT = "report.html"


def write_report(
    out: Path,
    manifest: Manifest,
    clusters: Sequence[ClusterInfo],
    agreement: dict[str, float] | None,
) -> None:
    """Write ``report.html`` into the shard directory ``out``."""
    lead = (
        f"{manifest.tokens:,} tokens in {len(clusters)} clusters, "
        f"{sum(c.documents for c in clusters):,} documents. Licence: {manifest.license}."
    )
    if agreement:
        lead += (
            f" The clusters agree with the known domains by NMI {agreement['nmi']:.2f}, "
            f"purity {agreement['purity']:.2f}."
        )
    sections = [section("Clusters", cluster_table(clusters)), section("Stages", _stages(manifest))]
    write_bytes(out / REPORT, page("What the shards hold", lead, sections))


def _stages(manifest: Manifest) -> str:
    rows = []
    for stage in manifest.conservation:
        dropped = "; ".join(
            f"{escape(reason)}: {size['documents']:,}" for reason, size in stage["dropped"].items()
        )
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
