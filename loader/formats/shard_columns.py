"""The file ``shards.columns``: the indexes of all clusters in one file.

The file has the same content as the files ``index.json`` of all clusters. Climbstream reads
this file instead, because it need not be decoded: processes map it into memory and share it. So the
indexes of 10^6 shards are opened in less than a second. Other readers need ``index.json``. All
numbers are little-endian::

    "climbcol" | u32 version | u32 size of the header | header | columns

The header is JSON, ``{"clusters": {NAME: number of shards, …}, "lengths": m}``, followed by spaces,
so that the columns begin at a multiple of 32 bytes from the start of the file. Clusters are in the
order of the manifest. The columns are those of `ShardColumns`, for the n shards of all clusters::

    hashes u8 [n, 32] | lengths u32 [m, 2] | ends u32 [n + 1] |
    samples u32 [n] | tokens u32 [n] | raw_bytes u32 [n] | zip_bytes u32 [n]

So a shard takes 52 bytes, plus 8 bytes for each entry of its histogram of document lengths.
"""

import json
import mmap
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import ClimbError, IntegrityError, InvalidDataError
from climbstream.loader.core.files import hash_bytes, write_bytes
from climbstream.loader.core.typed import Count, explain
from climbstream.loader.formats.mds.entry import DIGEST, MOST_BINS, MOST_BYTES, ShardColumns
from climbstream.loader.formats.mds.index import LEAST_BYTES
from climbstream.loader.storage.store import Store

from .manifest import COLUMNS, NEXT_FILES, Manifest

_MAGIC, _VERSION = b"climbcol", 1
_HEAD = struct.Struct("<8sII")
_ALIGNED = 32
REMEDY = "remove it, and the indexes of the clusters are read in its place"
_KEPT = 1 << 20
"""Smallest size, in bytes, of a remote file that is kept in the cache, where processes share it."""


class _Header(msgspec.Struct):
    """The header of the file."""

    clusters: dict[str, Count]
    lengths: Count


_HEADER = msgspec.json.Decoder(_Header)


def save_columns(folder: Path, clusters: Mapping[str, ShardColumns]) -> None:
    """Write the file ``shards.columns`` to ``folder``; ``clusters`` has the shards of each cluster.

    Nothing is written if a shard has another name than `shard_name` gives it, because the file has
    no column for names.
    """
    if all(columns.names is None for columns in clusters.values()):
        write_bytes(folder / COLUMNS, pack_columns(clusters))


def pack_columns(clusters: Mapping[str, ShardColumns]) -> bytes:
    """Return the content of the file ``shards.columns``.

    ``clusters`` has the shards of each cluster; they must have the names that `shard_name` gives.
    """
    parts = [*clusters.values()]
    counts = np.concatenate([np.diff(part.ends) for part in parts])
    columns = (
        np.concatenate([part.hashes for part in parts]),
        np.concatenate([part.lengths[part.ends[0] : part.ends[-1]] for part in parts]),
        np.append(np.uint32(0), np.cumsum(counts, dtype=np.uint32)),
        np.concatenate([part.samples for part in parts]),
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.raw_bytes for part in parts]),
        np.concatenate([part.zip_bytes for part in parts]),
    )
    header = {
        "clusters": {name: len(part) for name, part in clusters.items()},
        "lengths": len(columns[1]),
    }
    text = json.dumps(header).encode()
    text += b" " * (-(_HEAD.size + len(text)) % _ALIGNED)
    head = _HEAD.pack(_MAGIC, _VERSION, len(text))
    return b"".join((head, text, *(column.tobytes() for column in columns)))


def parse_columns(data: memoryview, path: object) -> dict[str, ShardColumns]:
    """Return the shards of each cluster, by name of the cluster, as views of ``data``.

    ``data`` is the content of the file at ``path``.

    Raises:
        InvalidDataError: ``data`` is no such file, or a shard has impossible sizes.
    """
    head, body = _split_head(data, path)
    n, m = sum(head.clusters.values()), head.lengths
    sizes = [32 * n, 8 * m, 4 * n + 4, 4 * n, 4 * n, 4 * n, 4 * n]
    if sum(sizes) != len(body):
        raise InvalidDataError(
            f"{path} has {len(body):,} bytes of columns, and its header asks for {sum(sizes):,}; "
            f"{REMEDY}"
        )
    hashes, *columns = np.split(body, np.cumsum(sizes[:-1]))
    lengths, ends, samples, tokens, raw_bytes, zip_bytes = (c.view(np.uint32) for c in columns)
    # If the numbers in `ends` fall anywhere, a difference of unsigned numbers is very large.
    if ends[0] != 0 or ends[-1] != m or np.diff(ends).max(initial=0) > MOST_BINS:
        raise InvalidDataError(f"{path} is wrong about where histograms end; {REMEDY}")
    if (least := raw_bytes.min(initial=MOST_BYTES)) < LEAST_BYTES:
        raise InvalidDataError(
            f"{path} lists a shard of {least} bytes; even a shard without documents has "
            f"{LEAST_BYTES}; {REMEDY}"
        )
    for column in (samples, tokens, raw_bytes, zip_bytes):
        if (most := column.max(initial=0)) > MOST_BYTES:
            raise InvalidDataError(
                f"{path} lists a shard with {most:,} documents, tokens or bytes; a shard has at "
                f"most {MOST_BYTES:,} bytes; {REMEDY}"
            )
    clusters, first = {}, 0
    for name, count in head.clusters.items():
        rows = slice(first, first + count)
        clusters[name] = ShardColumns(
            hashes=hashes.reshape(-1, 32)[rows],
            samples=samples[rows],
            tokens=tokens[rows],
            raw_bytes=raw_bytes[rows],
            zip_bytes=zip_bytes[rows],
            ends=ends[first : first + count + 1],
            lengths=lengths.reshape(-1, 2),
        )
        first += count
    return clusters


def _split_head(data: memoryview, path: object) -> tuple[_Header, NDArray[np.uint8]]:
    """Return the header of a file, and the columns, which are the bytes after the header.

    Raises:
        InvalidDataError: ``data`` does not begin like such a file.
    """
    if len(data) < _HEAD.size or data[:8] != _MAGIC:
        raise InvalidDataError(f"{path} is not a valid index in columns; {REMEDY}")
    _, version, size = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise InvalidDataError(
            f"{path} has version {version}, and this climbstream reads version {_VERSION}; "
            f"install a newer climbstream, or {REMEDY}"
        )
    begin = _HEAD.size + size
    try:
        header = _HEADER.decode(data[_HEAD.size : begin])
    except msgspec.ValidationError as error:
        raise InvalidDataError(f"{path} has a wrong header: {explain(error)}; {REMEDY}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidDataError(f"{path} has a wrong header: {error}; {REMEDY}") from None
    if begin % _ALIGNED:
        raise InvalidDataError(
            f"{path} has a header of {size} bytes, so columns are misaligned; {REMEDY}"
        )
    return header, np.frombuffer(data, np.uint8)[begin:]


def read_columns(store: Store, manifest: Manifest, cache: Path) -> dict[str, ShardColumns]:
    """Return the shards of each cluster, by name, from the file ``shards.columns`` of ``store``.

    The result is {} if there is no such file. A local file is mapped into memory. A remote file is
    fetched with one request; if it has 1 MiB or more, it is kept in the folder ``columns`` of
    ``cache``, and mapped from there.

    Raises:
        IntegrityError: The hash of the file differs from the one in ``manifest``.
        InvalidDataError: The file has the right hash, but is no index in columns.
        RemoteError: The file could not be read from the store.
    """
    if (expected := manifest.files.get(COLUMNS)) is None:
        return {}
    if store.folder is None and DIGEST.fullmatch(expected):
        data = _read_remote(store, expected, cache / "columns")
    else:
        data = _map(store, expected, COLUMNS, f"{NEXT_FILES}/{COLUMNS}")
    return {} if data is None else parse_columns(data, store / COLUMNS)


def _map(store: Store, expected: str, *names: str) -> memoryview | None:
    """Return the content of the first of the files ``names`` that has the hash ``expected``.

    None: none of the files exists.

    Raises:
        IntegrityError: All files that exist have other hashes.
    """
    wrong = ""
    for name in names:
        with suppress(FileNotFoundError, NotADirectoryError):
            data = store.map(name)
            got = hash_bytes(data)
            if isinstance(data.obj, mmap.mmap):  # free the memory that was read for the hash
                data.obj.madvise(mmap.MADV_DONTNEED)
            if got == expected:
                return data
            wrong = wrong or f"{store / name}: expected hash {expected}, got {got}"
    if wrong:
        raise IntegrityError(
            f"{wrong}; if documents were appended meanwhile, open the directory again; else "
            f"{REMEDY}"
        )
    return None


def _read_remote(store: Store, expected: str, cache: Path) -> memoryview | None:
    """Return the content of ``shards.columns`` of a remote ``store``; None if there is none.

    It is read from the folder ``cache`` if it is there.
    """
    kept = Store.of(cache)
    with suppress(ClimbError, OSError):
        if (data := _map(kept, expected, expected)) is not None:
            return data
    data = _map(store, expected, COLUMNS, f"{NEXT_FILES}/{COLUMNS}")
    if data is not None and len(data) >= _KEPT:
        with suppress(ClimbError, OSError):  # if the cache has no room, the data stay in memory
            write_bytes(cache / expected, data)
            return kept.map(expected)
    return data
