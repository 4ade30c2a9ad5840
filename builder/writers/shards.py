"""Write the MDS shards of each cluster from tokenised documents.

Which documents are in a shard depends only on the order and the lengths of documents. So shards are
planned before they are written: one task per cluster assigns documents to shards, and then one task
per shard writes the shard.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.passes import Batch, batches, in_order, run_short
from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.files import hash_bytes, read_json, write_bytes, write_json
from climbstream.loader.core.typed import convert
from climbstream.loader.formats.manifest import (
    INDEX,
    NEXT_FILES,
    NEXT_INDEX,
    ClusterEntry,
    Manifest,
    cluster_folder,
    load_index,
)
from climbstream.loader.formats.mds.compression import compress
from climbstream.loader.formats.mds.entry import ShardEntry, shard_name
from climbstream.loader.formats.mds.index import SHARD_BYTES, Index
from climbstream.loader.formats.mds.writer import (
    describe_shard,
    encode_document,
    encode_shard,
    sample_bytes,
)
from climbstream.loader.formats.outputs import WORK
from climbstream.loader.formats.shard_columns import save_columns

_HEADER = 512
"""Number of bytes that are reserved for the head of a shard. The rest of a shard is for documents
and their offsets."""

_RUN = np.dtype(
    [("partition", "<u4"), ("cluster", "<i4"), ("first", "<i8"), ("stop", "<i8"), ("bytes", "<i8")]
)
"""A run: the documents of a partition that are in one cluster. They are a range in the array
``order`` of the partition; ``bytes`` is the number of bytes that they take in shards."""
_PART = np.dtype(
    [("cluster", "<i4"), ("shard", "<i4"), ("partition", "<u4"), ("first", "<i8"), ("stop", "<i8")]
)
"""The documents of a run that are in one shard, as their range in the array ``order``."""


class DocumentRange(NamedTuple):
    """Documents of a partition that are consecutive in its array ``order``."""

    partition: Partition
    first: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """Input of `write_shard`: a shard to write, and the documents in it."""

    cluster: int
    number: int
    folder: Path
    dtype: str
    ranges: tuple[DocumentRange, ...]
    done: Path
    """File for the shard's entry in the index; it is written after the shard."""

    @property
    def name(self) -> str:
        """Name of the shard in messages."""
        return f"{self.folder.name} {self.number}"


@dataclass(frozen=True, slots=True)
class WrittenCluster:
    """A cluster whose shards have been written."""

    entry: ClusterEntry
    shard_samples: tuple[int, ...]
    """Number of documents in each new shard. From these numbers, the writer of the catalogue
    computes the shard and the row of each document."""
    first: int = 0
    """Number of the first new shard; above 0 if an append added to shards that existed."""


def write_clusters(
    engine: Engine,
    partitions: Sequence[Partition],
    out: Path,
    names: Sequence[str],
    dtype: str,
    before: Manifest | None = None,
) -> list[WrittenCluster]:
    """Write shards and indexes of all clusters; return a `WrittenCluster` for each cluster.

    Args:
        engine: Runs the tasks.
        partitions: Partitions with ``order``, ``clusters``, ``lengths`` and ``tokens``.
        out: The shard directory.
        names: Name of each cluster.
        dtype: ``uint16`` or ``uint32``.
        before: Manifest that an append adds to; new indexes are then written beside the old ones.
    """
    old: list[Sequence[ShardEntry]] = [() for _ in names]
    if before is not None:
        old = [load_index(out, before, cluster).shards for cluster in before.clusters]
    folders = [cluster_folder(out, name) for name in names]
    new: list[dict[int, ShardEntry]] = [{} for _ in folders]
    done = out / WORK / "shards"

    def task_of(parts: NDArray[Any]) -> ShardTask:
        k = int(parts["cluster"][0])
        number = len(old[k]) + int(parts["shard"][0])
        ranges = parts[["partition", "first", "stop"]].tolist()
        return ShardTask(
            cluster=k,
            number=number,
            folder=folders[k],
            dtype=dtype,
            ranges=tuple(DocumentRange(partitions[n], i, j) for n, i, j in ranges),
            done=done / f"{folders[k].name}-{number:05d}.json",
        )

    plan = _plan(engine, partitions, len(folders), dtype)
    with Progress("write shards", None, "tokens") as progress:
        for task, entry in run_short(engine, write_shard, map(task_of, plan), len(plan)):
            new[task.cluster][task.number] = entry
            progress.add(entry.tokens)
    indexes = [
        Index.of(dtype, (*existing, *(added[number] for number in sorted(added))))
        for existing, added in zip(old, new, strict=True)
    ]
    columns = {name: index.parts[0] for name, index in zip(names, indexes, strict=True)}
    save_columns(out if before is None else out / NEXT_FILES, columns)
    return [
        _write_index(folder, index, len(existing))
        for folder, index, existing in zip(folders, indexes, old, strict=True)
    ]


def write_shard(task: ShardTask) -> ShardEntry:
    """Write one shard, unless it exists; return its entry in the index."""
    if task.done.exists():
        value = read_json(task.done)
        return convert(value, ShardEntry, f"note of a shard, {task.done}")
    documents = [document for part in task.ranges for document in _documents(part)]
    raw = encode_shard([encode_document(document) for document in documents], task.dtype)
    packed = compress(raw)
    lengths = [len(document) for document in documents]
    entry = describe_shard(shard_name(task.number), lengths, raw, packed)
    write_bytes(task.folder / entry.zip_basename, packed)
    write_json(task.done, asdict(entry))
    return entry


def _plan(
    engine: Engine, partitions: Sequence[Partition], clusters: int, dtype: str
) -> list[NDArray[Any]]:
    """Return, for each shard, which documents will be in it, as an array of `_PART`.

    Tasks read the lengths of documents. This process has only `_RUN` values in memory.
    """
    width = np.dtype(dtype).itemsize
    measure = partial(_measure_runs, width=width)
    runs = np.concatenate([np.empty(0, _RUN), *in_order(engine, measure, batches(partitions))])
    runs = runs[np.argsort(runs["cluster"], kind="stable")]
    borders = np.searchsorted(runs["cluster"], np.arange(clusters + 1)).tolist()
    tasks = (
        _PlanTask(tuple(partitions[n] for n in runs["partition"][part].tolist()), runs[part], width)
        for part in map(slice, borders, borders[1:])
    )
    parts = np.concatenate([np.empty(0, _PART), *in_order(engine, _cut_runs, tasks)])
    differ = (np.diff(parts["cluster"]) != 0) | (np.diff(parts["shard"]) != 0)
    shards = np.split(parts, np.flatnonzero(differ) + 1) if len(parts) else []
    # Shards that end in the same partition are written together, while its tokens are in memory.
    return sorted(shards, key=lambda shard: int(shard["partition"][-1]))


def _measure_runs(batch: Batch[Partition], width: int) -> NDArray[Any]:
    """Return the runs of a batch of partitions, `_RUN`: one per partition and cluster."""
    found = [np.empty(0, _RUN)]
    for number, partition in enumerate(batch.partitions, start=batch.first):
        clusters = partition.read("clusters")[partition.read("order")]
        sizes = _sizes(partition.read("lengths"), width)
        names, first = np.unique(clusters, return_index=True)
        runs = np.empty(len(names), _RUN)
        runs["partition"], runs["cluster"] = number, names
        runs["first"], runs["stop"] = first, np.append(first[1:], len(clusters))
        runs["bytes"] = np.add.reduceat(sizes, first) if len(first) else 0
        found.append(runs)
    return np.concatenate(found)


def _sizes(lengths: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Return the bytes that each document takes in a shard, including four bytes for its offset."""
    return sample_bytes(lengths, width) + 4


@dataclass(frozen=True, slots=True)
class _PlanTask:
    """Input of `_cut_runs`: the runs of one cluster."""

    partitions: tuple[Partition, ...]
    """The partition of each run."""
    runs: NDArray[Any]
    width: int


def _cut_runs(task: _PlanTask) -> NDArray[Any]:
    """Return which documents are in each shard of a cluster, as `_PART`, in order of the shards."""
    parts: list[tuple[int, int, int, int, int]] = []
    shard, size = 0, _HEADER
    fields = ["partition", "cluster", "first", "stop", "bytes"]
    for partition, run in zip(task.partitions, task.runs[fields].tolist(), strict=True):
        number, k, first, last, total = run
        if size + total <= SHARD_BYTES:
            parts.append((k, shard, number, first, last))
            size += total
            continue
        lengths = np.asarray(partition.read("lengths", mapped=True)[first:last])
        ends = np.concatenate([[0], np.cumsum(_sizes(lengths, task.width))])
        begin = 0
        while begin < last - first:
            stop = int(np.searchsorted(ends, ends[begin] + SHARD_BYTES - size, "right")) - 1
            if size == _HEADER:
                stop = max(stop, begin + 1)  # a document may be longer than a shard
            if stop > begin:
                parts.append((k, shard, number, first + begin, first + stop))
                size += int(ends[stop] - ends[begin])
                begin = stop
            if begin < last - first:
                shard, size = shard + 1, _HEADER
    return np.array(parts, _PART)


def _documents(part: DocumentRange) -> Iterator[NDArray[Any]]:
    """Yield the tokens of each document in a range."""
    partition = part.partition
    ends = np.concatenate([[0], np.cumsum(partition.read("lengths"))]).tolist()
    tokens = partition.read("tokens", mapped=True)
    for i in range(part.first, part.stop):
        yield np.asarray(tokens[ends[i] : ends[i + 1]])


def _write_index(folder: Path, index: Index, first: int) -> WrittenCluster:
    """Write the index of a cluster; its shards from number ``first`` on are new."""
    data, samples = index.to_bytes(), index.parts[0].samples[first:].tolist()
    if samples or not first:
        write_bytes(folder / (NEXT_INDEX if first else INDEX), data)
    entry = ClusterEntry(
        name=folder.name,
        tokens=index.tokens,
        documents=index.samples,
        index_hash=hash_bytes(data),
    )
    return WrittenCluster(entry, tuple(samples), first)
