"""Characters: compiled functions that tell whether a code point is a letter, a digit and so on.

The classes are written as ranges of code points, because compiled code compares numbers quickly. A
code point that Unicode has not assigned yet counts as a letter of its block.
"""

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def is_letter(point: Any) -> Any:
    """Whether a code point is a letter, or a combining mark, which is a part of a word."""
    if point < 0x80:
        return 0x41 <= point <= 0x5A or 0x61 <= point <= 0x7A
    return (
        (0xC0 <= point < 0x2000 or 0x2C00 <= point < 0xE000 or 0xF900 <= point < 0xFFF0)
        and not 0x2E00 <= point < 0x2E80
        and not 0x3000 <= point < 0x3005
        and not 0x3008 <= point < 0x3021
        and not 0xFE00 <= point < 0xFE70
        and point != 0xD7
        and point != 0xF7
        and point != 0x30FB
        and not is_digit(point)
        and not _is_mark(point)
    ) or (0x10000 <= point < 0x1D000 or 0x1E000 <= point < 0x1F000 or 0x20000 <= point < 0x40000)


@njit(cache=True, nogil=True)
def _is_mark(point: Any) -> Any:
    """Whether a code point from 0xC0 to 0x1FFF is a punctuation mark or symbol between words."""
    if point < 0x900:
        return (
            point == 0x37E
            or point == 0x387
            or 0x55A <= point <= 0x55F
            or 0x589 <= point <= 0x58F
            or point == 0x5BE
            or point == 0x5C0
            or point == 0x5C3
            or point == 0x5F3
            or point == 0x5F4
            or 0x600 <= point <= 0x60F
            or 0x61B <= point <= 0x61F
            or 0x66A <= point <= 0x66D
            or point == 0x6D4
            or 0x700 <= point <= 0x70F
        )
    return (
        0x964 <= point <= 0x965
        or point == 0x970
        or point == 0xDF4
        or point == 0xE3F
        or point == 0xE4F
        or 0xE5A <= point <= 0xE5B
        or 0xF04 <= point <= 0xF17
        or 0x104A <= point <= 0x104F
        or point == 0x10FB
        or 0x1360 <= point <= 0x1368
        or 0x17D4 <= point <= 0x17DB
        or 0x1800 <= point <= 0x180E
    )


@njit(cache=True, nogil=True)
def is_digit(point: Any) -> Any:
    """Whether a code point is a decimal digit of any script."""
    if point < 0x660:
        return 0x30 <= point <= 0x39
    return (
        point <= 0x669
        or 0x6F0 <= point <= 0x6F9
        # From Devanagari to Malayalam, the digits of each script are 128 after those of the last.
        or (0x966 <= point <= 0xDEF and (point - 0x966) % 0x80 < 10)
        or 0xE50 <= point <= 0xE59
        or 0xED0 <= point <= 0xED9
        or 0xF20 <= point <= 0xF29
        or 0x1040 <= point <= 0x1049
        or 0x17E0 <= point <= 0x17E9
    )


@njit(cache=True, nogil=True)
def is_capital(point: Any) -> Any:
    """Whether a code point is a capital letter of any script."""
    return lower(point) != point


_CASED = 0x2E00
"""Code point below which most letters of scripts with capitals are."""


def _small_letters() -> Any:
    """Return the lower-case letter of each code point below `_CASED`, as Unicode defines it."""
    small = np.arange(_CASED, dtype=np.uint32)
    for point in range(_CASED):
        letter = chr(point).lower()
        # Cherokee is written only in capitals, so it counts as a script without capitals.
        if len(letter) == 1 and ord(letter) < _CASED:
            small[point] = ord(letter)
    small[0x130] = 0x69
    return small


_SMALL = _small_letters()


@njit(cache=True, nogil=True)
def lower(point: Any) -> Any:
    """Return the lower-case letter of a capital; return other code points unchanged."""
    if point < _CASED:
        return _SMALL[point]
    if 0xA640 <= point <= 0xA66D or 0xA680 <= point <= 0xA69B or 0xA722 <= point <= 0xA76F:
        return point + np.uint32(1 - point % 2)
    if 0x10400 <= point <= 0x10427:  # Deseret
        return point + np.uint32(40)
    if 0x1E900 <= point <= 0x1E921:  # Adlam
        return point + np.uint32(34)
    return point


@njit(cache=True, nogil=True)
def is_unspaced(point: Any) -> Any:
    """Whether a code point belongs to a script without spaces between words."""
    if point < 0xE00:
        return False
    return (
        point < 0xF00  # Thai, Lao
        or 0x1000 <= point < 0x10A0  # Myanmar
        or 0x1780 <= point < 0x1800  # Khmer
        or 0x1950 <= point < 0x1AB0  # Tai Le, New Tai Lue, Khmer symbols, Tai Tham
        or 0x1B00 <= point < 0x1B80  # Balinese
        or 0x2E80 <= point < 0x3130  # Han radicals, kana, Bopomofo
        or 0x31A0 <= point < 0xA4D0  # Bopomofo and kana extended, Han, Yi
        or 0xA980 <= point < 0xA9E0  # Javanese
        or 0xA9E0 <= point < 0xAA00  # Myanmar extended
        or 0xAA60 <= point < 0xAAE0  # Myanmar extended, Tai Viet
        or 0xF900 <= point < 0xFB00  # Han compatibility
        or 0x1B000 <= point < 0x1B170  # kana supplement
        or 0x20000 <= point < 0x40000  # Han
    )


@njit(cache=True, nogil=True)
def is_invisible(point: Any) -> Any:
    """Whether a code point is an invisible part of a word: soft hyphen, joiner, text direction."""
    if point < 0x200B:
        return point == 0xAD or point == 0x61C
    return (
        0x200C <= point <= 0x200F
        or 0x202A <= point <= 0x202E
        or 0x2060 <= point <= 0x2064
        or 0x2066 <= point <= 0x2069
        or 0xFE00 <= point <= 0xFE0F
        or point == 0xFEFF
    )
