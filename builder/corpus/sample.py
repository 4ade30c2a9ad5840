"""A sample of the texts of a corpus, the same for the same seed."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from climbstream.builder.licenses import is_kept
from climbstream.builder.settings import EVERY, BuildSettings
from climbstream.loader.core.permutation import sample_indices

from .partition import Partition

_CHARS = 20_000
"""Characters of each sampled document that are read."""


def draw_places(
    partitions: Sequence[Partition], settings: BuildSettings
) -> Iterator[tuple[Partition, NDArray[np.int64]]]:
    """Sample documents of the languages and licences asked for; yield rows by partition."""
    # Rows are looked up again: of all partitions they are 8 bytes a document.
    counts = [np.count_nonzero(_is_wanted(partition, settings)) for partition in partitions]
    ends = np.cumsum(counts)
    chosen = np.sort(sample_indices(int(ends[-1]), settings.sample, settings.seed, "sample"))
    for partition, count, end in zip(partitions, counts, ends.tolist(), strict=True):
        begin = end - count
        mine = chosen[np.searchsorted(chosen, begin) : np.searchsorted(chosen, end)]
        if len(mine):
            yield partition, np.flatnonzero(_is_wanted(partition, settings))[mine - begin]


def _is_wanted(partition: Partition, settings: BuildSettings) -> NDArray[np.bool_]:
    return in_languages(partition, settings) & has_license(partition, settings)


def in_languages(partition: Partition, settings: BuildSettings) -> NDArray[np.bool_]:
    """Which documents of a partition are in a language that the settings ask for, ``[n]``."""
    if settings.languages == EVERY:
        return np.ones(len(partition), np.bool_)
    return np.isin(partition.read("languages")[:, 0], settings.languages)


def has_license(partition: Partition, settings: BuildSettings) -> NDArray[np.bool_]:
    """Which documents of a partition have a licence that the settings keep, ``[n]``."""
    if not settings.licenses:
        return np.ones(len(partition), np.bool_)
    return is_kept(partition.column("license"), settings.licenses)


def sample_languages(partitions: Sequence[Partition], settings: BuildSettings) -> list[str]:
    """Return the languages of the documents drawn."""
    parts = [
        partition.read("languages")[rows, 0].tolist()
        for partition, rows in draw_places(partitions, settings)
    ]
    return [name for part in parts for name in part]


def sample_texts(partitions: Sequence[Partition], settings: BuildSettings) -> list[str]:
    """Return how the texts of the documents drawn begin."""
    texts: list[str] = []
    for partition, rows in draw_places(partitions, settings):
        column = partition.columns("text")["text"].take(rows)
        texts += pc.utf8_slice_codeunits(column, 0, _CHARS).to_pylist()
    return texts
