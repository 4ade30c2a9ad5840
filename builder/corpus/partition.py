"""Partition: the part of a corpus that one task works on, with the arrays of the stages so far.

A partition is a folder in the working folder of a build: the text, and a few files of arrays, each
of which is replaced whole when a stage adds to it. So an array that exists is complete, and a
killed build goes on with the missing ones.

Text lies in row groups of about `UNIT_BYTES`. Where they end follows from the source alone, however
many of them a partition has. Stages that read text hold one at a time: neither their memory nor
what they compute depends on the size of partitions.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from climbstream.loader.core.files import atomic_path
from climbstream.loader.formats.catalogue import read_parquet

from .array_file import names_in, read_array, write_arrays
from .document import NOTHING, Document

UNIT_BYTES = 4 << 20
"""Bytes of text of a row group, and of the smallest partitions: they compress well."""
_MOST = 32
"""Row groups of a partition, at most, unless more are asked for."""
_PARTITIONS = 2048
"""Partitions from which on they grow: so many keep a large cluster of machines at work."""

ArrayName = Literal[
    # reading a corpus
    "sizes",  # int64 [n], bytes of text
    "id_hashes",  # uint64 [n, 2]
    "given_scores",  # float32 [n, k], scores that the corpus brings
    "given_vectors",  # float32 [n, dims], embeddings that the corpus brings
    # annotation
    "languages",  # str [n]
    "scores",  # float32 [n, 4]
    "text_hashes",  # uint64 [n, 2]
    "signatures",  # uint8 [SIGNATURE, n]
    "micro",  # int32 [n], micro-cluster; in an import, the number of the cluster in the source
    "alike",  # float32 [n], similarity to the centroid
    "contaminated",  # str [n], the task and item that a document holds, or ""
    # selection
    "why",  # uint8 [n], place in REASONS of why a document is dropped; 0: it stays
    "clusters",  # int32 [n], below 0 for dropped documents
    "cells",  # int32 [n], where each document is stored, or would be; only in builds of cells
    "original",  # int64 [n], number of the document that this one copies, or -1
    # tokenisation, of the m documents that stay and have tokens
    "order",  # int64 [m], rows of documents, sorted by cluster
    "lengths",  # int64 [m], tokens of each
    "tokens",  # uint16 or uint32 [sum of lengths]
]
"""The arrays of a partition of n documents, in the order in which stages write them."""

_DECISIONS = ("why", "clusters", "cells", "original")
_TOKENS = ("order", "lengths", "tokens")

_TEXT = pa.schema([(name, pa.string()) for name in ("id", "text", "label", "license", "origin")])


def groups_for(corpus_bytes: int) -> int:
    """Return the row groups of a partition, for a corpus of so many bytes.

    Small corpora have small partitions, so that all cores have work; large ones have few, as each
    costs files and memory of the process that plans.

    >>> [groups_for(size) * UNIT_BYTES >> 20 for size in (10**6, 10**10, 10**11, 10**13)]
    [4, 8, 64, 128]
    """
    groups = 1
    while groups < min(corpus_bytes / _PARTITIONS / UNIT_BYTES, _MOST):
        groups *= 2
    return groups


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition: ``folder`` holds ``text.parquet`` and the arrays that stages add."""

    folder: Path

    def __reduce__(self) -> tuple[Any, ...]:
        # The process that plans sends each partition dozens of times, and a string is sent sooner.
        return _partition, (str(self.folder),)

    @property
    def name(self) -> str:
        """Name of the partition; sorted by name, partitions are in the order of the corpus."""
        return self.folder.name

    @property
    def source(self) -> str:
        """Number of the source that its documents were read from."""
        return self.name.partition("-")[0]

    @property
    def reading(self) -> str:
        """Begins the names of all partitions of what was read at once: a source, or a span."""
        return self.name.rpartition("-")[0]

    def write_documents(self, documents: Sequence[Document]) -> None:
        """Write the documents of the partition, as one row group; see `PartitionWriter`."""
        with PartitionWriter.open(self) as writer:
            writer.write(documents)

    def column(self, name: str) -> list[str]:
        """Read one column of the documents."""
        values: list[str] = self.columns(name)[name].to_pylist()
        return values

    def columns(self, *names: str) -> Any:
        """Read columns of the documents, as an Arrow table."""
        return read_parquet(self._text, names)

    def row_groups(self, *names: str) -> Iterator[tuple[slice, Any]]:
        """Yield the rows of each row group, and its columns ``names`` as an Arrow table."""
        with pq.ParquetFile(self._text) as file:
            begin = 0
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, columns=list(names))
                yield slice(begin, begin + len(table)), table
                begin += len(table)

    def take(self, rows: NDArray[np.int64], *names: str) -> Any:
        """Read columns of documents ``rows``, which rise; only the row groups that hold them."""
        counts = self.group_rows()
        ends = np.cumsum(counts)
        groups = np.unique(np.searchsorted(ends, rows, side="right"))
        with pq.ParquetFile(self._text) as file:
            table = file.read_row_groups(groups.tolist(), columns=list(names))
        held = np.concatenate([np.arange(ends[g] - counts[g], ends[g]) for g in groups])
        return table.take(np.searchsorted(held, rows))

    def group_rows(self) -> NDArray[np.int64]:
        """Return the number of documents of each row group."""
        metadata = pq.read_metadata(self._text)
        groups = range(metadata.num_row_groups)
        return np.array([metadata.row_group(number).num_rows for number in groups], np.int64)

    def __len__(self) -> int:
        return int(pq.read_metadata(self._text).num_rows)

    def has(self, name: ArrayName) -> bool:
        """Whether an array has been written."""
        return name in names_in(self._file(name))

    def write(self, name: ArrayName, array: NDArray[Any]) -> None:
        """Write an array."""
        self.write_arrays({name: array})

    def write_arrays(self, arrays: Mapping[ArrayName, NDArray[Any]]) -> None:
        """Write arrays, those of a file together, beside the others that it holds."""
        for path in {self._file(name) for name in arrays}:
            before = {name: read_array(path, name, mapped=True) for name in names_in(path)}
            ours = {name: array for name, array in arrays.items() if self._file(name) == path}
            write_arrays(path, before | ours)

    def remove(self, *names: ArrayName) -> None:
        """Remove arrays, as far as they were written."""
        for path in {self._file(name) for name in names}:
            left = {n: read_array(path, n) for n in names_in(path) if n not in names}
            if left:
                write_arrays(path, left)
            else:
                path.unlink(missing_ok=True)

    def read(self, name: ArrayName, *, mapped: bool = False) -> NDArray[Any]:
        """Read an array, or map it into memory."""
        return read_array(self._file(name), name, mapped=mapped)

    @property
    def _text(self) -> Path:
        return self.folder / "text.parquet"

    def _file(self, name: ArrayName) -> Path:
        decided = "tokens" if name in _TOKENS else "decisions"
        return self.folder / (decided if name in (*_DECISIONS, *_TOKENS) else "documents")


def _partition(folder: str) -> Partition:
    return Partition(Path(folder))


class PartitionWriter:
    """Writes the documents of a partition, one row group after the other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None
        self.arrays: dict[ArrayName, list[NDArray[Any]]] = {}
        """What the corpus brings for the documents, by row group."""

    @classmethod
    @contextmanager
    def open(cls, partition: Partition) -> Iterator[Self]:
        """Write ``partition`` whole when the block ends well.

        Beside its columns it has ``given_scores`` float32 ``[n, k]`` and ``given_vectors`` float32
        ``[n, dims]``, if the corpus brings any, and ``kept_0``, ``kept_1`` … among the columns.
        """
        with atomic_path(partition.folder / "text.parquet") as path:
            writer = cls(path)
            yield writer
            if writer._writer is None:
                writer.write([])
            assert writer._writer is not None
            writer._writer.close()
            if writer.arrays:
                partition.write_arrays({n: np.concatenate(a) for n, a in writer.arrays.items()})

    def write(self, documents: Sequence[Document]) -> None:
        """Write a row group."""
        columns = {name: [getattr(d, name) for d in documents] for name in _TEXT.names}
        table = pa.table(columns, schema=_TEXT)
        extras = [document.extra for document in documents]
        first = extras[0] if extras else NOTHING
        for i in range(len(first.kept)):
            kept = pa.array([e.kept[i] for e in extras], "string")
            table = table.append_column(f"kept_{i}", kept)
        if first.scores:
            self.add("given_scores", np.array([e.scores for e in extras], np.float32))
        if first.vector is not None:
            self.add("given_vectors", np.stack([e.vector for e in extras if e.vector is not None]))
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table)

    def add(self, name: ArrayName, array: NDArray[Any]) -> None:
        """Add the part of an array that is of the row group."""
        self.arrays.setdefault(name, []).append(array)
