"""Cells: parts of a topic, by language and by tier of quality.

A topic is a cluster after merging. By default, each topic is cut into cells. With ``--cells
micro``, each micro-cluster is cut into cells instead. A tier is a range of scores.

A cell is stored like a cluster. A build decides from the documents that it keeps which languages
get cells of their own, and which scores separate the tiers. Both are stored in ``clusters.json``,
and an append uses them unchanged.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Self

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.settings import EVERY, SCORES, BuildSettings
from climbstream.loader.core.engines.engine import Engine, run_stage
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.typed import Finite, check_version, convert

from .cluster_map import ClusterMap, topic_names

OTHER = "other"
"""Name for all languages without cells of their own."""
_LEAST = 0.01
"""A language has cells of its own if at least this fraction of the documents is in it. The
languages that the settings name always have cells of their own."""
_HIGHEST = 60_000.0
"""Largest absolute score; larger scores are clipped. Scores are compared as float16, whose largest
number is 65,504."""

Group = tuple[int, str]
"""Documents that are cut into tiers together: number of their topic or micro-cluster, and their
language code."""
Histogram = tuple[NDArray[np.float16], NDArray[np.int64]]
"""The different scores, sorted, and the number of documents with each score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellGroup:
    """The cells of one topic, or of one micro-cluster, in one language."""

    topic: Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
    language: str
    """The language; "" if cells are not cut by language."""
    borders: tuple[Finite, ...]
    """Least score of each tier except the lowest tier."""
    tiers: tuple[Annotated[int, Meta(ge=0, le=1000)], ...]
    """Numbers of the tiers that have documents; 0 is the tier of the lowest scores. Only these
    tiers have cells."""
    micro: Annotated[int, Meta(ge=0, le=(1 << 31) - 1)] | None = None
    """Number of the micro-cluster; None if the cells are parts of a whole topic."""

    @property
    def unit(self) -> int:
        """Number of the topic or micro-cluster that is cut into these cells."""
        return self.topic if self.micro is None else self.micro


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """The cells of a build, numbered by topic, language and tier."""

    score: str
    """The score that decides the tier of a document, or ``mean`` for the mean of all scores."""
    tiers: int
    groups: tuple[CellGroup, ...]
    """Groups, sorted by topic and then by language, the most frequent language of the corpus
    first."""

    version = 1

    def __post_init__(self) -> None:
        for group in self.groups:
            ordered = [*group.borders] == sorted(group.borders)
            rising = group.tiers and [*group.tiers] == sorted({*group.tiers})
            fits = rising and max(group.tiers) < self.tiers == len(group.borders) + 1
            if not (ordered and fits):
                raise InvalidDataError(
                    f"these are not valid cells: topic {group.topic} has tiers {group.tiers} of "
                    f"{self.tiers}, with borders {group.borders}"
                )

    @classmethod
    def fit(
        cls,
        histograms: Mapping[Group, Histogram],
        settings: BuildSettings,
        home: NDArray[np.int32] | None = None,
    ) -> Self:
        """Return the cells: each topic is cut by language, and then into tiers by score.

        If ``home`` (the topic of each micro-cluster) is given, micro-clusters are cut instead of
        topics.

        Tiers have about the same number of documents. But documents with equal scores are always in
        the same tier. So if many scores are equal, the sizes of tiers differ, and a tier may have
        no documents. A tier without documents has no cell.
        """
        tiers = settings.tiers or 1
        languages = _languages(histograms, settings)
        ranks = {group: _rank(group, languages, histograms) for group in histograms}
        parts: dict[tuple[int, int], list[Histogram]] = {}
        for group, histogram in histograms.items():
            parts.setdefault((group[0], ranks[group]), []).append(histogram)
        groups = []
        topics = {unit: unit if home is None else int(home[unit]) for unit, _ in parts}
        for (unit, rank), some in sorted(parts.items(), key=lambda it: (topics[it[0][0]], it[0])):
            scores, counts = _joined(some)
            borders = _borders(scores, counts, tiers)
            groups.append(
                CellGroup(
                    topic=topics[unit],
                    micro=None if home is None else unit,
                    language=languages[rank] if languages else "",
                    borders=tuple(borders.astype(np.float64).tolist()),
                    tiers=tuple(np.unique(np.searchsorted(borders, scores, "right")).tolist()),
                )
            )
        return cls(score=settings.tier_score, tiers=tiers, groups=tuple(groups))

    @property
    def axes(self) -> list[dict[str, str]]:
        """Return, for each cell, the names of its topic, micro-cluster, language and tier.

        A cell of a whole topic has no micro-cluster. If cells are not cut by language, no cell has
        a language. If there is only one tier, a cell of a micro-cluster has no tier.
        """
        topics = topic_names(self.groups[-1].topic + 1)
        digits = len(str(self.tiers - 1))
        width = max(2, len(str(max(group.unit for group in self.groups))))
        return [
            {
                "topic": topics[group.topic],
                **({"micro": f"m{group.micro:0{width}d}"} if group.micro is not None else {}),
                **({"language": group.language} if group.language else {}),
                **({"tier": f"t{tier:0{digits}d}"} if self.tiers > 1 or not self.by_micro else {}),
            }
            for group in self.groups
            for tier in group.tiers
        ]

    @property
    def names(self) -> list[str]:
        """Return the name of each cell, which joins the names of its topic, language and so on."""
        return ["-".join(axes.values()) for axes in self.axes]

    @property
    def topics(self) -> NDArray[np.int64]:
        """Return the topic of each cell, ``[K]``."""
        return np.array([group.topic for group in self.groups for _ in group.tiers], np.int64)

    @property
    def by_micro(self) -> bool:
        """Whether each cell is a part of one micro-cluster."""
        return self.groups[0].micro is not None

    @property
    def micro(self) -> list[int | None]:
        """Return the micro-cluster of each cell; None if the cell is a part of a whole topic."""
        return [group.micro for group in self.groups for _ in group.tiers]

    def place(
        self, units: NDArray[np.int32], languages: NDArray[np.str_], scores: NDArray[np.float16]
    ) -> NDArray[np.int32]:
        """Return the cell of each document, ``[n]``, by its topic, language and score.

        ``units`` are micro-clusters if cells are parts of micro-clusters; else they are topics. Two
        rules apply if there is no cell for a document:

        - If the document's tier has no cell, the document goes to the nearest tier with a cell. If
          two tiers are equally near, the document goes to the lower one.
        - If the document's language has no cells in the topic, the document goes to the cells of
          `OTHER`. If the topic has no cells of `OTHER`, the document goes to the cells of another
          language in the topic: the one that is most frequent in the corpus.
        """
        first = np.cumsum([0, *(len(group.tiers) for group in self.groups)])
        numbers: dict[int, dict[str, int]] = {}
        for number, group in enumerate(self.groups):
            numbers.setdefault(group.unit, {})[group.language] = number
        cells = np.empty(len(units), np.int32)
        for unit, language in {*zip(units.tolist(), languages.tolist(), strict=True)}:
            rows = np.flatnonzero((units == unit) & (languages == language))
            own = numbers[unit]
            number = own.get(language, own.get(OTHER, min(own.values())))
            group = self.groups[number]
            tier = np.searchsorted(np.array(group.borders, np.float16), scores[rows], "right")
            apart = np.abs(np.array(group.tiers) - tier[:, None])
            cells[rows] = first[number] + np.argmin(apart, axis=1)
        return cells

    def to_json(self) -> dict[str, Any]:
        """Return the cells as JSON values."""
        value = {"version": self.version, **asdict(self)}
        if not self.by_micro:
            for group in value["groups"]:
                del group["micro"]
        return value

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the cells from ``value``, which `to_json` returned.

        Raises:
            InvalidDataError: ``value`` does not describe cells.
        """
        return convert(check_version(value, cls.version, "list of cells"), cls, "list of cells")


def _rank(group: Group, languages: Sequence[str], groups: Iterable[Group]) -> int:
    """Return the index, in ``languages``, of the language whose cells ``group`` gets.

    If cells are not cut by language, the index is 0. A rare language gets the cells of `OTHER`. If
    there is no `OTHER`, a rare language gets the cells of the most frequent language of its topic.
    """
    for name in (group[1], OTHER):
        if name in languages:
            return languages.index(name)
    there = {language for topic, language in groups if topic == group[0]}
    return next((rank for rank, name in enumerate(languages) if name in there), 0)


def _languages(histograms: Mapping[Group, Histogram], settings: BuildSettings) -> list[str]:
    """Return the languages with cells of their own, the most frequent first, and `OTHER`.

    If the settings name languages, these have cells of their own. If not, each language with at
    least the fraction `_LEAST` of the documents has cells of its own. `OTHER` stands for all other
    languages. `OTHER` is in the list only if these languages together have at least the fraction
    `_LEAST` of the documents. If there is only one language, the list is empty, and cells are not
    cut by language.
    """
    documents: Counter[str] = Counter()
    for (_, language), (_, counts) in histograms.items():
        documents[language] += int(counts.sum())
    least = _LEAST * documents.total()
    asked = set(settings.languages) - {*EVERY}
    frequent = sorted(documents, key=lambda name: (-documents[name], name))
    own = [name for name in frequent if name in asked or (not asked and documents[name] >= least)]
    if documents.total() - sum(documents[name] for name in own) >= least and len(own) < len(
        frequent
    ):
        own.append(OTHER)
    return own if len(own) > 1 else []


def _joined(histograms: Sequence[Histogram]) -> Histogram:
    scores, place = np.unique(np.concatenate([s for s, _ in histograms]), return_inverse=True)
    counts = np.bincount(place, np.concatenate([n for _, n in histograms]), len(scores))
    return scores, counts.astype(np.int64)


def _borders(
    scores: NDArray[np.float16], counts: NDArray[np.int64], tiers: int
) -> NDArray[np.float16]:
    """Return the least score of each tier except the lowest tier: float16 ``[tiers - 1]``."""
    below = np.cumsum(counts)
    wanted = np.arange(1, tiers) * below[-1] // tiers
    return np.asarray(scores[np.searchsorted(below, wanted, "right")], np.float16)


@dataclass(frozen=True, slots=True)
class CellTask:
    """Input of `count_scores` and `place_documents`: a partition, the clusters and the cells."""

    partition: Partition
    clusters: ClusterMap
    score: str
    by_micro: bool
    cells: Cells | None = None


def fit_cells(
    engine: Engine, partitions: Sequence[Partition], clusters: ClusterMap, settings: BuildSettings
) -> Cells:
    """Return the cells of a build, fitted to the documents that stay."""
    parts: dict[Group, list[Histogram]] = {}
    tasks = (
        CellTask(partition, clusters, settings.tier_score, settings.by_micro)
        for partition in partitions
    )
    for _, histograms in engine.run(count_scores, tasks):
        for group, histogram in histograms.items():
            # Add each result at once, so that memory does not grow with the corpus.
            parts[group] = [_joined([*parts.get(group, []), histogram])]
    joined = {group: histogram for group, (histogram,) in parts.items()}
    return Cells.fit(joined, settings, clusters.home if settings.by_micro else None)


def count_scores(task: CellTask) -> dict[Group, Histogram]:
    """Return a histogram of the scores of a partition's kept documents, by unit and language.

    A unit is a topic or, if micro-clusters are cut, a micro-cluster.
    """
    partition = task.partition
    stays = partition.read("clusters") >= 0
    topics, languages, scores = (array[stays] for array in _facts(task))
    found = {}
    for topic, language in {*zip(topics.tolist(), languages.tolist(), strict=True)}:
        rows = (topics == topic) & (languages == language)
        found[topic, language] = np.unique(scores[rows], return_counts=True)
    return found


def place_in_cells(
    engine: Engine, partitions: Sequence[Partition], clusters: ClusterMap, cells: Cells
) -> None:
    """Write ``cells`` int32 ``[n]`` to each partition: the cell of each document.

    A dropped document gets the cell that it would be in if it stayed.

    The array ``clusters`` of each partition is also rewritten. For a document that stays, the new
    value is its cell. For a dropped document, the value remains below 0.
    """
    tasks = (
        CellTask(partition, clusters, cells.score, cells.by_micro, cells)
        for partition in partitions
    )
    run_stage(engine, "put into cells", "documents", place_documents, tasks)


def place_documents(task: CellTask) -> int:
    """Write the arrays of `place_in_cells` to one partition; return its number of documents."""
    assert task.cells is not None
    partition = task.partition
    placed = task.cells.place(*_facts(task))
    partition.write("cells", placed)
    partition.write("clusters", np.where(partition.read("clusters") >= 0, placed, np.int32(-1)))
    return len(placed)


def unit_of(partition: Partition, clusters: ClusterMap) -> NDArray[np.int32]:
    """Return the cell of each document, int32 ``[n]``; in a build without cells, its cluster.

    A dropped document gets the cell or cluster that it would be in if it stayed.
    """
    if partition.has("cells"):
        return np.asarray(partition.read("cells"), np.int32)
    return np.asarray(clusters.home[partition.read("micro")], np.int32)


def _units(task: CellTask) -> NDArray[np.int64] | NDArray[np.int32]:
    """Return, for each micro-cluster, the topic or micro-cluster that its documents are counted in.

    The result, ``[M]``, has numbers of topics if cells are parts of topics. If cells are parts of
    micro-clusters, it has numbers of micro-clusters: the micro-cluster's own number or, if it has
    no cells, that of the most similar micro-cluster with cells.
    """
    if not task.by_micro:
        return task.clusters.home
    if task.cells is None:
        return task.clusters.nearest(task.clusters.kept)
    return task.clusters.nearest(np.unique([group.unit for group in task.cells.groups]))


def _facts(task: CellTask) -> tuple[NDArray[np.int32], NDArray[np.str_], NDArray[np.float16]]:
    """Return the topic (or micro-cluster), language and score of each document, all ``[n]``."""
    partition, scores = task.partition, task.partition.read("scores")
    score = scores[:, SCORES.index(task.score)] if task.score in SCORES else scores.mean(axis=1)
    score = np.clip(score, -_HIGHEST, _HIGHEST).astype(np.float16)
    units = _units(task)[partition.read("micro")].astype(np.int32)
    return units, np.asarray(partition.read("languages")[:, 0], np.str_), score
