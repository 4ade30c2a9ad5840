"""Spans: parts of a large file that are read separately, so that all workers can read the file.

A span is a range of bytes in a file of lines, or a range of row groups in a Parquet file. Where
spans begin depends on the corpus alone. So the documents, their order, their identifiers and their
partitions are the same whichever worker reads a span, and in whichever order spans are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, pairwise
from typing import IO

import pyarrow.parquet as pq

from climbstream.loader.core.engines.engine import Engine

from .json_records import has_lines
from .sources import Source, unreadable
from .unpack import DAMAGE, opened_plain

SPAN_BYTES = 64 << 20
"""Number of bytes of a span; in a Parquet file, of uncompressed bytes. A file of at most this size
is read as a whole. Spans are larger in proportion if partitions have more than `_GROUPS` row
groups."""
_GROUPS = 16
"""Number of row groups of a partition that `SPAN_BYTES` of text fill."""

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a file."""

    begin: int
    """First byte, or row group, of the span. A line belongs to the span in which it begins."""
    end: int
    """The byte, or row group, after the last one of the span."""
    before: int = 0
    """Number of lines, or rows, of the file before the span."""


def cut_sources(
    engine: Engine, sources: Mapping[int, Source], groups: int = 1, *, text_lines: bool
) -> dict[int, list[Span]]:
    """Return the spans of those ``sources`` that are large and can be cut, by number of the source.

    ``groups`` is the number of row groups per partition. ``text_lines`` says whether each line of a
    text file is a document.
    """
    size = SPAN_BYTES * max(groups // _GROUPS, 1)
    large = [(n, s) for n, s in sources.items() if s.size is not None and s.size > size]
    cut = partial(_cut_numbered, size=size, text_lines=text_lines)
    spans = {task[0]: parts for task, parts in engine.run(cut, large) if len(parts) > 1}
    of_lines = [n for n in spans if sources[n].format != "parquet"]
    tasks = [(n, i, sources[n], span) for n in of_lines for i, span in enumerate(spans[n])]
    counts = {task[:2]: count for task, count in engine.run(_count_numbered, tasks)}
    for n in of_lines:
        before = accumulate((counts[n, i] for i in range(len(spans[n]))), initial=0)
        spans[n] = [replace(s, before=b) for s, b in zip(spans[n], before, strict=False)]
    return spans


def _cut_numbered(task: tuple[int, Source], size: int, *, text_lines: bool) -> list[Span]:
    return cut_source(task[1], size, text_lines=text_lines)


def cut_source(source: Source, size: int, *, text_lines: bool) -> list[Span]:
    """Return spans of ``source`` of about ``size`` bytes; [] if it can only be read as a whole.

    For spans of lines, this function leaves ``before`` at 0. `cut_sources` later sets it to the
    number of lines of the source before the span.
    """
    if source.format not in ("jsonl", "parquet", "txt") or (
        source.format == "txt" and not text_lines
    ):
        return []
    try:
        with opened_plain(source.name) as stream:
            if stream is None or (source.format == "jsonl" and not has_lines(stream)):
                return []
            return _row_groups(stream, size) if source.format == "parquet" else _bytes(source, size)
    except DAMAGE:
        return []  # the error is reported when the source is read


def _bytes(source: Source, size: int) -> list[Span]:
    assert source.size is not None
    places = [*range(0, source.size, size), source.size]
    return [Span(begin, end) for begin, end in pairwise(places)]


def _row_groups(stream: IO[bytes], size: int) -> list[Span]:
    metadata = pq.ParquetFile(stream).metadata
    spans: list[Span] = []
    begin = before = held = rows = 0
    for group in range(metadata.num_row_groups):
        held += metadata.row_group(group).total_byte_size
        rows += metadata.row_group(group).num_rows
        if held >= size or group == metadata.num_row_groups - 1:
            spans.append(Span(begin, group + 1, before))
            begin, before, held = group + 1, rows, 0
    return spans


def _count_numbered(task: tuple[int, int, Source, Span]) -> int:
    return count_lines(*task[2:])


def count_lines(source: Source, span: Span) -> int:
    """Count the lines of ``source`` that begin in ``span``.

    Raises:
        ClimbError: The source cannot be read.
    """
    # A line begins after each newline, and at the beginning of the file.
    at, last = max(span.begin - 1, 0), span.end - 1
    count = int(span.begin == 0)
    try:
        with opened_plain(source.name) as stream:
            assert stream is not None
            stream.seek(at)
            while at < last and (block := stream.read(min(_BLOCK, last - at))):
                count += block.count(b"\n")
                at += len(block)
    except DAMAGE as error:
        raise unreadable(source, error) or error from None
    return count
