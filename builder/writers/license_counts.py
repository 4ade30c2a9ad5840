"""Licence counts: the documents and tokens of each cluster by licence."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.licenses import UNKNOWN
from climbstream.builder.selection.by_license import Counts, count_by_license, most_frequent
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.formats.manifest import ClusterEntry, Manifest, Size, join_licenses


@dataclass(frozen=True, slots=True)
class LicenseTask:
    """Count the licences in ``partition``, by cluster."""

    partition: Partition


def with_licenses(
    engine: Engine,
    partitions: Sequence[Partition],
    entries: Sequence[ClusterEntry],
    before: Manifest | None = None,
) -> list[ClusterEntry]:
    """Return ``entries`` with the documents and tokens of each cluster by licence.

    The entries are unchanged if no document states a licence. They are also unchanged if an append
    adds to a directory that an earlier version wrote without counts, because counts of the new
    documents alone would look like counts of all documents.

    Args:
        engine: Runs the tasks that count.
        partitions: Partitions with ``order``, ``clusters`` and ``lengths``.
        entries: The clusters, which are numbered in this order.
        before: Manifest of the directory that an append adds to; None: this is not an append.
    """
    held = [entry.licenses for entry in before.clusters] if before else [{}] * len(entries)
    counted = any(held)
    if before and not counted and before.license != UNKNOWN:
        return list(entries)
    added: list[Counts] = [{} for _ in entries]
    for _, found in engine.run(count_licenses, [LicenseTask(one) for one in partitions]):
        for (cluster, name), count in found.items():
            added[cluster].setdefault(name, Counter()).update(count)
    if not counted and not {name for counts in added for name in counts} - {UNKNOWN}:
        return list(entries)
    if before and not counted:
        held = [
            {UNKNOWN: Size(old.documents, old.tokens)} if old.documents else {}
            for old in before.clusters
        ]
    return [
        replace(entry, licenses=join_licenses([old, _sizes(counts)]))
        for entry, old, counts in zip(entries, held, added, strict=True)
    ]


def _sizes(counts: Counts) -> dict[str, Size]:
    return {name: Size(**count) for name, count in most_frequent(counts).items()}


def count_licenses(task: LicenseTask) -> dict[tuple[int, str], Counter[str]]:
    """Return the documents and tokens of a partition by cluster and licence."""
    partition = task.partition
    order, lengths = partition.read("order"), partition.read("lengths")
    clusters = partition.read("clusters")[order]
    stated = partition.columns("license")["license"].take(order)
    found: dict[tuple[int, str], Counter[str]] = {}
    for cluster in np.unique(clusters).tolist():
        rows = np.flatnonzero(clusters == cluster)
        counts: Counts = {}
        count_by_license(stated.take(rows).to_pylist(), lengths[rows], "tokens", counts)
        found |= {(cluster, name): size for name, size in counts.items()}
    return found
