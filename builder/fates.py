"""Fates: which cluster each document goes to, or why it goes to none."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.order import key

from .clustermap import ClusterMap
from .duplicates import repeated
from .merge import merge_clusters
from .prune import poor_documents, prune_clusters
from .settings import BuildSettings
from .unit import Unit

HELD_OUT = "held out"


@dataclass(slots=True)
class Fates:
    """What becomes of each document, over all units in order."""

    why: NDArray[np.str_]
    """Why it is dropped, ``[n]``; empty: it stays."""
    sizes: NDArray[np.int64]
    """Its bytes, ``[n]``."""
    stages: list[dict[str, Any]] = field(default_factory=list)
    """Documents and bytes that came into each stage, went out, and were dropped by reason."""
    cluster: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """Its cluster, ``[n]``; below 0 where it is dropped, or its micro-cluster is."""

    @property
    def stays(self) -> NDArray[np.bool_]:
        """Which documents have not been dropped, ``[n]``."""
        return np.asarray(self.why == "", np.bool_)

    def drop(self, stage: str, reasons: NDArray[np.str_]) -> None:
        """Drop the documents that ``reasons``, ``[n]``, gives a reason for, unless they were."""
        before = self.stays
        now = before & (reasons != "")
        self.why[now] = reasons[now]
        dropped = {
            str(reason): _size(self.sizes, now & (reasons == reason))
            for reason in np.unique(reasons[now])
        }
        self.stages.append(
            {
                "stage": stage,
                "in": _size(self.sizes, before),
                "out": _size(self.sizes, self.stays),
                "dropped": dropped,
            }
        )


def decide(
    units: Sequence[Unit], centroids: NDArray[np.float32], settings: BuildSettings
) -> tuple[ClusterMap, Fates]:
    """Deduplicate, prune, hold out and merge; nothing that units hold is changed.

    Raises:
        InvalidDataError: Nothing is left, or the clusters collapse.
    """
    micro = _all(units, "micro")
    scores = _all(units, "scores")
    text_hashes = _all(units, "text_hashes")
    fates = Fates(np.full(len(micro), "", dtype="U32"), _all(units, "sizes"))
    fates.drop("identify", _where(repeated(_all(units, "id_hashes")), "identifier seen before"))
    if not settings.keep_duplicates:
        # Among what is left: a copy of what was dropped is none.
        again = np.zeros(len(micro), np.bool_)
        again[fates.stays] = repeated(text_hashes[fates.stays])
        fates.drop("deduplicate", _where(again, "text seen before"))

    clusters = ClusterMap.of(centroids)
    counts = np.bincount(micro[fates.stays], minlength=len(centroids))
    sums = np.stack(
        [np.bincount(micro, fates.stays * column, len(centroids)) for column in scores.T], axis=1
    )
    # A micro-cluster without documents has no mean, and nothing to prune.
    means = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.inf)
    clusters = prune_clusters(clusters, means, settings.min_cluster_score)
    fates.drop("prune clusters", _where(clusters.cluster[micro] < 0, "pruned cluster"))
    fates.drop("prune documents", poor_documents(scores, settings.min_document_score))
    if settings.holdout:
        # By text, so that copies share their fate.
        drawn = text_hashes[:, 0] ^ np.uint64(key(settings.seed, HELD_OUT))
        fates.drop(HELD_OUT, _where(drawn < settings.holdout * 2.0**64, HELD_OUT))

    counts = np.bincount(micro[fates.stays], minlength=len(centroids))
    clusters = merge_clusters(clusters, counts, settings.clusters)
    fates.cluster = clusters.cluster[micro]
    return clusters, fates


def split(array: NDArray[Any], units: Sequence[Unit]) -> list[NDArray[Any]]:
    """Cut ``array``, ``[n]`` over all documents, into the parts of the units."""
    return np.split(array, np.cumsum([len(unit) for unit in units])[:-1])


def _all(units: Sequence[Unit], name: str) -> NDArray[Any]:
    return np.concatenate([unit.read(name) for unit in units])


def _where(mask: NDArray[np.bool_], reason: str) -> NDArray[np.str_]:
    return np.where(mask, reason, "")


def _size(sizes: NDArray[np.int64], mask: NDArray[np.bool_]) -> dict[str, int]:
    return {"documents": int(mask.sum()), "bytes": int(sizes[mask].sum())}
