"""MDS shards of the tokenised documents of each cluster.

The lengths of documents alone decide which of them a shard takes. So shards are planned one
partition at a time, and each is written by a task of its own.
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
"""Bytes kept free for the head of a shard, beside its documents and their offsets."""


@dataclass(frozen=True, slots=True)
class DocumentRange:
    """Documents of a partition that follow each other in its ``order``."""

    partition: Path
    first: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """A shard to write."""

    cluster: int
    number: int
    folder: Path
    dtype: str
    ranges: tuple[DocumentRange, ...]
    done: Path
    """File of the entry in the index, which is written after the shard."""


@dataclass(frozen=True, slots=True)
class WrittenCluster:
    """A cluster whose shards are written."""

    entry: ClusterEntry
    shard_samples: tuple[int, ...]
    """Documents of each new shard, which give the place of each document."""
    first: int = 0
    """Number of the first new shard: more than 0 after an append."""


def write_clusters(
    engine: Engine,
    partitions: Sequence[Partition],
    out: Path,
    names: Sequence[str],
    dtype: str,
    before: Manifest | None = None,
) -> list[WrittenCluster]:
    """Write shards and indices of all clusters; return what was written of each.

    Args:
        engine: Runs the tasks.
        partitions: Partitions with ``order``, ``clusters``, ``lengths`` and ``tokens``.
        out: The shard directory.
        names: Name of each cluster.
        dtype: ``uint16`` or ``uint32``.
        before: Manifest that an append adds to; new indices are then written beside the old ones.
    """
    old: list[tuple[ShardEntry, ...]] = [() for _ in names]
    if before is not None:
        old = [load_index(out, before, cluster).shards for cluster in before.clusters]
    folders = [cluster_folder(out, name) for name in names]
    new: list[dict[int, ShardEntry]] = [{} for _ in folders]
    tasks = _plan(
        partitions, folders, [len(shards) for shards in old], out / WORK / "shards", dtype
    )
    with Progress("write shards", None, "tokens") as progress:
        for task, entry in engine.run(write_shard, tasks):
            new[task.cluster][task.number] = entry
            progress.add(entry.tokens)
    return [
        _write_index(folder, dtype, existing, [added[number] for number in sorted(added)])
        for folder, existing, added in zip(folders, old, new, strict=True)
    ]


def write_shard(task: ShardTask) -> ShardEntry:
    """Write one shard, unless it exists; return its entry in the index."""
    if task.done.exists():
        value = read_json(task.done)
        return convert(value, ShardEntry, f"note of a shard, {task.done}")
    documents = [document for part in task.ranges for document in _documents(part)]
    raw = encode_shard([encode_document(document) for document in documents], task.dtype)
    packed = compress(raw)
    basename = f"shard.{task.number:05d}.mds"
    entry = describe_shard(basename, [len(document) for document in documents], raw, packed)
    write_bytes(task.folder / entry.zip_basename, packed)
    write_json(task.done, asdict(entry))
    return entry


def _plan(
    partitions: Sequence[Partition],
    folders: Sequence[Path],
    begin: Sequence[int],
    done: Path,
    dtype: str,
) -> Iterator[ShardTask]:
    """Assign documents to shards, in their order; yield the task of a shard when it is full."""
    ranges: list[list[DocumentRange]] = [[] for _ in folders]
    sizes = [_HEADER] * len(folders)
    numbers = [*begin]

    def close(k: int) -> ShardTask:
        task = ShardTask(
            cluster=k,
            number=numbers[k],
            folder=folders[k],
            dtype=dtype,
            ranges=tuple(ranges[k]),
            done=done / f"{folders[k].name}-{numbers[k]:05d}.json",
        )
        ranges[k], sizes[k] = [], _HEADER
        numbers[k] += 1
        return task

    for partition in partitions:
        clusters = partition.read("clusters")[partition.read("order")]
        # The head of a shard has an offset of four bytes for each document.
        sample = sample_bytes(partition.read("lengths"), np.dtype(dtype).itemsize) + 4
        ends = np.concatenate([[0], np.cumsum(sample)])
        for k in np.unique(clusters).tolist():
            first, last = np.searchsorted(clusters, [k, k + 1]).tolist()
            while first < last:
                room = ends[first] + SHARD_BYTES - sizes[k]
                stop = min(last, int(np.searchsorted(ends, room, "right")) - 1)
                if not ranges[k]:
                    stop = max(stop, first + 1)  # a document may be longer than a shard
                if stop > first:
                    ranges[k].append(DocumentRange(partition.folder, first, stop))
                    sizes[k] += int(ends[stop] - ends[first])
                    first = stop
                if first < last:
                    yield close(k)
    for k in range(len(folders)):
        if ranges[k]:
            yield close(k)


def _documents(part: DocumentRange) -> Iterator[NDArray[Any]]:
    """Yield the tokens of each document of a range."""
    partition = Partition(part.partition)
    ends = np.concatenate([[0], np.cumsum(partition.read("lengths"))]).tolist()
    tokens = partition.read("tokens", mapped=True)
    for i in range(part.first, part.stop):
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
