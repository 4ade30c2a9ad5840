"""Read the records of a CSV file: every cell is text, and broken rows are skipped one by one."""

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from .read_report import BadFile, BadRecord
from .unpack import BYTE_ORDER_MARK

DELIMITERS = ";\t,|"
"""What may separate the cells of a row."""
OPEN_QUOTE = "quotes that do not match"
_FIELDS = "not as many fields as the header"
_LONGEST_FIELD = 2**31 - 1
_BLOCK = 1 << 16
_MARK = BYTE_ORDER_MARK.decode()


def read_csv_records(
    stream: io.BufferedReader, place: str, longest: int, delimiter: str
) -> Iterator[tuple[str, Any]]:
    """Yield (place, cells) for each row below the header; ``cells`` has the texts by column.

    For a broken row, a `BadRecord` takes the place of the cells.

    If the header does not contain ``delimiter``, the delimiter is the most frequent one of
    `DELIMITERS` in the header.

    A row is broken if a quote is opened and not closed, or is closed within a field. Then only the
    line that opens the quote is lost, and the next row begins with the next line. At most
    ``longest`` bytes are read to find out whether a quote is closed. If the header is broken, a
    single `BadFile` is yielded.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    rows = _Rows(stream, longest, _delimiter(stream, delimiter))
    names: list[str] = []
    number = 0
    for cells in rows:
        if cells == []:
            continue
        if cells is not None and not names:
            names = unique_names(cells)
            continue
        if cells is not None and len(cells) == len(names):
            number += 1
            yield f"{place}:{number}", dict(zip(names, cells, strict=True))
            continue
        if not names:
            yield place, BadFile(place, "a header with quotes that do not match")
            return
        number += 1
        origin = f"{place}:{number} (line {rows.first:,})"
        # If a quote has joined several lines to one row, the row has the wrong number of fields.
        joined = cells is None or rows.count > 1
        yield origin, BadRecord(origin, OPEN_QUOTE if joined else _FIELDS)
        rows.return_all_but_first()


def _delimiter(stream: io.BufferedReader, usual: str) -> str:
    """Return the delimiter of the header; ``usual`` if the header contains it, or contains none."""
    header = stream.peek(1).removeprefix(BYTE_ORDER_MARK).lstrip(b"\r\n").partition(b"\n")[0]
    # Do not count delimiters inside quotes.
    outside = b"".join(header.split(b'"')[::2]).decode(errors="replace")
    return usual if usual in outside else max(usual + DELIMITERS, key=outside.count)


def unique_names(names: list[str]) -> list[str]:
    """Return ``names`` made unique: the second ``text`` becomes ``text.1``.

    >>> unique_names(["text", "id", "text"])
    ['text', 'id', 'text.1']
    """
    unique: dict[str, None] = {}
    for name in names:
        number, other = 0, name
        while other in unique:
            number += 1
            other = f"{name}.{number}"
        unique[other] = None
    return list(unique)


class _TooLongError(Exception):
    """A row has more bytes than the limit."""


class _Rows:
    """Yields the rows of a stream, None for a broken row; can go back to a line of the last row."""

    def __init__(self, stream: io.BufferedReader, longest: int, delimiter: str) -> None:
        self._blocks = _line_blocks(stream, longest)
        self._longest = longest
        self._delimiter = delimiter
        self._held: list[str | None] = []
        """Lines in memory: the lines of the current row, later lines, and perhaps earlier lines."""
        self._row = 0
        """Index in ``_held`` of the first line of the current row."""
        self._size = 0
        self._before = 0
        """Number of lines of the stream before those in ``_held``."""
        self.count = 0
        """Number of lines of the current row; 0 if the row is broken."""
        self._begin()

    @property
    def first(self) -> int:
        """Number of the line with which the current row begins, counted from 1."""
        return self._before + self._row + 1

    def return_all_but_first(self) -> None:
        """Go back, so that the next row begins with the second line of the current row."""
        self._row += 1
        self.count = 0
        self._begin()

    def _begin(self) -> None:
        """Start a new CSV reader at the first line of the current row."""
        self._begun = self._before + self._row
        lines = chain.from_iterable(self._feed())
        self._reader = csv.reader(lines, delimiter=self._delimiter, strict=True)  # type: ignore[arg-type]

    def _feed(self) -> Iterator[list[str | None]]:
        yield self._held[self._row :]
        for block in self._blocks:
            if self._row:
                del self._held[: self._row]
                self._before += self._row
                self._row, self._size = 0, _size(self._held)
            self._held += block
            self._size += _size(block)
            yield block
            if self._size > self._longest and not self._row:
                raise _TooLongError

    def __iter__(self) -> "_Rows":
        return self

    def __next__(self) -> list[str] | None:
        self._row += self.count
        self.count = 0
        try:
            cells = next(self._reader)
        except (csv.Error, _TooLongError):  # a None among the lines also raises csv.Error
            return None
        self.count = self._begun + self._reader.line_num - self._before - self._row
        return cells


def _size(lines: Iterable[str | None]) -> int:
    return sum(len(line) for line in lines if line)


def _line_blocks(stream: io.BufferedReader, longest: int) -> Iterator[list[str | None]]:
    """Yield lists of lines; None in a list is a line of about ``longest`` bytes or more."""
    while data := stream.read(_BLOCK):
        too_long = False
        if not data.endswith(b"\n"):
            rest = stream.readline(longest + 1)
            too_long = len(rest) > longest and not rest.endswith(b"\n")
            data = data[: data.rfind(b"\n") + 1] if too_long else data + rest
            while too_long and rest and not rest.endswith(b"\n"):
                rest = stream.readline(_BLOCK)
        # Bytes that are not UTF-8 become lone surrogates, and lose only the cell they are in.
        text = data.decode(errors="surrogateescape")
        lines: list[str | None] = [*io.StringIO(text, newline="\n")]
        if _MARK in text:
            lines = [line.removeprefix(_MARK) for line in lines if line]
        yield [*lines, None] if too_long else lines
