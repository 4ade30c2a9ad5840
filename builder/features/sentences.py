"""Sentences: measures how much of a text repeats earlier sentences of the same text.

A page with boilerplate contains the same notices more than once, but in different orders, so that
perhaps no whole line and no long run of words repeats. Therefore single sentences are compared.
Lines with only one sentence do not count, because a song or a list of steps may repeat such lines
without being boilerplate.
"""

from typing import Any

import numpy as np
from numba import njit

from .characters import is_letter, lower

_LEAST = 6
"""A sentence counts only if it has at least this number of letters."""


@njit(cache=True, nogil=True)
def count_repeated_sentences(points: Any) -> Any:
    """Return the number of letters in sentences that repeat an earlier sentence.

    Only lines of two or more sentences count. A sentence ends with a full stop, ! or ?, or with
    such a mark of another script. Sentences are compared only by their letters, without case. If
    only one sentence repeats, the result is 0, because one repeated sentence is not boilerplate.
    """
    hashes, sizes = np.zeros(len(points) + 1, np.uint64), np.zeros(len(points) + 1, np.int64)
    n = first = pieces = size = 0
    value = np.uint64(0)
    for at in range(len(points) + 1):
        point = points[at] if at < len(points) else np.uint32(0x0A)
        if is_letter(point):
            value = (value ^ np.uint64(lower(point))) * np.uint64(1099511628211)
            size += 1
        after = points[at + 1] if at + 1 < len(points) else np.uint32(0x0A)
        ended = _ends_sentence(point, after)
        if not ended and point != 0x0A:
            continue
        pieces += size > 0
        if ended and size >= _LEAST:
            hashes[n], sizes[n] = value, size
            n += 1
        value, size = np.uint64(0), 0
        if point == 0x0A:
            n = n if pieces > 1 else first
            first, pieces = n, 0
    return _sum_repeated(hashes[:n], sizes[:n])


@njit(cache=True, nogil=True)
def _ends_sentence(point: Any, after: Any) -> Any:
    """Whether a code point ends a sentence; ``after`` is the code point after it."""
    if point == 0x2E or point == 0x21 or point == 0x3F:
        return after <= 0x20
    return (
        point == 0x61F  # Arabic ?
        or point == 0x6D4  # Urdu full stop
        or point == 0x964  # danda
        or point == 0x965
        or point == 0x3002  # ideographic full stop
        or point == 0xFF01  # full-width ! and ?
        or point == 0xFF1F
    )


@njit(cache=True, nogil=True)
def _sum_repeated(hashes: Any, sizes: Any) -> Any:
    """Return the sum of ``sizes`` where a hash repeats; 0 if only one hash repeats."""
    order = np.argsort(hashes)
    repeated = different = last = 0
    for i in range(1, len(order)):
        if hashes[order[i]] == hashes[order[i - 1]]:
            repeated += sizes[order[i]]
            different += different == 0 or hashes[order[i]] != hashes[order[last]]
            last = i
    return repeated if different > 1 else 0
