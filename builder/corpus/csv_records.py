"""CSV records: every cell is text, and a broken row loses only itself."""

import csv
import io
from collections import deque
from collections.abc import Iterator
from typing import Any

from .read_report import BadFile, BadRecord
from .unpack import BYTE_ORDER_MARK, lines_of

OPEN_QUOTE = "quotes that do not match"
_FIELDS = "not as many fields as the header"
_LONGEST_FIELD = 2**31 - 1


def read_csv_records(
    stream: io.BufferedReader, place: str, longest: int, delimiter: str
) -> Iterator[tuple[str, Any]]:
    """Yield the rows below the header, numbered, as objects of text; broken rows are bad records.

    A quote that is opened and not closed, or closed within a field, costs the line that it stands
    in, as far as ``longest`` bytes tell; the next row begins with the next line.
    """
    csv.field_size_limit(_LONGEST_FIELD)
    lines = _Lines(stream, longest)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    names: list[str] = []
    number = 0
    while True:
        lines.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, _TooLongError):
            reason = OPEN_QUOTE
        else:
            if not cells:
                continue
            if not names:
                names = unique_names(cells)
                continue
            if len(cells) == len(names):
                number += 1
                yield f"{place}:{number}", dict(zip(names, cells, strict=True))
                continue
            # Rows that a quote has joined have another number of fields.
            reason = OPEN_QUOTE if lines.count > 1 else _FIELDS
        if not names:
            yield place, BadFile(place, "a header with quotes that do not match")
            return
        number += 1
        origin = f"{place}:{number} (line {lines.first:,})"
        yield origin, BadRecord(origin, reason)
        lines.return_all_but_first()


def unique_names(names: list[str]) -> list[str]:
    """Name each column once: the second ``text`` is ``text.1``.

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
    """A row has more bytes than it may."""


class _Lines:
    """Feeds a CSV reader, and remembers which lines it took for a row."""

    def __init__(self, stream: io.BufferedReader, longest: int) -> None:
        self._fresh = lines_of(stream, longest)
        self._again: deque[str] = deque()
        self._longest = longest
        self._row: list[str] = []
        self._size = 0
        self.first = 1
        """Number of the line that the row begins with."""

    @property
    def count(self) -> int:
        """Number of lines of the row."""
        return len(self._row)

    def begin(self) -> None:
        """Begin a row."""
        self.first += len(self._row)
        self._row, self._size = [], 0

    def return_all_but_first(self) -> None:
        """Return all lines of the row but its first, to be read again."""
        self._again.extendleft(reversed(self._row[1:]))
        del self._row[1:]

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if self._again:
            line = self._again.popleft()
        elif (data := next(self._fresh)) is None:
            self._row.append("")
            raise _TooLongError
        else:
            # Bytes that are not UTF-8 become lone surrogates, and lose only the cell that they are
            # in.
            line = data.removeprefix(BYTE_ORDER_MARK).decode(errors="surrogateescape")
        self._row.append(line)
        self._size += len(line)
        if self._size > self._longest:
            raise _TooLongError
        return line
