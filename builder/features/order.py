"""Order: whether words and letters follow each other as in text, or at random.

In a text of a language some runs of words and letters come again and again, and hardly any of them
backward: "of the", never "the of". In shuffled text both come equally often. And where letters have
a case, a sentence begins with a capital; in shuffled text any word follows the end of one. Brackets
have partners; in shuffled text many lose them. So the text is its own measure, whatever its
language.
"""

from typing import Any

import numpy as np
from numba import njit

from .characters import is_capital, is_letter, lower
from .words import LETTERS, UNSPACED


@njit(cache=True, nogil=True)
def count_word_order(points: Any, words: Any) -> Any:
    """Count words one space apart, their pairs that repeat, and those that repeat backward.

    Characters of scripts without spaces are no words; `count_character_order` counts them.
    """
    return _count_pair_order(points, words, True)


@njit(cache=True, nogil=True)
def count_character_order(points: Any, words: Any) -> Any:
    """Like `count_word_order`, for neighbouring characters of scripts without spaces."""
    return _count_pair_order(points, words, False)


@njit(cache=True, nogil=True)
def _count_pair_order(points: Any, words: Any, spaced: Any) -> Any:
    hashes, begins, ends, shapes = words
    forward, backward = np.empty(len(hashes), np.uint64), np.empty(len(hashes), np.uint64)
    n = 0
    for i in range(len(hashes) - 1):
        one, other = shapes[i], shapes[i + 1]
        if spaced:
            apart = begins[i + 1] == ends[i] + 1 and points[ends[i]] == 0x20
            follows = apart and one & other & LETTERS and not (one | other) & UNSPACED
        else:
            follows = begins[i + 1] == ends[i] and one & other & UNSPACED
        if follows and hashes[i] != hashes[i + 1]:
            forward[n] = _mix(hashes[i], hashes[i + 1])
            backward[n] = _mix(hashes[i + 1], hashes[i])
            n += 1
    again, back = _count_again(forward[:n], backward[:n])
    return n, again, back


@njit(cache=True, nogil=True)
def count_sentence_starts(points: Any) -> Any:
    """Count sentences after another on a line that begin with a small letter, and with a capital.

    A word of one letter before the stop is an initial, and ends no sentence. Letters of scripts
    without case count as neither.
    """
    small = capital = 0
    for at in range(2, len(points) - 2):
        point = points[at]
        if (point == 0x2E or point == 0x21 or point == 0x3F) and points[at + 1] == 0x20:
            start = points[at + 2]
            if is_letter(start) and is_letter(points[at - 1]) and is_letter(points[at - 2]):
                upper = is_capital(start)
                capital += upper
                small += not upper and has_case(start)
    return small, capital


@njit(cache=True, nogil=True)
def count_brackets(points: Any) -> Any:
    """Count round and square brackets, pairs as one, and those without a partner.

    A partner stands in the same paragraph. A bracket that closes after a digit or a mark, as of an
    item of a list or a smile, needs none.
    """
    closers = np.empty(_DEPTH, np.uint32)
    brackets = unmatched = depth = 0
    before = np.uint32(0x0A)
    for point in points:
        if point == 0x0A and before == 0x0A:
            unmatched += depth
            depth = 0
        elif (point == 0x28 or point == 0x5B) and depth < _DEPTH:
            brackets += 1
            closers[depth] = 0x29 if point == 0x28 else 0x5D
            depth += 1
        elif point == 0x29 or point == 0x5D:
            if depth and closers[depth - 1] == point:
                depth -= 1
            elif before > 0x40 or before <= 0x20:
                brackets += 1
                unmatched += 1
        before = point
    return brackets, unmatched + depth


_DEPTH = 16
"""Brackets that stand open at a time; more are not looked at."""


@njit(cache=True, nogil=True)
def has_case(point: Any) -> Any:
    """Whether a letter is of a script with capitals, as Latin and Cyrillic are."""
    return point < 0x590 or 0x1E00 <= point < 0x2000 or 0x2C00 <= point < 0x2D00


@njit(cache=True, nogil=True)
def count_letter_order(points: Any) -> Any:
    """Count the runs of three letters that repeat, and those that also occur backward.

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
    """Count those of ``forward`` that occur twice, and of these, those of ``backward``."""
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
    """Return the slot of ``value``, or the empty slot where it belongs."""
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
