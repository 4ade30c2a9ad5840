"""Selection: which cluster each document goes to, or why it goes to none.

A few bytes a document are held in memory; all else lies in the partitions and is read one by one.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.clustering.cluster_map import ClusterMap
from climbstream.builder.clustering.ward import Micros, merge_clusters
from climbstream.builder.corpus.partition import ArrayName, Partition
from climbstream.builder.corpus.sample import in_languages
from climbstream.builder.corpus.text_hashes import hash_texts
from climbstream.builder.settings import CONTAMINATED, EVERY, SCORES, BuildSettings
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.permutation import derive_key

from .dedup import Seen, find_repeated, near_originals
from .few import is_of_few, languages_of_few
from .language_groups import good_groups, is_in

logger = get_logger(__name__)

HELD_OUT = "held out"
REPEATED = ("identifier seen before", "text seen before")
_NOTHING = Seen(0, lambda _: ())


@dataclass(slots=True)
class Selection:
    """What becomes of each document of the partitions."""

    partitions: Sequence[Partition]
    why: list[NDArray[np.uint8]]
    """Why each document of each partition is dropped, a place in `reasons`; 0: it stays."""
    spared: list[NDArray[np.bool_]] = field(default_factory=list)
    """Documents of each partition that are not dropped after `identify`; none if empty."""
    reasons: list[str] = field(default_factory=lambda: [""])
    stages: list[dict[str, Any]] = field(default_factory=list)
    """Documents and bytes that came into each stage, went out, and were dropped by reason."""

    @classmethod
    def of(cls, partitions: Sequence[Partition]) -> Self:
        """Begin with all documents of ``partitions``."""
        return cls(partitions, [np.zeros(len(partition), np.uint8) for partition in partitions])

    def stays(self, number: int) -> NDArray[np.bool_]:
        """Which documents of partition ``number`` have not been dropped, ``[n]``."""
        return np.asarray(self.why[number] == 0, np.bool_)

    def drop(self, stage: str, find: Callable[[int, Partition], NDArray[np.str_]]) -> None:
        """Drop documents for the reasons, ``[n]``, of ``find(number, partition)``; "" is none."""
        before: Counter[str] = Counter()
        dropped: dict[str, Counter[str]] = {}
        examples: dict[str, str] = {}
        for number, partition in enumerate(self.partitions):
            stays, sizes, reasons = (
                self.stays(number),
                partition.read("sizes"),
                find(number, partition),
            )
            if self.spared:
                reasons = np.where(self.spared[number], "", reasons)
            before += _size(sizes, stays)
            for reason in map(str, np.unique(reasons[stays])):
                if reason:
                    now = stays & (reasons == reason)
                    self.why[number][now] = self._code(reason)
                    dropped.setdefault(reason, Counter()).update(_size(sizes, now))
                    if reason not in examples:
                        examples[reason] = _name(partition, int(np.flatnonzero(now)[0]))
        lost = sum(dropped.values(), Counter[str]())
        self.stages.append(
            {
                "stage": stage,
                "in": {measure: before[measure] for measure in ("documents", "bytes")},
                "out": {
                    measure: before[measure] - lost[measure] for measure in ("documents", "bytes")
                },
                "dropped": {reason: dict(dropped[reason]) for reason in sorted(dropped)},
                **({"examples": dict(sorted(examples.items()))} if examples else {}),
            }
        )

    def _code(self, reason: str) -> int:
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason)


def identify(
    partitions: Sequence[Partition], settings: BuildSettings, seen: Seen = _NOTHING
) -> Selection:
    """Begin with all documents but those whose identifier stood before, where it may do so once."""
    selection = Selection.of(partitions)
    if settings.ids == "none":
        selection.drop(
            "identify", lambda _, partition: _where(np.zeros(len(partition), np.bool_), "")
        )
    else:
        apart = settings.ids == "source"
        before = _NOTHING if apart else seen
        _drop_repeated(selection, "identify", "id_hashes", REPEATED[0], before, apart=apart)
    if settings.keep_ids:
        selection.spared = [
            np.isin(partition.column("id"), settings.keep_ids) for partition in partitions
        ]
    if settings.languages != EVERY:
        selection.drop(
            "languages",
            lambda _, partition: _where(
                ~in_languages(partition, settings), "language not asked for"
            ),
        )
    return selection


def select_documents(
    selection: Selection, centroids: NDArray[np.float32], settings: BuildSettings
) -> tuple[ClusterMap, Selection]:
    """Deduplicate, prune, hold out and merge what `identify` gave.

    Writes ``clusters`` int32 ``[n]`` to each partition, the cluster of a document, below 0 if
    dropped; and ``original`` int64 ``[n]``, the place in the catalogue of the document that it
    nearly repeats, or -1.

    Raises:
        InvalidDataError: Nothing is left, or the clusters collapse.
    """
    _decontaminate(selection, settings)
    _drop_copies(selection, settings, _NOTHING)
    clusters = ClusterMap.of(centroids)
    if not settings.no_prune:
        few = _tell_few(selection)
        _, means = _means(selection, "scores", len(centroids), few)
        clusters = prune_clusters(clusters, means, settings.min_cluster_score)
    _drop_poor(selection, settings, clusters)
    clusters = merge_clusters(clusters, micros_of(selection, len(centroids)), settings)
    _write_clusters(selection, clusters)
    return clusters, selection


def select_appended(
    selection: Selection, clusters: ClusterMap, settings: BuildSettings, seen: Seen
) -> Selection:
    """Do as `select_documents` with appended documents: ``clusters`` are decided already."""
    _decontaminate(selection, settings)
    _drop_copies(selection, settings, seen)
    _drop_poor(selection, settings, clusters)
    _write_clusters(selection, clusters)
    return selection


def _decontaminate(selection: Selection, settings: BuildSettings) -> None:
    """Drop documents that hold an item of a task, or count those that are marked."""
    if not settings.decontaminate:
        return
    masks = [partition.read(CONTAMINATED) != "" for partition in selection.partitions]
    if not settings.mark_contaminated:
        selection.drop("decontaminate", lambda number, _: _where(masks[number], CONTAMINATED))
        return
    selection.drop("decontaminate", lambda number, _: _where(masks[number] & False, ""))
    marked: Counter[str] = Counter()
    for number, partition in enumerate(selection.partitions):
        marked += _size(partition.read("sizes"), masks[number] & selection.stays(number))
    selection.stages[-1]["marked"] = {what: marked[what] for what in ("documents", "bytes")}
    logger.info(
        f"  {marked['documents']:,} documents hold a test question; they stay, and are marked"
    )


def _drop_copies(selection: Selection, settings: BuildSettings, seen: Seen) -> None:
    if not settings.keep_duplicates:
        # Among what is left: a copy of what was dropped is none.
        _drop_repeated(selection, "deduplicate", "text_hashes", REPEATED[1], seen)
    if settings.near_duplicates is not None:
        _find_near(selection, settings.near_duplicates, seen)
        if not settings.keep_duplicates:
            selection.drop(
                "deduplicate nearly",
                lambda _, partition: _where(
                    partition.read("original") >= 0, "nearly the same as another"
                ),
            )


def _drop_poor(selection: Selection, settings: BuildSettings, clusters: ClusterMap) -> None:
    pruned = clusters.cluster < 0
    few = {} if settings.no_prune else languages_of_few(selection.partitions, _staying(selection))
    least = {} if settings.no_prune else settings.min_document_score
    good = good_groups(
        selection.partitions, _staying(selection), pruned, settings.min_cluster_score
    )

    def find_pruned(_: int, partition: Partition) -> NDArray[np.str_]:
        stays = is_of_few(partition, few) | is_in(partition, good)
        return _where(pruned[partition.read("micro")] & ~stays, "pruned cluster")

    def find_poor(_: int, partition: Partition) -> NDArray[np.str_]:
        return np.where(
            is_of_few(partition, few), "", poor_documents(partition.read("scores"), least)
        )

    selection.drop("prune clusters", find_pruned)
    selection.drop("prune documents", find_poor)
    if settings.holdout:
        selection.drop(
            HELD_OUT, lambda _, partition: _where(_held_out(partition, settings), HELD_OUT)
        )


def _staying(selection: Selection) -> list[NDArray[np.bool_]]:
    return [selection.stays(number) for number in range(len(selection.partitions))]


def _tell_few(selection: Selection) -> dict[tuple[str, str], int]:
    """Find the languages of too few documents to judge, and say that they are not pruned."""
    few = languages_of_few(selection.partitions, _staying(selection))
    if few:
        names = ", ".join(
            f"{n:,} in {language} ({script})" for (language, script), n in few.items()
        )
        logger.info(f"  too few documents to judge, so none of them is pruned: {names}")
    return few


def _write_clusters(selection: Selection, clusters: ClusterMap) -> None:
    # What is spared in a micro-cluster that is pruned goes where the most similar one goes.
    kept = clusters.kept
    nearest = kept[np.argmax(clusters.centroids @ clusters.centroids[kept].T, axis=1)]
    home = np.where(clusters.cluster < 0, clusters.cluster[nearest], clusters.cluster)
    for number, partition in enumerate(selection.partitions):
        cluster = np.where(selection.stays(number), home[partition.read("micro")], -1)
        partition.write("clusters", cluster.astype(np.int32))


def _drop_repeated(
    selection: Selection,
    stage: str,
    hashes: ArrayName,
    reason: str,
    seen: Seen,
    *,
    apart: bool = False,
) -> None:
    """Drop each document with ``hashes`` that one before it has, of those that are left.

    With ``apart``, one before it in the same source.
    """
    kept = [selection.stays(number) for number in range(len(selection.partitions))]
    parts = (
        # Mixed with the source, equal hashes are of one source.
        partition.read(hashes)[stays] ^ (hash_texts([partition.source]) if apart else np.uint64(0))
        for partition, stays in zip(selection.partitions, kept, strict=True)
    )
    ends = np.cumsum([stays.sum() for stays in kept])
    found = find_repeated(chain(seen.read(hashes), parts), int(ends[-1]), seen.total)
    again = np.split(found, ends[:-1])

    def find(number: int, partition: Partition) -> NDArray[np.str_]:
        mask = np.zeros(len(partition), np.bool_)
        mask[kept[number]] = again[number]
        return _where(mask, reason)

    selection.drop(stage, find)


def _find_near(selection: Selection, least: float, seen: Seen) -> None:
    """Write ``original`` int64 ``[n]`` to each partition: the number of what is copied, or -1.

    Documents that were there before are numbered first, and stay.
    """
    # The best of each group stays. Scores that differ by a little decide nothing, length does.
    worth = [
        np.round(4 * (scores[:, 0] + scores[:, 3])) + sizes / (sizes + 4096)
        for partition in selection.partitions
        for scores, sizes in [(partition.read("scores"), partition.read("sizes"))]
    ]
    stays = np.concatenate([selection.stays(number) for number in range(len(selection.partitions))])
    original = near_originals(
        [*seen.near, *selection.partitions],
        np.append(np.ones(seen.total, np.bool_), stays),
        np.concatenate([np.full(seen.total, np.inf), *worth]).astype(np.float32),
        least,
    )[seen.total :]
    ends = np.cumsum([len(partition) for partition in selection.partitions])
    for partition, part in zip(selection.partitions, np.split(original, ends[:-1]), strict=True):
        partition.write("original", part)


def micros_of(selection: Selection, count: int) -> Micros:
    """Say what is left of each of ``count`` micro-clusters."""
    documents, tightness = _means(selection, "alike", count)
    return Micros(documents=documents, tightness=tightness[:, 0])


def _means(
    selection: Selection,
    name: ArrayName,
    count: int,
    few: dict[tuple[str, str], int] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Documents of each micro-cluster that are left, ``[M]``, and means of an array, ``[M, k]``.

    Languages of ``few`` do not count.
    A micro-cluster without documents has no mean, and nothing to prune: infinity.
    """
    documents = np.zeros(count, np.int64)
    sums = np.zeros((count, 1))
    for number, partition in enumerate(selection.partitions):
        stays = selection.stays(number) & ~is_of_few(partition, few or {})
        micro = partition.read("micro")[stays]
        documents += np.bincount(micro, minlength=count)
        columns = np.atleast_2d(partition.read(name)[stays].T)
        found = np.stack([np.bincount(micro, column, count) for column in columns], axis=1)
        sums = sums + found
    means = np.where(documents[:, None] > 0, sums / np.maximum(documents, 1)[:, None], np.inf)
    return documents, means


def _held_out(partition: Partition, settings: BuildSettings) -> NDArray[np.bool_]:
    # By text, so that copies share their outcome.
    drawn = partition.read("text_hashes")[:, 0] ^ np.uint64(derive_key(settings.seed, HELD_OUT))
    return np.asarray(drawn < settings.holdout * 2.0**64, np.bool_)


def _name(partition: Partition, row: int) -> str:
    """Say which document it is: its identifier, and where it stands."""
    document = partition.columns("id", "origin").slice(row, 1).to_pylist()[0]
    name, origin = document["id"], document["origin"]
    return origin if name == origin else f"{name}, {origin}"


def _where(mask: NDArray[np.bool_], reason: str) -> NDArray[np.str_]:
    return np.where(mask, reason, "")


def _size(sizes: NDArray[np.int64], mask: NDArray[np.bool_]) -> Counter[str]:
    return Counter({"documents": int(mask.sum()), "bytes": int(sizes[mask].sum())})


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
