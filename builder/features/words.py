"""Words of a text, found by compiled code: what duplicates are compared by and quality counts.

A word is a run of letters and digits, whatever its case; an apostrophe within joins. All that is no
ASCII and neither a mark nor a space counts as a letter.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

LETTERS, DIGITS, CAPITALS, JUMBLED = 1, 2, 4, 8
"""What a word may have: letters, digits, capitals alone, a digit right between small letters."""


def code_points(text: str) -> NDArray[np.uint32]:
    """Code points of ``text``: uint32 ``[n]``."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def hash_word(word: str) -> int:
    """Hash one word as `find_words` does."""
    hashes, _, _, _ = find_words(code_points(word))
    (value,) = hashes.tolist()
    return int(value)


@njit(cache=True, nogil=True)
def find_words(points: Any) -> Any:
    """Find the words of ``points``, uint32 ``[n]``.

    Returns their hashes uint64 ``[w]``, begins and ends int64 ``[w]``, and shapes uint8 ``[w]``.
    """
    most = len(points) // 2 + 1
    hashes, shapes = np.empty(most, np.uint64), np.empty(most, np.uint8)
    begins, ends = np.empty(most, np.int64), np.empty(most, np.int64)
    found = at = 0
    while at < len(points):
        if not (is_letter(points[at]) or is_digit(points[at])):
            at += 1
            continue
        begin, value, shape = at, np.uint64(14695981039346656037), CAPITALS
        while at < len(points):
            point = points[at]
            if is_letter(point):
                shape |= LETTERS
                if not is_capital(point):
                    shape &= ~CAPITALS
            elif is_digit(point):
                shape |= DIGITS
                if begin < at < len(points) - 1 and _is_small(points[at - 1], points[at + 1]):
                    shape |= JUMBLED
            elif not (
                (point == 0x27 or point == 0x2019)
                and at + 1 < len(points)
                and is_letter(points[at - 1])
                and is_letter(points[at + 1])
            ):
                break
            else:
                point = np.uint32(0x27)
            value = (value ^ np.uint64(_lower(point))) * np.uint64(1099511628211)
            at += 1
        # FNV leaves its high bits nearly alone in short words.
        hashes[found] = (value ^ (value >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        begins[found], ends[found], shapes[found] = begin, at, shape
        found += 1
    return hashes[:found], begins[:found], ends[:found], shapes[:found]


@njit(cache=True, nogil=True)
def runs(hashes: Any, length: Any) -> Any:
    """Hash each run of ``length`` words in order: uint64 ``[w - length + 1]``, or all in one."""
    count = max(1, len(hashes) - length + 1)
    found = np.empty(count, np.uint64)
    for first in range(count):
        value = np.uint64(0)
        for word in hashes[first : first + length]:
            value = (value ^ word) * np.uint64(0x9E3779B97F4A7C15)
            value ^= value >> np.uint64(32)
        found[first] = value
    return found


@njit(cache=True, nogil=True)
def is_letter(point: Any) -> Any:
    """Whether a code point is part of words and no digit."""
    if point < 0x80:
        return 0x41 <= point <= 0x5A or 0x61 <= point <= 0x7A
    return (
        point >= 0xC0
        and not 0x2000 <= point < 0x2C00
        and not 0x3000 <= point < 0x3040
        and not 0xFE00 <= point < 0xFE70
        and point != 0xD7
        and point != 0xF7
        and point < 0xFFF0
    )


@njit(cache=True, nogil=True)
def is_digit(point: Any) -> Any:
    """Whether a code point is an ASCII digit."""
    return 0x30 <= point <= 0x39


@njit(cache=True, nogil=True)
def is_capital(point: Any) -> Any:
    """Whether a code point is a capital of the Latin, Greek or Cyrillic script."""
    return _lower(point) != point


@njit(cache=True, nogil=True)
def _lower(point: Any) -> Any:
    if (
        0x41 <= point <= 0x5A
        or 0xC0 <= point <= 0xDE
        or 0x391 <= point <= 0x3A9
        or 0x410 <= point <= 0x42F
    ):
        return point + np.uint32(32)
    return point


@njit(cache=True, nogil=True)
def _is_small(one: Any, other: Any) -> Any:
    return 0x61 <= one <= 0x7A and 0x61 <= other <= 0x7A


def opening(text: str, most: int = 300) -> str:
    """Return how ``text`` begins, in at most ``most`` characters, on one line."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else line[: most - 1] + "…"
