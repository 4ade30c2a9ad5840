"""Sheet: a CSV file from any program, with the line number of each row.

The delimiter is a comma, a semicolon or a tab: the one that is most frequent in the first line.
Numbers may have decimal commas and separators of thousands (`decimal_marks`), or may be
percentages. The text is UTF-8, or UTF-16 with a byte order mark, as spreadsheets save it.
"""

import codecs
import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from climbstream.loader.core.errors import InvalidDataError

from .decimal_marks import MARKS, decimal_marks, doubtful, to_number

_MOST_BYTES = 1 << 28
"""Largest size of a file that is read, in bytes."""
_LONGEST = 100_000
"""Length in characters of the longest cell that is accepted. The limit of the module `csv` is not
used: it applies to the whole process, and other code may raise it."""
_SHOWN = 40
"""Number of characters of a cell that a message shows."""
_LARGEST = 1e100
"""Largest absolute value of a number; sums and squares of such numbers are finite."""


class Row(NamedTuple):
    """A row of a CSV file: the text of its cells, without leading and trailing spaces."""

    line: int
    """Number of the line on which the row begins, from 1."""
    cells: list[str]


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table of text, in which every row has one cell per column."""

    path: Path
    delimiter: str
    line: int
    """Number of the line of the column headings, from 1."""
    heads: list[str]
    """Names of the columns."""
    rows: list[Row]
    """Rows below the column headings, without empty lines."""
    _marks: list[str] = field(init=False, repr=False)
    """Decimal mark of each column; "" if it cannot be known."""

    def __post_init__(self) -> None:
        columns = [[_bare(row.cells[n]) for row in self.rows] for n in range(len(self.heads))]
        usual = "," if self.delimiter == ";" else ""  # as spreadsheets write tables
        object.__setattr__(self, "_marks", decimal_marks(columns, usual))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the CSV file at ``path``.

        Raises:
            InvalidDataError: The file is not CSV, has no rows below the column headings, or has a
                row whose number of cells differs from the number of headings.
        """
        text = _text(path)
        delimiter = _delimiter(text)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows: list[Row] = []
        begin = 1
        try:
            for cells in reader:
                if max(map(len, cells), default=0) > _LONGEST:
                    raise csv.Error(f"field larger than {_LONGEST:,} characters")
                if any(map(str.strip, cells)):
                    rows.append(Row(begin, [cell.strip() for cell in cells]))
                begin = reader.line_num + 1
        except csv.Error as error:
            raise InvalidDataError(
                f"{path}, line {begin}: this is not CSV: {error}; correct the line"
            ) from None
        if len(rows) < 2:
            raise InvalidDataError(f"{path} has column headings, but no rows")
        (first, heads), *rows = rows
        for line, cells in rows:
            if len(cells) != len(heads):
                raise InvalidDataError(
                    f"{path}, line {line} has {len(cells)} cells, and there are {len(heads)} "
                    "column headings; correct the line, or remove it"
                )
        return cls(path, delimiter, first, heads, rows)

    def check_unique(self, names: Iterable[str]) -> None:
        """Raise `InvalidDataError` unless each of ``names`` is the name of exactly one column."""
        for name in names:
            places = [n for n, head in enumerate(self.heads, start=1) if head == name]
            if len(places) != 1:
                raise InvalidDataError(
                    f"{self.path}, line {self.line}: columns {' and '.join(map(str, places))} are "
                    f"all named {name!r}; rename them, or keep one"
                )

    def cell(self, row: Row, name: str) -> str:
        """Return the cell of ``row`` in the first column that is named ``name``."""
        return row.cells[self.heads.index(name)]

    def number(self, row: Row, name: str) -> float:
        """Return a cell as a number; NaN if it is no number, or its absolute value is > 1e100.

        A percentage is a part of 1: ``12.5 %`` is 0.125.
        """
        cell = self.cell(row, name)
        value = to_number(_bare(cell), self._mark(name))
        if cell.endswith("%"):
            value /= 100
        return value if abs(value) <= _LARGEST else math.nan

    def check_percentages(self, names: Iterable[str]) -> None:
        """Raise `InvalidDataError` if only some numbers in columns ``names`` are percentages.

        The number 0 means the same with and without a percent sign.
        """
        places = [(row, name) for row in self.rows for name in names if self.number(row, name)]
        kinds = {self.cell(row, name).endswith("%"): (row, name) for row, name in places}
        if len(kinds) == 2:
            percentage, plain = (
                f"{self.cell(row, name)} in line {row.line}, column {name!r}"
                for row, name in (kinds[True], kinds[False])
            )
            raise InvalidDataError(
                f"{self.path} has {percentage}, but {plain}; write all numbers of these columns "
                "as percentages, or none"
            )

    def thousands(self, names: Iterable[str]) -> list[str]:
        """Return a note on each column of ``names`` whose points or commas separate thousands.

        A column is left out if its own cells prove what its decimal mark is.

        Raises:
            InvalidDataError: It is unknown whether a mark in one of the columns separates decimals
                or thousands.
        """
        notes = []
        for name in names:
            cell = doubtful(_bare(self.cell(row, name)) for row in self.rows)
            if cell is None:
                continue
            line = next(row.line for row in self.rows if _bare(self.cell(row, name)) == cell)
            mark = "." if "." in cell else ","
            if not self._marks[self.heads.index(name)]:
                raise InvalidDataError(
                    f"{self.path}, line {line}: {cell!r} in column {name!r} may have decimals, or "
                    "a separator of thousands; write the numbers without separators of thousands"
                )
            if mark != self._mark(name):
                notes.append(
                    f"the {MARKS[mark]} in column {name!r} of {self.path} are read as separators "
                    f"of thousands: {cell} in line {line} is "
                    f"{to_number(cell, self._mark(name)):.0f}"
                )
        return notes

    def _mark(self, name: str) -> str:
        return self._marks[self.heads.index(name)] or "."

    def differ(self, row: Row, other: Row, name: str) -> bool:
        """Return whether two rows differ in the column ``name``; numbers are compared by value."""
        same = self.cell(row, name) == self.cell(other, name)
        return not same and self.number(row, name) != self.number(other, name)

    def shown(self, row: Row, name: str) -> str:
        """Return a cell for a message: a number unchanged, other text in quotes and shortened."""
        cell = self.cell(row, name)
        if math.isfinite(self.number(row, name)):
            return cell
        return repr(cell if len(cell) <= _SHOWN else f"{cell[:_SHOWN]}…")

    def place(self, row: Row) -> str:
        """Return the file and line of ``row``, for a message."""
        return f"{self.path}, line {row.line}"


def _bare(cell: str) -> str:
    """Return ``cell`` without its percent sign."""
    return cell.removesuffix("%").rstrip()


def _text(path: Path) -> str:
    """Return the text of the file at ``path``; raise `InvalidDataError` if it is not UTF-8."""
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InvalidDataError(
            f"{path} has more than {_MOST_BYTES:,} bytes; keep the columns of weights and scores"
        )
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidDataError(
            f"{path}, line {line} is not UTF-8: {error.reason}; save the table as UTF-8"
        ) from None


def _delimiter(text: str) -> str:
    """Return the delimiter of the first line; a comma if there is none."""
    first = text.lstrip("\r\n").partition("\n")[0]
    # Do not count delimiters inside quotes.
    outside = "".join(first.split('"')[::2])
    return max(",;\t", key=outside.count)
