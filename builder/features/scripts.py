"""Scripts: find the script of a text by its letters. Names of scripts are those of ISO 15924."""

import numpy as np
from numpy.typing import NDArray

UNKNOWN = "Zyyy"
"""Name of the script of a text with too few letters."""

_RANGES = (
    "0041-005A Latn,0061-007A Latn,00C0-024F Latn,0370-03FF Grek,0400-052F Cyrl,0531-058F Armn,"
    "0590-05FF Hebr,0600-06FF Arab,0700-074F Syrc,0750-077F Arab,0780-07BF Thaa,07C0-07FF Nkoo,"
    "08A0-08FF Arab,0900-097F Deva,0980-09FF Beng,0A00-0A7F Guru,0A80-0AFF Gujr,0B00-0B7F Orya,"
    "0B80-0BFF Taml,0C00-0C7F Telu,0C80-0CFF Knda,0D00-0D7F Mlym,0D80-0DFF Sinh,0E00-0E7F Thai,"
    "0E80-0EFF Laoo,0F00-0FFF Tibt,1000-109F Mymr,10A0-10FF Geor,1100-11FF Hang,1200-139F Ethi,"
    "13A0-13FF Cher,1400-167F Cans,1780-17FF Khmr,1800-18AF Mong,1980-19DF Talu,1A20-1AAF Lana,"
    "1B00-1B7F Bali,1B80-1BBF Sund,1C50-1C7F Olck,1C90-1CBF Geor,1E00-1EFF Latn,1F00-1FFF Grek,"
    "2C60-2C7F Latn,2D00-2D2F Geor,2D30-2D7F Tfng,2D80-2DDF Ethi,2DE0-2DFF Cyrl,2E80-2FDF Hani,"
    "3005-3007 Hani,3040-30FF Kana,3100-312F Bopo,3130-318F Hang,31A0-31BF Bopo,31F0-31FF Kana,"
    "3400-4DBF Hani,4E00-9FFF Hani,A000-A4CF Yiii,A500-A63F Vaii,A640-A69F Cyrl,A720-A7FF Latn,"
    "A8E0-A8FF Deva,A960-A97F Hang,A980-A9DF Java,A9E0-A9FF Mymr,AA60-AA7F Mymr,AB30-AB6F Latn,"
    "ABC0-ABFF Mtei,AC00-D7FF Hang,F900-FAFF Hani,FB00-FB06 Latn,FB1D-FB4F Hebr,FB50-FDFF Arab,"
    "FE70-FEFE Arab,FF21-FF5A Latn,FF66-FF9F Kana,FFA0-FFDC Hang,1E900-1E95F Adlm,20000-3FFFF Hani"
)
_PARTS = [part.replace("-", " ").split() for part in _RANGES.split(",")]
_BEGINS = np.array([int(begin, 16) for begin, _, _ in _PARTS], np.uint32)
_ENDS = np.array([int(end, 16) for _, end, _ in _PARTS], np.uint32)
_NAMES = sorted({name for _, _, name in _PARTS})
_NUMBER = np.array([_NAMES.index(name) for _, _, name in _PARTS])

_LATIN = _NAMES.index("Latn")
_LEAST = 20
"""The script of a text is recognised only if the text has at least this number of letters."""
_BESIDE_LATIN = 0.15
"""If at least this fraction of letters is not Latin, the text is in another script. In such a text,
names, terms and code are often in Latin letters."""
_SIMPLIFIED = frozenset("这们个来为说时会国对发经开现还动过学进种样点关应从两长问无实机东车见")
_TRADITIONAL = frozenset("這們個來為說時會國對發經開現還動過學進種樣點關應從兩長問無實機東車見")


def script_of(text: str) -> str:
    """Return the name of the script of ``text``; `UNKNOWN` if it has too few letters.

    Japanese is Jpan, Korean is Kore, Chinese is Hans or Hant.

    >>> script_of("Слово за слово, и не одно слово"), script_of("12 + 30 = 42")
    ('Cyrl', 'Zyyy')
    """
    counts = count_scripts(text)
    letters = int(counts.sum())
    if letters < _LEAST:
        return UNKNOWN
    others = counts.copy()
    others[_LATIN] = 0
    number = int(others.argmax())
    if others.sum() < _BESIDE_LATIN * letters:
        return "Latn"
    name = _NAMES[number]
    if name in ("Hani", "Kana", "Bopo"):
        return _script_of_han(text, counts)
    return "Kore" if name == "Hang" else name


def count_scripts(text: str) -> NDArray[np.int64]:
    """Return the number of letters of ``text`` in each script, in the order of `_NAMES`."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    at = np.searchsorted(_BEGINS, points, side="right") - 1
    inside = (at >= 0) & (points <= _ENDS[at])
    return np.bincount(_NUMBER[at[inside]], minlength=len(_NAMES))


def _script_of_han(text: str, counts: NDArray[np.int64]) -> str:
    kana, han = counts[_NAMES.index("Kana")], counts[_NAMES.index("Hani")]
    if kana > 0.05 * (kana + han):
        return "Jpan"
    simplified = sum(text.count(character) for character in _SIMPLIFIED - _TRADITIONAL)
    traditional = sum(text.count(character) for character in _TRADITIONAL - _SIMPLIFIED)
    return "Hant" if traditional > simplified else "Hans"
