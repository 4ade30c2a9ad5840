"""Decimal marks: whether the numbers in a table have decimal points or decimal commas.

A mark is a point or a comma. One of the two is the decimal mark; the other one may separate
thousands. ``1.234`` and ``1,234`` may be read in two ways. Every other number with a mark proves
which mark is the decimal mark: ``0.5``, ``1.23`` and ``1,234,567`` prove the point; ``0,5``,
``1,23`` and ``1.234.567`` prove the comma.
"""

import math
import re
from collections.abc import Iterable, Sequence

MARKS = {".": "points", ",": "commas"}
"""The two marks, with their names in messages."""
_OTHER = {".": ",", ",": "."}
_DOUBTFUL = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")
_NUMBER = {
    mark: re.compile(
        rf"(?=.*\d)[+-]?(\d*|[1-9]\d{{0,2}}(\{other}\d{{3}})+)(\{mark}\d*)?([eE][+-]?\d+)?"
    )
    for mark, other in _OTHER.items()
}
"""For each decimal mark, the numbers that can be written with it."""


def decimal_marks(columns: Sequence[Sequence[str]], usual: str) -> list[str]:
    """Return the decimal mark of each column of cells; "" if it cannot be known.

    If the cells of a column prove exactly one mark, they decide. If not, the first of these rules
    that applies decides:

    - If the cells of the whole table prove exactly one mark, the decimal mark is this mark.
    - If no number in the table has a comma, it is the point.
    - Otherwise it is ``usual``, the usual mark in tables of this kind; "" if there is none.
    """
    proofs = [_proved(cells) for cells in columns]
    proved = set().union(*proofs)
    if len(proved) == 1:
        (usual,) = proved
    elif not any("," in cell and _marks(cell) for cells in columns for cell in cells):
        usual = "."
    return [next(iter(marks)) if len(marks) == 1 else usual for marks in proofs]


def doubtful(cells: Iterable[str]) -> str | None:
    """Return the first of ``cells`` that may be read in two ways.

    None: there is no such cell, or the cells prove exactly one mark.
    """
    cells = [*cells]
    if len(_proved(cells)) == 1:
        return None
    return next(filter(_DOUBTFUL.fullmatch, cells), None)


def to_number(cell: str, mark: str) -> float:
    """Return the number in ``cell``, which has the decimal mark ``mark``; NaN if it is no number.

    >>> to_number("1.234,5", ","), to_number("1.5", ","), to_number("1,234", ".")
    (1234.5, nan, 1234.0)
    """
    other = _OTHER[mark]
    if other in cell and not _NUMBER[mark].fullmatch(cell):
        return math.nan
    try:
        return math.nan if "_" in cell else float(cell.replace(other, "").replace(mark, "."))
    except ValueError:
        return math.nan


def _proved(cells: Iterable[str]) -> set[str]:
    """Return the marks that ``cells`` prove to be the decimal mark."""
    return {mark for cell in cells if not _DOUBTFUL.fullmatch(cell) for mark in _marks(cell)}


def _marks(cell: str) -> list[str]:
    """Return the decimal marks with which ``cell`` is a number; [] if it has no mark."""
    if "." not in cell and "," not in cell:
        return []
    return [mark for mark in MARKS if _NUMBER[mark].fullmatch(cell)]
