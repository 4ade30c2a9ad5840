"""Preview: what a build would leave out, with samples, and how many clusters heights give."""

from typing import Any

import numpy as np

from climbstream.builder.clustering.cluster_map import ClusterMap
from climbstream.builder.clustering.ward import count_by_height
from climbstream.builder.features.words import opening

from .selection import Selection, micros_of

_SHOWN = 3
"""Documents that are shown for each reason."""
_LENGTH = 160
"""Characters of each."""


def preview(clusters: ClusterMap, fates: Selection) -> dict[str, Any]:
    """Say what stages drop and why, with samples; which micro-clusters fall; heights of merging."""
    micros = micros_of(fates, len(clusters.centroids))
    return {
        "stages": fates.stages,
        "samples": _samples(fates),
        "pruned": {str(micro): why for micro, why in sorted(clusters.why.items())},
        "clusters": clusters.count,
        "heights": [
            {"height": height, "clusters": count, "largest": round(share, 4)}
            for height, count, share in count_by_height(clusters, micros)
        ],
    }


def _samples(fates: Selection) -> dict[str, list[dict[str, str]]]:
    """The first documents that are dropped for each reason: ``id`` and how the ``text`` begins."""
    found: dict[str, list[dict[str, str]]] = {reason: [] for reason in fates.reasons[1:]}
    for unit, why in zip(fates.units, fates.why, strict=True):
        for code, reason in enumerate(fates.reasons[1:], start=1):
            rows = np.flatnonzero(why == code)[: _SHOWN - len(found[reason])]
            if len(rows):
                for document in unit.columns("id", "text").take(rows).to_pylist():
                    text = opening(document["text"], _LENGTH)
                    found[reason].append({"id": document["id"], "text": text})
    return found


def preview_text(found: dict[str, Any]) -> str:
    """Write a preview for people."""
    lines = []
    for stage in found["stages"]:
        for reason, size in stage["dropped"].items():
            lines.append(
                f"{stage['stage']}: {size['documents']:,} documents, "
                f"{size['bytes'] / 1e6:.1f} MB: {reason}"
            )
            lines += [f"    {s['id']}: {s['text']}" for s in found["samples"].get(reason, ())]
    left = found["stages"][-1]["out"]
    lines.append(
        f"left: {left['documents']:,} documents, {left['bytes'] / 1e6:.1f} MB "
        f"in {found['clusters']} clusters; {len(found['pruned']):,} micro-clusters pruned"
    )
    lines.append("height of merging: clusters (largest)")
    lines += [
        f"  {row['height']:g}: {row['clusters']:,} ({row['largest']:.0%})"
        for row in found["heights"]
    ]
    return "\n".join(lines)
