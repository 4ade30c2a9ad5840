"""Merge: micro-clusters to few clusters, by Ward linkage of their centroids.

Ward, because single, average and centroid linkage at the paper's distance of 1.5 put everything
into one cluster.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from climbstream.loader.errors import InvalidDataError

from .clustermap import ClusterMap

_MOST = 0.95
"""A cluster with a larger part of the documents than this is a collapse."""


def merge_clusters(clusters: ClusterMap, documents: NDArray[np.int64], count: int) -> ClusterMap:
    """Merge the kept micro-clusters into at most ``count``; the largest comes first.

    ``documents``, int64 ``[M]``, counts the documents of each micro-cluster; one without any goes
    with the most similar that has some, so no cluster is empty.

    Raises:
        InvalidDataError: Nothing is left to merge, or nearly all falls into one cluster.
    """
    kept = clusters.kept
    full = kept[documents[kept] > 0]
    if not len(full):
        raise InvalidDataError(
            "pruning left no document; lower min_cluster_score and min_document_score"
        )
    if len(full) == 1:
        return clusters.regrouped(np.zeros(len(kept), np.int32))
    centroids = clusters.centroids.astype(np.float64)
    group = fcluster(linkage(centroids[full], "ward"), count, "maxclust") - 1
    sizes = np.bincount(group, weights=documents[full])
    if count > 1 and sizes.max() > _MOST * sizes.sum():
        raise InvalidDataError(
            f"merging put {sizes.max() / sizes.sum():.1%} of the documents into one of "
            f"{len(sizes)} clusters; ask for more clusters, or for more micro-clusters"
        )
    place = np.empty(len(sizes), np.int32)
    place[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    neighbour = np.argmax(centroids[kept] @ centroids[full].T, axis=1)
    neighbour[documents[kept] > 0] = np.arange(len(full))
    return clusters.regrouped(place[group[neighbour]])
