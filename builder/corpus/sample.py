"""A sample of the texts of a corpus, the same for the same seed."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.permutation import sample_indices

from .partition import Partition

_CHARS = 20_000
"""Of each document of the sample, what is looked at."""


def draw_places(
    units: Sequence[Partition], settings: BuildSettings
) -> Iterator[tuple[Partition, NDArray[np.int64]]]:
    """Draw ``settings.sample`` documents: rows of units, in corpus order."""
    ends = np.cumsum([len(unit) for unit in units])
    chosen = np.sort(sample_indices(int(ends[-1]), settings.sample, settings.seed, "sample"))
    for unit, end in zip(units, ends.tolist(), strict=True):
        rows = chosen[np.searchsorted(chosen, end - len(unit)) : np.searchsorted(chosen, end)]
        if len(rows):
            yield unit, rows - (end - len(unit))


def sample_texts(units: Sequence[Partition], settings: BuildSettings) -> list[str]:
    """Return how the texts of the documents drawn begin."""
    texts: list[str] = []
    for unit, rows in draw_places(units, settings):
        column = unit.columns("text")["text"].take(rows)
        texts += pc.utf8_slice_codeunits(column, 0, _CHARS).to_pylist()
    return texts
