"""Preview: what a build would drop, with samples, and how many clusters it would make."""

from typing import Any

from climbstream.builder.clustering.cluster_map import ClusterMap
from climbstream.builder.clustering.ward import count_by_height
from climbstream.loader.core.console import counted
from climbstream.loader.formats.clusters import reason_title

from .dropped import sample_dropped
from .selection import Selection
from .stages import micros_of

_SHOWN = 3
"""Largest number of documents that are shown per reason."""


def preview(clusters: ClusterMap, selection: Selection) -> dict[str, Any]:
    """Return what a build would drop, and how many clusters there would be at each merge height.

    `climbstream.builder.pipeline.dry_run` describes the keys.
    """
    micros = micros_of(selection, len(clusters.centroids))
    return {
        "stages": selection.stages,
        "samples": sample_dropped(selection, _SHOWN),
        "pruned": {str(micro): why for micro, why in sorted(clusters.why.items())},
        "clusters": clusters.count,
        "heights": [
            {"height": height, "clusters": count, "largest": round(share, 4)}
            for height, count, share in count_by_height(clusters, micros)
        ],
    }


def preview_text(found: dict[str, Any]) -> str:
    """Return a preview as text for a terminal."""
    lines = []
    for stage in found["stages"]:
        for reason, size in stage["dropped"].items():
            lines.append(
                f"{stage['stage']}: {counted(size['documents'], 'document')}, "
                f"{size['bytes'] / 1e6:.1f} MB: {reason_title(reason)}"
            )
            lines += [f"    {s['id']}: {s['text']}" for s in found["samples"].get(reason, ())]
    left = found["stages"][-1]["out"]
    lines.append(
        f"kept: {counted(left['documents'], 'document')}, {left['bytes'] / 1e6:.1f} MB in "
        f"{counted(found['clusters'], 'cluster')}; "
        f"{counted(len(found['pruned']), 'micro-cluster')} pruned"
    )
    lines.append("merge height: number of clusters (share of the largest)")
    lines += [
        f"  {row['height']:g}: {row['clusters']:,} ({row['largest']:.0%})"
        for row in found["heights"]
    ]
    return "\n".join(lines)
