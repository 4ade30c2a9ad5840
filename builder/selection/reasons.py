"""Reasons: why documents are dropped. Partitions store a reason as its index in `REASONS`."""

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.settings import CONTAMINATED, EQUAL_TEXT, SCORES

REPEATED = ("identifier seen before", EQUAL_TEXT)
HELD_OUT = "held out"
LICENSE = "licence not allowed"
BY_LICENSE = (LICENSE, "licence not asked for")
"""How a catalogue may state `LICENSE`; the second reason is of earlier versions."""
LANGUAGE, NEAR, PRUNED = "language not asked for", "nearly the same as another", "pruned cluster"
LOW_SCORE = {name: f"low {name} score" for name in SCORES}
RESERVED = (CONTAMINATED, HELD_OUT)
"""Documents that are dropped for one of these reasons are dropped even if ``keep_ids`` names
them."""
WITHOUT_TOKENS = "no token"
REASONS = (
    *("", REPEATED[0], LANGUAGE, LICENSE, CONTAMINATED, REPEATED[1], NEAR, PRUNED),
    *(*LOW_SCORE.values(), HELD_OUT, WITHOUT_TOKENS),
)
"""Reasons to drop a document, in the order of the stages. The first, "", means that it stays."""


def why_of(partition: Partition) -> NDArray[np.uint8]:
    """Return why each document of a partition is dropped, uint8 ``[n]``: indexes in `REASONS`."""
    if partition.has("why"):
        return partition.read("why")
    return np.zeros(len(partition), np.uint8)


def stays(partition: Partition) -> NDArray[np.bool_]:
    """Return which documents of a partition have not been dropped, bool ``[n]``."""
    return np.asarray(why_of(partition) == 0, np.bool_)


def stays_until(partition: Partition, reason: str) -> NDArray[np.bool_]:
    """Return which documents were not dropped before the stage of ``reason``, bool ``[n]``."""
    why = why_of(partition)
    return np.asarray((why == 0) | (why >= REASONS.index(reason)), np.bool_)


def number_below(number: float, low: float) -> str:
    """Return ``number``, which is below ``low``, with so many decimals that the text is below too.

    >>> number_below(2.31, 2.5), number_below(2.497, 2.5)
    ('2.3', '2.497')
    """
    texts = (f"{number:.{digits}f}" for digits in range(1, 17))
    return next((text for text in texts if float(text) < low), repr(number))
