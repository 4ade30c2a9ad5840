"""Corpus: where documents come from, read once and laid down in units.

A source is a file, folder, glob or URL of jsonl, txt (a document a line), csv, parquet or arrow
(plain, gz or zst), a data set of the Hub (``hub:NAME``), or the text that the installed packages
bring along (``python:`` or ``python:MEGABYTES``). A record that cannot be used is counted by reason
and listed; it never ends a build.
"""

import glob
import importlib.metadata
import io
import json
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa

from climbstream.loader.engine import Engine
from climbstream.loader.errors import InvalidDataError, RemoteError, UsageError
from climbstream.loader.progress import Progress, say
from climbstream.loader.storage import hash_file, hash_json, read_json, write_json

from .document import Document
from .given import take_given
from .installed import installed_documents
from .read_report import Report
from .settings import BuildSettings
from .unit import UNIT_BYTES, Unit

BAD_RECORDS = "bad_records.json"
_NAMED = 24
"""Known domains that are named where a corpus is summed up."""

_FORMATS = {
    "jsonl": "jsonl",
    "json": "jsonl",
    "ndjson": "jsonl",
    "txt": "txt",
    "csv": "csv",
    "tsv": "csv",
    "parquet": "parquet",
    "arrow": "arrow",
}
_PACKED = {"gz": "gzip", "zst": "zstd"}


@dataclass(frozen=True, slots=True)
class Source:
    """One thing to read: a file, a data set of the Hub, or the installed packages."""

    name: str
    """Where it is."""
    place: str
    """Its name among the sources: the last parts of the path, as many as tell all apart."""
    format: str
    """``jsonl``, ``txt``, ``csv``, ``parquet``, ``arrow``, ``hub`` or ``python``."""
    fingerprint: str
    """Hash of its content, or of what decides it."""


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that cannot be used."""

    origin: str
    reason: str


@dataclass(slots=True)
class ReadReport(Report):
    """What became of the records of one source of a build."""

    labels: Counter[str] = field(default_factory=Counter)
    """Bytes by known domain; "" stands for none."""

    def taken(self) -> str:
        """Say what was taken, in a sentence: how much, and of which known domains.

        >>> labels = Counter({"law": 2_000_000, "": 500_000})
        >>> ReadReport(documents=3, bytes=2_500_000, labels=labels).taken()
        '3 documents, 2.5 MB: law 2.0, no known domain 0.5'
        """
        total = f"{self.documents:,} documents, {self.bytes / 1e6:.1f} MB"
        parts = [
            f"{label or 'no known domain'} {size / 1e6:.1f}"
            for label, size in self.labels.most_common(_NAMED)
        ]
        if len(self.labels) > _NAMED:
            parts.append(f"and {len(self.labels) - _NAMED} domains more")
        return f"{total}: {', '.join(parts)}" if any(self.labels) else total


def find_sources(names: Sequence[str]) -> list[Source]:
    """Resolve what the user named to sources, each once, in the order of their places.

    Raises:
        UsageError: A name matches nothing, or is of an unknown format.
    """
    found: dict[str, None] = {}
    for name in names:
        known = name.startswith(("python:", "hub:"))
        found |= dict.fromkeys([name] if known else _files(name))
    return sorted(
        (_source(name, place) for name, place in zip(found, _places(list(found)), strict=True)),
        key=lambda source: source.place,
    )


def read_corpus(
    engine: Engine,
    sources: Sequence[Source],
    directory: Path,
    settings: BuildSettings,
    least: int = 2,
) -> ReadReport:
    """Lay all ``sources`` down in units under ``directory``; return their reports in one.

    Raises:
        InvalidDataError: They hold fewer than ``least`` documents.
    """
    read = partial(_read_numbered, directory=directory, settings=settings)
    reports: dict[int, ReadReport] = {}
    with Progress("read", None, "documents") as progress:
        for (number, _), report in engine.run(read, list(enumerate(sources))):
            reports[number] = report
            progress.add(report.documents)
    whole = ReadReport()
    for _, report in sorted(reports.items()):
        whole.add(report)
    say(f"  took {whole.taken()}")
    for reason, count in whole.bad.most_common():
        say(f"  left out {count:,} records: {reason}")
    if whole.documents < least:
        raise InvalidDataError(
            f"the sources hold {whole.documents} usable documents; at least {least} are needed"
        )
    return whole


def _read_numbered(
    task: tuple[int, Source], directory: Path, settings: BuildSettings
) -> ReadReport:
    number, source = task
    return read_source(source, number, directory, settings)


def read_source(
    source: Source, number: int, directory: Path, settings: BuildSettings
) -> ReadReport:
    """Lay the documents of ``source`` down in units ``NUMBER-PART`` under ``directory``.

    A source that was read to its end before is not read again.
    """
    done = directory / f"{number:05d}.json"
    if done.exists():
        return ReadReport.from_json(read_json(done))
    report = ReadReport()
    waiting: list[Document] = []
    size = 0
    dims: int | None = None
    for record in _records(source, settings):
        if isinstance(record, Document) and (vector := record.given.vector) is not None:
            dims = dims or len(vector)
            if len(vector) != dims:
                reason = f"{len(vector)} numbers in {settings.vector_column}, not {dims}"
                record = BadRecord(record.origin, reason)
        if isinstance(record, BadRecord):
            report.bad[record.reason] += 1
            report.note(record.origin, record.reason)
            continue
        waiting.append(record)
        length = len(record.text.encode())
        size += length
        report.bytes += length
        report.labels[record.label] += length
        if size >= UNIT_BYTES:
            _lay_down(waiting, number, directory, report)
            waiting, size = [], 0
    if waiting:
        _lay_down(waiting, number, directory, report)
    write_json(done, report.to_json())
    return report


def _lay_down(documents: list[Document], number: int, directory: Path, report: ReadReport) -> None:
    unit = Unit(directory / f"{number:05d}-{len(report.units):05d}")
    unit.write_documents(documents)
    report.units.append(unit.name)
    report.documents += len(documents)


def _files(name: str) -> list[str]:
    """Files that ``name`` stands for: itself, those of a folder, or those of a glob."""
    try:
        system, path = fsspec.core.url_to_fs(name)
    except (ValueError, ImportError) as error:
        raise UsageError(f"{name}: {error}") from None
    protocol = f"{name.split('://')[0]}://" if "://" in name else ""
    matches = [path] if system.exists(path) else system.glob(path)
    found = [f for m in matches for f in system.find(m) if f == m or _format(f) is not None]
    if not found:
        raise UsageError(
            f"{name} is no file, folder or glob with {', '.join(sorted(_FORMATS))} files "
            f"(also .gz or .zst); name one, or hub:DATASET, or python:"
        )
    return [protocol + path for path in found]


def _places(names: Sequence[str]) -> list[str]:
    """Shorten each of ``names``, all different, to as many last parts as tell all apart.

    >>> _places(["/data/2024/a.csv", "/data/2025/a.csv"]), _places(["/data/a.csv"])
    (['2024/a.csv', '2025/a.csv'], ['a.csv'])
    """
    parts = [name.split("/") for name in names]
    count = 1
    while len(places := {"/".join(p[-count:]): None for p in parts}) < len(names):
        count += 1
    return list(places)


def _source(name: str, place: str) -> Source:
    if name.startswith("python:"):
        return Source(name, place, "python", hash_json([_megabytes(name), _installed()]))
    if name.startswith("hub:"):
        return Source(name, place, "hub", hash_json(name))
    form = _format(name)
    if form is None:
        raise UsageError(
            f"{name} has an unknown format; known are {', '.join(sorted(_FORMATS))}, "
            "also .gz or .zst"
        )
    local = Path(name)
    # A remote file is known by its address; a local one by its bytes.
    return Source(name, place, form, hash_file(local) if local.exists() else hash_json(name))


def _suffixes(path: str) -> tuple[str, str]:
    """Return what ``path`` says of its format, and how it is packed; "" where it says nothing."""
    *_, first, last = ["", "", *(s.lstrip(".").lower() for s in Path(path).suffixes)]
    return (first, _PACKED[last]) if last in _PACKED else (last, "")


def _format(path: str) -> str | None:
    return _FORMATS.get(_suffixes(path)[0])


def is_table(path: str) -> bool:
    """Whether ``path`` is named like a file that documents can be read from."""
    return _format(path) is not None


def _installed() -> list[str]:
    """Versions of what `installed_documents` reads."""
    found = {f"{d.name}=={d.version}" for d in importlib.metadata.distributions()}
    return [platform.python_version(), *sorted(found)]


def _megabytes(name: str) -> float:
    try:
        return float(name.removeprefix("python:") or 30)
    except ValueError:
        raise UsageError(f"{name}: say python: or python:MEGABYTES, as in python:30") from None


def _records(source: Source, settings: BuildSettings) -> Iterator[Document | BadRecord]:
    if source.format == "python":
        asked = [*settings.score_columns.values(), *settings.keep]
        if asked or settings.vector_column is not None:
            names = ", ".join(dict.fromkeys([*asked, settings.vector_column or asked[0]]))
            raise InvalidDataError(f"{source.name} has no column {names}; build it without")
        yield from installed_documents(megabytes=_megabytes(source.name), seed=settings.seed)
    elif source.format in ("jsonl", "txt"):
        for number, line in read_lines(source):
            yield _line_record(line, source.format, f"{source.place}:{number}", settings)
    else:
        for number, row in enumerate(read_rows(source), start=1):
            yield make_document(row, f"{source.place}:{number}", settings)


def read_lines(source: Source) -> Iterator[tuple[int, bytes]]:
    """Give the lines of a text file that are not empty, with their numbers."""
    with reading(source), fsspec.open(source.name, "rb") as stream:
        if pack := _suffixes(source.name)[1]:
            # Unlike those of zstandard and gzip, this reader takes all packs, and no part of one.
            stream = io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(stream), pack))
        # Split at \n alone: U+2028 and others may stand within a text.
        for number, line in enumerate(stream, start=1):
            if data := line.rstrip(b"\r\n").removeprefix(b"\xef\xbb\xbf"):
                yield number, data


def _line_record(
    line: bytes, form: str, origin: str, settings: BuildSettings
) -> Document | BadRecord:
    try:
        text = line.decode()
        return make_document(
            {settings.text: text} if form == "txt" else json.loads(text), origin, settings
        )
    except UnicodeDecodeError:
        return BadRecord(origin, "not UTF-8")
    except ValueError:
        return BadRecord(origin, "not JSON")
    except RecursionError:
        return BadRecord(origin, "nested too deeply")


def read_rows(source: Source) -> Iterator[dict[str, Any]]:
    """Stream the rows of a table or of a data set of the Hub."""
    import datasets  # noqa: PLC0415 - costs seconds, and text files do not need it

    with reading(source):
        if source.format == "hub":
            name, _, config = source.name.removeprefix("hub:").partition("@")
            yield from datasets.load_dataset(name, config or None, split="train", streaming=True)
            return
        given = {"delimiter": "\t"} if _suffixes(source.name)[0] == "tsv" else {}
        local = Path(source.name).exists()
        files = glob.escape(source.name) if local else source.name
        yield from datasets.load_dataset(
            source.format, data_files=files, split="train", streaming=True, **given
        )


@contextmanager
def reading(source: Source) -> Iterator[None]:
    """Name ``source`` in what goes wrong with it."""
    try:
        yield
    except (OSError, ValueError) as error:
        kind = RemoteError if source.format == "hub" else InvalidDataError
        raise kind(f"{source.name} cannot be read: {error}") from None


def make_document(record: Any, origin: str, settings: BuildSettings) -> Document | BadRecord:
    """Make a document of a record, or say why not."""
    if not isinstance(record, dict):
        return BadRecord(origin, "not an object")
    if settings.text not in record:
        return BadRecord(origin, f"no column {settings.text!r}")
    text = record[settings.text]
    if not isinstance(text, str):
        return BadRecord(origin, "text is not a string")
    if not text.strip():
        return BadRecord(origin, "empty text")
    if "\0" in text:
        return BadRecord(origin, "NUL character in text")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return BadRecord(origin, "lone surrogate in text")
    if size > settings.max_bytes:
        return BadRecord(origin, f"longer than {settings.max_bytes:,} bytes")
    for column in (settings.id, settings.label, settings.license):
        if isinstance(record.get(column), list | dict):
            return BadRecord(origin, f"{column} is not a string")
    given = take_given(record, settings)
    if isinstance(given, str):
        return BadRecord(origin, given)
    return Document(
        id=_plain(record.get(settings.id)) or origin,
        text=text,
        label=_plain(record.get(settings.label)),
        license=_plain(record.get(settings.license)),
        origin=origin,
        given=given,
    )


def _plain(value: object) -> str:
    """Return a name as a string; what is no name is left out."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value).encode(errors="replace").decode()
