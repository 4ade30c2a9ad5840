"""Cells: each topic, a cluster after merging, cut by language and by tiers of quality.

A cell is stored as a cluster is. Which languages there are, and the scores between tiers, are
worked out once, of the documents that stay, and kept in ``clusters.json``: an append goes by them.
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
"""Stands for the languages that have no cells of their own."""
_LEAST = 0.01
"""Part of the documents from which a language has cells of its own, unless it was asked for."""
_HIGHEST = 60_000.0
"""Scores are compared as float16, which tells thousandths of a point apart, up to this."""

Group = tuple[int, str]
"""Topic and language."""
Histogram = tuple[NDArray[np.float16], NDArray[np.int64]]
"""Scores, sorted, and how many documents have each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellGroup:
    """The cells of one topic in one language."""

    topic: Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
    language: str
    """Empty: languages are not told apart."""
    borders: tuple[Finite, ...]
    """Least score of each tier but the lowest."""
    tiers: tuple[Annotated[int, Meta(ge=0, le=1000)], ...]
    """Tiers that hold documents: those have cells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """The cells of a build, numbered by topic, language and tier."""

    score: str
    """What tiers go by: a score, or ``mean`` of all."""
    tiers: int
    groups: tuple[CellGroup, ...]
    """By topic; those of a topic by language, the most frequent in the corpus first."""

    version = 1

    def __post_init__(self) -> None:
        for group in self.groups:
            ordered = [*group.borders] == sorted(group.borders)
            rising = group.tiers and [*group.tiers] == sorted({*group.tiers})
            fits = rising and max(group.tiers) < self.tiers == len(group.borders) + 1
            if not (ordered and fits):
                raise InvalidDataError(
                    f"these are no cells: topic {group.topic} has tiers {group.tiers} of "
                    f"{self.tiers}, with borders {group.borders}"
                )

    @classmethod
    def fit(cls, histograms: Mapping[Group, Histogram], settings: BuildSettings) -> Self:
        """Cut topics into cells, by the scores of the documents of each topic and language.

        Documents of one score are of one tier. So tiers are of equal size as far as scores differ,
        and a tier that holds no document has no cell.
        """
        tiers = settings.tiers or 1
        languages = _languages(histograms, settings)
        ranks = {group: _rank(group, languages, histograms) for group in histograms}
        parts: dict[tuple[int, int], list[Histogram]] = {}
        for group, histogram in histograms.items():
            parts.setdefault((group[0], ranks[group]), []).append(histogram)
        groups = []
        for (topic, rank), some in sorted(parts.items(), key=lambda item: item[0]):
            scores, counts = _joined(some)
            borders = _borders(scores, counts, tiers)
            groups.append(
                CellGroup(
                    topic=topic,
                    language=languages[rank] if languages else "",
                    borders=tuple(borders.astype(np.float64).tolist()),
                    tiers=tuple(np.unique(np.searchsorted(borders, scores, "right")).tolist()),
                )
            )
        return cls(score=settings.tier_score, tiers=tiers, groups=tuple(groups))

    @property
    def axes(self) -> list[dict[str, str]]:
        """What each cell is by topic, language if there are several, and tier."""
        topics = topic_names(self.groups[-1].topic + 1)
        digits = len(str(self.tiers - 1))
        return [
            {
                "topic": topics[group.topic],
                **({"language": group.language} if group.language else {}),
                "tier": f"t{tier:0{digits}d}",
            }
            for group in self.groups
            for tier in group.tiers
        ]

    @property
    def names(self) -> list[str]:
        """Name of each cell: what it is by each axis."""
        return ["-".join(axes.values()) for axes in self.axes]

    @property
    def topics(self) -> NDArray[np.int64]:
        """Topic of each cell, ``[K]``."""
        return np.array([group.topic for group in self.groups for _ in group.tiers], np.int64)

    def place(
        self, topics: NDArray[np.int32], languages: NDArray[np.str_], scores: NDArray[np.float16]
    ) -> NDArray[np.int32]:
        """Return the cell of each document, ``[n]``, by its topic, language and score.

        A document of a tier without a cell goes to the nearest that has one, the lower of two; of a
        language without cells in a topic, to its `OTHER`, else to its most frequent language.
        """
        first = np.cumsum([0, *(len(group.tiers) for group in self.groups)])
        cells = np.empty(len(topics), np.int32)
        for topic, language in {*zip(topics.tolist(), languages.tolist(), strict=True)}:
            rows = np.flatnonzero((topics == topic) & (languages == language))
            number = self._group(topic, language)
            group = self.groups[number]
            tier = np.searchsorted(np.array(group.borders, np.float16), scores[rows], "right")
            apart = np.abs(np.array(group.tiers) - tier[:, None])
            cells[rows] = first[number] + np.argmin(apart, axis=1)
        return cells

    def _group(self, topic: int, language: str) -> int:
        """Return the number of the group that holds documents of a topic and language."""
        mine = {g.language: number for number, g in enumerate(self.groups) if g.topic == topic}
        return mine.get(language, mine.get(OTHER, min(mine.values())))

    def to_json(self) -> dict[str, Any]:
        """Return the cells as JSON values."""
        return {"version": self.version, **asdict(self)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what `to_json` gave.

        Raises:
            InvalidDataError: These are no cells.
        """
        return convert(check_version(value, cls.version, "list of cells"), cls, "list of cells")


def _rank(group: Group, languages: Sequence[str], groups: Iterable[Group]) -> int:
    """Return the place in ``languages`` of the one whose cells hold a group; 0 without languages.

    Where rare languages have no `OTHER`, it is the most frequent language of the topic.
    """
    for name in (group[1], OTHER):
        if name in languages:
            return languages.index(name)
    there = {language for topic, language in groups if topic == group[0]}
    return next((rank for rank, name in enumerate(languages) if name in there), 0)


def _languages(histograms: Mapping[Group, Histogram], settings: BuildSettings) -> list[str]:
    """Return the languages with cells of their own, the most frequent first, and `OTHER`.

    Those are the languages that were asked for, or those with `_LEAST` of the documents. The rest
    are `OTHER` if they are as many together, and if they are fewer go with the language that is the
    most frequent in their topic. None: there is one language, so they are not told apart.
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
    """Return the least score of each of ``tiers`` but the lowest, ``[tiers - 1]``."""
    below = np.cumsum(counts)
    wanted = np.arange(1, tiers) * below[-1] // tiers
    return np.asarray(scores[np.searchsorted(below, wanted, "right")], np.float16)


@dataclass(frozen=True, slots=True)
class CellTask:
    """Look at the scores of ``partition``, and put its documents into cells if there are some."""

    partition: Partition
    clusters: ClusterMap
    score: str
    cells: Cells | None = None


def fit_cells(
    engine: Engine, partitions: Sequence[Partition], clusters: ClusterMap, settings: BuildSettings
) -> Cells:
    """Fit the cells of a build on the documents that stay."""
    parts: dict[Group, list[Histogram]] = {}
    tasks = (CellTask(partition, clusters, settings.tier_score) for partition in partitions)
    for _, histograms in engine.run(count_scores, tasks):
        for group, histogram in histograms.items():
            # Joined at once, so that memory does not grow with the corpus.
            parts[group] = [_joined([*parts.get(group, []), histogram])]
    return Cells.fit({group: histogram for group, (histogram,) in parts.items()}, settings)


def count_scores(task: CellTask) -> dict[Group, Histogram]:
    """Count the scores of the documents of a partition that stay, by topic and language."""
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
    """Write ``cells`` int32 ``[n]`` to each partition: the cell of each document, if it stays.

    ``clusters`` becomes the cell of a document too, and stays below 0 for one that is dropped.
    """
    tasks = (CellTask(partition, clusters, cells.score, cells) for partition in partitions)
    run_stage(engine, "put into cells", "documents", place_documents, tasks)


def place_documents(task: CellTask) -> int:
    """Do `place_in_cells` with one partition; return its documents."""
    assert task.cells is not None
    partition = task.partition
    placed = task.cells.place(*_facts(task))
    partition.write("cells", placed)
    partition.write("clusters", np.where(partition.read("clusters") >= 0, placed, np.int32(-1)))
    return len(placed)


def unit_of(partition: Partition, clusters: ClusterMap) -> NDArray[np.int32]:
    """Return the cell or, without cells, the cluster that each document is of, or would be."""
    if partition.has("cells"):
        return np.asarray(partition.read("cells"), np.int32)
    return np.asarray(clusters.home[partition.read("micro")], np.int32)


def _facts(task: CellTask) -> tuple[NDArray[np.int32], NDArray[np.str_], NDArray[np.float16]]:
    """Return topic, language and score of each document of a partition, all ``[n]``."""
    partition, scores = task.partition, task.partition.read("scores")
    score = scores[:, SCORES.index(task.score)] if task.score in SCORES else scores.mean(axis=1)
    score = np.clip(score, -_HIGHEST, _HIGHEST).astype(np.float16)
    topics = np.asarray(task.clusters.home[partition.read("micro")], np.int32)
    return topics, np.asarray(partition.read("languages")[:, 0], np.str_), score
