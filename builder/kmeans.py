"""Spherical k-means by FAISS: unit vectors to centroids, and to the nearest of them."""

import faiss
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

_ITERATIONS = 50
"""The paper allows 300; on these vectors the objective stands still long before."""


def automatic_count(documents: int, least: int) -> int:
    """Micro-clusters for a corpus: one for 32 documents, from ``least`` up to the paper's 1,000.

    >>> automatic_count(6_400, 20), automatic_count(100, 20), automatic_count(10**9, 20)
    (200, 20, 1000)
    """
    return max(least, min(1000, documents // 32))


def fit_centroids(vectors: NDArray[np.float32], count: int, seed: int) -> NDArray[np.float32]:
    """Find at most ``count`` centroids: float32 ``[count, dims]`` of length 1."""
    count = min(count, len(vectors))
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        count,
        niter=_ITERATIONS,
        seed=seed,
        spherical=True,
        gpu=faiss.get_num_gpus() > 0,
        min_points_per_centroid=1,
        max_points_per_centroid=1 << 20,
    )
    # One thread: with another number of them sums are rounded differently.
    with threadpool_limits(1, "blas"):
        kmeans.train(vectors)
    return np.array(kmeans.centroids, np.float32)


def nearest(vectors: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the most similar centroid of each vector: int32 ``[n]``."""
    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(centroids)
    _, found = index.search(np.ascontiguousarray(vectors, np.float32), 1)
    return np.asarray(found[:, 0], np.int32)
