"""ClusterMap: says which documents belong to which cluster.

A micro-cluster is a cluster of k-means. A document belongs to the micro-cluster with the nearest
centroid. A micro-cluster belongs to one cluster or, if the micro-cluster was pruned, to none. A
`ClusterMap` object never changes: pruning and merging return a new object.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.typed import check_version, convert, short

PRUNED = -1


def topic_names(count: int) -> list[str]:
    """Return the names of ``count`` clusters.

    >>> topic_names(2)
    ['c00', 'c01']
    """
    width = max(2, len(str(count - 1)))
    return [f"c{k:0{width}d}" for k in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _MapValue:
    """The JSON form of a map."""

    cluster: list[Annotated[int, Meta(ge=PRUNED, le=(1 << 31) - 1)]]
    why: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClusterMap:
    """Micro-clusters, and the clusters into which they are merged."""

    centroids: NDArray[np.float32]
    """Centroids of the micro-clusters, ``[M, dims]``, of length 1."""
    cluster: NDArray[np.int32]
    """Cluster of each micro-cluster, ``[M]``; `PRUNED` if it has none."""
    why: dict[int, str]
    """Why each pruned micro-cluster was pruned, by number of the micro-cluster."""

    version = 1

    def __post_init__(self) -> None:
        if len(self.centroids) != len(self.cluster):
            raise InvalidDataError(
                f"{len(self.centroids)} centroids do not fit {len(self.cluster)} micro-clusters"
            )

    @classmethod
    def of(cls, centroids: NDArray[np.float32]) -> Self:
        """Return a map in which each micro-cluster is a cluster of its own."""
        return cls(centroids=centroids, cluster=np.arange(len(centroids), dtype=np.int32), why={})

    @property
    def count(self) -> int:
        """Number of clusters."""
        return int(self.cluster.max(initial=PRUNED)) + 1

    @property
    def kept(self) -> NDArray[np.int64]:
        """Numbers of the micro-clusters that are not pruned, sorted."""
        return np.flatnonzero(self.cluster != PRUNED)

    @property
    def home(self) -> NDArray[np.int32]:
        """Cluster of each micro-cluster, ``[M]``.

        A pruned micro-cluster gets the cluster of the most similar micro-cluster that is kept.
        """
        return self.cluster[self.nearest(self.kept)]

    def nearest(self, micro: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return, for each micro-cluster, the number of the nearest one in ``micro``.

        The result is int64 ``[M]``. ``micro``, int64 ``[m]``, has the numbers of some
        micro-clusters. The nearest one has the most similar centroid. If a micro-cluster is itself
        in ``micro``, its result is its own number.
        """
        nearest: NDArray[np.int64] = micro[
            np.argmax(self.centroids @ self.centroids[micro].T, axis=1)
        ]
        nearest[micro] = micro
        return nearest

    def without(self, why: dict[int, str]) -> Self:
        """Return a map in which the micro-clusters in ``why`` are pruned, each with its reason."""
        cluster = self.cluster.copy()
        cluster[list(why)] = PRUNED
        return replace(self, cluster=cluster, why={**self.why, **why})

    def regrouped(self, cluster: NDArray[np.int32]) -> Self:
        """Return a map in which ``cluster``, int32 ``[k]``, is the cluster of each of `kept`."""
        whole = self.cluster.copy()
        whole[self.kept] = cluster
        return replace(self, cluster=whole)

    def to_json(self) -> dict[str, Any]:
        """Return the map as JSON values, without the centroids."""
        return {
            "version": self.version,
            "cluster": self.cluster.tolist(),
            "why": {str(micro): why for micro, why in sorted(self.why.items())},
        }

    @classmethod
    def from_json(cls, value: Any, centroids: NDArray[np.float32]) -> Self:
        """Return the map that the JSON values of `to_json` describe.

        Raises:
            InvalidDataError: ``value`` is not a cluster map, or does not match ``centroids``.
        """
        read = convert(check_version(value, cls.version, "cluster map"), _MapValue, "cluster map")
        micro = {str(number) for number in range(len(read.cluster))}
        if unknown := read.why.keys() - micro:
            raise InvalidDataError(
                f"this is not a valid cluster map: why names {short(min(unknown))}, which is none "
                f"of its {len(micro)} micro-clusters"
            )
        return cls(
            centroids=centroids,
            cluster=np.array(read.cluster, np.int32),
            why={int(micro): why for micro, why in read.why.items()},
        )
