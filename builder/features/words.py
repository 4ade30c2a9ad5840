"""Words: compiled code that finds the words of a text, for comparing, embedding and scoring.

The words are those of Unicode's segmentation (UAX 29), without the parts that need a dictionary. A
word is a run of letters and digits of any case; an apostrophe between letters is part of the word.
In scripts without spaces between words (Chinese, Japanese, Thai, Khmer and others), each character
is a word. So in these scripts, a run of words is an n-gram of characters.

Texts are first folded to the Unicode form NFKC, but only to compare them. In this form, a letter
and its accent are one character, and wide and presentation forms of letters are replaced by plain
letters.
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
"""Bits of the shape of a word. In this order, the bits mean that the word has letters, has digits,
has only capitals as letters, has a digit between two lower-case letters, or is one character of a
script without spaces."""


def fold(text: str) -> str:
    r"""Return ``text`` in the form NFKC, in which equivalent characters are the same.

    >>> fold("ﬁne cafe\u0301")
    'fine café'
    """
    if unicodedata.is_normalized("NFKC", text):  # for ASCII, this only reads a flag
        return text
    # No character combines with one of another line. So each line is normalised alone: most lines
    # are normalised already, which is fast to check.
    return "\n".join([unicodedata.normalize("NFKC", line) for line in text.split("\n")])


def code_points(text: str) -> NDArray[np.uint32]:
    """Return the code points of the folded ``text``: uint32 ``[n]``."""
    return plain_points(fold(text))


def plain_points(text: str) -> NDArray[np.uint32]:
    """Return the code points of ``text`` without folding it: uint32 ``[n]``."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def hash_word(word: str) -> int:
    """Return the hash of one word, as `find_words` computes it."""
    hashes, _, _, _ = find_words(code_points(word))
    (value,) = hashes.tolist()
    return int(value)


@njit(cache=True, nogil=True)
def find_words(points: Any) -> Any:
    """Find the words of ``points``, uint32 ``[n]``.

    Returns four arrays, each ``[w]``: the hash (uint64), the begin and the end (int64), and the
    shape (uint8) of each word.
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
    """Return the hash of each letter or digit, as if it were a word of one character."""
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
    # Mix the bits: FNV leaves the high bits of short words almost unchanged.
    return (value ^ (value >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)


@njit(cache=True, nogil=True)
def _mix(value: Any, point: Any) -> Any:
    return (value ^ np.uint64(lower(point))) * np.uint64(1099511628211)


@njit(cache=True, nogil=True)
def _read_word(points: Any, begin: Any) -> Any:
    """Return the hash (before `_spread`), the shape and the end of the word at ``begin``."""
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
    """Whether there is an apostrophe between letters at ``at``."""
    mark = points[at] == 0x27 or points[at] == 0x2019
    return mark and at + 1 < len(points) and is_letter(points[at - 1]) and is_letter(points[at + 1])


@njit(cache=True, nogil=True)
def join_characters(hashes: Any, begins: Any, ends: Any, shapes: Any) -> Any:
    """Join each character of a script without spaces with the character directly after it.

    So in such a script, pairs of characters take the place of words. Returns the hashes of all
    words and pairs, uint64 ``[w]``.
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
    """Return the hash of each run of ``length`` words, in order: uint64 ``[w - length + 1]``.

    If there are fewer than ``length`` words, the result is one hash of all words.
    """
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
    """Return the beginning of ``text`` on one line, at most ``most`` characters."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else line[: most - 1] + "…"
