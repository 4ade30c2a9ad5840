"""Language groups: keep the good documents of one language in a micro-cluster that is pruned.

A group is the documents of one language in a micro-cluster. Junk is similar in all languages. So a
micro-cluster may contain junk in many languages, and good text in one language. Then the
micro-cluster is pruned, but the group with good text is kept.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.settings import SCORES

from .reasons import stays

_LEAST = 5
"""A group is kept only if it has at least this number of documents."""

Group = tuple[int, str]
"""Micro-cluster and language."""


def sum_groups(
    partition: Partition, pruned: NDArray[np.bool_]
) -> dict[Group, tuple[int, NDArray[np.float64]]]:
    """Return the number of documents of each group, and the sums of their scores, ``[4]``.

    Only documents that stay are counted, and only in micro-clusters that ``pruned``, bool ``[M]``,
    marks.
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
    """Return the groups with enough documents whose mean scores reach the values in ``least``.

    ``sums`` has the result of `sum_groups` for each partition. ``least`` has the least value of
    each score, by name of the score.
    """
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
        # Compare with the precision of the scores, so that a mean equal to the threshold reaches
        # it.
        and all(
            np.float32(totals[group][SCORES.index(name)] / count) >= np.float32(low)
            for name, low in least.items()
        )
    }


def is_in(partition: Partition, groups: set[Group]) -> NDArray[np.bool_]:
    """Return which documents of a partition are in one of ``groups``, bool ``[n]``."""
    if not groups:
        return np.zeros(len(partition), np.bool_)
    pairs = zip(
        partition.read("micro").tolist(), partition.read("languages")[:, 0].tolist(), strict=True
    )
    return np.array([pair in groups for pair in pairs], np.bool_)
