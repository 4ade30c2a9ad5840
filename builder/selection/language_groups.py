"""Language groups: documents of one language within a micro-cluster, judged by themselves.

Junk is alike in all languages, so a micro-cluster may be junk of many languages and good text of
one. That text is not pruned with it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.settings import SCORES

_LEAST = 5
"""Documents of a group from which its mean is believed."""

Group = tuple[int, str]
"""Micro-cluster and language."""


def good_groups(
    partitions: Sequence[Partition],
    stays: Sequence[NDArray[np.bool_]],
    pruned: NDArray[np.bool_],
    least: Mapping[str, float],
) -> set[Group]:
    """Find the groups within micro-clusters ``pruned``, ``[M]``, whose means are ``least`` or more.

    ``stays`` says which documents of each partition have not been dropped.
    """
    scores: dict[Group, list[NDArray[np.float32]]] = {}
    for partition, mask in zip(partitions, stays, strict=True):
        micro = partition.read("micro")
        rows = np.flatnonzero(mask & pruned[micro])
        if len(rows):
            languages, values = partition.read("languages")[rows, 0], partition.read("scores")[rows]
            for k, language, value in zip(micro[rows].tolist(), languages, values, strict=True):
                scores.setdefault((k, str(language)), []).append(value)
    return {
        group
        for group, values in scores.items()
        if len(values) >= _LEAST
        and all(
            np.mean([value[SCORES.index(name)] for value in values]) >= low
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
