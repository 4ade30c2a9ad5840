"""Language groups: documents of one language in a micro-cluster, judged separately.

Junk is similar in all languages. So a micro-cluster may hold junk of many languages and good text
of one, which is then not pruned with it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.settings import SCORES

from .reasons import stays

_LEAST = 5
"""Number of documents from which on the mean of a group counts."""

Group = tuple[int, str]
"""Micro-cluster and language."""


def sum_groups(
    partition: Partition, pruned: NDArray[np.bool_]
) -> dict[Group, tuple[int, NDArray[np.float64]]]:
    """Count the kept documents of each group in micro-clusters ``pruned``, ``[M]``.

    Each count comes with the sums of the scores, ``[4]``.
    """
    micro = partition.read("micro")
    rows = np.flatnonzero(stays(partition) & pruned[micro])
    sums: dict[Group, tuple[int, NDArray[np.float64]]] = {}
    if len(rows):
        languages, scores = partition.read("languages")[rows, 0], partition.read("scores")[rows]
        names, place = np.unique(languages, return_inverse=True)
        for k, number in np.unique(np.stack([micro[rows], place]), axis=1).T.tolist():
            mine = scores[(micro[rows] == k) & (place == number)].astype(np.float64)
            sums[k, str(names[number])] = len(mine), mine.sum(axis=0)
    return sums


def good_groups(
    sums: Iterable[Mapping[Group, tuple[int, NDArray[np.float64]]]], least: Mapping[str, float]
) -> set[Group]:
    """Find the groups whose mean scores are ``least`` or more; ``sums`` are of all partitions."""
    counts: Counter[Group] = Counter()
    totals: dict[Group, NDArray[np.float64]] = {}
    for part in sums:
        for group, (count, total) in part.items():
            counts[group] += count
            totals[group] = totals[group] + total if group in totals else total
    return {
        group
        for group, count in counts.items()
        if count >= _LEAST
        # Compared with the precision of the scores, so that a mean equal to the threshold is not
        # below it.
        and all(
            np.float32(totals[group][SCORES.index(name)] / count) >= np.float32(low)
            for name, low in least.items()
        )
    }


def is_in(partition: Partition, groups: set[Group]) -> NDArray[np.bool_]:
    """Which documents of a partition are in one of ``groups``, ``[n]``."""
    if not groups:
        return np.zeros(len(partition), np.bool_)
    pairs = zip(
        partition.read("micro").tolist(), partition.read("languages")[:, 0].tolist(), strict=True
    )
    return np.array([pair in groups for pair in pairs], np.bool_)
