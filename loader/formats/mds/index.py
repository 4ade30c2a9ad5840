"""MDS v2 shards of token documents: their index, and their layout as bytes; no file is read here.

One sample is one document, with the single column ``tokens``. A raw shard has these parts, with
little-endian numbers::

    u32 n | u32 offset[n + 1] | JSON config, keys sorted | n samples

Offsets count from the start of the file, in bytes; the last offset is the file's size. A sample has
these parts::

    u32 size | u8 4 + code | length as u8, u16, u32 or u64 for code 0..3 | values

So values are often unaligned in memory. Each shard is compressed as a whole with zstd. The file
``index.json`` lists the shards. Shards and index are byte for byte those that mosaicml-streaming
0.13 writes and reads, with one addition: the index has a top-level key ``climbstream``, which that
library ignores.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import HASH
from climbstream.loader.core.typed import Count, explain, short

from .entry import MOST_BYTES, JoinedShards, ShardColumns, ShardEntry

COLUMN = "tokens"
SHARD_BYTES = 1 << 24
"""Largest size of a raw shard that is written, in bytes (16 MiB); only a shard of one document may
be larger. The limit is small, because many shards must be fetched for the first batch of a run."""
LEAST_BYTES = 8
"""Size in bytes of a shard without documents: the number of documents, and the last offset."""
ZSTD_LEVEL = 3
DTYPES = ("uint16", "uint32")

BEFORE_LENGTH = 5
"""Number of bytes of a sample before the length: the size, u32, and the code, u8."""


@dataclass(frozen=True, slots=True)
class Index:
    """The shards of one cluster, which ``index.json`` lists; or the shards of a group."""

    dtype: str
    """Type of a token: ``uint16`` or ``uint32``."""
    parts: tuple[ShardColumns, ...]
    """The shards of the cluster; for a group, one entry for each of its clusters."""

    @classmethod
    def of(cls, dtype: str, shards: Iterable[ShardEntry]) -> Self:
        """Return the index of a cluster with ``shards``.

        Raises:
            InvalidDataError: A shard has an impossible size or hash.
        """
        return cls(dtype, (ShardColumns.of(tuple(shards)),))

    @property
    def shards(self) -> Sequence[ShardEntry]:
        """The shards; each entry is made when it is asked for."""
        return self.parts[0] if len(self.parts) == 1 else JoinedShards(self.parts)

    @property
    def shard_tokens(self) -> NDArray[np.int64]:
        """Number of tokens of each shard, ``[n]``."""
        return np.concatenate([part.tokens for part in self.parts]).astype(np.int64)

    @property
    def tokens(self) -> int:
        """Number of tokens in all shards."""
        return sum(int(part.tokens.sum(dtype=np.int64)) for part in self.parts)

    @property
    def samples(self) -> int:
        """Number of documents in all shards."""
        return sum(int(part.samples.sum(dtype=np.int64)) for part in self.parts)

    def to_bytes(self) -> bytes:
        """Return the index as the content of a file ``index.json``."""
        entries = tuple(self.shards)
        shards = [
            {
                **shard_config(self.dtype),
                "raw_data": _file(shard.basename, shard.raw_bytes, shard.raw_hash),
                "samples": shard.samples,
                "zip_data": _file(shard.zip_basename, shard.zip_bytes, shard.zip_hash),
            }
            for shard in entries
        ]
        ours = {"lengths": [shard.lengths for shard in entries]}
        value = {"version": 2, "shards": shards, "climbstream": ours}
        return json.dumps(value, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes, dtype: str) -> Self:
        """Return the index in ``data``, the content of a file ``index.json``.

        ``dtype`` is the type of a token that the shards must have.

        Raises:
            InvalidDataError: ``data`` is no index of token shards that climbstream wrote.
        """
        try:
            value = _INDEX.decode(data)
        except msgspec.ValidationError as error:
            raise InvalidDataError(
                f"this is not a valid index of token shards: {explain(error)}"
            ) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidDataError(f"this is not a valid index of token shards: {error}") from None
        lengths = value.climbstream.lengths
        if len(lengths) != len(value.shards):
            raise InvalidDataError(
                f"this is not a valid index of token shards: it has lengths of {len(lengths)} "
                f"shards, and lists {len(value.shards)}"
            )
        shards = zip(value.shards, lengths, strict=True)
        return cls.of(dtype, (_entry(shard, theirs, dtype) for shard, theirs in shards))


def shard_config(dtype: str) -> dict[str, Any]:
    """Return the config of a shard with tokens of ``dtype``, as mosaicml-streaming defines it."""
    return {
        "column_encodings": [f"ndarray:{dtype}"],
        "column_names": [COLUMN],
        "column_sizes": [None],
        "compression": f"zstd:{ZSTD_LEVEL}",
        "format": "mds",
        "hashes": [HASH],
        "size_limit": SHARD_BYTES,
        "version": 2,
    }


def _file(basename: str, size: int, digest: str) -> dict[str, Any]:
    return {"basename": basename, "bytes": size, "hashes": {HASH: digest}}


class _File(msgspec.Struct):
    """A file that an index lists."""

    basename: str
    bytes: Count
    hashes: dict[str, str]


class _Shard(msgspec.Struct):
    """A shard that an index lists; other fields in the index are not read."""

    raw_data: _File
    zip_data: _File
    samples: Count
    column_names: list[str]
    column_encodings: list[str]


class _Ours(msgspec.Struct):
    """Fields of the index that only climbstream writes and reads."""

    lengths: list[tuple[tuple[Count, Count], ...]]


class _Index(msgspec.Struct):
    """The content of a file ``index.json``; other fields in the file are not read."""

    shards: list[_Shard]
    climbstream: _Ours


_INDEX = msgspec.json.Decoder(_Index)


def _entry(shard: _Shard, pairs: tuple[tuple[int, int], ...], dtype: str) -> ShardEntry:
    raw, packed = shard.raw_data, shard.zip_data
    basename = raw.basename
    # A name from an index must not lead out of its folder.
    if PurePosixPath(basename).name != basename or basename in ("", ".", ".."):
        raise InvalidDataError(
            f"the index names a shard {short(basename)}; the name must be a plain file name"
        )
    if packed.basename != f"{basename}.zstd":
        raise InvalidDataError(f"shard {basename} is packed as {short(packed.basename)}, not .zstd")
    if shard.column_names != [COLUMN] or shard.column_encodings != [f"ndarray:{dtype}"]:
        raise InvalidDataError(
            f"shard {basename} holds {short(shard.column_names)} as "
            f"{short(shard.column_encodings)}, not {COLUMN!r} as ndarray:{dtype}"
        )
    if (listed := sum(documents for documents, _ in pairs)) != shard.samples:
        raise InvalidDataError(
            f"shard {basename} counts {shard.samples} documents, but lists the lengths of {listed}"
        )
    if (most := max(raw.bytes, packed.bytes)) > MOST_BYTES:
        raise InvalidDataError(
            f"shard {basename} is said to have {most:,} bytes; a shard has at most {MOST_BYTES:,}"
        )
    if raw.bytes < LEAST_BYTES:
        raise InvalidDataError(
            f"shard {basename} is said to have {raw.bytes} bytes; even a shard without documents "
            f"has {LEAST_BYTES}"
        )
    hashes = [file.hashes.get(HASH, "") for file in (raw, packed)]
    return ShardEntry(basename, shard.samples, pairs, raw.bytes, hashes[0], packed.bytes, hashes[1])
