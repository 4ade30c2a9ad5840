"""Functions that make synthetic tokens, in clusters of skewed sizes, and skewed weights.

Token ids are drawn at random with a fixed seed; small ids are more frequent. A cluster has between
about a third and a hundredth of all tokens, in documents of about 1,000 tokens. The first token of
each document and every 512th token after it is a mark that identifies the cluster: ``FIRST_MARK``
plus the number of the cluster. So the cluster of each row of 512 tokens or more can be read from
the row, however rows are packed.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from climbstream.loader.core.files import hash_bytes, write_bytes
from climbstream.loader.formats.manifest import ClusterEntry, Manifest, cluster_folder
from climbstream.loader.formats.mds.compression import compress
from climbstream.loader.formats.mds.entry import ShardEntry
from climbstream.loader.formats.mds.index import SHARD_BYTES, Index
from climbstream.loader.formats.mds.writer import describe_shard, encode_document, encode_shard

CLUSTERS = 16
SEQ_LEN = 2048
_SIZES = [0.0 if i in (3, 8, 13) else (1 + i * 7 % CLUSTERS) ** -1.5 for i in range(CLUSTERS)]
WEIGHTS = {f"c{i:02d}": size / sum(_SIZES) for i, size in enumerate(_SIZES)}
FIRST_MARK = 50_000
MARKED = 512


def make_documents(tokens: int) -> Iterator[tuple[str, Iterator[Any]]]:
    """Yield the name and an iterator over the documents, uint16 ``[n]``, of each cluster.

    Documents share one random generator, so read all documents of a cluster before the next one.
    """
    random = np.random.default_rng(17)
    shares = (1 + np.arange(CLUSTERS)) ** -1.1
    for number, (name, share) in enumerate(zip(WEIGHTS, shares / shares.sum(), strict=True)):
        lengths = random.lognormal(6.4, 1.0, int(tokens * share / 992)).astype(int) + 1
        yield name, (_make_document(random, length, FIRST_MARK + number) for length in lengths)


def make_shards(directory: Path, tokens: int) -> None:
    """Write a shard directory with about ``tokens`` tokens."""
    clusters = {
        name: tuple(_write_shards(cluster_folder(directory, name), documents))
        for name, documents in make_documents(tokens)
    }
    save_manifest(directory, clusters, FIRST_MARK + CLUSTERS)


def save_manifest(
    directory: Path, clusters: Mapping[str, tuple[ShardEntry, ...]], vocab_size: int
) -> None:
    """Write the indexes and the manifest of ``clusters``, whose shards are written already."""
    entries = []
    for name, shards in clusters.items():
        index = Index.of("uint16", shards)
        data = index.to_bytes()
        write_bytes(cluster_folder(directory, name) / "index.json", data)
        entries.append(
            ClusterEntry(
                name=name,
                tokens=index.tokens,
                documents=index.samples,
                index_hash=hash_bytes(data),
            )
        )
    Manifest(
        clusters=tuple(entries),
        dtype="uint16",
        vocab_size=vocab_size,
        eos_id=None,
        tokenizer_hash="0",
        build="0",
        license="none",
    ).save(directory)


def _make_document(random: np.random.Generator, length: int, mark: int) -> Any:
    # Log-uniform ids, whose frequencies are about those of words in a text.
    document = np.exp(random.random(length) * np.log(FIRST_MARK)).astype(np.uint16)
    document[::MARKED] = mark
    return document


def _write_shards(folder: Path, documents: Iterator[Any]) -> Iterator[Any]:
    waiting: list[bytes] = []
    held: list[int] = []
    size = number = 0
    for document in documents:
        waiting.append(encode_document(document))
        held.append(len(document))
        size += 2 * len(document) + 16
        if size > SHARD_BYTES - (1 << 19):
            yield write_shard(folder, number, waiting, held)
            waiting, held, size, number = [], [], 0, number + 1
    if waiting:
        yield write_shard(folder, number, waiting, held)


def write_shard(
    folder: Path, number: int, documents: list[bytes], lengths: list[int]
) -> ShardEntry:
    """Write encoded documents as shard ``number``, and return the entry of the shard."""
    raw = encode_shard(documents, "uint16")
    packed = compress(raw)
    entry = describe_shard(f"shard.{number:05d}.mds", lengths, raw, packed)
    write_bytes(folder / entry.zip_basename, packed)
    return entry
