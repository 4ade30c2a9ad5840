"""Order: whether words and letters follow each other as in a language, or as by chance.

In a text of a language some runs of words and letters come again and again, and hardly any of them
backward: "of the", never "the of". In shuffled text both come equally often. So the text is its own
measure, whatever its language.
"""

from typing import Any

import numpy as np
from numba import njit

from .characters import is_letter, lower
from .words import LETTERS, UNSPACED


@njit(cache=True, nogil=True)
def count_word_order(points: Any, words: Any) -> Any:
    """Count words with one space between; their pairs that come again; those that come backward.

    Characters of scripts without spaces are no words; they are letters.
    """
    hashes, begins, ends, shapes = words
    forward, backward = np.empty(len(hashes), np.uint64), np.empty(len(hashes), np.uint64)
    n = 0
    for i in range(len(hashes) - 1):
        spaced = begins[i + 1] == ends[i] + 1 and points[ends[i]] == 0x20
        both = shapes[i] & shapes[i + 1] & LETTERS and not (shapes[i] | shapes[i + 1]) & UNSPACED
        if spaced and both and hashes[i] != hashes[i + 1]:
            forward[n] = _mix(hashes[i], hashes[i + 1])
            backward[n] = _mix(hashes[i + 1], hashes[i])
            n += 1
    again, back = _count_again(forward[:n], backward[:n])
    return n, again, back


@njit(cache=True, nogil=True)
def count_letter_order(points: Any) -> Any:
    """Count the runs of three letters that come again, and those that come backward too.

    Where a word begins or ends counts as a letter.
    """
    forward, backward = np.empty(len(points), np.uint64), np.empty(len(points), np.uint64)
    n = 0
    first = middle = np.uint64(0)
    for point in points:
        last = np.uint64(lower(point)) if is_letter(point) else np.uint64(0)
        if middle and first != last:
            forward[n] = _mix(_mix(first, middle), last)
            backward[n] = _mix(_mix(last, middle), first)
            n += 1
        first, middle = middle, last
    return _count_again(forward[:n], backward[:n])


@njit(cache=True, nogil=True)
def _count_again(forward: Any, backward: Any) -> Any:
    """Count those of ``forward`` that stand there twice, and those of ``backward`` among them."""
    size = 16
    while size < 2 * len(forward):
        size *= 2
    slots, times = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    for value in forward:
        at = _slot(slots, value)
        slots[at] = value
        times[at] += 1
    again = back = 0
    for value in forward:
        again += times[_slot(slots, value)] > 1
    for value in backward:
        back += times[_slot(slots, value)] > 0
    return again, back


@njit(cache=True, nogil=True)
def _slot(slots: Any, value: Any) -> Any:
    """Find the slot that holds ``value``, or the empty one where it belongs."""
    last = np.uint64(len(slots) - 1)
    at = value & last
    while slots[at] and slots[at] != value:
        at = (at + np.uint64(1)) & last
    return at


@njit(cache=True, nogil=True)
def _mix(one: Any, other: Any) -> Any:
    value = (one ^ np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(31)) ^ other) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(29))
