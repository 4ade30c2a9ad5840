"""Licence counts: how many documents and tokens of each cluster have each licence."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.passes import summed
from climbstream.builder.licenses import OTHERS, license_line
from climbstream.builder.selection.by_license import (
    Counts,
    count_by_license,
    most_frequent,
)
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.cluster_tables import unlicensed_text
from climbstream.loader.formats.licenses import UNKNOWN
from climbstream.loader.formats.manifest import (
    ClusterEntry,
    Manifest,
    Size,
    join_licenses,
    single_licenses,
)

logger = get_logger(__name__)

_NAMED = 6
"""Maximum number of sources that a message names."""
_Found = dict[tuple[int, str], Counter[str]]
"""Numbers of documents and tokens, by cluster and licence."""


def with_licenses(
    engine: Engine,
    partitions: Sequence[Partition],
    entries: Sequence[ClusterEntry],
    before: Manifest | None = None,
) -> list[ClusterEntry]:
    """Return ``entries`` with the numbers of documents and tokens of each cluster by licence.

    If no document states a licence, the entries are returned unchanged. They are also unchanged if
    an append adds to a directory of an earlier version, which has licences but no counts: counts of
    the new documents alone would look like counts of all documents.

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
    found: _Found = {}
    summed(engine, partitions, count_licenses, _add_counts, found)
    for (cluster, name), count in found.items():
        added[cluster][name] = count
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


def tell_unlicensed(manifest: Manifest, sources: Sequence[str], column: str) -> None:
    """Log how many documents state no licence, and the ``sources`` without one in ``column``."""
    if text := unlicensed_text(manifest):
        where = f"; no document of {_named(sources)} has one in {column!r}" if sources else ""
        logger.warning(f"  {text}{where}")


def _named(sources: Sequence[str]) -> str:
    """Return the names of ``sources`` or, if there are many, their number and one of them."""
    if len(sources) <= _NAMED:
        return ", ".join(sources)
    return f"{len(sources):,} sources, such as {sources[0]},"


def union_of_licenses(entries: Sequence[ClusterEntry], texts: Sequence[str]) -> str:
    """Return the names of the licences in ``entries`` on one line, the most frequent first.

    If ``entries`` have no counts by licence, the names are those in ``texts``, which are lines of
    the same form.
    """
    sizes = single_licenses(join_licenses(entry.licenses for entry in entries))
    if sizes:
        # Each cluster counts its rarest licences together, so their number is not known.
        more = bool(sizes.pop(OTHERS, None))
        names = sorted(sizes, key=lambda name: (-sizes[name].documents, name))
        return license_line(names, more=more)
    return ", ".join(dict.fromkeys(name for text in texts for name in text.split(", ")))


def _sizes(counts: Counts) -> dict[str, Size]:
    return {name: Size(**count) for name, count in most_frequent(counts).items()}


def _add_counts(total: _Found, part: _Found) -> None:
    for group, count in part.items():
        total.setdefault(group, Counter()).update(count)


def count_licenses(partition: Partition) -> _Found:
    """Return the numbers of documents and tokens of a partition, by cluster and licence."""
    order, lengths = partition.read("order"), partition.read("lengths")
    clusters = partition.read("clusters")[order]
    stated = partition.columns("license")["license"].take(order)
    found: _Found = {}
    for cluster in np.unique(clusters).tolist():
        rows = np.flatnonzero(clusters == cluster)
        counts: Counts = {}
        count_by_license(stated.take(rows).to_pylist(), lengths[rows], "tokens", counts)
        found |= {(cluster, name): size for name, size in counts.items()}
    return found
