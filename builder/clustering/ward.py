"""Ward: merge micro-clusters into few clusters by Ward linkage.

CLIMB merges clusters up to a distance of 1.5. Ward linkage is used because at this distance three
other linkages (single, average and centroid) put everything into one cluster. Ward linkage needs a
point and a weight for each micro-cluster. What they are depends on where merging stops:

* At a given number of clusters: the point is the mean of the documents' vectors, and the weight is
  the number of documents. So the cost of a merge is how much it increases the variance of documents
  within clusters.
* At a given height, as in CLIMB (arXiv 2504.13161, section 3.1; height 1.5): the point is the
  centroid, which has length 1, and all weights are equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster

from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.errors import InvalidDataError

from .cluster_map import ClusterMap

_MOST = 0.95
"""Largest fraction of the documents that one cluster may have; above it, clustering has failed."""

HEIGHTS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
"""Merge heights for each of which a dry run shows the number of clusters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Micros:
    """Sizes and densities of the micro-clusters; merging depends on both."""

    documents: NDArray[np.int64]
    """Number of documents in each micro-cluster, ``[M]``."""
    tightness: NDArray[np.float64]
    """Mean similarity between the documents of each micro-cluster and its centroid, ``[M]``. It
    equals the length of the mean of the documents' vectors."""


def merge_clusters(clusters: ClusterMap, micros: Micros, settings: BuildSettings) -> ClusterMap:
    """Return a map in which the micro-clusters `kept` are merged; cluster 0 is the largest.

    ``settings`` decide where merging stops. A micro-cluster without documents joins the cluster of
    the most similar micro-cluster with documents. So no cluster is empty.

    Raises:
        InvalidDataError: No document is left, or nearly all documents are in one cluster.
    """
    kept = clusters.kept
    full = kept[micros.documents[kept] > 0]
    if not len(full):
        raise InvalidDataError(
            "pruning left no document; lower --min-cluster-score and --min-document-score, or use "
            "--no-prune"
        )
    if len(full) == 1:
        return clusters.regrouped(np.zeros(len(kept), np.int32))
    documents = micros.documents[full]
    tree = _tree(clusters, micros, full, by_height=settings.merge_height is not None)
    group: NDArray[Any]
    if settings.merge_height is not None:
        group = fcluster(tree, settings.merge_height, "distance") - 1
    elif settings.balanced:
        group = _cut_largest(tree, documents, settings.clusters)
    else:
        group = fcluster(tree, settings.clusters, "maxclust") - 1
    sizes = np.bincount(group, weights=documents)
    share = sizes.max() / sizes.sum()
    if share > _MOST and (settings.merge_height is not None or settings.clusters > 1):
        remedy = (
            f"lower merge_height, {settings.merge_height:g}"
            if settings.merge_height is not None
            else "ask for more clusters, or for more micro-clusters"
        )
        raise InvalidDataError(
            f"merging put {share:.1%} of the documents into one of {len(sizes)} clusters; {remedy}"
        )
    place = np.empty(len(sizes), np.int32)
    place[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    centroids = clusters.centroids.astype(np.float64)
    neighbour = np.argmax(centroids[kept] @ centroids[full].T, axis=1)
    neighbour[micros.documents[kept] > 0] = np.arange(len(full))
    return clusters.regrouped(place[group[neighbour]])


def count_by_height(
    clusters: ClusterMap, micros: Micros, heights: Sequence[float] = HEIGHTS
) -> list[tuple[float, int, float]]:
    """Return, for each merge height, the number of clusters and the size of the largest cluster.

    Each tuple has the height, the number of clusters after merging up to this height, and the
    fraction of all documents in the largest of them.
    """
    full = clusters.kept[micros.documents[clusters.kept] > 0]
    if len(full) < 2:
        return [(height, len(full), 1.0) for height in heights]
    tree = _tree(clusters, micros, full, by_height=True)
    rows = []
    for height in heights:
        group = fcluster(tree, height, "distance") - 1
        sizes = np.bincount(group, weights=micros.documents[full])
        rows.append((height, len(sizes), float(sizes.max() / sizes.sum())))
    return rows


def _tree(
    clusters: ClusterMap, micros: Micros, full: NDArray[np.int64], *, by_height: bool
) -> NDArray[np.float64]:
    """Return the Ward linkage of the micro-clusters ``full``, as a linkage matrix of scipy."""
    points = clusters.centroids[full].astype(np.float64)
    weights = np.ones(len(full))
    if not by_height:
        points *= micros.tightness[full, None]
        weights = micros.documents[full] / micros.documents[full].mean()
    pairs, heights = _ward(points, weights)
    order = np.argsort(heights, kind="stable")
    return _labelled(pairs[order], heights[order])


@njit(cache=True)
def _ward(points: Any, weights: Any) -> Any:
    """Return the merges of a Ward linkage of weighted points, and the heights of the merges.

    The merges are int64 ``[n - 1, 2]``, and their heights are ``[n - 1]``. ``points`` is float64
    ``[n, dims]``. The method is chains of nearest neighbours (Murtagh 1983); scipy's Ward linkage
    takes no weights. Each merge names two points, one from each of the clusters that are merged.
    ``points`` and ``weights`` are overwritten.
    """
    n = len(points)
    alive = np.ones(n, np.bool_)
    pairs, heights = np.empty((n - 1, 2), np.int64), np.empty(n - 1)
    chain = np.empty(n, np.int64)
    length = 0
    for step in range(n - 1):
        if not length:
            chain[0], length = np.flatnonzero(alive)[0], 1
        while True:
            tip = chain[length - 1]
            before = chain[length - 2] if length > 1 else -1
            best, nearest = np.inf, -1
            for other in range(n):
                if alive[other] and other != tip:
                    total = weights[tip] + weights[other]
                    apart = 2 * weights[tip] * weights[other] / total
                    apart *= ((points[tip] - points[other]) ** 2).sum()
                    if apart < best or (apart == best and other == before):
                        best, nearest = apart, other
            if nearest == before:
                break
            chain[length] = nearest
            length += 1
        length -= 2
        total = weights[tip] + weights[nearest]
        middle = (weights[tip] * points[tip] + weights[nearest] * points[nearest]) / total
        points[nearest], weights[nearest], alive[tip] = middle, total, False
        pairs[step, 0], pairs[step, 1], heights[step] = tip, nearest, np.sqrt(best)
    return pairs, heights


def _labelled(pairs: NDArray[np.int64], heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``pairs``, merges sorted by height, as a linkage matrix in the format of scipy."""
    n = len(pairs) + 1
    parent = list(range(n))
    label, size = list(range(n)), [1] * n

    def find(point: int) -> int:
        while parent[point] != point:
            parent[point] = parent[parent[point]]
            point = parent[point]
        return point

    tree = np.empty((n - 1, 4))
    for row, (some, other) in enumerate(pairs.tolist()):
        a, b = sorted((find(some), find(other)), key=lambda point: label[point])
        tree[row] = label[a], label[b], heights[row], size[a] + size[b]
        parent[a] = b
        label[b], size[b] = n + row, size[a] + size[b]
    return tree


def _cut_largest(
    tree: NDArray[np.float64], documents: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Cut ``tree`` into ``count`` clusters; return the cluster of each micro-cluster, ``[n]``.

    While there are fewer than ``count`` clusters, the largest one is split at its last merge.
    """
    n = len(documents)
    children = tree[:, :2].astype(np.int64)
    weight = np.concatenate([documents, np.zeros(n - 1, np.int64)])
    for row, (a, b) in enumerate(children.tolist()):
        weight[n + row] = weight[a] + weight[b]
    nodes = [2 * n - 2]
    while len(nodes) < count and max(nodes) >= n:
        largest = max((node for node in nodes if node >= n), key=lambda node: int(weight[node]))
        nodes.remove(largest)
        nodes += children[largest - n].tolist()
    group = np.empty(2 * n - 1, np.int64)
    group[nodes] = np.arange(len(nodes))
    # From the top of the tree down, each node gets the cluster of its parent.
    inside = np.zeros(2 * n - 1, np.bool_)
    inside[nodes] = True
    for node in range(2 * n - 2, n - 1, -1):
        if inside[node]:
            group[children[node - n]] = group[node]
            inside[children[node - n]] = True
    return group[:n]
