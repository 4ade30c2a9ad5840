"""Ingest: read the sources once, and write their documents to partitions.

Records that cannot be used, and files that are damaged or have no records, are counted by reason
and listed. Reading continues with the next record or file.
"""

import difflib
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import partial
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from climbstream.builder.settings import PARTITION_MIB, BuildSettings
from climbstream.loader.core.console import Progress, counted
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import read_json, write_json
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.licenses import UNKNOWN, license_name

from .document import Document, take_given
from .installed import installed_documents
from .partition import UNIT_BYTES, Partition, PartitionWriter, groups_for
from .read_report import LISTED, BadFile, BadRecord, Report
from .records import MISSING, Columns, look_up, read_records
from .sources import FORMATS, UNKNOWN_FORMAT, Source, megabytes_of
from .spans import SPAN_BYTES, Span, cut_sources
from .table_records import split_names
from .text_hashes import hash_texts

logger = get_logger(__name__)

FOLDER = "folder"
"""Value of `BuildSettings.label`: the domain of a record is the name of its file's folder. If the
record has a column of this name, its domain is the value of the column."""
BAD_RECORDS = "bad_records.json"
_LARGE = 4 * SPAN_BYTES
"""The log names each file of at least this many bytes that only one worker can read."""
_SIZE = "partitions.json"
"""File with the number of row groups per partition, so that a continued build uses the same
number."""
_FILES = 8
"""Maximum number of files without documents that a message names."""
_FIRST = 50
"""Number of records in which missing columns are looked for before the corpus is read."""
_NAMED = 24
"""Maximum number of known domains, and of columns, that a message names."""


@dataclass(slots=True)
class ReadReport(Report):
    """The counts of the records of one source, or of several sources together."""

    labels: Counter[str] = field(default_factory=Counter)
    """Bytes of text by known domain; "" for documents without a known domain."""
    columns: Counter[str] = field(default_factory=Counter)
    """For each column of the corpus, the number of sources that have this column."""
    licensed: int = 0
    """Number of documents that state a licence."""
    unlicensed: list[str] = field(default_factory=list)
    """Sources of which no document states a licence."""
    met: Counter[str] = field(default_factory=Counter)
    """For each column that the settings name, the number of sources in which a record has the
    column."""

    def taken(self) -> str:
        """Return one line on how much was read: documents and MB in all, and MB by domain.

        >>> labels = Counter({"law": 2_000_000, "": 500_000})
        >>> ReadReport(documents=3, bytes=2_500_000, labels=labels).taken()
        '3 documents, 2.5 MB: law 2.0, no known domain 0.5'
        """
        total = f"{counted(self.documents, 'document')}, {self.bytes / 1e6:.1f} MB"
        parts = [
            f"{label or 'no known domain'} {size / 1e6:.1f}"
            for label, size in self.labels.most_common(_NAMED)
        ]
        if len(self.labels) > _NAMED:
            parts.append(f"and {counted(len(self.labels) - _NAMED, 'domain')} more")
        return f"{total}: {', '.join(parts)}" if any(self.labels) else total


def read_corpus(
    engine: Engine,
    sources: Sequence[Source],
    directory: Path,
    settings: BuildSettings,
    least: int = 2,
    left_out: Sequence[BadFile] = (),
    partition_mib: int | None = None,
) -> ReadReport:
    """Write the documents of ``sources`` to partitions under ``directory``; return a report.

    The report adds up the counts of all sources. It also counts ``left_out``, the files that are
    not read. A partition has about ``partition_mib`` MiB of text; by default, `usual_groups`
    decides the size of partitions.

    Raises:
        InvalidDataError: No record has a column that the settings name, or all sources are text
            and the settings name a column, or the sources have fewer than ``least`` usable
            documents.
        UsageError: ``partition_mib`` is not in `PARTITION_MIB`.
    """
    whole = ReadReport()
    for bad in left_out:
        whole.lose(bad)
    _tell_unknown_formats(left_out)
    _check_text_files(sources, settings, least)
    groups = _fixed_groups(sources, directory, partition_mib)
    if not any(directory.glob("*-*")):
        largest = max(sources, key=lambda source: source.size or 0)
        _look_at_first_records(largest, settings, appended=least == 1)
    empty: list[str] = []
    unread: list[str] = []
    records = 0
    for source, report in zip(
        sources, _read_all(engine, sources, directory, settings, groups), strict=True
    ):
        whole.add(report)
        if report.documents and not report.licensed:
            whole.unlicensed.append(source.shown)
        if report.bad and not report.documents:
            empty.append(_why_empty(source, report, settings, appended=least == 1))
            records += report.bad.total()
        elif not report.documents:
            unread.append(f"{source.shown} has no document: {', '.join(report.files)}")
    _tell_text_files(sources, settings)
    lost_files = len(empty)
    if whole.documents < least:
        empty += unread
    for line in empty[:_FILES]:
        logger.warning(f"  {line}")
    if len(empty) > _FILES:
        logger.warning(f"  and {counted(len(empty) - _FILES, 'file')} more without documents")
    if lost_files > 1:
        logger.warning(
            f"  {lost_files:,} of {len(sources):,} files gave no document; their {records:,} "
            "records are left out, as listed above"
        )
    logger.info(f"  read {whole.taken()}")
    _check_columns(whole, settings, least)
    if least > 1 and not whole.licensed:
        _suggest_license(whole, settings)
    if whole.documents < least:
        lost = "".join(
            f"; {counted(n, noun)}: {reason}"
            for noun, reasons in (("record", whole.bad), ("file", whole.files))
            for reason, n in reasons.most_common(3)
        )
        raise InvalidDataError(
            f"the sources hold {whole.documents} usable documents; at least {least} are "
            f"needed{lost}"
        )
    return whole


def _why_empty(
    source: Source, report: ReadReport, settings: BuildSettings, *, appended: bool
) -> str:
    """Return why a source has no document; if the text's column is missing, name its columns."""
    reason, count = report.bad.most_common(1)[0]
    records = counted(report.bad.total(), "record")
    line = f"{source.shown} has no document: {reason} ({count:,} of {records})"
    if reason != _no_column(settings) or not report.columns:
        return line
    names = list(report.columns)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    remedy = (
        "an append reads the columns that the build read, so rename the column in the file"
        if appended
        else f"--text {shlex.quote(f'{settings.text},NAME')} also reads the column NAME"
    )
    return f"{line}; its columns are {', '.join(names[:_NAMED])}{more}. {remedy}"


def _no_column(settings: BuildSettings) -> str:
    *names, last = [repr(name) for name in split_names(settings.text)]
    return f"no column {', '.join(names)} or {last}" if names else f"no column {last}"


def usual_groups(sources: Sequence[Source]) -> int:
    """Return the default number of row groups in a partition, or in a file of the catalogue.

    The catalogue is the table of all documents of a shard directory.
    """
    return groups_for(sum(source.size or 0 for source in sources))


def _fixed_groups(sources: Sequence[Source], directory: Path, mib: int | None) -> int:
    """Return the number of row groups per partition; a build that is continued keeps its number."""
    least, most = PARTITION_MIB
    if mib is not None and not least <= mib <= most:
        raise UsageError(f"partition_mib is {mib}; it must be from {least} to {most:,}")
    path = directory / _SIZE
    asked = None if mib is None else max(1, (mib << 20) // UNIT_BYTES)
    if not path.exists():
        write_json(path, {"row_groups": asked or usual_groups(sources)})
    groups = int(read_json(path)["row_groups"])
    if asked not in (None, groups):
        size = groups * UNIT_BYTES >> 20
        logger.info(
            f"  partitions have {size} MiB of text, because this work was begun with this size"
        )
    return groups


def _tell_text_files(sources: Sequence[Source], settings: BuildSettings) -> None:
    """Log whether a text file is read as one document, or each of its lines as a document."""
    if texts := [source.shown for source in sources if source.format == "txt"]:
        what = (
            "each line is a document (without --text-lines: each file)"
            if settings.text_lines
            else "each file is a document (with --text-lines: each line)"
        )
        logger.info(f"  {counted(len(texts), 'text file')} ({texts[0]}): {what}")


def _tell_unknown_formats(left_out: Sequence[BadFile]) -> None:
    """Log the number of files of each unknown format, by the ending of their names."""
    endings = Counter(
        PurePosixPath(bad.origin).suffix for bad in left_out if bad.reason == UNKNOWN_FORMAT
    )
    if endings:
        listed = ", ".join(f"{end} {count:,}" for end, count in endings.most_common(_FILES))
        more = len(endings) - _FILES
        rest = f" and {counted(more, 'format')} more" if more > 0 else ""
        logger.info(f"  files {UNKNOWN_FORMAT}: {listed}{rest}; a build reads {FORMATS}")


def _check_columns(report: ReadReport, settings: BuildSettings, least: int) -> None:
    """Raise `InvalidDataError` if no record has a column that the settings name.

    If the missing column is not that of the text, an append (``least`` is 1) only logs a warning,
    because it cannot change the settings of the build.
    """
    names = sorted(report.columns)
    for option, column in settings.asked_columns:
        if report.met[column] or not names:
            continue
        message = (
            f"no record has the column {column!r}, which the setting {option} "
            f"names{_others(column, names)}"
        )
        if least == 1 and option != "text":
            logger.warning(f"  {message}")
        else:
            raise InvalidDataError(message)


def _suggest_license(report: ReadReport, settings: BuildSettings) -> None:
    """Log a warning about a column with a name like that of the licence, which has none."""
    names = sorted(report.columns.keys() - {settings.license})
    for near in difflib.get_close_matches(settings.license, names, 1, 0.8):
        logger.warning(
            f"  no record states a licence in the column {settings.license!r}; if the column "
            f"{near!r} has licences, build with --license {near}"
        )


def _check_text_files(sources: Sequence[Source], settings: BuildSettings, least: int) -> None:
    """Raise `InvalidDataError` if all ``sources`` are text, and the settings name a column.

    An append (``least`` is 1) only logs a warning, because it cannot change the settings of the
    build.
    """
    if any(source.format != "txt" for source in sources):
        return
    for option, column in settings.asked_columns:
        if option == "text" or FOLDER in column.split(","):
            continue
        message = (
            f"all sources are text files, such as {sources[0].shown}, and text files have no "
            f"columns; so there is no column {column!r}, which the setting {option} names"
        )
        if least == 1:
            logger.warning(f"  {message}")
            continue
        remedy = ", or give --label folder" if option == "label" else ""
        raise InvalidDataError(f"{message}: leave out --{option}{remedy}")


def _look_at_first_records(source: Source, settings: BuildSettings, *, appended: bool) -> None:
    """Warn if the first records of ``source`` lack a column that the settings name.

    Without this warning, a wrong name is noticed only when the whole corpus has been read. An
    append (``appended``) needs no column but that of the text. The value ``folder`` of a label is
    no column of the records.
    """
    if source.format == "python":
        return
    columns = Columns()
    records = read_records(source, settings.columns, columns, text_lines=settings.text_lines)
    first = [*islice((value for _, value in records if isinstance(value, dict)), _FIRST)]
    for option, column in settings.asked_columns:
        if option == "label" and FOLDER in split_names(column):
            continue
        if len(first) == _FIRST and all(look_up(value, column) is MISSING for value in first):
            outcome = (
                "Documents without it are appended all the same"
                if appended and option != "text"
                else "If no record of any file has this column, the build ends with an error after "
                "it has read all records"
            )
            if option == "text":
                outcome = f"Records without it are left out. {outcome}"
            logger.warning(
                f"  none of the first {_FIRST} records of {source.shown} has the column "
                f"{column!r}, which the setting {option} "
                f"names{_others(column, sorted(columns.names))}. {outcome}"
            )


def _others(column: str, names: Sequence[str]) -> str:
    """Return the end of a message on a missing ``column``; ``names`` are the existing columns."""
    near = difflib.get_close_matches(column, names, 1)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"; did you mean {near[0]!r}?" if near else "."
    ) + f" The columns are {', '.join(names[:_NAMED])}{more}"


@dataclass(frozen=True, slots=True)
class _Reading:
    """Input of a task that reads a source, or a part of a source."""

    number: int
    source: Source
    part: int = 0
    span: Span | None = None
    """The part of the source, which has number ``part``; None: the whole source."""
    groups: int = 1
    """Number of row groups per partition."""

    @property
    def name(self) -> str:
        """Common beginning of the names of the partitions that the task writes."""
        return f"{self.number:05d}" if self.span is None else f"{self.number:05d}-{self.part:05d}"


def _read_all(
    engine: Engine,
    sources: Sequence[Source],
    directory: Path,
    settings: BuildSettings,
    groups: int,
) -> Iterator[ReadReport]:
    """Read ``sources`` into partitions, large sources in parts; yield one report per source."""
    fresh = {n: s for n, s in enumerate(sources) if not (directory / f"{n:05d}.json").exists()}
    # Spans depend on the corpus, not on ``groups``: parts of the catalogue end where spans do.
    usual = usual_groups(sources)
    spans = cut_sources(engine, fresh, usual, text_lines=settings.text_lines)
    _tell_undivided([source for n, source in fresh.items() if n not in spans])
    tasks = [
        _Reading(n, source, part, span, groups)
        for n, source in enumerate(sources)
        for part, span in enumerate(spans.get(n, [None]))
    ]
    reports: dict[tuple[int, int], ReadReport] = {}
    read = partial(_read, directory=directory, settings=settings)
    with Progress("read", None, "documents") as progress:
        for task, report in engine.run(read, tasks):
            reports[task.number, task.part] = report
            progress.add(report.documents)
    for n, source in enumerate(sources):
        parts = [reports[n, part] for part in range(len(spans.get(n, [None])))]
        yield _joined(parts, source, directory / f"{n:05d}.json") if n in spans else parts[0]


def _tell_undivided(sources: Sequence[Source]) -> None:
    """Log the large files that one worker reads from end to end."""
    if large := [s for s in sources if s.size is not None and s.size >= _LARGE]:
        first = max(large, key=lambda source: source.size or 0)
        logger.info(
            f"  only one worker can read each of {len(large):,} large "
            f"{'files' if large[1:] else 'file'} ({first.shown}, {(first.size or 0) / 1e6:,.0f} "
            "MB). Several workers can share a file of Parquet with several row groups, or of "
            "uncompressed JSON or text with one record per line"
        )


def _joined(parts: Sequence[ReadReport], source: Source, done: Path) -> ReadReport:
    """Return one report for all parts of a source, after writing it to the file ``done``."""
    report = ReadReport()
    for part in parts:
        report.add(part)
    report.listed = report.listed[:LISTED]
    report.columns, report.met = Counter([*report.columns]), Counter([*report.met])
    _finish(report, source, done)
    return report


def _finish(report: ReadReport, source: Source, done: Path) -> None:
    if not (report.documents or report.bad or report.files):
        report.lose(BadFile(source.place, "without a record" if source.size else "empty"))
    write_json(done, report.to_json())


def _read(task: _Reading, directory: Path, settings: BuildSettings) -> ReadReport:
    done = directory / f"{task.name}.json"
    if done.exists():
        return ReadReport.from_json(read_json(done))
    report = ReadReport()
    _write_partitions(task, directory, settings, report)
    if task.span is None:
        _finish(report, task.source, done)
    else:
        write_json(done, report.to_json())
    return report


def read_source(
    source: Source, number: int, directory: Path, settings: BuildSettings
) -> ReadReport:
    """Write the documents of ``source`` to partitions ``NUMBER-PART`` under ``directory``.

    A partition gets the arrays ``sizes`` int64 ``[n]``, the number of bytes of each text, and
    ``id_hashes`` uint64 ``[n, 2]``. Returns the report on the source. If the report exists already,
    it is returned, and the source is not read again.
    """
    return _read(_Reading(number, source), directory, settings)


def _write_partitions(
    task: _Reading, directory: Path, settings: BuildSettings, report: ReadReport
) -> None:
    """Write the documents of ``task`` to partitions, and count them in ``report``."""
    units = _units(task, settings, report)
    for first in units:
        partition = Partition(directory / f"{task.name}-{len(report.units):05d}")
        with PartitionWriter.open(partition) as writer:
            for documents, sizes in chain([first], islice(units, task.groups - 1)):
                writer.add("sizes", np.array(sizes, np.int64))
                writer.add("id_hashes", hash_texts([document.id for document in documents]))
                writer.write(documents)
                report.documents += len(documents)
                report.bytes += sum(sizes)
        report.units.append(partition.name)


def _units(
    task: _Reading, settings: BuildSettings, report: ReadReport
) -> Iterator[tuple[list[Document], list[int]]]:
    """Yield, for each row group, the documents of ``task`` in it, and the bytes of each text."""
    waiting: list[Document] = []
    sizes: list[int] = []
    size = 0
    for record in _with_equal_vectors(_documents(task, settings, report), task, settings):
        if not isinstance(record, Document):
            report.lose(record)
            continue
        waiting.append(record)
        sizes.append(len(record.text.encode()))
        size += sizes[-1]
        report.labels[record.label] += sizes[-1]
        report.licensed += license_name(record.license) != UNKNOWN
        if size >= UNIT_BYTES:
            yield waiting, sizes
            waiting, sizes, size = [], [], 0
    if waiting:
        yield waiting, sizes


def _with_equal_vectors(
    records: Iterator[Document | BadRecord | BadFile], task: _Reading, settings: BuildSettings
) -> Iterator[Document | BadRecord | BadFile]:
    """Yield ``records``, with a `BadRecord` in place of a document whose vector has a wrong length.

    The right length is that of the first vector in the source, whichever part ``task`` reads.
    """
    dims: int | None = None
    if task.part and settings.vector_column is not None:
        whole = _documents(_Reading(task.number, task.source), settings, ReadReport())
        vectors = (d.extra.vector for d in whole if isinstance(d, Document))
        dims = next((len(vector) for vector in vectors if vector is not None), None)
    for record in records:
        if isinstance(record, Document) and (vector := record.extra.vector) is not None:
            dims = dims or len(vector)
            if len(vector) != dims:
                reason = f"{len(vector)} numbers in {settings.vector_column}, not {dims}"
                yield BadRecord(record.origin, reason)
                continue
        yield record


def _documents(
    task: _Reading, settings: BuildSettings, report: ReadReport
) -> Iterator[Document | BadRecord | BadFile]:
    """Yield documents, bad records and bad files of ``task``; count its columns in ``report``."""
    source = task.source
    asked = [column for _, column in settings.asked_columns]
    if source.format == "python":
        beyond = [*settings.score_columns.values(), *settings.keep]
        if beyond or settings.vector_column is not None:
            names = ", ".join(dict.fromkeys([*beyond, settings.vector_column or beyond[0]]))
            raise InvalidDataError(
                f"{source.name} has no column {names}; leave out the options that name it"
            )
        report.met.update(asked)
        yield from installed_documents(megabytes=megabytes_of(source.name), seed=settings.seed)
        return
    columns = Columns()
    unmet = set(asked)
    folder = _folder(source) if FOLDER in split_names(settings.label) else None
    row = 2 * settings.max_bytes + (1 << 20)
    records = read_records(
        source,
        settings.columns,
        columns,
        longest_row=row,
        text_lines=settings.text_lines,
        span=task.span,
    )
    for origin, value in records:
        is_text = source.format == "txt" and isinstance(value, str)
        record = {settings.text: value} if is_text else value
        if folder and isinstance(record, dict):
            record.setdefault(FOLDER, folder)
        if unmet and isinstance(record, dict):
            unmet -= {column for column in unmet if look_up(record, column) is not MISSING}
        if isinstance(record, BadRecord | BadFile):
            yield record
        else:
            yield make_document(record, origin, settings)
    report.columns.update(list(columns.names))
    report.met.update(set(asked) - unmet)


def _folder(source: Source) -> str | None:
    """Return the name of the folder that a source is in; None if the source is no file."""
    if source.format == "hub":
        return None
    path = source.name if source.is_remote else str(Path(source.name).absolute())
    return PurePosixPath(path).parent.name


def make_document(record: Any, origin: str, settings: BuildSettings) -> Document | BadRecord:
    """Return the document in a record, or a `BadRecord` that says why there is none."""
    if not isinstance(record, dict):
        return BadRecord(origin, "not an object")
    text = look_up(record, settings.text)
    if text is MISSING:
        return BadRecord(origin, _no_column(settings))
    if not isinstance(text, str):
        return BadRecord(origin, "text is not a string")
    if reason := _fault(text, settings.max_bytes):
        return BadRecord(origin, reason)
    extra = take_given(record, settings)
    if isinstance(extra, str):
        return BadRecord(origin, extra)
    return Document(
        id=_plain(look_up(record, settings.id)) or origin,
        text=text,
        label=_plain(look_up(record, settings.label)),
        license=_plain(look_up(record, settings.license)),
        origin=origin,
        extra=extra,
    )


def _fault(text: str, most: int) -> str:
    """Return why ``text`` cannot be a document; "" if it can."""
    if not text.strip():
        return "empty text"
    if "\0" in text:
        return "NUL character in text"
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        # Readers replace a byte that is not UTF-8 by one of these characters.
        of_byte = "\udc80" <= text[error.start] <= "\udcff"
        return "not UTF-8" if of_byte else "lone surrogate in text"
    return f"longer than {most:,} bytes" if size > most else ""


def _plain(value: object) -> str:
    """Return ``value`` as the text of an identifier, label or licence; "" if it cannot be one.

    The items of a list are joined with commas.
    """
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_plain, value)))
    if isinstance(value, float):
        # Some writers store whole numbers as floats if a value of the column is missing.
        return str(int(value) if value.is_integer() else value) if np.isfinite(value) else ""
    if isinstance(value, bool) or not isinstance(value, str | int | date | Decimal):
        return ""
    return str(value).encode(errors="replace").decode()
