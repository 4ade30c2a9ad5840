"""Small shard directories for the tests of the loader."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from climbstream.loader.manifest import ClusterEntry, Manifest, cluster_folder
from climbstream.loader.mds import (
    Index,
    ShardEntry,
    compress,
    describe_shard,
    encode_document,
    encode_shard,
)
from climbstream.loader.storage import hash_bytes, write_bytes


@dataclass(frozen=True)
class Shards:
    """A shard directory, and what was put into it."""

    directory: Path
    manifest: Manifest
    indexes: dict[str, Index]
    documents: dict[str, list[np.ndarray[Any, Any]]]

    def folder(self, name: str) -> Path:
        """Folder of a cluster."""
        return cluster_folder(self.directory, name)

    def packed(self, name: str, shard: int = 0) -> Path:
        """File of a compressed shard."""
        return self.folder(name) / self.indexes[name].shards[shard].zip_basename


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIMBSTREAM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def make_shards() -> Callable[..., Shards]:
    """Return a function that writes a shard directory."""
    return _make_shards


@pytest.fixture(scope="session")
def counted_documents() -> Callable[..., dict[str, list[np.ndarray[Any, Any]]]]:
    """Return a function that makes documents whose tokens count up: a token says where it is."""
    return _counted_documents


@pytest.fixture(scope="session")
def batch_digest() -> Callable[..., str]:
    """Return a function that hashes a global batch, whoever holds which of its rows."""
    return _batch_digest


def _make_shards(
    directory: Path,
    documents: Mapping[str, Sequence[Any]],
    *,
    dtype: str = "uint16",
    shard_bytes: int = 600,
    vocab_size: int = 60_000,
    eos_id: int | None = 0,
) -> Shards:
    """Write ``documents``, token arrays by cluster, as shards of about ``shard_bytes``."""
    indexes, clusters = {}, []
    kept = {
        name: [np.asarray(document, dtype) for document in theirs]
        for name, theirs in documents.items()
    }
    for name, theirs in kept.items():
        folder = cluster_folder(directory, name)
        index = Index(dtype, tuple(_write_shards(folder, theirs, dtype, shard_bytes)))
        write_bytes(folder / "index.json", index.to_bytes())
        clusters.append(
            ClusterEntry(
                name=name,
                tokens=index.tokens,
                documents=index.samples,
                index_hash=hash_bytes(index.to_bytes()),
            )
        )
        indexes[name] = index
    manifest = Manifest(
        clusters=tuple(clusters),
        dtype=dtype,
        vocab_size=vocab_size,
        eos_id=eos_id,
        tokenizer_hash="0" * 32,
        build="1" * 32,
        license="CC0-1.0",
    )
    manifest.save(directory)
    return Shards(directory, manifest, indexes, kept)


def _write_shards(
    folder: Path, documents: Iterable[Any], dtype: str, shard_bytes: int
) -> Iterator[ShardEntry]:
    """Write one cluster; a shard is closed when it has passed ``shard_bytes``."""
    number, samples, lengths = 0, [], []
    waiting = list(documents)
    while waiting:
        document = waiting.pop(0)
        samples.append(encode_document(document))
        lengths.append(len(document))
        if not waiting or sum(map(len, samples)) >= shard_bytes:
            raw = encode_shard(samples, dtype)
            packed = compress(raw)
            entry = describe_shard(f"shard.{number:05}.mds", lengths, raw, packed)
            write_bytes(folder / entry.zip_basename, packed)
            yield entry
            number, samples, lengths = number + 1, [], []


def _counted_documents(
    lengths: Mapping[str, Sequence[int]],
) -> dict[str, list[np.ndarray[Any, Any]]]:
    """Number the tokens of all clusters through, so that no two are the same."""
    documents: dict[str, list[np.ndarray[Any, Any]]] = {}
    token = 0
    for name, theirs in lengths.items():
        documents[name] = []
        for length in theirs:
            documents[name].append(np.arange(token, token + length))
            token += length
    return documents


def _batch_digest(*parts: Mapping[str, Any]) -> str:
    """Hash the rows, with their clusters, that the ``parts`` of a global batch hold together."""
    rows = [
        (int(cluster), row.tobytes())
        for part in parts
        for cluster, row in zip(
            part["cluster_ids"].tolist(), part["input_ids"].numpy(), strict=True
        )
    ]
    return hash_bytes(repr(sorted(rows)).encode())
