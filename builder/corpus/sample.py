"""Draw a random sample of the documents of a corpus, the same for equal settings and seeds."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from climbstream.builder.licenses import is_kept
from climbstream.builder.settings import EVERY, BuildSettings
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import atomic_path, hash_json, read_json, write_json
from climbstream.loader.core.permutation import sample_indices

from .array_file import names_in, read_array, write_arrays
from .partition import Partition
from .passes import batches, each

SAMPLE = "sample"
"""Name of the folder of a sample, in the working folder."""
_DRAWN = "drawn.json"
"""File in the folder of a complete sample, with the settings of the draw and the number of
documents."""
_CHARS = 20_000
"""A sample contains at most this number of characters of a document, from its beginning."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample of documents to fit models on, in files of ``folder``."""

    folder: Path
    documents: int

    def texts(self) -> list[str]:
        """Return the beginning of each text, in the order of the corpus."""
        return self._column("text")

    def texts_of(self, begin: int, end: int) -> list[str]:
        """Return the texts of documents ``begin`` to ``end``; read only the files of these."""
        texts: list[str] = []
        for path in self._files("parquet"):
            count = pq.read_metadata(path).num_rows
            if begin < count and end > 0:
                column = pq.read_table(path, columns=["text"])["text"]
                texts += column[max(begin, 0) : end].to_pylist()
            begin, end = begin - count, end - count
        return texts

    def languages(self) -> list[str]:
        """Return the language of each document."""
        return self._column("language")

    def vectors(self) -> NDArray[np.float32]:
        """Return the vectors that are in the corpus, ``[n, dims]``.

        Raises:
            InvalidDataError: Vectors have different numbers of dimensions.
        """
        parts = []
        for path in self._files("vectors"):
            parts += [(name, read_array(path, name)) for name in names_in(path)]
        first, vectors = parts[0]
        for origin, more in parts:
            if more.shape[1] != vectors.shape[1]:
                raise InvalidDataError(
                    f"{origin} has vectors of {more.shape[1]} numbers, and {first} has vectors of "
                    f"{vectors.shape[1]}; embed all documents with one model"
                )
        return np.concatenate([vectors for _, vectors in parts])

    def _column(self, name: str) -> list[str]:
        parts = (pq.read_table(path)[name].to_pylist() for path in self._files("parquet"))
        return [value for part in parts for value in part]

    def _files(self, kind: str) -> list[Path]:
        return sorted(self.folder.glob(f"[!.]*.{kind}"), key=lambda path: int(path.stem))


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The sampled documents of one batch; ``number`` is that of its first partition."""

    number: int
    partitions: tuple[Partition, ...]
    rows: tuple[NDArray[np.int64], ...]
    """Sampled documents of each partition: their numbers among the documents in wanted languages
    and licences."""


def draw_sample(
    engine: Engine, partitions: Sequence[Partition], folder: Path, settings: BuildSettings
) -> Sample:
    """Draw a sample of documents in the wanted languages and licences, and write it to ``folder``.

    A sample that was drawn before with the same settings is not drawn again.
    """
    done = folder / _DRAWN
    drawn_by = [settings.sample, settings.seed, settings.languages, settings.licenses]
    drawn_by += [settings.vector_column, hash_json([p.name for p in partitions])]
    if done.exists() and (note := read_json(done))["by"] == drawn_by:
        return Sample(folder, note["documents"])
    counts = np.array(
        [*each(engine, partitions, partial(_count_wanted, settings=settings))], np.int64
    )
    ends = np.cumsum(counts)
    chosen = np.sort(sample_indices(int(ends[-1]), settings.sample, settings.seed, "sample"))
    shutil.rmtree(folder, ignore_errors=True)
    tasks = _cut(partitions, chosen, ends - counts, ends)
    for _ in engine.run(partial(_write_sample, folder=folder, settings=settings), tasks):
        pass
    write_json(done, {"by": drawn_by, "documents": len(chosen)})
    return Sample(folder, len(chosen))


def _cut(
    partitions: Sequence[Partition],
    chosen: NDArray[np.int64],
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> Iterator[_Drawn]:
    """Yield the ``chosen`` documents of each batch; ``chosen`` has their numbers, sorted."""
    for batch in batches(partitions):
        places = slice(batch.first, batch.first + len(batch.partitions))
        rows = [
            chosen[slice(*np.searchsorted(chosen, [begin, end]))] - begin
            for begin, end in zip(begins[places], ends[places], strict=True)
        ]
        drawn = [i for i, part in enumerate(rows) if len(part)]
        if drawn:
            taken = tuple(batch.partitions[i] for i in drawn)
            yield _Drawn(batch.first, taken, tuple(rows[i] for i in drawn))


def _count_wanted(partition: Partition, settings: BuildSettings) -> int:
    return int(np.count_nonzero(_is_wanted(partition, settings)))


def _write_sample(task: _Drawn, folder: Path, settings: BuildSettings) -> None:
    """Write the texts of a task's documents, and their languages and vectors if there are any."""
    texts: list[str] = []
    languages: list[str] = []
    vectors: dict[str, NDArray[Any]] = {}
    for partition, places in zip(task.partitions, task.rows, strict=True):
        rows = np.flatnonzero(_is_wanted(partition, settings))[places]
        if settings.vector_column is not None:
            origin = partition.take(rows[:1], "origin")["origin"][0].as_py()
            vectors[origin] = partition.read("given_vectors", mapped=True)[rows]
        column = partition.take(rows, "text")["text"]
        texts += pc.utf8_slice_codeunits(column, 0, _CHARS).to_pylist()
        if partition.has("languages"):
            languages += partition.read("languages")[rows, 0].tolist()
    table = pa.table({"text": texts})
    if languages:
        table = table.append_column("language", pa.array(languages))
    with atomic_path(folder / f"{task.number}.parquet") as path:
        pq.write_table(table, path, compression="zstd")
    if vectors:
        write_arrays(folder / f"{task.number}.vectors", vectors)


def _is_wanted(partition: Partition, settings: BuildSettings) -> NDArray[np.bool_]:
    return in_languages(partition, settings) & has_license(partition, settings)


def in_languages(partition: Partition, settings: BuildSettings) -> NDArray[np.bool_]:
    """Return which documents of a partition are in a wanted language, bool ``[n]``."""
    if settings.languages == EVERY:
        return np.ones(len(partition), np.bool_)
    return np.isin(partition.read("languages")[:, 0], settings.languages)


def has_license(partition: Partition, settings: BuildSettings) -> NDArray[np.bool_]:
    """Return which documents of a partition have a licence that is kept, bool ``[n]``."""
    if not settings.licenses:
        return np.ones(len(partition), np.bool_)
    return is_kept(partition.column("license"), settings.licenses)
