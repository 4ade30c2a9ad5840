"""Order: measures whether words and letters follow each other as in a language, or at random.

Three signs show that a text is shuffled:

- In a language, some pairs of words and some runs of letters repeat again and again, but hardly any
  of them also occur in reverse: "of the" occurs, "the of" does not. In shuffled text, both
  directions are equally frequent.
- In scripts with capitals, a sentence begins with a capital. In shuffled text, any word may follow
  the end of a sentence.
- A bracket has a partner. In shuffled text, many brackets have none.

A text is compared only with itself, so its language makes no difference.
"""

from typing import Any

import numpy as np
from numba import njit

from .characters import is_capital, is_letter, lower
from .words import LETTERS, UNSPACED


@njit(cache=True, nogil=True)
def count_word_order(points: Any, words: Any) -> Any:
    """Count pairs of adjacent words, pairs that repeat, and pairs that also occur in reverse order.

    Returns these three numbers. Two words are adjacent if exactly one space is between them. In
    scripts without spaces, pairs are counted by `count_character_order` instead.
    """
    return _count_pair_order(points, words, True)


@njit(cache=True, nogil=True)
def count_character_order(points: Any, words: Any) -> Any:
    """Return the counts of `count_word_order` for characters of scripts without spaces."""
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
    """Count sentences that begin with a lower-case letter, and sentences that begin with a capital.

    Returns these two numbers. A sentence counts only if it follows another sentence on the same
    line, and if it begins with a letter that has case. A full stop after a single letter does not
    end a sentence, because the letter may be an initial.
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
    """Count round and square brackets, and brackets without a partner.

    Returns these two numbers; in the first, two brackets that are partners count as one. A partner
    must be in the same paragraph. A closing bracket without a partner is ignored directly after a
    digit or a punctuation mark, because it may belong to the number of a list item, or to a smiley.
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
"""Maximum number of brackets that are open at the same time; further brackets are ignored."""


@njit(cache=True, nogil=True)
def has_case(point: Any) -> Any:
    """Whether a letter belongs to a script with capitals, such as Latin or Cyrillic."""
    return point < 0x590 or 0x1E00 <= point < 0x2000 or 0x2C00 <= point < 0x2D00


@njit(cache=True, nogil=True)
def count_letter_order(points: Any) -> Any:
    """Count the runs of three letters that repeat, and the runs that also occur in reverse.

    Returns these two numbers. The beginning of a word counts as a letter, and so does its end.
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
    """Count values that repeat in ``forward``, and values of ``backward`` that ``forward`` has."""
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
    """Return the index of ``value`` in the hash table ``slots``, or of the empty slot for it."""
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
