"""Words: compiled code that finds the words of a text, for comparing, embedding and scoring.

The words are those of Unicode's segmentation (UAX 29), as far as it needs no dictionary: a word is
a run of letters and digits, whatever its case; an apostrophe within joins. In scripts that put no
spaces between words (Chinese, Japanese, Thai, Khmer and the like), each character is a word, so a
run of words is an n-gram of characters there. Texts are folded first (NFKC), for comparison alone:
accents are one with their letters, wide and presentation forms are the plain ones.
"""

import unicodedata
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .characters import (
    is_capital,
    is_digit,
    is_invisible,
    is_letter,
    is_unspaced,
    lower,
)

LETTERS, DIGITS, CAPITALS, JUMBLED, UNSPACED = 1, 2, 4, 8, 16
"""What a word may have: letters, digits, capitals alone, a digit right between small letters; or it
is one character of a script without spaces."""


def fold(text: str) -> str:
    r"""Fold characters that are written in several ways to one: NFKC.

    >>> fold("ﬁne cafe\u0301")
    'fine café'
    """
    if unicodedata.is_normalized("NFKC", text):  # of ASCII it only looks at a flag
        return text
    # No character joins one of another line. Most lines are folded already, which costs a glance.
    return "\n".join([unicodedata.normalize("NFKC", line) for line in text.split("\n")])


def code_points(text: str) -> NDArray[np.uint32]:
    """Code points of ``text``, folded: uint32 ``[n]``."""
    return plain_points(fold(text))


def plain_points(text: str) -> NDArray[np.uint32]:
    """Code points of ``text`` as it stands: uint32 ``[n]``."""
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
    most = len(points)
    hashes, shapes = np.empty(most, np.uint64), np.empty(most, np.uint8)
    begins, ends = np.empty(most, np.int64), np.empty(most, np.int64)
    count = at = 0
    while at < len(points):
        point = points[at]
        if not (is_letter(point) or is_digit(point)):
            at += 1
            continue
        begin = at
        if is_unspaced(point):
            value, shape, at = _mix(_START, point), LETTERS | UNSPACED, at + 1
        else:
            value, shape, at = _read_word(points, at)
        hashes[count] = _spread(value)
        begins[count], ends[count], shapes[count] = begin, at, shape
        count += 1
    return hashes[:count], begins[:count], ends[:count], shapes[:count]


@njit(cache=True, nogil=True)
def find_characters(points: Any) -> Any:
    """Hash each letter and digit of ``points`` as `find_words` hashes a word of that alone."""
    hashes = np.empty(len(points), np.uint64)
    count = 0
    for point in points:
        if is_letter(point) or is_digit(point):
            hashes[count] = _spread(_mix(_START, point))
            count += 1
    return hashes[:count]


_START = np.uint64(14695981039346656037)


@njit(cache=True, nogil=True)
def _spread(value: Any) -> Any:
    # FNV leaves the high bits of short words almost unchanged.
    return (value ^ (value >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)


@njit(cache=True, nogil=True)
def _mix(value: Any, point: Any) -> Any:
    return (value ^ np.uint64(lower(point))) * np.uint64(1099511628211)


@njit(cache=True, nogil=True)
def _read_word(points: Any, begin: Any) -> Any:
    """Read the word that begins at ``begin``: its hash, its shape and its end."""
    value, shape, at = _START, CAPITALS, begin
    while at < len(points):
        point = points[at]
        if is_unspaced(point):
            break
        if is_letter(point):
            shape |= LETTERS
            if not is_capital(point):
                shape &= ~CAPITALS
        elif is_digit(point):
            shape |= DIGITS
            if begin < at < len(points) - 1 and _is_small(points[at - 1], points[at + 1]):
                shape |= JUMBLED
        elif is_invisible(point):
            at += 1
            continue
        elif _joins(points, at):
            point = np.uint32(0x27)
        else:
            break
        value = _mix(value, point)
        at += 1
    return value, shape, at


@njit(cache=True, nogil=True)
def _joins(points: Any, at: Any) -> Any:
    """Whether an apostrophe between letters is at ``at``."""
    mark = points[at] == 0x27 or points[at] == 0x2019
    return mark and at + 1 < len(points) and is_letter(points[at - 1]) and is_letter(points[at + 1])


@njit(cache=True, nogil=True)
def join_characters(hashes: Any, begins: Any, ends: Any, shapes: Any) -> Any:
    """Join each character of a script without spaces with the character right after it.

    Then pairs of characters stand where other scripts have words. Returns hashes, uint64 ``[w]``.
    """
    joined = hashes.copy()
    for i in range(len(hashes) - 1):
        if shapes[i] & shapes[i + 1] & UNSPACED and ends[i] == begins[i + 1]:
            joined[i] = (hashes[i] ^ (hashes[i + 1] >> np.uint64(7))) * np.uint64(
                0x9E3779B97F4A7C15
            )
    return joined


@njit(cache=True, nogil=True)
def runs(hashes: Any, length: Any) -> Any:
    """Hash each run of ``length`` words in order: uint64 ``[w - length + 1]``, or all in one."""
    count = max(1, len(hashes) - length + 1)
    keys = np.empty(count, np.uint64)
    for first in range(count):
        value = np.uint64(0)
        for word in hashes[first : first + length]:
            value = (value ^ word) * np.uint64(0x9E3779B97F4A7C15)
            value ^= value >> np.uint64(32)
        keys[first] = value
    return keys


@njit(cache=True, nogil=True)
def _is_small(one: Any, other: Any) -> Any:
    return 0x61 <= one <= 0x7A and 0x61 <= other <= 0x7A


def opening(text: str, most: int = 300) -> str:
    """Return the beginning of ``text``, at most ``most`` characters, on one line."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else line[: most - 1] + "…"
