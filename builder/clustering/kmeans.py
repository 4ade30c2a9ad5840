"""K-means: spherical k-means with FAISS, and the nearest centroid of each vector."""

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from climbstream.loader.core.permutation import derive_key

_ITERATIONS = 50
"""Number of iterations. CLIMB allows 300, but the objective hardly changes after far fewer
iterations on these vectors."""


@dataclass(frozen=True, slots=True)
class Centroids:
    """Centroids, and their quality for the vectors to which they were fitted."""

    vectors: NDArray[np.float32]
    """The centroids, ``[count, dims]``, each of length 1."""
    objective: float
    """Mean similarity between a vector and its centroid, 0 to 1."""
    tried: tuple[float, ...]
    """Objective that k-means reached from each start. ``vectors`` is the result of the best
    start."""
    empty: int
    """Number of centroids that are the nearest centroid of no vector."""

    def to_json(self) -> dict[str, Any]:
        """Return the number and the quality of the centroids as JSON values."""
        return {
            "centroids": len(self.vectors),
            "objective": self.objective,
            "tried": list(self.tried),
            "empty": self.empty,
        }


def automatic_count(documents: int, least: int) -> int:
    """Return the default number of micro-clusters: a micro-cluster per 32 documents of the sample.

    The number is at most 1,000 and at least ``least``.

    >>> automatic_count(6_400, 20), automatic_count(100, 20), automatic_count(10**9, 20)
    (200, 20, 1000)
    """
    return max(least, min(1000, documents // 32))


def fit_centroids(
    vectors: NDArray[np.float32], count: int, seed: int, restarts: int = 1
) -> Centroids:
    """Fit at most ``count`` centroids to ``vectors``, float32 ``[n, dims]``.

    K-means runs from ``restarts`` different starts, and the best result is returned. Vectors of
    zeros are ignored. FAISS uses a GPU if there is one.
    """
    used = np.ascontiguousarray(vectors[np.any(vectors, axis=1)])
    used = used if len(used) else np.ascontiguousarray(vectors[:1])
    tried = []
    best = (-np.inf, np.empty((0, vectors.shape[1]), np.float32), 0)
    for start in range(restarts):
        kmeans = faiss.Kmeans(
            used.shape[1],
            min(count, len(used)),
            niter=_ITERATIONS,
            seed=derive_key(seed, "start", start) >> 33,
            spherical=True,
            gpu=faiss.get_num_gpus() > 0,
            min_points_per_centroid=1,
            max_points_per_centroid=1 << 20,
        )
        # Use one thread, because sums are rounded differently with another number of threads.
        with threadpool_limits(1, "blas"):
            kmeans.train(used)
        centroids = np.array(kmeans.centroids, np.float32)
        closest, alike = nearest(used, centroids)
        tried.append(float(alike.mean(dtype=np.float64)))
        if tried[-1] > best[0]:
            best = tried[-1], centroids, len(centroids) - len(np.unique(closest))
    return Centroids(best[1], best[0], tuple(tried), best[2])


def nearest(
    vectors: NDArray[np.float32], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the nearest centroid of each vector, int32 ``[n]``, and its similarity, ``[n]``."""
    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(centroids)
    alike, indices = index.search(np.ascontiguousarray(vectors, np.float32), 1)
    return np.asarray(indices[:, 0], np.int32), np.asarray(alike[:, 0], np.float32)
