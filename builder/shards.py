"""Shards: the tokenised documents of each cluster, out of all units, into MDS files.

Which documents a shard takes follows from their lengths alone, so shards are planned one unit at a
time and written side by side, each as a task of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.manifest import INDEX, ClusterEntry, cluster_folder
from climbstream.loader.mds import (
    SHARD_BYTES,
    Index,
    ShardEntry,
    compress,
    describe_shard,
    encode_document,
    encode_shard,
    sample_bytes,
)
from climbstream.loader.progress import Progress
from climbstream.loader.storage import hash_bytes, read_json, write_bytes, write_json

from .engine import Engine
from .unit import Unit

_HEADER = 512
"""Room for the head of a shard, beside its documents and their offsets."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Documents of a unit that stand side by side in its ``order``."""

    unit: Path
    first: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """A shard to write."""

    cluster: int
    number: int
    folder: Path
    dtype: str
    pieces: tuple[Piece, ...]
    done: Path
    """Written when the shard is: its entry in the index."""


@dataclass(frozen=True, slots=True)
class WrittenCluster:
    """A cluster that has been written."""

    entry: ClusterEntry
    shard_samples: tuple[int, ...]
    """Documents of each shard: so the place of a document follows from its number."""


def write_clusters(
    engine: Engine, units: Sequence[Unit], out: Path, done: Path, *, count: int, dtype: str
) -> list[WrittenCluster]:
    """Write the shards and the indices of ``count`` clusters into the shard directory ``out``.

    ``done`` is a folder that remembers what has been written.
    """
    width = max(2, len(str(count - 1)))
    folders = [cluster_folder(out, f"c{k:0{width}d}") for k in range(count)]
    shards: list[dict[int, ShardEntry]] = [{} for _ in folders]
    with Progress("write shards", None, "tokens") as progress:
        for task, entry in engine.run(write_shard, _plan(units, folders, done, dtype)):
            shards[task.cluster][task.number] = entry
            progress.add(entry.tokens)
    return [
        _write_index(folder, Index(dtype, tuple(entries[i] for i in sorted(entries))))
        for folder, entries in zip(folders, shards, strict=True)
    ]


def write_shard(task: ShardTask) -> ShardEntry:
    """Write one shard, unless that has been done."""
    if task.done.exists():
        value = read_json(task.done)
        return ShardEntry(**{**value, "lengths": tuple(map(tuple, value["lengths"]))})
    documents = [document for piece in task.pieces for document in _documents(piece)]
    raw = encode_shard([encode_document(document) for document in documents], task.dtype)
    packed = compress(raw)
    basename = f"shard.{task.number:05d}.mds"
    entry = describe_shard(basename, [len(document) for document in documents], raw, packed)
    write_bytes(task.folder / entry.zip_basename, packed)
    write_json(task.done, asdict(entry))
    return entry


def _plan(
    units: Sequence[Unit], folders: Sequence[Path], done: Path, dtype: str
) -> Iterator[ShardTask]:
    """Deal the documents of ``units`` to shards, in their order; give each once it is full."""
    pieces: list[list[Piece]] = [[] for _ in folders]
    sizes = [_HEADER] * len(folders)
    numbers = [0] * len(folders)

    def close(k: int) -> ShardTask:
        task = ShardTask(
            cluster=k,
            number=numbers[k],
            folder=folders[k],
            dtype=dtype,
            pieces=tuple(pieces[k]),
            done=done / f"{folders[k].name}-{numbers[k]:05d}.json",
        )
        pieces[k], sizes[k] = [], _HEADER
        numbers[k] += 1
        return task

    for unit in units:
        clusters = unit.read("clusters")[unit.read("order")]
        # An offset of four bytes stands for each document in the head of a shard.
        sample = sample_bytes(unit.read("lengths"), np.dtype(dtype).itemsize) + 4
        ends = np.concatenate([[0], np.cumsum(sample)])
        for k in np.unique(clusters).tolist():
            first, last = np.searchsorted(clusters, [k, k + 1]).tolist()
            while first < last:
                room = ends[first] + SHARD_BYTES - sizes[k]
                stop = min(last, int(np.searchsorted(ends, room, "right")) - 1)
                if not pieces[k]:
                    stop = max(stop, first + 1)  # a document may be longer than a shard
                if stop > first:
                    pieces[k].append(Piece(unit.folder, first, stop))
                    sizes[k] += int(ends[stop] - ends[first])
                    first = stop
                if first < last:
                    yield close(k)
    for k in range(len(folders)):
        if pieces[k]:
            yield close(k)


def _documents(piece: Piece) -> Iterator[NDArray[Any]]:
    """Give the tokens of each document of ``piece``."""
    unit = Unit(piece.unit)
    ends = np.concatenate([[0], np.cumsum(unit.read("lengths"))]).tolist()
    tokens = unit.read("tokens", mapped=True)
    for i in range(piece.first, piece.stop):
        yield np.asarray(tokens[ends[i] : ends[i + 1]])


def _write_index(folder: Path, index: Index) -> WrittenCluster:
    data = index.to_bytes()
    write_bytes(folder / INDEX, data)
    entry = ClusterEntry(
        name=folder.name,
        tokens=index.tokens,
        documents=index.samples,
        index_hash=hash_bytes(data),
    )
    return WrittenCluster(entry, tuple(shard.samples for shard in index.shards))
