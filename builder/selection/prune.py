"""Prune: leave out what is of too little worth, whole micro-clusters and single documents."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.clustering.cluster_map import ClusterMap
from climbstream.builder.settings import SCORES


def prune_clusters(
    clusters: ClusterMap, means: NDArray[np.float64], least: Mapping[str, float]
) -> ClusterMap:
    """Leave out micro-clusters whose mean score, float64 ``[M, 4]``, is below ``least``."""
    why = {}
    for micro in clusters.kept.tolist():
        for name, low in least.items():
            mean = float(means[micro, SCORES.index(name)])
            # A micro-cluster without documents has no mean, and nothing to leave out.
            if mean < low and micro not in why:
                why[micro] = f"cluster scores {mean:.1f} in {name}, below {low:g}"
    return clusters.without(why)


def poor_documents(scores: NDArray[np.float32], least: Mapping[str, float]) -> NDArray[np.str_]:
    """Say why each document, scores float32 ``[n, 4]``, is left out; empty: it stays."""
    why = np.full(len(scores), "", dtype="U32")
    for name, low in least.items():
        why[(scores[:, SCORES.index(name)] < low) & (why == "")] = f"low {name} score"
    return why
