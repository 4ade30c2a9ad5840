"""Describe clusters: their typical words, their quality, and a few of their documents."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from climbstream.builder.clustering.cells import Cells, unit_of
from climbstream.builder.clustering.cluster_map import ClusterMap
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.passes import Batch, batches, in_order, summed
from climbstream.builder.features.words import opening
from climbstream.builder.licenses import license_line
from climbstream.builder.settings import SCORES, BuildSettings
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.permutation import derive_key
from climbstream.loader.formats.clusters import ClusterInfo, CopyCounts
from climbstream.loader.formats.licenses import license_name
from climbstream.loader.formats.manifest import ClusterEntry, Size, single_licenses

_TERMS = 8
_FEATURES = 20_000
_MARKS = "".join(
    c for c in map(chr, range(0x300, 0xFFF0)) if unicodedata.category(c) in ("Mn", "Mc")
)
"""Marks that combine with letters, such as accents. A regular expression for words must list them,
because it does not count them as letters."""
_READ = 200
"""Maximum number of documents from which the typical words of a cluster are taken."""
_READ_ALL, _READ_LEAST = 20_000, 20
"""For typical words of micro-clusters: approximate number of documents that are read for all
micro-clusters together, and minimum number for each."""
_CHARS = 4_000
"""Number of characters of a document in which typical words are counted."""
_FEWEST = 3
"""Minimum number of clusters for a warning that one has more than half of the tokens."""
SHOWN = 4
"""Number of documents of a cluster that the report shows."""
_COPY_COUNTS = ("documents", "exact", "near", "several_sources")
"""Fields of `CopyCounts`."""
_BINS = 10
"""Number of bins, of half a point each, in the histogram of a quality score."""


def describe_clusters(
    engine: Engine,
    partitions: Sequence[Partition],
    clusters: ClusterMap,
    entries: Sequence[ClusterEntry],
    cells: Cells | None = None,
) -> list[ClusterInfo]:
    """Return a description of each cluster, in the order of ``entries``.

    Tasks read the documents; this process has only sums and a few documents in memory. The typical
    words of a cell are those of its topic or, if the cell is part of a micro-cluster, those of the
    micro-cluster. The examples of a cell are documents of the cell itself.
    """
    count = len(entries)
    topics = np.arange(count) if cells is None else cells.topics
    micro: Sequence[int | None] = [None] * count if cells is None else cells.micro
    named, most = _named(topics, micro, clusters.count)
    summarize = partial(
        _summarize, clusters=clusters, named=named, most=most, shown=cells is not None
    )
    summary = summarize(Batch(0, ()))
    for part in in_order(engine, summarize, batches(partitions)):
        summary.merge(part)
    sums = summary.sums
    documents = summary.sample.read(engine, partitions)
    texts = [[document["text"] for document in group] for group in documents]
    [(_, terms)] = engine.run(name_terms, [texts])
    if summary.examples is not None:
        documents = summary.examples.read(engine, partitions)
    of_topic = [np.flatnonzero(clusters.cluster == k).tolist() for k in range(clusters.count)]
    members = [
        of_topic[topic] if own is None else [own] for topic, own in zip(topics, micro, strict=True)
    ]
    return [
        sums.describe(k, entry, terms[named[k]], members[k], show_some(documents[k]))
        for k, entry in enumerate(entries)
    ]


def _named(
    topics: NDArray[np.int64], micro: Sequence[int | None], count: int
) -> tuple[NDArray[np.int64], list[int]]:
    """Group the cells that show the same words: all cells of a topic, or of a micro-cluster.

    Returns:
        The group of each cell, ``[K]``, and the maximum number of documents that are read for each
        group. For micro-clusters, this number is smaller, because there are many of them.
    """
    if None in micro:
        return topics, [_READ] * count
    distinct, named = np.unique(np.array(micro, np.int64), return_inverse=True)
    most = min(_READ, max(_READ_LEAST, _READ_ALL // len(distinct)))
    return named.ravel(), [most] * len(distinct)


class _Sums:
    """Sums of scores, bytes and so on over the documents of each of ``count`` clusters."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._bytes = np.zeros(count, np.int64)
        self._scores = np.zeros((count, len(SCORES)))
        self._spread = np.zeros((len(SCORES), count, _BINS), np.int64)
        self._labels: list[Counter[str]] = [Counter() for _ in range(count)]
        self._languages: list[Counter[str]] = [Counter() for _ in range(count)]
        self._micro: Counter[tuple[int, int]] = Counter()
        self._copies, self._effective = np.zeros((2, count), np.int64)
        self._copy_counts = np.zeros((len(_COPY_COUNTS), count), np.int64)
        self._counts_copies = False
        """Whether `count_copies` has counted the copies of the documents."""

    def add(
        self,
        partition: Partition,
        rows: NDArray[np.int64],
        cluster: NDArray[np.int32],
        clusters: ClusterMap,
    ) -> None:
        """Add documents ``rows`` of ``partition``; ``cluster`` has their clusters; both ``[m]``."""
        count = self._count
        self._bytes += np.bincount(cluster, partition.read("sizes")[rows], count).astype(np.int64)
        micro = partition.read("micro")[rows].tolist()
        self._micro.update(zip(cluster.tolist(), micro, strict=True))
        for column, values in enumerate(partition.read("scores")[rows].T):
            self._scores[:, column] += np.bincount(cluster, values, count)
            bins = np.clip((values * (_BINS / 5)).astype(np.int64), 0, _BINS - 1)
            counts = np.bincount(cluster * _BINS + bins, minlength=count * _BINS)
            self._spread[column] += counts.reshape(count, _BINS)
        names = partition.columns("label")["label"].take(rows).to_pylist()
        for k, name in zip(cluster.tolist(), names, strict=True):
            self._labels[k][name] += 1
        languages = partition.read("languages")[rows, 0].tolist()
        for k, name in zip(cluster.tolist(), languages, strict=True):
            self._languages[k][name] += 1
        self._add_copies(partition, rows, cluster, clusters)

    def merge(self, other: Self) -> None:
        """Add the sums of ``other``, whose documents are later in the corpus."""
        self._bytes += other._bytes
        self._scores += other._scores
        self._spread += other._spread
        self._copies += other._copies
        self._effective += other._effective
        self._copy_counts += other._copy_counts
        self._counts_copies |= other._counts_copies
        self._micro.update(other._micro)
        for ours, theirs in zip(self._labels, other._labels, strict=True):
            ours.update(theirs)
        for ours, theirs in zip(self._languages, other._languages, strict=True):
            ours.update(theirs)

    def _add_copies(
        self,
        partition: Partition,
        rows: NDArray[np.int64],
        cluster: NDArray[np.int32],
        clusters: ClusterMap,
    ) -> None:
        """Count the near copies in each cluster, and the tokens of its other documents."""
        copy = (
            partition.read("original") >= 0
            if partition.has("original")
            else np.zeros(len(partition), bool)
        )
        in_cluster = copy & (clusters.cluster[partition.read("micro")] >= 0)
        units = unit_of(partition, clusters)[in_cluster]
        self._copies += np.bincount(units, minlength=self._count)
        alone = ~copy[rows]
        lengths = partition.read("lengths")[alone]
        self._effective += np.bincount(cluster[alone], lengths, self._count).astype(np.int64)
        if partition.has("copies"):
            self._counts_copies = True
            exact, near, sources = partition.read("copies")[rows].T
            for sums, values in zip(
                self._copy_counts, (exact + near > 0, exact, near, sources > 1), strict=True
            ):
                sums += np.bincount(cluster, values, self._count).astype(np.int64)

    def describe(
        self,
        k: int,
        entry: ClusterEntry,
        terms: Sequence[str],
        members: Sequence[int],
        samples: Sequence[dict[str, str]],
    ) -> ClusterInfo:
        """Return the description of cluster ``k``, whose micro-clusters are ``members``."""
        copy_counts = dict(zip(_COPY_COUNTS, self._copy_counts[:, k].tolist(), strict=True))
        return ClusterInfo(
            name=entry.name,
            terms=tuple(terms),
            documents=entry.documents,
            tokens=entry.tokens,
            bytes=int(self._bytes[k]),
            quality={
                name: round(float(total) / max(entry.documents, 1), 3)
                for name, total in zip(SCORES, self._scores[k], strict=True)
            },
            labels={name: n for name, n in self._labels[k].most_common() if name},
            samples=tuple(samples),
            micro=tuple(members),
            micro_documents=tuple(self._micro[k, m] for m in members),
            spread={name: tuple(self._spread[i, k].tolist()) for i, name in enumerate(SCORES)},
            copies=int(self._copies[k]),
            effective_tokens=int(self._effective[k]),
            copy_counts=CopyCounts(**copy_counts) if self._counts_copies else None,
            axes=entry.axes,
            languages=dict(self._languages[k].most_common()),
        )


class _Sample:
    """A random sample of each cluster: the documents with the smallest hashes."""

    def __init__(self, count: int, most: int = _READ) -> None:
        self._most = most
        self._best: list[list[tuple[int, int, int]]] = [[] for _ in range(count)]
        self._limit = np.full(count, np.iinfo(np.uint64).max, np.uint64)

    def add(
        self,
        partition: int,
        rows: NDArray[np.int64],
        cluster: NDArray[np.int32],
        hashes: NDArray[np.uint64],
    ) -> None:
        """Add the documents ``rows`` with hashes among the smallest; all arrays are ``[m]``."""
        hashes = hashes ^ np.uint64(derive_key("describe"))
        near = np.flatnonzero(hashes <= self._limit[cluster])
        for k in np.unique(cluster[near]).tolist():
            mine = near[cluster[near] == k]
            found = zip(hashes[mine].tolist(), rows[mine].tolist(), strict=True)
            self._keep(k, [(h, partition, row) for h, row in found])

    def merge(self, other: Self) -> None:
        """Add the documents of ``other`` if their hashes are among the smallest."""
        for k, places in enumerate(other._best):
            self._keep(k, places)

    def _keep(self, k: int, places: Sequence[tuple[int, int, int]]) -> None:
        best = sorted([*self._best[k], *places])[: self._most]
        self._best[k] = best
        if len(best) == self._most:
            self._limit[k] = best[-1][0]

    def read(self, engine: Engine, partitions: Sequence[Partition]) -> list[list[dict[str, str]]]:
        """Return the sample of each cluster: ``id`` and beginning of ``text`` of each document.

        The documents are in the order of their hashes.
        """
        wanted: dict[int, list[int]] = {}
        for _, partition, row in sorted(place for best in self._best for place in best):
            wanted.setdefault(partition, []).append(row)
        tasks = [(number, partitions[number], rows) for number, rows in wanted.items()]
        found = {
            (number, row): document
            for (number, _, rows), documents in engine.run(_beginnings, tasks)
            for row, document in zip(rows, documents, strict=True)
        }
        return [[found[partition, row] for _, partition, row in best] for best in self._best]


@dataclass(slots=True)
class _Summary:
    """Sums and samples of some documents, from which the clusters are described."""

    sums: _Sums
    sample: _Sample
    """Sample, for each topic or micro-cluster, of documents from which its words are taken."""
    examples: _Sample | None
    """Sample, for each cell, of documents to show. None: there are no cells, so documents of
    ``sample`` are shown."""

    def merge(self, other: Self) -> None:
        """Add the documents of ``other``, which are later in the corpus."""
        self.sums.merge(other.sums)
        self.sample.merge(other.sample)
        if self.examples is not None and other.examples is not None:
            self.examples.merge(other.examples)


def _summarize(
    batch: Batch[Partition],
    clusters: ClusterMap,
    named: NDArray[np.int64],
    most: Sequence[int],
    *,
    shown: bool,
) -> _Summary:
    """Return the summary of the partitions in ``batch``.

    ``named`` and ``most`` are the results of `_named`. ``shown`` says whether there are cells,
    which have examples of their own.
    """
    examples = _Sample(len(named), SHOWN) if shown else None
    sample = _Sample(len(most), max(most, default=0))
    summary = _Summary(_Sums(len(named)), sample, examples)
    for number, partition in enumerate(batch.partitions, start=batch.first):
        rows = partition.read("order")
        cluster = partition.read("clusters")[rows]
        summary.sums.add(partition, rows, cluster, clusters)
        hashes = partition.read("id_hashes")[rows, 0]
        summary.sample.add(number, rows, named[cluster], hashes)
        if summary.examples is not None:
            summary.examples.add(number, rows, cluster, hashes)
    return summary


def name_licenses(engine: Engine, partitions: Sequence[Partition]) -> str:
    """Return the licences of kept documents on one line, the most frequent first, or "unknown"."""
    found: Counter[str] = Counter()
    summed(engine, partitions, _count_licenses, Counter.update, found)
    sizes = single_licenses({name: Size(count, 0) for name, count in found.most_common()})
    return license_line(sorted(sizes, key=lambda name: -sizes[name].documents))


def _count_licenses(partition: Partition) -> Counter[str]:
    """Count the licences of a partition's kept documents, in the order of the corpus."""
    rows = np.sort(partition.read("order"))
    stated = partition.columns("license")["license"].take(rows).to_pylist()
    return Counter(map(license_name, stated))


def _beginnings(task: tuple[int, Partition, list[int]]) -> list[dict[str, str]]:
    """Return the ``id``, and the beginning of the ``text``, of some documents of a partition."""
    _, partition, rows = task
    table = partition.take(np.array(rows), "id", "text")
    texts = pc.utf8_slice_codeunits(table["text"], 0, _CHARS).to_pylist()
    return [
        {"id": name, "text": text}
        for name, text in zip(table["id"].to_pylist(), texts, strict=True)
    ]


def label_agreement(labels: Sequence[Mapping[str, int]]) -> dict[str, float] | None:
    """Measure how well clusters match known domains; None if no domain is known.

    ``labels`` has the number of documents of each domain in each cluster. The result has ``nmi``,
    the normalised mutual information, and ``purity``, the fraction of documents whose domain is the
    most frequent domain of their cluster.
    """
    names = sorted({name for counts in labels for name in counts})
    if not names:
        return None
    table = np.array([[counts.get(name, 0) for name in names] for counts in labels], np.float64)
    joint = table / table.sum()
    ours, theirs = joint.sum(axis=1), joint.sum(axis=0)
    entropies = (_entropy(ours) + _entropy(theirs)) / 2
    mutual = _entropy(ours) + _entropy(theirs) - _entropy(joint.ravel())
    # As in scikit-learn: one cluster and one domain agree fully.
    nmi = mutual / entropies if entropies else 1.0
    return {"nmi": float(max(nmi, 0.0)), "purity": float(joint.max(axis=1).sum())}


def large_cluster(clusters: Sequence[ClusterInfo], settings: BuildSettings) -> str:
    """Return a warning if a cluster has more than half of all tokens; "" if none has.

    With fewer than `_FEWEST` clusters, there is no warning. ``settings`` are those by which the
    clusters were made.
    """
    largest = max(clusters, key=lambda cluster: cluster.tokens)
    share = largest.tokens / max(sum(cluster.tokens for cluster in clusters), 1)
    if len(clusters) < _FEWEST or share <= 0.5:
        return ""
    remedy = "--balanced or a larger --clusters"
    if settings.merge_height is not None:
        remedy = "a lower --merge-height"
    elif settings.balanced:
        remedy = "a larger --clusters"
    return (
        f"cluster {largest.name} has {share:.1%} of all tokens, and a mixture has only one weight "
        f"for all of them; {remedy} may split the cluster"
    )


def _entropy(shares: NDArray[np.float64]) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


def name_terms(groups: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Return the words that distinguish each group of texts from the others, the strongest first.

    The words are ranked by class-based TF-IDF (Grootendorst, arXiv 2203.05794) with one change: the
    frequency of a word is the fraction of documents that contain it. So a word that only one long
    document repeats does not rank high.
    """
    # This import takes a second, and processes that do not need it should not wait for it.
    from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415

    counter = CountVectorizer(
        binary=True,
        max_features=_FEATURES,
        token_pattern=rf"(?u)(?<!\w)(?:[^\W\d_]|[{_MARKS}]){{3,}}(?!\w)",
        stop_words="english",
    )
    try:
        holds = counter.fit_transform([text for group in groups for text in group])
    except ValueError:  # no word in any text
        return [() for _ in groups]
    words = counter.get_feature_names_out()
    ends = np.cumsum([len(group) for group in groups])
    parts = zip([0, *ends[:-1]], ends, strict=True)
    share = np.stack([np.asarray(holds[a:b].sum(axis=0)).ravel() / max(b - a, 1) for a, b in parts])
    weight = share * np.log(np.maximum(share, 1e-9) / np.maximum(share.mean(axis=0), 1e-9))
    best = np.argsort(-weight, axis=1, kind="stable")[:, :_TERMS]
    return [tuple(str(words[i]) for i in row if weight[k, i] > 0) for k, row in enumerate(best)]


def show_some(documents: Sequence[Mapping[str, str]]) -> tuple[dict[str, str], ...]:
    """Return ``id`` and the `opening` of ``text`` of the first `SHOWN` documents."""
    return tuple({"id": d["id"], "text": opening(d["text"])} for d in documents[:SHOWN])
