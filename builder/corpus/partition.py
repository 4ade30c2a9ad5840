"""Partition: the part of a corpus that one task works on, with the arrays of the stages so far.

A partition is a folder in the working folder of a build. Each stage adds a file to it, whole or
not at all. So a file that exists is complete, and a killed build goes on with the missing files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from climbstream.loader.core.files import atomic_path, naming
from climbstream.loader.formats.catalogue import read_parquet

from .document import NOTHING, Document

UNIT_BYTES = 4 << 20
"""Bytes of text of a partition: small, so that many are in work; large enough to compress well."""

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
    "counts",  # int64 [2, k], clusters with documents in shards, and how many
    "lengths",  # int64 [m], tokens of each
    "tokens",  # uint16 or uint32 [sum of lengths]
]
"""The arrays of a partition of n documents, in the order in which stages write them."""

_TEXT = pa.schema([(name, pa.string()) for name in ("id", "text", "label", "license", "origin")])


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition: ``folder`` holds ``text.parquet`` and the arrays that stages add."""

    folder: Path

    @property
    def name(self) -> str:
        """Name of the partition; sorted by name, partitions are in the order of the corpus."""
        return self.folder.name

    @property
    def source(self) -> str:
        """Number of the source that its documents were read from."""
        return self.name.partition("-")[0]

    def write_documents(self, documents: Sequence[Document]) -> None:
        """Write the documents of the partition, and what the corpus brings for them.

        That is ``given_scores`` float32 ``[n, k]`` and ``given_vectors`` float32 ``[n, dims]``,
        if there are any, and ``kept_0``, ``kept_1`` … among the columns.
        """
        columns = {name: [getattr(d, name) for d in documents] for name in _TEXT.names}
        table = pa.table(columns, schema=_TEXT)
        extras = [document.extra for document in documents]
        first = extras[0] if extras else NOTHING
        for i in range(len(first.kept)):
            table = table.append_column(
                f"kept_{i}", pa.array([e.kept[i] for e in extras], "string")
            )
        if first.scores:
            self.write("given_scores", np.array([e.scores for e in extras], np.float32))
        if first.vector is not None:
            self.write(
                "given_vectors", np.stack([e.vector for e in extras if e.vector is not None])
            )
        with atomic_path(self.folder / "text.parquet") as path:
            pq.write_table(table, path, compression="zstd")

    def column(self, name: str) -> list[str]:
        """Read one column of the documents."""
        values: list[str] = self.columns(name)[name].to_pylist()
        return values

    def columns(self, *names: str) -> Any:
        """Read columns of the documents, as an Arrow table."""
        return read_parquet(self.folder / "text.parquet", names)

    def __len__(self) -> int:
        return int(pq.read_metadata(self.folder / "text.parquet").num_rows)

    def has(self, name: ArrayName) -> bool:
        """Whether an array has been written."""
        return self._path(name).exists()

    def write(self, name: ArrayName, array: NDArray[Any]) -> None:
        """Write an array."""
        with atomic_path(self._path(name)) as path, path.open("wb") as file:
            np.save(file, array, allow_pickle=False)

    def read(self, name: ArrayName, *, mapped: bool = False) -> NDArray[Any]:
        """Read an array, or map it into memory."""
        path = self._path(name)
        with naming(path):
            array: NDArray[Any] = np.load(
                path, mmap_mode="r" if mapped else None, allow_pickle=False
            )
        return array

    def _path(self, name: ArrayName) -> Path:
        return self.folder / f"{name}.npy"
