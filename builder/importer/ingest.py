"""Read the files of a clustered corpus: check their rows, and write them to partitions.

In this module a row is a row of such a file: one document, as tokens or as text, and its cluster.
Rows that cannot be used are counted by reason and listed; they never end an import. A row whose
value of `COUNT` is not its number of tokens is used, but is also counted and listed.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from climbstream.builder.cluster_names import MOST_LABEL, canonical, natural
from climbstream.builder.corpus.document import Document
from climbstream.builder.corpus.ingest import make_document
from climbstream.builder.corpus.json_records import NOT_UTF8
from climbstream.builder.corpus.partition import UNIT_BYTES, Partition
from climbstream.builder.corpus.read_report import BadFile, BadRecord, Report
from climbstream.builder.corpus.records import Columns, read_records
from climbstream.builder.corpus.sources import Source
from climbstream.builder.corpus.table_records import column_values
from climbstream.builder.settings import BuildSettings
from climbstream.builder.writers.tokenizer import token_dtype
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import read_json, write_json
from climbstream.loader.core.typed import valid_text
from climbstream.loader.formats.licenses import license_name

from .layouts import CLUSTER_COLUMNS, ClusteredFile
from .settings import ImportSettings, Vocabulary

NO_LABEL = "a cluster that cannot be a label, such as true or 2.5"
"""Reason for leaving out a row whose cell has a value that is no label."""
COUNT = "token_count"
"""Name of a column that some corpora have, with the number of tokens of each row."""
PARTITION_TOKENS = UNIT_BYTES
"""Size of a partition, in tokens; if the rows have text, in bytes of text."""

_LICENSE = "license"
_MOST_TEXT = 250_000_000
"""Maximum number of bytes of a text. So its tokens fit into one shard even if each byte is a
token."""
_LOOK = 100
"""Number of rows, from the beginning of a file, in which its columns are looked for. One row is not
enough, because each row of JSON may have other columns."""
_SHOWN = 40
"""Maximum number of characters of an unexpected value that are shown."""
_WHOLE = re.compile(r"([0-9]+)\.0+")


@dataclass(slots=True)
class IntakeReport(Report):
    """How many rows of one file, or of all files, were used, and why other rows were not.

    ``bytes`` is 0 if the rows have tokens instead of text.
    """

    clusters: Counter[str] = field(default_factory=Counter)
    """Number of documents by label of the cluster; 0 if a folder names a cluster, but has no usable
    row."""
    licenses: Counter[str] = field(default_factory=Counter)
    """Number of documents by the licence in their row; ``unknown`` if it states none."""
    miscounted: int = 0
    """Number of documents whose value of `COUNT` is wrong: not the number of their tokens. They are
    used all the same."""

    def stage(self) -> dict[str, Any]:
        """Return how many documents were read, kept, and dropped for each reason.

        If the rows have text, the result also has the number of bytes of the documents that were
        kept. If the rows have tokens, bytes are not counted.
        """
        stage = Report.stage(self)
        if not self.bytes:
            del stage["out"]["bytes"]
        return stage


class UsableRow(NamedTuple):
    """The document of a row that can be used."""

    document: Document
    """The document; ``label`` is the label of its cluster, ``text`` is "" if the row has tokens."""
    tokens: NDArray[Any] | None
    """Token ids, unchanged from the row, int ``[n]``; None if the row has text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeTask:
    """Input of `ingest_file`: a file, its ``number``, and the folder for its partitions."""

    number: int
    file: ClusteredFile
    directory: Path
    settings: ImportSettings
    vocabulary: Vocabulary | None
    """Vocabulary of the tokens in the rows; None if the rows have text."""


def columns_of(source: Source) -> list[str]:
    """Return the names of the columns in the first rows of ``source``; [] if there are none."""
    columns, looked = Columns(), 0
    for _, record in read_records(source, (), columns, values=_values):
        looked += isinstance(record, dict)
        if looked == _LOOK:
            break
    return [name for name in columns.names if "." not in name]


def ingest_file(task: IntakeTask) -> IntakeReport:
    """Write the rows of a file to partitions ``NUMBER-PART``; return the report on the rows.

    If the report of the file exists already, the file is not read again. In a partition, the
    ``label`` of a document is the label of its cluster. A partition of texts has the array
    ``sizes`` int64 ``[n]``, the number of bytes of each text. A partition of tokens has the arrays
    that `tokenize_partition` writes.

    Raises:
        InvalidDataError: The file cannot be read, or nothing states the cluster of its rows.
    """
    done = task.directory / f"{task.number:05d}.json"
    if done.exists():
        return IntakeReport.from_json(read_json(done))
    report = IntakeReport()
    if task.file.cluster is not None:
        report.clusters[task.file.cluster] += 0
    waiting: list[UsableRow] = []
    size = 0
    for row in _usable(task, report):
        waiting.append(row)
        size += len(row.document.text.encode()) if row.tokens is None else len(row.tokens)
        if size >= PARTITION_TOKENS:
            _write_partition(waiting, task, report)
            waiting, size = [], 0
    if waiting:
        _write_partition(waiting, task, report)
    write_json(done, report.to_json())
    return report


def _write_partition(rows: Sequence[UsableRow], task: IntakeTask, report: IntakeReport) -> None:
    documents = [row.document for row in rows]
    partition = Partition(task.directory / f"{task.number:05d}-{len(report.units):05d}")
    if task.vocabulary is None:
        sizes = np.array([len(document.text.encode()) for document in documents], np.int64)
        partition.write("sizes", sizes)
        report.bytes += int(sizes.sum())
    else:
        # Write documents in the order of their clusters, which are numbered later: in the natural
        # order of their labels.
        order = sorted(range(len(rows)), key=lambda i: natural(documents[i].label))
        tokens = [_ended(rows[i].tokens, task.vocabulary) for i in order]
        partition.write_arrays(
            {
                "order": np.array(order, np.int64),
                "lengths": np.array([len(ids) for ids in tokens], np.int64),
                "tokens": np.concatenate(tokens),
            }
        )
    partition.write_documents(documents)
    report.units.append(partition.name)
    report.documents += len(documents)
    report.clusters.update(document.label for document in documents)
    report.licenses.update(license_name(document.license) for document in documents)


def _usable(task: IntakeTask, report: IntakeReport) -> Iterator[UsableRow]:
    """Yield the rows that can be used; count and list all others in ``report``."""
    settings = task.settings
    # Text is checked in the same way as in a build.
    fields = BuildSettings(
        text=settings.text, id=settings.id, license=_LICENSE, max_bytes=_MOST_TEXT
    )
    wanted = {settings.tokens if task.vocabulary else settings.text, COUNT, settings.id, _LICENSE}
    wanted |= {settings.cluster} if settings.cluster else {*CLUSTER_COLUMNS}
    column, number = None, 0
    for origin, record in read_records(task.file.source, wanted, Columns(), values=_values):
        if isinstance(record, dict):
            number += 1
            if column is None:
                column = _cluster_column(task.file, record, settings, last=number == _LOOK)
            row: UsableRow | BadRecord | BadFile = _check_row(record, origin, column, task, fields)
        elif isinstance(record, BadRecord | BadFile):
            row = record
        else:
            row = BadRecord(origin, "not an object")
        if not isinstance(row, UsableRow):
            report.lose(row)
            continue
        if row.tokens is not None and COUNT in record:
            _compare(record[COUNT], len(row.tokens), origin, report)
        yield row
    if number and column is None:
        _cluster_column(task.file, (), settings, last=True)


def _compare(count: object, tokens: int, origin: str, report: IntakeReport) -> None:
    """Count and list a row if ``count``, its value of `COUNT`, is not its number of tokens."""
    if not (isinstance(count, int | float) and count == tokens):
        report.miscounted += 1
        text = repr(count)
        text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        report.note(origin, f"taken, though {COUNT} is {text} of {tokens} tokens")


def _cluster_column(
    file: ClusteredFile, names: Collection[str], settings: ImportSettings, *, last: bool
) -> str | None:
    """Return which of the columns ``names`` states the cluster; None if only a folder states it.

    ``names`` are the columns of the rows that were examined so far. If neither a column nor a
    folder states the cluster, the result is also None, because the next row of JSON may have the
    column. But with ``last``, no further row is examined, so an error is raised.
    """
    if settings.folders:
        return None
    asked = (settings.cluster,) if settings.cluster else CLUSTER_COLUMNS
    for name in asked:
        if name in names:
            return name
    if last and file.cluster is None:
        there = columns_of(file.source)
        raise InvalidDataError(
            f"nothing says which cluster the rows of {file.source.name} are in: it has the columns "
            f"{', '.join(there)}, no {' or '.join(asked)}, and no folder above it is named "
            f"cluster_N. {_remedy(settings.cluster, there)}"
        )
    return None


def _remedy(asked: str | None, columns: Sequence[str]) -> str:
    """Say what to do if the column ``asked`` (None: a default one) is not one of ``columns``."""
    if asked and (like := get_close_matches(asked, columns, 1)):
        return f"Did you mean --cluster {like[0]}?"
    text = "Name the column with --cluster, or use --folders if each folder is a cluster"
    if asked:
        return text
    return (
        f"{text}. A shuffled mirror of ClimbMix has lost its clusters: import "
        "nvidia/Nemotron-ClimbMix itself, or cluster the text anew with climb build"
    )


def _check_row(
    record: dict[str, Any],
    origin: str,
    column: str | None,
    task: IntakeTask,
    fields: BuildSettings,
) -> UsableRow | BadRecord:
    """Return the document of a row, or a `BadRecord` that says why it cannot be used."""
    label, cell = task.file.cluster, None
    if column is not None:
        cell = _cell(record.get(column), task.file.source)
        # JSON may escape a lone surrogate; in a table, a surrogate is a byte that is not UTF-8.
        escaped = task.file.source.format == "jsonl"
        if isinstance(cell, str) and not escaped and valid_text(cell) != cell:
            return BadRecord(origin, NOT_UTF8)
        label = canonical(cell)
    if label is None:
        return BadRecord(origin, "no cluster" if column is None or _is_empty(cell) else NO_LABEL)
    if len(label) > MOST_LABEL:
        return BadRecord(origin, f"a label of more than {MOST_LABEL:,} characters")
    if task.file.cluster is not None and label != task.file.cluster:
        return BadRecord(origin, f"{column} contradicts the folder")
    if task.vocabulary is None:
        document = make_document(record, origin, fields)
        if isinstance(document, BadRecord):
            return document
        return UsableRow(replace(document, label=label), None)
    ids = _ids(record, task.settings.tokens, task.vocabulary)
    if isinstance(ids, str):
        return BadRecord(origin, ids)
    document = Document(
        id=canonical(record.get(fields.id)) or origin,
        text="",
        label=label,
        license=canonical(record.get(fields.license)) or "",
        origin=origin,
    )
    return UsableRow(document, ids)


def _is_empty(cell: object) -> bool:
    """Whether a cell has no value; tables of pandas have NaN there."""
    return cell is None or cell != cell or (isinstance(cell, str | bytes) and not cell.strip())


def _cell(value: object, source: Source) -> object:
    """Return the label in a cell; in CSV, where every cell is text, ``3.0`` becomes 3."""
    if source.format == "csv" and isinstance(value, str) and (whole := _WHOLE.fullmatch(value)):
        return whole[1]
    return value


def _ids(record: dict[str, Any], name: str, vocabulary: Vocabulary) -> NDArray[Any] | str:
    """Return the token ids of a row, int ``[n]``, n > 0, or a text that says why it is unusable."""
    if name not in record:
        return f"no column {name!r}"
    value = record[name]
    try:
        ids = np.asarray(value if isinstance(value, list | np.ndarray) else None)
    except (ValueError, OverflowError):  # nested lists of unequal length
        ids = np.asarray(None)
    if ids.ndim == 1 and not len(ids):
        return "no tokens"
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        return f"{name} is not a list of whole numbers"
    if ids.min() < 0 or ids.max() >= vocabulary.size:
        return f"a token outside the vocabulary of {vocabulary.size:,}"
    return ids


def _ended(ids: NDArray[Any] | None, vocabulary: Vocabulary) -> NDArray[Any]:
    """Return ``ids`` as uint16 or uint32; add the end token if ``ids`` does not end with it."""
    assert ids is not None
    end = vocabulary.eos_id
    dtype = token_dtype(vocabulary.size)
    if end is None or ids[-1] == end:
        return ids.astype(dtype)
    whole = np.empty(len(ids) + 1, dtype)
    whole[:-1] = ids
    whole[-1] = end
    return whole


def _values(column: Any) -> list[Any]:
    """Return the values of an Arrow array; lists of integers become NumPy arrays, for speed."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return column_values(column)
    if not pa.types.is_integer(kind.value_type) or column.values.null_count:
        return column_values(column)
    values = column.values.to_numpy(zero_copy_only=False)
    ends = column.offsets.to_pylist()
    valid = column.is_valid().to_pylist()
    return [
        values[a:b] if exists else None
        for a, b, exists in zip(ends[:-1], ends[1:], valid, strict=True)
    ]
