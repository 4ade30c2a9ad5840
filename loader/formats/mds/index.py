"""MDS v2 shards of token documents: their index and layout as bytes; this module uses no files.

One sample is one document, with the single column ``tokens``. A raw shard is, little-endian::

    u32 n | u32 offset[n + 1] | JSON config, keys sorted | n samples

where offsets count from the start of the file, and the last offset is the file's size. A sample
is::

    u32 size | u8 (1 << 2) | code | length as u8, u16, u32 or u64 for code 0..3 | values

so values are often unaligned. Each shard is compressed as a whole with zstd. ``index.json`` lists
the shards. Shards and index are byte for byte those that mosaicml-streaming 0.13 writes and reads,
with one addition: the index has a top-level key ``climbstream``, which that library ignores.
"""

import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Self

import msgspec

from climbstream.loader.core.errors import IntegrityError, InvalidDataError
from climbstream.loader.core.files import HASH
from climbstream.loader.core.typed import Count, explain, short

COLUMN = "tokens"
SHARD_BYTES = 1 << 24
"""Size limit of a raw shard in bytes, 16 MiB; small, because a first batch reads many shards. Only
a shard of one document may be larger."""
MOST_BYTES = 1 << 30
"""Largest size of a raw shard that readers accept, in bytes. Documents are never cut, so one long
document may need a shard larger than `SHARD_BYTES`."""
LEAST_BYTES = 8
"""Size in bytes of a shard without documents: the number of documents, and the last offset."""
ZSTD_LEVEL = 3
DTYPES = ("uint16", "uint32")

BEFORE_LENGTH = 5
"""Number of bytes before the length in a sample: u32 size, u8 dimensions and code."""

_DIGEST = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One shard of an index."""

    basename: str
    """File name of the raw shard; the compressed shard has this name plus ``.zstd``."""
    samples: int
    lengths: tuple[tuple[int, int], ...]
    """Histogram of document lengths. The i-th pair is for the documents of 2**i to 2**(i + 1) - 1
    tokens: the number of these documents, and the number of all their tokens. So a reader can
    compute the number of rows of a shard before the shard is fetched."""
    raw_bytes: int
    raw_hash: str
    zip_bytes: int
    zip_hash: str

    @property
    def tokens(self) -> int:
        """Tokens in the shard."""
        return sum(tokens for _, tokens in self.lengths)

    @property
    def zip_basename(self) -> str:
        """File name of the compressed shard."""
        return f"{self.basename}.zstd"


@dataclass(frozen=True, slots=True)
class Index:
    """The shards of one cluster, as ``index.json`` lists them."""

    dtype: str
    """Type of a token: ``uint16`` or ``uint32``."""
    shards: tuple[ShardEntry, ...]

    @property
    def tokens(self) -> int:
        """Tokens in all shards."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def samples(self) -> int:
        """Documents in all shards."""
        return sum(shard.samples for shard in self.shards)

    def to_bytes(self) -> bytes:
        """Return the content of ``index.json``."""
        shards = [
            {
                **shard_config(self.dtype),
                "raw_data": _file(shard.basename, shard.raw_bytes, shard.raw_hash),
                "samples": shard.samples,
                "zip_data": _file(shard.zip_basename, shard.zip_bytes, shard.zip_hash),
            }
            for shard in self.shards
        ]
        ours = {"lengths": [shard.lengths for shard in self.shards]}
        value = {"version": 2, "shards": shards, "climbstream": ours}
        return json.dumps(value, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes, dtype: str) -> Self:
        """Read ``index.json`` for tokens of ``dtype``.

        Raises:
            InvalidDataError: ``data`` is no index of token shards that climbstream wrote.
        """
        try:
            value = _INDEX.decode(data)
        except msgspec.ValidationError as error:
            raise InvalidDataError(f"this is no index of token shards: {explain(error)}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidDataError(f"this is no index of token shards: {error}") from None
        lengths = value.climbstream.lengths
        if len(lengths) != len(value.shards):
            raise InvalidDataError(
                f"this is no index of token shards: it has lengths of {len(lengths)} shards, and "
                f"lists {len(value.shards)}"
            )
        shards = zip(value.shards, lengths, strict=True)
        return cls(dtype, tuple(_entry(shard, theirs, dtype) for shard, theirs in shards))


def shard_config(dtype: str) -> dict[str, Any]:
    """Return what mosaicml-streaming calls the config of a shard, for tokens of type ``dtype``."""
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
    """A file that an index lists, as `_INDEX` reads it."""

    basename: str
    bytes: Count
    hashes: dict[str, str]


class _Shard(msgspec.Struct):
    """A shard that an index lists; of its config, only the fields that are checked."""

    raw_data: _File
    zip_data: _File
    samples: Count
    column_names: list[str]
    column_encodings: list[str]


class _Ours(msgspec.Struct):
    """Fields of the index that only climbstream has."""

    lengths: list[tuple[tuple[Count, Count], ...]]


class _Index(msgspec.Struct):
    """The content of ``index.json``, as far as it is read."""

    shards: list[_Shard]
    climbstream: _Ours


_INDEX = msgspec.json.Decoder(_Index)


def _entry(shard: _Shard, pairs: tuple[tuple[int, int], ...], dtype: str) -> ShardEntry:
    raw, packed = shard.raw_data, shard.zip_data
    basename = raw.basename
    # A name from an index must not lead out of its folder.
    if PurePosixPath(basename).name != basename or basename in ("", ".", ".."):
        raise InvalidDataError(
            f"the index names a shard {short(basename)}; a shard is a plain file name"
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
            f"shard {basename} counts {shard.samples} documents, and {listed} by their lengths"
        )
    if (most := max(raw.bytes, packed.bytes)) > MOST_BYTES:
        raise InvalidDataError(
            f"shard {basename} is said to have {most:,} bytes; a shard has at most {MOST_BYTES:,}"
        )
    if raw.bytes < LEAST_BYTES:
        raise InvalidDataError(
            f"shard {basename} is said to have {raw.bytes} bytes; a shard without documents has "
            f"{LEAST_BYTES} already"
        )
    hashes = [raw.hashes.get(HASH, ""), packed.hashes.get(HASH, "")]
    if not all(_DIGEST.fullmatch(digest) for digest in hashes):  # they name files of the cache
        raise InvalidDataError(f"shard {basename} has hashes {hashes}; they are 32 hex digits")
    return ShardEntry(basename, shard.samples, pairs, raw.bytes, hashes[0], packed.bytes, hashes[1])


def check(name: str, what: str, expected: object, got: object) -> None:
    """Raise `IntegrityError` if ``got``, the ``what`` of shard ``name``, is not ``expected``."""
    if expected != got:
        raise IntegrityError(f"{name}: expected {expected} {what}, got {got}")
