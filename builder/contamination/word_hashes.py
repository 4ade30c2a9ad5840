"""Word hashes: compute the hashes of the words of a text, in half the time of `find_words`.

A table contains the class of each code point. Plain ASCII is read byte by byte.
"""

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
from climbstream.builder.features.words import fold, plain_points

_SEPARATOR = np.uint32(0)
_ALONE = np.uint32(1 << 30)
"""Flag of a character that is a word by itself."""
_INVISIBLE, _APOSTROPHE = np.uint32(1 << 31), np.uint32(1 << 31 | 1)
_POINT = np.uint32((1 << 21) - 1)
_KNOWN = 0x40000
"""All code points from this one on separate words."""


def hash_words(text: str) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Return the hash of each word, uint64 ``[w]``, and which words are characters, bool ``[w]``.

    In a script without spaces between words, each character counts as a word. The second array
    marks these characters.
    """
    hashes, alone = hash_points(points_of(fold(text)), TABLE)
    return hashes, alone


def points_of(text: str) -> NDArray[Any]:
    """Return the code points of a folded ``text``, ``[n]``: uint8 if it is ASCII, else uint32."""
    if text.isascii():
        return np.frombuffer(text.encode(), np.uint8)
    return plain_points(text)


@njit(cache=True)
def _tabulate() -> Any:
    """Return what each code point adds to a word: its lower-case letter, and the flags above."""
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
"""The table that `hash_points` reads for each code point."""


@njit(cache=True, nogil=True)
def hash_points(points: Any, table: Any) -> Any:
    """Do `hash_words` for the code points of a folded text; ``table`` is `TABLE`."""
    most = len(points)
    hashes, alone = np.empty(most, np.uint64), np.zeros(most, np.bool_)
    start, prime = np.uint64(14695981039346656037), np.uint64(1099511628211)
    count = 0
    value = start
    inside = False
    for at in range(most + 1):
        kind = _SEPARATOR
        if at < most and points[at] < _KNOWN:
            kind = table[points[at]]
        if kind != _SEPARATOR and kind < _ALONE:
            value = (value ^ np.uint64(kind)) * prime
            inside = True
            continue
        if inside:
            if kind == _INVISIBLE:
                continue
            if kind == _APOSTROPHE and _joins(points, table, at):
                value = (value ^ np.uint64(0x27)) * prime
                continue
            hashes[count] = (value ^ (value >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            count += 1
            value, inside = start, False
        if kind >= _ALONE and kind < _INVISIBLE:
            value = (start ^ np.uint64(kind & _POINT)) * prime
            hashes[count] = (value ^ (value >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            alone[count] = True
            count += 1
            value = start
    return hashes[:count], alone[:count]


@njit(cache=True, nogil=True)
def _joins(points: Any, table: Any, at: Any) -> Any:
    """Whether the apostrophe at ``at`` is between letters."""
    if at + 1 >= len(points) or points[at - 1] >= _KNOWN or points[at + 1] >= _KNOWN:
        return False
    before, after = table[points[at - 1]], table[points[at + 1]]
    letters = _SEPARATOR < before < _INVISIBLE and _SEPARATOR < after < _INVISIBLE
    digits = is_digit(np.uint32(points[at - 1])) or is_digit(np.uint32(points[at + 1]))
    return letters and not digits
