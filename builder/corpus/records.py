"""Read the records of a source of any format; parts that cannot be read become a `BadRecord`."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from .csv_records import read_csv_records
from .json_records import read_json_lines, read_json_records
from .read_report import BadFile, BadRecord
from .sources import Source, delimiter_of, unreadable
from .spans import Span
from .table_records import (
    Values,
    column_values,
    read_arrow_records,
    read_parquet_records,
    split_names,
)
from .unpack import BYTE_ORDER_MARK, DAMAGE, lines_of, opened_plain, seekable, unpacked

LONGEST = 1 << 28
"""Largest size of a record in bytes; a longer record is not read into memory."""
_LONGEST_ROW = 1 << 23
"""Largest size of a row of CSV in bytes. Without a limit, a quote that is not closed would make the
rest of the file one row."""
_MOST_NAMES = 1_000

MISSING = object()
"""What `look_up` returns if a record has no value at the path."""


class Columns:
    """Collects the names of the columns of records; a nested column has a path, such as ``a.b``."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self._shapes: set[tuple[str, ...]] = set()

    def see(self, record: Any) -> None:
        """Note the columns of ``record``, a dictionary or only the names of its columns."""
        shape = tuple(record)
        if shape in self._shapes or len(self.names) >= _MOST_NAMES:
            return
        self._shapes.add(shape)
        inner = [
            f"{name}.{within}"
            for name, value in (record.items() if isinstance(record, dict) else ())
            if isinstance(value, dict)
            for within in value
        ]
        for name in (*shape, *inner):
            self.names[name.encode(errors="replace").decode()] = None


def look_up(record: dict[str, Any], path: str) -> Any:
    """Return the value of the column ``path``, or of a nested column: ``a.b`` is ``b`` in ``a``.

    If there is no such column, and ``path`` has commas, then ``path`` is a list of columns. The
    result is their first value that is not None. If there is no value, the result is `MISSING`.

    >>> look_up({"a": {"b": 1}}, "a.b"), look_up({"a.b": 2, "a": {"b": 1}}, "a.b")
    (1, 2)
    >>> look_up({"b": 1, "c": 2}, "a, b, c"), look_up({"a,b": 3, "b": 1}, "a,b")
    (1, 3)
    """
    value = _at(record, path)
    if value is MISSING and "," in path:
        values = [_at(record, name) for name in split_names(path)]
        there = [value for value in values if value is not MISSING]
        return next((value for value in there if value is not None), None if there else MISSING)
    return value


def _at(record: dict[str, Any], path: str) -> Any:
    if path in record:
        return record[path]
    for at, letter in enumerate(path):
        if letter == "." and isinstance(inner := record.get(path[:at]), dict):
            value = _at(inner, path[at + 1 :])
            if value is not MISSING:
                return value
    return MISSING


def read_records(
    source: Source,
    wanted: Collection[str] | None,
    columns: Columns,
    *,
    longest_row: int = _LONGEST_ROW,
    values: Values = column_values,
    text_lines: bool = True,
    span: Span | None = None,
) -> Iterator[tuple[str, Any]]:
    """Yield (place, value) for each record of ``source``.

    If a record or file cannot be read, the value is a `BadRecord` or a `BadFile`.
    For a text file, or a line of a text file, the value is a string. If a file is damaged, all
    records after the damage are lost. In a Parquet file, only the rest of the row group is lost.

    Args:
        source: A file, or a data set on the Hub.
        wanted: Names or paths of columns; the records of a table may lack all other columns.
            None: all columns.
        columns: Collects the columns that the records have.
        longest_row: Maximum number of bytes of a CSV row.
        values: Returns the values of an Arrow array.
        text_lines: Whether each line of a text file is a record; if not, the whole file is one.
        span: The part of the source to read, made by `cut_source`; None: the whole source.

    Raises:
        RemoteError: The source is not on this machine, and cannot be read.
        InvalidDataError: The source is on this machine, and the system cannot read it.
    """
    used = ""
    try:
        if span is not None and source.format != "parquet":
            records = _read_span(source, span)
        else:
            records = _read(source, wanted, columns, longest_row, values, text_lines, span)
        for origin, value in records:
            if isinstance(value, dict):
                columns.see(value)
            used = "; the records before the damage are used"
            yield origin, value
    except DAMAGE as error:
        if ours := unreadable(source, error):
            raise ours from None
        message = str(error).partition("\n")[0][:200]
        yield source.place, BadFile(f"{source.place}: {message}", f"cut short, or damaged{used}")


def _read(
    source: Source,
    wanted: Collection[str] | None,
    columns: Columns,
    longest_row: int,
    values: Values,
    text_lines: bool,
    span: Span | None,
) -> Iterator[tuple[str, Any]]:
    if source.format == "hub":
        yield from _read_hub(source)
        return
    place = source.place
    with unpacked(source.name) as stream:
        if not stream.peek(1):
            return
        if source.format == "jsonl":
            yield from read_json_records(stream, place, LONGEST)
        elif source.format == "txt":
            lines = lines_of(stream, LONGEST)
            yield from _read_texts(lines, place) if text_lines else _read_whole(stream, place)
        elif source.format == "csv":
            yield from read_csv_records(stream, place, longest_row, delimiter_of(source))
        else:
            with seekable(stream) as file:
                if source.format == "parquet":
                    yield from read_parquet_records(file, place, wanted, columns.see, values, span)
                else:
                    yield from read_arrow_records(file, place, wanted, columns.see, values)


def _read_span(source: Source, span: Span) -> Iterator[tuple[str, Any]]:
    """Yield the place and the record of each line that begins in ``span``."""
    with opened_plain(source.name) as stream:
        assert stream is not None
        lines = lines_of(stream, LONGEST, span.begin, span.end)
        if source.format == "jsonl":
            yield from read_json_lines(lines, source.place, LONGEST, span.before + 1)
        else:
            yield from _read_texts(lines, source.place, span.before + 1)


def _read_hub(source: Source) -> Iterator[tuple[str, Any]]:
    import datasets  # noqa: PLC0415 - the import takes seconds, and files do not need it

    name, _, config = source.name.removeprefix("hub:").partition("@")
    rows = datasets.load_dataset(name, config or None, split="train", streaming=True)
    for number, row in enumerate(rows, start=1):
        yield f"{source.place}:{number}", row


def _read_whole(stream: Any, place: str) -> Iterator[tuple[str, Any]]:
    data = stream.read(LONGEST + 1)
    if len(data) > LONGEST:
        yield place, BadRecord(place, f"longer than {LONGEST:,} bytes")
    else:
        text = data.removeprefix(BYTE_ORDER_MARK).decode(errors="surrogateescape")
        yield place, text.replace("\r\n", "\n").strip("\n")


def _read_texts(
    lines: Iterable[bytes | None], place: str, first: int = 1
) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, start=first):
        origin = f"{place}:{number}"
        if line is None:
            yield origin, BadRecord(origin, f"longer than {LONGEST:,} bytes")
        elif data := line.rstrip(b"\r\n").removeprefix(BYTE_ORDER_MARK):
            yield origin, data.decode(errors="surrogateescape")
