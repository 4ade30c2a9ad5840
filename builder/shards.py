"""Shards: the tokenised documents of one cluster, out of all units, into MDS files."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.manifest import ClusterEntry, cluster_folder
from climbstream.loader.mds import (
    SHARD_BYTES,
    Index,
    ShardEntry,
    compress,
    describe_shard,
    encode_document,
    encode_shard,
)
from climbstream.loader.progress import Progress
from climbstream.loader.storage import hash_bytes, read_json, write_bytes, write_json

from .engine import Engine
from .unit import Unit

_HEADER = 512
"""Room for the head of a shard, beside its documents and their offsets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterTask:
    """The cluster to write: its number in the units, its name, and where it goes."""

    cluster: int
    name: str
    folder: Path
    dtype: str
    units: tuple[Path, ...]
    done: Path
    """Written when all else is: what became of it."""


@dataclass(frozen=True, slots=True)
class WrittenCluster:
    """A cluster that has been written."""

    entry: ClusterEntry
    shard_samples: tuple[int, ...]
    """Documents of each shard: so the place of a document follows from its number."""


def write_clusters(
    engine: Engine, units: Sequence[Unit], out: Path, done: Path, *, count: int, dtype: str
) -> list[WrittenCluster]:
    """Write the shards of ``count`` clusters into the shard directory ``out``.

    ``done`` is a folder that remembers what has been written.
    """
    width = max(2, len(str(count - 1)))
    names = [f"c{k:0{width}d}" for k in range(count)]
    tasks = [
        ClusterTask(
            cluster=k,
            name=name,
            folder=cluster_folder(out, name),
            dtype=dtype,
            units=tuple(unit.folder for unit in units),
            done=done / f"{name}.json",
        )
        for k, name in enumerate(names)
    ]
    written: dict[str, WrittenCluster] = {}
    with Progress("write shards", None, "tokens") as progress:
        for task, cluster in engine.run(write_cluster, tasks):
            written[task.name] = cluster
            progress.add(cluster.entry.tokens)
    return [written[name] for name in names]


def write_cluster(task: ClusterTask) -> WrittenCluster:
    """Write the shards and the index of one cluster, unless that has been done."""
    if task.done.exists():
        value = read_json(task.done)
        return WrittenCluster(ClusterEntry(**value["entry"]), tuple(value["shard_samples"]))
    shards: list[ShardEntry] = []
    waiting: list[bytes] = []
    lengths: list[int] = []
    size = 0

    def close() -> None:
        raw = encode_shard(waiting, task.dtype)
        packed = compress(raw)
        basename = f"shard.{len(shards):05d}.mds"
        entry = describe_shard(basename, lengths, raw, packed)
        write_bytes(task.folder / entry.zip_basename, packed)
        shards.append(entry)

    for document in _documents(task.units, task.cluster):
        sample = encode_document(document)
        if waiting and size + len(sample) + 4 + _HEADER > SHARD_BYTES:
            close()
            waiting, lengths, size = [], [], 0
        waiting.append(sample)
        lengths.append(len(document))
        size += len(sample) + 4
    if waiting:
        close()
    index = Index(task.dtype, tuple(shards))
    data = index.to_bytes()
    write_bytes(task.folder / "index.json", data)
    entry = ClusterEntry(
        name=task.name,
        tokens=index.tokens,
        documents=index.samples,
        index_hash=hash_bytes(data),
    )
    written = WrittenCluster(entry, tuple(shard.samples for shard in shards))
    write_json(task.done, {"entry": asdict(entry), "shard_samples": written.shard_samples})
    return written


def _documents(units: Sequence[Path], cluster: int) -> Iterator[NDArray[Any]]:
    """Give the tokens of each document of ``cluster``, in the order of the corpus."""
    for unit in map(Unit, units):
        lengths = unit.read("lengths")
        mine = np.flatnonzero(unit.read("clusters")[unit.read("order")] == cluster)
        if not len(mine):
            continue
        # Documents are stored by cluster, so those of one stand together.
        ends = np.cumsum(lengths)
        tokens = unit.read("tokens", mapped=True)
        for i in mine.tolist():
            yield np.asarray(tokens[ends[i] - lengths[i] : ends[i]])
