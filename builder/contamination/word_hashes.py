"""Word hashes: the hashes of the words of a text, in less than half the time of `find_words`.

A text is read as UTF-8, and a table contains the class of each code point. The code that hashes
words has no branch at the end of a word: a processor cannot predict where a word ends, and its
wrong predictions at such a branch took half of the time.

`fold` brings a text into the Unicode form NFKC, in which equivalent characters are the same.
"""

import unicodedata
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from climbstream.builder.features.characters import (
    is_digit,
    is_invisible,
    is_letter,
    is_unspaced,
    lower,
)
from climbstream.builder.features.words import fold

_SEPARATOR = np.uint32(0)
_ALONE = np.uint32(1 << 30)
"""Flag of a character that is a word by itself."""
_INVISIBLE, _APOSTROPHE, _FOLDABLE = (np.uint32(1 << 31 | n) for n in range(3))
"""Classes of characters that need care: invisible characters, apostrophes, and characters that
`fold` may change."""
_POINT = np.uint32((1 << 21) - 1)
_KNOWN = 0x40000
"""From this code point on, all code points separate words."""
_FOLDED = (range(0x80), range(0x3400, 0xA000), range(0xAC00, 0xD7A4), range(0x1F300, 0x1FA00))
"""Code points that `fold` never changes: ASCII, Chinese characters, Korean syllables, emoji."""
_MIXED = (range(0x80, 0x3400), range(0xFE00, 0x10000))
"""Ranges in which `fold` changes some code points, and not others. A code point that is neither
here nor in `_FOLDED` counts as one that `fold` may change."""
_JAMO = range(0x1160, 0x1200)
"""Vowels and final consonants that `fold` joins with the Korean letter before them."""
_START, _PRIME = np.uint64(14695981039346656037), np.uint64(1099511628211)


def hash_words(text: str) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Return the hash of each word, uint64 ``[w]``, and which words are characters, bool ``[w]``.

    In a script without spaces between words, each character counts as a word. The second array
    marks these characters.
    """
    hashes, alone, _ = hash_utf8(np.frombuffer(utf8(fold(text)), np.uint8), TABLE)
    return hashes, alone


def utf8(text: str) -> bytes:
    """Return ``text`` as UTF-8, in which a surrogate has three bytes."""
    return text.encode("utf-8", "surrogatepass")


@njit(cache=True)
def _tabulate() -> Any:
    """Return the class of each code point: its lower-case letter, 0 for a separator, or a flag."""
    table = np.zeros(_KNOWN, np.uint32)
    for n in range(_KNOWN):
        point = np.uint32(n)
        if is_letter(point) or is_digit(point):
            table[n] = np.uint32(lower(point)) | (_ALONE if is_unspaced(point) else _SEPARATOR)
        elif is_invisible(point):
            table[n] = _INVISIBLE
        elif point == 0x27 or point == 0x2019:
            table[n] = _APOSTROPHE
    return table


TABLE: NDArray[np.uint32] = _tabulate()
"""The table with which `hash_utf8` reads a folded text."""


@cache
def unfolded_table() -> NDArray[np.uint32]:
    """Return the table with which `hash_utf8` reads a text that is not folded."""
    table = np.full(_KNOWN, _FOLDABLE, np.uint32)
    for points in _FOLDED:
        table[points.start : points.stop] = TABLE[points.start : points.stop]
    for points in _MIXED:
        for point in points:
            table[point] = _class_of_folded(chr(point))
    return table


def _class_of_folded(character: str) -> Any:
    """Return the class of ``character`` after folding, or `_FOLDABLE` if that is not certain.

    The class is not certain for combining marks, and for Korean vowels and final consonants,
    because `fold` may join them with the character before them.
    """
    folded = fold(character)
    joined = [c for c in folded if unicodedata.category(c).startswith("M") or ord(c) in _JAMO]
    classes = {TABLE[ord(c)] for c in folded}
    if joined or (len(folded) > 1 and classes != {_SEPARATOR}):
        return _FOLDABLE
    return classes.pop()


@njit(cache=True, nogil=True)
def hash_utf8(text: Any, table: Any) -> Any:
    """Return what `hash_words` returns, for a text in UTF-8, and whether the whole text was read.

    ``text`` is uint8 ``[n]``. With `TABLE`, the whole text is always read. With `unfolded_table`,
    reading ends at the first character that `fold` may change; the arrays are then empty.
    """
    hashes, alone = np.empty(len(text) + 1, np.uint64), np.zeros(len(text) + 1, np.bool_)
    count = inside = np.uint64(0)
    value, before = _START, _SEPARATOR
    at = 0
    while at < len(text):
        kind, at = _read(text, at, table)
        if kind < _ALONE:
            # Without a branch: nothing tells the processor which letter is the last of its word.
            letter = kind != _SEPARATOR
            hashes[count] = value
            count += inside & np.uint64(not letter)
            mixed = (value ^ np.uint64(kind)) * _PRIME
            value = mixed if letter else _START
            inside = np.uint64(letter)
        elif kind == _FOLDABLE:
            return hashes[:0], alone[:0], False
        elif kind == _APOSTROPHE and inside and _joins(before, text, at, table):
            value = (value ^ np.uint64(0x27)) * _PRIME
        elif kind != _INVISIBLE:
            hashes[count] = value
            count += inside
            value, inside = _START, np.uint64(0)
            if kind != _APOSTROPHE:
                hashes[count] = (_START ^ np.uint64(kind & _POINT)) * _PRIME
                alone[count] = True
                count += np.uint64(1)
        before = kind
    hashes[count] = value
    count += inside
    for n in range(count):
        hashes[n] = (hashes[n] ^ (hashes[n] >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return hashes[:count], alone[:count], True


@njit(cache=True, nogil=True)
def _read(text: Any, at: Any, table: Any) -> Any:
    """Return the class of the character at byte ``at``, and the index after its last byte."""
    first = np.int64(text[at])
    if first < 0x80:
        return table[first], at + 1
    if first < 0xE0:
        return table[(first & 0x1F) << 6 | _low(text, at + 1)], at + 2
    if first < 0xF0:
        point = (first & 0xF) << 12 | _low(text, at + 1) << 6 | _low(text, at + 2)
        return table[point], at + 3
    high = (first & 0x7) << 18 | _low(text, at + 1) << 12
    point = high | _low(text, at + 2) << 6 | _low(text, at + 3)
    return (table[point] if point < _KNOWN else _SEPARATOR), at + 4


@njit(cache=True, nogil=True)
def _low(text: Any, at: Any) -> Any:
    """Return the six bits that a continuation byte (any but the first) adds to a code point."""
    return np.int64(text[at]) & 0x3F


@njit(cache=True, nogil=True)
def _joins(before: Any, text: Any, at: Any, table: Any) -> Any:
    """Whether the apostrophe before byte ``at`` is between letters.

    ``before`` is the class of the character before the apostrophe.
    """
    if at >= len(text):
        return False
    after, _ = _read(text, at, table)
    letters = _SEPARATOR < before < _INVISIBLE and _SEPARATOR < after < _INVISIBLE
    digits = is_digit(before & _POINT) or is_digit(after & _POINT)
    return letters and not digits
