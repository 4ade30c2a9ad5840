"""Parts of the catalogue: files of about 256 MiB, each joined from consecutive slices.

A slice is the catalogue of one source, or of a part of a large source. The slices, and so the
parts, depend on the corpus alone, not on the size of partitions or the engine.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from climbstream.builder.corpus.passes import in_order
from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.files import atomic_path, hash_file
from climbstream.loader.formats.catalogue import row_groups
from climbstream.loader.formats.manifest import DOCUMENTS, part_name, part_paths
from climbstream.loader.formats.outputs import WORK

PART_BYTES = 256 << 20
"""Slices are joined to a part until the part has this many bytes or more."""
_GROUP_BYTES = 16 << 20
"""Row groups of slices are joined to a row group of a part until it has this many bytes or
more in memory."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice of the catalogue, as a Parquet file."""

    path: Path
    documents: int
    bytes: int
    """Size of the file."""


@dataclass(frozen=True, slots=True)
class PartTask:
    """Input of `write_part`: the slices of a part, and the file to write."""

    slices: tuple[Slice, ...]
    path: Path

    @property
    def documents(self) -> int:
        """Number of documents that the part lists."""
        return sum(part.documents for part in self.slices)


def slice_path(out: Path, number: int) -> Path:
    """Return the path of slice ``number`` in the working folder of ``out``."""
    return out / WORK / "catalogue" / f"slice-{number:05d}.parquet"


def join_slices(engine: Engine, out: Path, slices: Sequence[Slice], first: int) -> dict[str, str]:
    """Join ``slices`` to parts in ``out``, numbered from ``first``; return hashes by path.

    An interrupted build of an earlier version may have left parts with higher numbers. These parts
    are removed.
    """
    tasks = _tasks(slices, out, PART_BYTES, first)
    hashes = _hashes(tasks, in_order(engine, write_part, tasks))
    for path in part_paths(out)[first + len(tasks) :]:
        path.unlink()
    return hashes


def join_again(parts: Sequence[Path], out: Path, most: int) -> dict[str, str]:
    """Join ``parts`` of a catalogue to at most ``most`` parts in ``out``; return hashes by path.

    Parts that are in ``out`` already are not written again.
    """
    slices = [Slice(p, int(pq.read_metadata(p).num_rows), p.stat().st_size) for p in parts]
    part_bytes = max(PART_BYTES, sum(part.bytes for part in slices) // most + 1)
    tasks = _tasks(slices, out, part_bytes)
    return _hashes(tasks, map(write_part, tasks))


def _tasks(slices: Sequence[Slice], out: Path, part_bytes: int, first: int = 0) -> list[PartTask]:
    parts = enumerate(cut_parts(slices, part_bytes), start=first)
    return [PartTask(some, out / part_name(number)) for number, some in parts]


def _hashes(tasks: Sequence[PartTask], digests: Iterable[str]) -> dict[str, str]:
    """Show the progress of ``tasks``, whose results are ``digests``; return hashes by path."""
    hashes: dict[str, str] = {}
    with Progress("join catalogue", sum(task.documents for task in tasks), "documents") as progress:
        for task, digest in zip(tasks, digests, strict=True):
            hashes[f"{DOCUMENTS}/{task.path.name}"] = digest
            progress.add(task.documents)
    return hashes


def cut_parts(slices: Sequence[Slice], part_bytes: int) -> Iterator[tuple[Slice, ...]]:
    """Yield the slices of each part; all parts but the last have ``part_bytes`` bytes or more."""
    some: list[Slice] = []
    size = 0
    for part in slices:
        some.append(part)
        size += part.bytes
        if size >= part_bytes:
            yield tuple(some)
            some, size = [], 0
    if some:
        yield tuple(some)


def write_part(task: PartTask) -> str:
    """Write one part, unless it is complete; return its hash."""
    if not _is_complete(task):
        columns = pq.read_schema(task.slices[0].path)
        with (
            atomic_path(task.path) as path,
            pq.ParquetWriter(path, columns, compression="zstd") as writer,
        ):
            for table in _larger_groups(task.slices, columns.names):
                writer.write_table(table, row_group_size=len(table))
    return hash_file(task.path)


def _is_complete(task: PartTask) -> bool:
    """Whether the part exists; an earlier version wrote parts with fewer documents."""
    return task.path.exists() and pq.read_metadata(task.path).num_rows == task.documents


def _larger_groups(slices: Sequence[Slice], columns: Sequence[str]) -> Iterator[Any]:
    """Yield the row groups of a part, each joined from row groups of slices."""
    held: list[Any] = []
    size = 0
    for part in slices:
        for table in row_groups(part.path, columns):
            held.append(table)
            size += table.nbytes
            if size >= _GROUP_BYTES:
                yield pa.concat_tables(held).combine_chunks()
                held, size = [], 0
    if held:
        yield pa.concat_tables(held).combine_chunks()
