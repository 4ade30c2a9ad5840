"""Copies: count, for each document that is no copy, the copies of it that were dropped.

Tasks exchange files in four steps. In steps 2 and 3, a task has the documents whose numbers have a
hash in one range. So all tasks have about the same work, even if all originals are in one block.

1. `deal`, for each block: for each dropped copy, write a row with the number of its original. For
   each near copy, also write a link from the near copy to its original.
2. `join`, for each range of hashes: an exact copy may repeat a document that is itself a near copy.
   By the links, the row of this exact copy becomes a row of the original of that near copy.
3. `merge`, for each range of hashes: add up the rows that have the same original and source.
4. `store`, for each block: add up the rows of each original, and write the counts to partitions.

So a task has only the rows of one block or range in memory.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.text_hashes import hash_texts
from climbstream.builder.settings import EQUAL_TEXT
from climbstream.loader.core.engines.engine import Engine, run_stage

from .exchange import Block, read_part, read_whole_part, starts_of, write_by_hash, write_parts
from .reasons import NEAR, REASONS, stays_until, why_of

_ROW = np.dtype([("original", "<i8"), ("source", "<u8"), ("exact", "<u4"), ("near", "<u4")])
_LINK = np.dtype([("copy", "<i8"), ("original", "<i8")])
_EXACT, _NEAR = REASONS.index(EQUAL_TEXT), REASONS.index(NEAR)
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""Odd number; the hash of a document's number is computed from its product with this number."""


@dataclass(frozen=True, slots=True)
class CopiesTask:
    """Input of one step of `count_copies`.

    The step is for the documents of ``block``, or for the range of hashes with the same number.
    """

    block: Block[Partition]
    folder: Path
    """Folder of the files that tasks exchange."""
    starts: NDArray[np.int64]
    """Number of the first document of each block, ``[blocks + 1]``."""
    before: int
    """Number of documents that the directory had before an append."""

    def path(self, name: str) -> Path:
        """Return the path of the file ``name`` of this task."""
        return self.folder / f"{name}-{self.block.number}"

    def rows(self, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the rows that all tasks wrote for this task to their files ``name``."""
        return read_whole_part(self.paths(name), self.block.number, self.count, dtype)

    def paths(self, name: str) -> list[Path]:
        """Return the paths of the files ``name`` of all tasks."""
        return [self.folder / f"{name}-{number}" for number in range(self.count)]

    @property
    def count(self) -> int:
        """Number of blocks, and of ranges."""
        return len(self.starts) - 1


def count_copies(
    engine: Engine, blocks: Sequence[Block[Partition]], folder: Path, before: int = 0
) -> None:
    """Write ``copies``, int32 ``[n, 3]``, to each partition: how often each text occurs.

    The columns are:

    - the number of dropped documents with an equal text;
    - the number of dropped documents that are near copies, or are equal to a near copy;
    - the number of sources that contain the document or one of these copies. The source of a
      document is its label or, if it has none, the file that it was read from.

    The values of a copy, and of a document that was dropped before copies were searched for, are
    -1. In the arrays ``first`` and ``original``, the first document of the first block has the
    number ``before``. Copies of documents with lower numbers are not counted.
    """
    tasks = [CopiesTask(block, folder, starts_of(blocks), before) for block in blocks]
    for step in (deal, join, merge):
        for _ in engine.run(step, tasks):
            pass
    run_stage(engine, "count copies", "documents", store, tasks)
    shutil.rmtree(folder)


def deal(task: CopiesTask) -> None:
    """Write a row for each dropped copy of a block, and a link for each dropped near copy."""
    if task.path("links").exists():
        return
    rows, links = [np.empty(0, _ROW)], [np.empty(0, _LINK)]
    for partition, begin, _ in task.block.parts():
        why = why_of(partition)
        sources = _sources(partition)
        for name, reason, count in (("first", _EXACT, "exact"), ("original", _NEAR, "near")):
            copies = np.flatnonzero(why == reason)
            if not len(copies):
                continue
            originals = partition.read("first" if name == "first" else "original")[copies]
            more = np.zeros(len(copies), _ROW)
            more["original"], more["source"] = originals - task.before, sources[copies]
            more[count] = 1
            rows.append(more)
            if reason == _NEAR:
                link = np.empty(len(copies), _LINK)
                link["copy"] = copies + task.block.start + begin
                link["original"] = originals - task.before
                links.append(link)
    found = _added_up(np.concatenate(rows))
    _write_ranges(task, "rows", found[found["original"] >= 0], "original")
    _write_ranges(task, "links", np.concatenate(links), "copy")


def join(task: CopiesTask) -> None:
    """Write the rows of a range; a row of a near copy becomes a row of the near copy's original."""
    if task.path("joined").exists():
        return
    rows, links = task.rows("rows", _ROW), task.rows("links", _LINK)
    links = links[np.argsort(links["copy"])]
    if len(links):
        place = np.minimum(np.searchsorted(links["copy"], rows["original"]), len(links) - 1)
        linked = links["copy"][place] == rows["original"]
        rows["original"][linked] = links["original"][place[linked]]
        rows["near"][linked] += rows["exact"][linked]
        rows["exact"][linked] = 0
    _write_ranges(task, "joined", _added_up(rows[rows["original"] >= 0]), "original")


def merge(task: CopiesTask) -> None:
    """Add up the rows of one range of hashes, to one row for each pair of original and source.

    The rows are sorted by the number of the original. So `store` can read the rows of one block.
    """
    if task.path("merged").exists():
        return
    rows = _added_up(task.rows("joined", _ROW))
    ends = np.searchsorted(rows["original"], task.starts[1:])
    write_parts(task.path("merged"), ends, [rows])


def store(task: CopiesTask) -> int:
    """Write ``copies`` to the partitions of a block; return the number of its documents."""
    sources = np.concatenate([_sources(partition) for partition in task.block.sources])
    copies = np.zeros((len(task.block), 3), np.int32)
    copies[:, 2] = 1
    for rows in read_part(task.paths("merged"), task.block.number, task.count, _ROW):
        place = rows["original"] - task.block.start
        np.add.at(copies[:, 0], place, rows["exact"].astype(np.int32))
        np.add.at(copies[:, 1], place, rows["near"].astype(np.int32))
        # There is one row for each source of a document, so each row adds at most one source.
        np.add.at(copies[:, 2], place, rows["source"] != sources[place])
    for partition, begin, end in task.block.parts():
        is_copy = np.isin(why_of(partition), (_EXACT, _NEAR))
        counted = ~is_copy & stays_until(partition, EQUAL_TEXT)
        partition.write("copies", np.where(counted[:, None], copies[begin:end], np.int32(-1)))
    return len(task.block)


def _sources(partition: Partition) -> NDArray[np.uint64]:
    """Return a hash of the source of each document, uint64 ``[n]``."""
    labels = partition.columns("label")["label"].combine_chunks().dictionary_encode()
    names = [
        f"label {label}" if label else f"file {partition.source}"
        for label in labels.dictionary.to_pylist()
    ]
    hashes = hash_texts(names)[:, 0]
    return np.asarray(hashes[labels.indices.to_numpy()], np.uint64)


def _added_up(rows: NDArray[Any]) -> NDArray[Any]:
    """Return one row for each original and source in ``rows``, sorted by both."""
    rows = rows[np.lexsort((rows["source"], rows["original"]))]
    if not len(rows):
        return rows
    same = (rows["original"][1:] == rows["original"][:-1]) & (
        rows["source"][1:] == rows["source"][:-1]
    )
    begins = np.flatnonzero(np.append(True, ~same))
    sums = rows[begins]
    for name in ("exact", "near"):
        sums[name] = np.add.reduceat(rows[name], begins)
    return sums


def _write_ranges(task: CopiesTask, name: str, rows: NDArray[Any], key: str) -> None:
    """Write ``rows`` to the file ``name``, sorted by range of the hash of the field ``key``."""
    hashes = rows[key].astype(np.uint64) * _MIX >> np.uint64(32)
    write_by_hash(task.path(name), hashes, task.count, rows)
