"""Records of Parquet and Arrow files: the wanted columns, a limited number of rows at a time."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from .csv_records import unique_names
from .read_report import BadRecord
from .spans import Span
from .unpack import DAMAGE

Values = Callable[[Any], list[Any]]
"""A function that returns the values of an Arrow array."""

_BATCH = 128
_TEXT = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)


def read_parquet_records(
    stream: IO[bytes],
    place: str,
    wanted: Collection[str] | None,
    see: Callable[[Sequence[str]], None],
    values: Values,
    span: Span | None = None,
) -> Iterator[tuple[str, Any]]:
    """Yield the place and the content of each row of a Parquet file, or of ``span``.

    Only columns that ``wanted`` names are read; None: all. ``see`` is called with the names of all
    columns. If a row group is damaged, its rows before the damage are yielded, followed by one
    `BadRecord` that counts its remaining rows.
    """
    file = pq.ParquetFile(stream)
    names = file.schema_arrow.names
    see(names)
    # A reader that is asked for no column returns no rows.
    columns = [name for name in names if _is_wanted(name, wanted)] or names[:1]
    span = span or Span(0, file.num_row_groups)
    number = span.before
    for group in range(span.begin, span.end):
        end = number + file.metadata.row_group(group).num_rows
        try:
            for batch in file.iter_batches(_BATCH, row_groups=[group], columns=columns):
                for row in _rows(batch, values):
                    number += 1
                    yield f"{place}:{number}", row
        except DAMAGE as error:
            if isinstance(error, OSError) and error.errno:
                raise
            origin = f"{place}:{number + 1}"
            yield origin, BadRecord(origin, "in a damaged part of a file", end - number)
            number = end


def read_arrow_records(
    stream: IO[bytes],
    place: str,
    wanted: Collection[str] | None,
    see: Callable[[Sequence[str]], None],
    values: Values,
) -> Iterator[tuple[str, Any]]:
    """Yield the place and the content of each row of a file or stream of Arrow.

    Only columns that ``wanted`` names are read; None: all. ``see`` is called with the names of all
    columns.
    """
    is_file = stream.read(6) == b"ARROW1"
    stream.seek(0)
    reader = pa.ipc.open_file(stream) if is_file else pa.ipc.open_stream(stream)
    names = reader.schema.names
    see(names)
    batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
    columns = [i for i, name in enumerate(names) if _is_wanted(name, wanted)] or [0]
    number = 0
    for batch in batches:
        chosen = batch.select(columns) if names else batch
        _check(chosen)
        for begin in range(0, batch.num_rows, _BATCH):
            for row in _rows(chosen.slice(begin, _BATCH), values):
                number += 1
                yield f"{place}:{number}", row


def _check(batch: Any) -> None:
    """Raise `pa.ArrowInvalid` if values of ``batch`` are out of bounds; reading would crash.

    Text that is not UTF-8 raises no error here; only its row is dropped later.
    """
    for column in batch.columns:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            if "UTF8" not in str(error):
                raise


def split_names(text: str) -> list[str]:
    """Return the names in ``text``, which separates them by commas, and perhaps spaces.

    >>> split_names("text, Text"), split_names("meta.domain")
    (['text', 'Text'], ['meta.domain'])
    """
    return [name.strip() for name in text.split(",")]


def _is_wanted(name: str, wanted: Collection[str] | None) -> bool:
    """Whether ``wanted`` is None, or one of it names the column ``name``, or a column within it."""
    return wanted is None or any(
        path == name or path.startswith(f"{name}.")
        for names in wanted
        for path in (names, *split_names(names))
    )


def _rows(batch: Any, values: Values) -> Iterator[dict[str, Any]]:
    names = unique_names(batch.schema.names)
    for row in zip(*map(values, batch.columns), strict=True):
        yield dict(zip(names, row, strict=True))


def column_values(column: Any) -> list[Any]:
    """Return the values of an Arrow array.

    Bytes are decoded as UTF-8, and invalid bytes become lone surrogates. A value that Python cannot
    represent becomes the name of its type.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if any(is_kind(column.type) for is_kind in _TEXT):
        data = column.cast(pa.large_binary()).to_pylist()
        return [v if v is None else v.decode(errors="surrogateescape") for v in data]
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return str(scalar.type)
