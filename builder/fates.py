"""Fates: which cluster each document goes to, or why it goes to none.

A byte a document is held in memory; all else lies in the units and is read one unit at a time.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.order import key

from .clustermap import ClusterMap
from .duplicates import Seen, find_repeated
from .merge import merge_clusters
from .prune import poor_documents, prune_clusters
from .settings import SCORES, BuildSettings
from .unit import Unit

HELD_OUT = "held out"
_NOTHING = Seen(0, lambda _: ())


@dataclass(slots=True)
class Fates:
    """What becomes of each document of the units."""

    units: Sequence[Unit]
    why: list[NDArray[np.uint8]]
    """Why each document of each unit is dropped, a place in `reasons`; 0: it stays."""
    reasons: list[str] = field(default_factory=lambda: [""])
    stages: list[dict[str, Any]] = field(default_factory=list)
    """Documents and bytes that came into each stage, went out, and were dropped by reason."""

    @classmethod
    def of(cls, units: Sequence[Unit]) -> Self:
        """Begin with all documents of ``units``."""
        return cls(units, [np.zeros(len(unit), np.uint8) for unit in units])

    def stays(self, number: int) -> NDArray[np.bool_]:
        """Which documents of unit ``number`` have not been dropped, ``[n]``."""
        return np.asarray(self.why[number] == 0, np.bool_)

    def drop(self, stage: str, find: Callable[[int, Unit], NDArray[np.str_]]) -> None:
        """Drop documents; ``find(number, unit)`` gives a reason for each, "" for none, ``[n]``."""
        before: Counter[str] = Counter()
        dropped: dict[str, Counter[str]] = {}
        for number, unit in enumerate(self.units):
            stays, sizes, reasons = self.stays(number), unit.read("sizes"), find(number, unit)
            before += _size(sizes, stays)
            for reason in map(str, np.unique(reasons[stays])):
                if reason:
                    now = stays & (reasons == reason)
                    self.why[number][now] = self._code(reason)
                    dropped.setdefault(reason, Counter()).update(_size(sizes, now))
        lost = sum(dropped.values(), Counter[str]())
        self.stages.append(
            {
                "stage": stage,
                "in": {unit: before[unit] for unit in ("documents", "bytes")},
                "out": {unit: before[unit] - lost[unit] for unit in ("documents", "bytes")},
                "dropped": {reason: dict(dropped[reason]) for reason in sorted(dropped)},
            }
        )

    def _code(self, reason: str) -> int:
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason)


def decide(
    units: Sequence[Unit], centroids: NDArray[np.float32], settings: BuildSettings
) -> tuple[ClusterMap, Fates]:
    """Deduplicate, prune, hold out and merge.

    Writes ``clusters`` int32 ``[n]`` to each unit: the cluster of a document, below 0 if dropped.

    Raises:
        InvalidDataError: Nothing is left, or the clusters collapse.
    """
    fates = Fates.of(units)
    _drop_copies(fates, settings, _NOTHING)
    counts, sums = _totals(fates, len(centroids))
    # A micro-cluster without documents has no mean, and nothing to prune.
    means = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.inf)
    clusters = prune_clusters(ClusterMap.of(centroids), means, settings.min_cluster_score)
    _drop_poor(fates, settings, clusters)
    counts, _ = _totals(fates, len(centroids))
    clusters = merge_clusters(clusters, counts, settings.clusters)
    _write_clusters(fates, clusters)
    return clusters, fates


def assign(
    units: Sequence[Unit], clusters: ClusterMap, settings: BuildSettings, seen: Seen
) -> Fates:
    """Do as `decide` with documents that are appended: ``clusters`` are decided already."""
    fates = Fates.of(units)
    _drop_copies(fates, settings, seen)
    _drop_poor(fates, settings, clusters)
    _write_clusters(fates, clusters)
    return fates


def _drop_copies(fates: Fates, settings: BuildSettings, seen: Seen) -> None:
    _drop_repeated(fates, "identify", "id_hashes", "identifier seen before", seen)
    if not settings.keep_duplicates:
        # Among what is left: a copy of what was dropped is none.
        _drop_repeated(fates, "deduplicate", "text_hashes", "text seen before", seen)


def _drop_poor(fates: Fates, settings: BuildSettings, clusters: ClusterMap) -> None:
    pruned = clusters.cluster < 0
    fates.drop("prune clusters", lambda _, u: _where(pruned[u.read("micro")], "pruned cluster"))
    fates.drop(
        "prune documents",
        lambda _, unit: poor_documents(unit.read("scores"), settings.min_document_score),
    )
    if settings.holdout:
        fates.drop(HELD_OUT, lambda _, unit: _where(_held_out(unit, settings), HELD_OUT))


def _write_clusters(fates: Fates, clusters: ClusterMap) -> None:
    for number, unit in enumerate(fates.units):
        cluster = np.where(fates.stays(number), clusters.cluster[unit.read("micro")], -1)
        unit.write("clusters", cluster.astype(np.int32))


def _drop_repeated(fates: Fates, stage: str, hashes: str, reason: str, seen: Seen) -> None:
    """Drop each document with ``hashes`` that one before it has, of those that are left."""
    kept = [fates.stays(number) for number in range(len(fates.units))]
    parts = (unit.read(hashes)[stays] for unit, stays in zip(fates.units, kept, strict=True))
    ends = np.cumsum([stays.sum() for stays in kept])
    found = find_repeated(chain(seen.read(hashes), parts), int(ends[-1]), seen.total)
    again = np.split(found, ends[:-1])

    def find(number: int, unit: Unit) -> NDArray[np.str_]:
        mask = np.zeros(len(unit), np.bool_)
        mask[kept[number]] = again[number]
        return _where(mask, reason)

    fates.drop(stage, find)


def _totals(fates: Fates, count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Documents of each micro-cluster that are left, ``[M]``, and their sums of scores, [M, 4]."""
    documents = np.zeros(count, np.int64)
    sums = np.zeros((count, len(SCORES)))
    for number, unit in enumerate(fates.units):
        stays = fates.stays(number)
        micro = unit.read("micro")[stays]
        documents += np.bincount(micro, minlength=count)
        for column, scores in enumerate(unit.read("scores")[stays].T):
            sums[:, column] += np.bincount(micro, scores, count)
    return documents, sums


def _held_out(unit: Unit, settings: BuildSettings) -> NDArray[np.bool_]:
    # By text, so that copies share their fate.
    drawn = unit.read("text_hashes")[:, 0] ^ np.uint64(key(settings.seed, HELD_OUT))
    return np.asarray(drawn < settings.holdout * 2.0**64, np.bool_)


def _where(mask: NDArray[np.bool_], reason: str) -> NDArray[np.str_]:
    return np.where(mask, reason, "")


def _size(sizes: NDArray[np.int64], mask: NDArray[np.bool_]) -> Counter[str]:
    return Counter({"documents": int(mask.sum()), "bytes": int(sizes[mask].sum())})
