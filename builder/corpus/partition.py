"""Partition: a part of the corpus, on which one task works, and the arrays that stages computed.

A partition is a folder in the working folder of a build. The partition contains the text of
documents, and a few files of arrays. When a stage adds an array to a file, the whole file is
replaced at once. So an array that exists is complete, and a build that was killed continues with
the missing arrays.

The text is stored in row groups of about `UNIT_BYTES`. Where a row group ends depends on the source
alone, not on the number of row groups in a partition. A stage that reads text has one row group in
memory at a time. So neither the memory nor the result of a stage depends on the size of partitions.
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
"""Bytes of text in a row group: enough to compress well. The smallest partitions are one row
group."""
_MOST = 32
"""Maximum number of row groups per partition that `groups_for` returns."""
_PARTITIONS = 2048
"""Number of partitions from which on partitions become larger instead of more. It is enough to keep
a large cluster of machines busy."""

ArrayName = Literal[
    # reading a corpus
    "sizes",  # int64 [n], bytes of text
    "id_hashes",  # uint64 [n, 2]
    "given_scores",  # float32 [n, k], scores in the corpus
    "given_vectors",  # float32 [n, dims], embeddings in the corpus
    # annotation
    "languages",  # str [n, 2], language and script
    "scores",  # float32 [n, 4]
    "text_hashes",  # uint64 [n, 2]
    "signatures",  # uint8 [SIGNATURE, n]
    "micro",  # int32 [n], micro-cluster; in an import, the number of the cluster in the source
    "alike",  # float32 [n], similarity to the centroid
    "device",  # str [1], where the documents were embedded; only for models that may use GPUs
    "contaminated",  # str [n], the task and item that a document contains, or ""
    # selection
    "why",  # uint8 [n], index in REASONS of why a document is dropped; 0: it stays
    "clusters",  # int32 [n], below 0 for dropped documents
    "cells",  # int32 [n], where each document is stored, or would be; only in builds of cells
    "first",  # int64 [n], number of the first document with the same text, or -1 if it is the first
    "original",  # int64 [n], number of the document that this one nearly copies, or -1
    "copies",  # int32 [n, 3], exact and near copies that were dropped, and sources; -1: a copy
    # tokenisation, of the m documents that stay and have tokens
    "order",  # int64 [m], rows of documents, sorted by cluster
    "lengths",  # int64 [m], number of tokens of each document
    "tokens",  # uint16 or uint32 [sum of lengths], one document after the other
]
"""The arrays of a partition of n documents, in the order in which stages write them."""

_DECISIONS = ("why", "clusters", "cells", "first", "original", "copies")
_TOKENS = ("order", "lengths", "tokens")

_TEXT = pa.schema([(name, pa.string()) for name in ("id", "text", "label", "license", "origin")])


def groups_for(corpus_bytes: int) -> int:
    """Return the number of row groups per partition, for a corpus of ``corpus_bytes`` bytes.

    A small corpus has small partitions, so that all cores have work. A large corpus has large
    partitions, because each partition needs several files, and memory in the main process.

    >>> [groups_for(size) * UNIT_BYTES >> 20 for size in (10**6, 10**10, 10**11, 10**13)]
    [4, 8, 64, 128]
    """
    groups = 1
    while groups < min(corpus_bytes / _PARTITIONS / UNIT_BYTES, _MOST):
        groups *= 2
    return groups


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition: ``folder`` contains ``text.parquet`` and the arrays that stages add."""

    folder: Path

    def __reduce__(self) -> tuple[Any, ...]:
        # The process that plans sends each partition dozens of times, and a string is sent faster.
        return _partition, (str(self.folder),)

    @property
    def name(self) -> str:
        """Name of the partition; the order of names is the order of the corpus."""
        return self.folder.name

    @property
    def source(self) -> str:
        """Number, as text, of the source that the documents of the partition were read from."""
        return self.name.partition("-")[0]

    @property
    def reading(self) -> str:
        """Beginning of the name, which all partitions of a source (or of a span) share."""
        return self.name.rpartition("-")[0]

    def write_documents(self, documents: Sequence[Document]) -> None:
        """Write all documents of the partition, as one row group; see `PartitionWriter`."""
        with PartitionWriter.open(self) as writer:
            writer.write(documents)

    def column(self, name: str) -> list[str]:
        """Return one column of the documents, as a list."""
        values: list[str] = self.columns(name)[name].to_pylist()
        return values

    def columns(self, *names: str) -> Any:
        """Return columns of the documents, as an Arrow table."""
        return read_parquet(self._text, names)

    def row_groups(self, *names: str) -> Iterator[tuple[slice, Any]]:
        """Yield, for each row group, the slice of its rows, and an Arrow table of the columns."""
        with pq.ParquetFile(self._text) as file:
            begin = 0
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, columns=list(names))
                yield slice(begin, begin + len(table)), table
                begin += len(table)

    def take(self, rows: NDArray[np.int64], *names: str) -> Any:
        """Return columns of the documents ``rows``, which are sorted, as an Arrow table.

        Only the row groups that contain these documents are read.
        """
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
        """Whether the array ``name`` has been written."""
        return name in names_in(self._file(name))

    def write(self, name: ArrayName, array: NDArray[Any]) -> None:
        """Write one array."""
        self.write_arrays({name: array})

    def write_arrays(self, arrays: Mapping[ArrayName, NDArray[Any]]) -> None:
        """Write arrays. Each file is rewritten only once, and keeps its other arrays."""
        for path in {self._file(name) for name in arrays}:
            before = {name: read_array(path, name, mapped=True) for name in names_in(path)}
            ours = {name: array for name, array in arrays.items() if self._file(name) == path}
            write_arrays(path, before | ours)

    def remove(self, *names: ArrayName) -> None:
        """Remove the arrays ``names``; arrays that have not been written are skipped."""
        for path in {self._file(name) for name in names}:
            left = {n: read_array(path, n) for n in names_in(path) if n not in names}
            if left:
                write_arrays(path, left)
            else:
                path.unlink(missing_ok=True)

    def read(self, name: ArrayName, *, mapped: bool = False) -> NDArray[Any]:
        """Return the array ``name``; if ``mapped``, map it into memory instead of reading it."""
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
        """Scores and vectors that columns of the corpus contain, by name of the array: one part per
        row group."""

    @classmethod
    @contextmanager
    def open(cls, partition: Partition) -> Iterator[Self]:
        """Yield a writer; if the ``with`` block ends without an error, ``partition`` is complete.

        If the corpus has scores or vectors, they are written as the arrays ``given_scores`` float32
        ``[n, k]`` and ``given_vectors`` float32 ``[n, dims]``. Columns to keep are written beside
        the text, as ``kept_0``, ``kept_1`` …
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
        """Write ``documents`` as one row group."""
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
        """Append ``array``, the values for one row group, to the array ``name``."""
        self.arrays.setdefault(name, []).append(array)
