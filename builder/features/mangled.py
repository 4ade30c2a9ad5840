"""Mangled text: count characters of wrongly decoded UTF-8, and replacement characters."""

import re


def _decode(first: int, last: int, *encodings: str) -> str:
    """Return a regex class: the characters for bytes ``first`` to ``last`` in ``encodings``."""
    read = {bytes([byte]).decode(e, "ignore") for byte in range(first, last + 1) for e in encodings}
    return f"[{''.join(sorted(map(re.escape, read)))}]"


_LATIN, _CYRILLIC = ("latin-1", "cp1252"), ("cp1251",)
_CONTINUED = _decode(0x80, 0xBF, *_LATIN)
_SEQUENCES = re.compile(
    f"{_decode(0xC2, 0xDF, *_LATIN)}{_CONTINUED}"
    f"|{_decode(0xE0, 0xEF, *_LATIN)}{_CONTINUED}{{2}}"
    f"|{_decode(0xF0, 0xF4, *_LATIN)}{_CONTINUED}{{3}}"
    # Cyrillic letters begin with byte 0xD0 or 0xD1. One such pair may be two real letters, so two
    # pairs are needed.
    f"|(?:{_decode(0xD0, 0xD1, *_CYRILLIC)}{_decode(0x80, 0xBF, *_CYRILLIC)}){{2,}}"
    "|\ufffd"
)


def count_mangled(text: str) -> int:
    r"""Count the characters of ``text`` that are wrongly decoded UTF-8 or replacement characters.

    >>> count_mangled("caf\xc3\xa9"), count_mangled("caf\xe9")
    (2, 0)
    """
    if text.isascii():
        return 0
    return sum(len(sequence) for sequence in _SEQUENCES.findall(text))
