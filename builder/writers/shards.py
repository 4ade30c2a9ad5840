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

from climbstream.builder.corpus.partition import Partition
from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.files import hash_bytes, read_json, write_bytes, write_json
from climbstream.loader.core.typed import convert
from climbstream.loader.formats.manifest import (
    INDEX,
    NEXT_INDEX,
    ClusterEntry,
    Manifest,
    cluster_folder,
    load_index,
)
from climbstream.loader.formats.mds.compression import compress
from climbstream.loader.formats.mds.index import SHARD_BYTES, Index, ShardEntry
from climbstream.loader.formats.mds.writer import (
    describe_shard,
    encode_document,
    encode_shard,
    sample_bytes,
)
from climbstream.loader.formats.outputs import WORK

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
    """Documents of each new shard: so the place of a document follows from its number."""
    first: int = 0
    """Number of the first new shard; those before it were there."""


def write_clusters(
    engine: Engine,
    units: Sequence[Partition],
    out: Path,
    names: Sequence[str],
    dtype: str,
    before: Manifest | None = None,
) -> list[WrittenCluster]:
    """Write the shards and the indices of the clusters ``names`` into the shard directory ``out``.

    The indices of an append to what ``before`` lists are written beside the old ones.
    """
    old: list[tuple[ShardEntry, ...]] = [() for _ in names]
    if before is not None:
        old = [load_index(out, before, cluster).shards for cluster in before.clusters]
    folders = [cluster_folder(out, name) for name in names]
    new: list[dict[int, ShardEntry]] = [{} for _ in folders]
    tasks = _plan(units, folders, [len(shards) for shards in old], out / WORK / "shards", dtype)
    with Progress("write shards", None, "tokens") as progress:
        for task, entry in engine.run(write_shard, tasks):
            new[task.cluster][task.number] = entry
            progress.add(entry.tokens)
    return [
        _write_index(folder, dtype, there, [added[number] for number in sorted(added)])
        for folder, there, added in zip(folders, old, new, strict=True)
    ]


def write_shard(task: ShardTask) -> ShardEntry:
    """Write one shard, unless that has been done."""
    if task.done.exists():
        value = read_json(task.done)
        return convert(value, ShardEntry, f"note of a shard, {task.done}")
    documents = [document for piece in task.pieces for document in _documents(piece)]
    raw = encode_shard([encode_document(document) for document in documents], task.dtype)
    packed = compress(raw)
    basename = f"shard.{task.number:05d}.mds"
    entry = describe_shard(basename, [len(document) for document in documents], raw, packed)
    write_bytes(task.folder / entry.zip_basename, packed)
    write_json(task.done, asdict(entry))
    return entry


def _plan(
    units: Sequence[Partition],
    folders: Sequence[Path],
    begin: Sequence[int],
    done: Path,
    dtype: str,
) -> Iterator[ShardTask]:
    """Deal the documents of ``units`` to shards, in their order; give each once it is full."""
    pieces: list[list[Piece]] = [[] for _ in folders]
    sizes = [_HEADER] * len(folders)
    numbers = [*begin]

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
    unit = Partition(piece.unit)
    ends = np.concatenate([[0], np.cumsum(unit.read("lengths"))]).tolist()
    tokens = unit.read("tokens", mapped=True)
    for i in range(piece.first, piece.stop):
        yield np.asarray(tokens[ends[i] : ends[i + 1]])


def _write_index(
    folder: Path, dtype: str, old: Sequence[ShardEntry], new: Sequence[ShardEntry]
) -> WrittenCluster:
    index = Index(dtype, (*old, *new))
    data = index.to_bytes()
    if new or not old:
        write_bytes(folder / (NEXT_INDEX if old else INDEX), data)
    entry = ClusterEntry(
        name=folder.name,
        tokens=index.tokens,
        documents=index.samples,
        index_hash=hash_bytes(data),
    )
    return WrittenCluster(entry, tuple(shard.samples for shard in new), len(old))
