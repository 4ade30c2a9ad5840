"""Sheet: a CSV file from any program, with the line of each cell.

The delimiter is the comma, semicolon or tab, whichever the first line has most; with semicolons a
number may have a decimal comma. The text is UTF-8, or UTF-16 with a byte order mark, as
spreadsheets save it.
"""

import codecs
import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from climbstream.loader.core.errors import InvalidDataError

_MOST_BYTES = 1 << 28
_LONGEST = 100_000
"""Longest cell, in characters; the limit of `csv` is for the whole process, and others may raise
it."""
_SHOWN = 40
"""Longest cell in a message, in characters."""
_LARGEST = 1e100
"""Largest number: sums and squares of such numbers are finite."""


class Row(NamedTuple):
    """The cells of a row, without spaces around them."""

    line: int
    """Line on which the row begins, from 1."""
    cells: list[str]


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table of text; every row has a cell for each column."""

    path: Path
    delimiter: str
    line: int
    """Line of the heads."""
    heads: list[str]
    rows: list[Row]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file at ``path``.

        Raises:
            InvalidDataError: It is no such table; the message has the line.
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
                f"{path}, line {begin}: this is no CSV: {error}; mend the line"
            ) from None
        if len(rows) < 2:
            raise InvalidDataError(f"{path} has no rows under its heads")
        (first, heads), *rows = rows
        for line, cells in rows:
            if len(cells) != len(heads):
                raise InvalidDataError(
                    f"{path}, line {line} has {len(cells)} cells, and {len(heads)} heads "
                    "above them; mend the line, or take it out"
                )
        return cls(path, delimiter, first, heads, rows)

    def check_unique(self, names: Iterable[str]) -> None:
        """Raise `InvalidDataError` unless each of ``names`` is the head of one column."""
        for name in names:
            places = [n for n, head in enumerate(self.heads, start=1) if head == name]
            if len(places) != 1:
                raise InvalidDataError(
                    f"{self.path}, line {self.line}: columns {' and '.join(map(str, places))} are "
                    f"all named {name!r}; rename them, or keep one"
                )

    def cell(self, row: Row, name: str) -> str:
        """Return the cell of ``row`` in the first column ``name``."""
        return row.cells[self.heads.index(name)]

    def number(self, row: Row, name: str) -> float:
        """Return a cell as a number; NaN if it is no number, or one beyond -1e100 to 1e100."""
        cell = self.cell(row, name)
        if self.delimiter == ";" and "." not in cell:
            cell = cell.replace(",", ".")
        try:
            value = math.nan if "_" in cell else float(cell)
        except ValueError:
            return math.nan
        return value if abs(value) <= _LARGEST else math.nan

    def differ(self, row: Row, other: Row, name: str) -> bool:
        """Whether two rows differ in the column ``name``."""
        same = self.cell(row, name) == self.cell(other, name)
        return not same and self.number(row, name) != self.number(other, name)

    def shown(self, row: Row, name: str) -> str:
        """Return the beginning of a cell for a message: a number as it is, other text in quotes."""
        cell = self.cell(row, name)
        if math.isfinite(self.number(row, name)):
            return cell
        return repr(cell if len(cell) <= _SHOWN else f"{cell[:_SHOWN]}…")

    def place(self, row: Row) -> str:
        """Return file and line of ``row`` for a message."""
        return f"{self.path}, line {row.line}"


def _text(path: Path) -> str:
    """Decode the file at ``path``."""
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
    # Delimiters in quotes do not count.
    outside = "".join(first.split('"')[::2])
    return max(",;\t", key=outside.count)
