"""Compression of shards, and checks of shards against their entries in the index."""

import zstandard

from climbstream.loader.core.errors import IntegrityError
from climbstream.loader.core.files import HASH, hash_bytes

from .entry import ShardEntry, check
from .index import ZSTD_LEVEL


def compress(raw: bytes) -> bytes:
    """Return a raw shard, compressed by zstd; the result also states the size of the raw shard."""
    # With one worker thread, zstd makes the same bytes as mosaicml-streaming does. Without a worker
    # thread, it makes other bytes if a shard has more than half a megabyte.
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, threads=1).compress(raw)


def decompress(packed: bytes, entry: ShardEntry) -> bytes:
    """Return the raw bytes of a compressed shard; both are checked against the shard's entry.

    Raises:
        IntegrityError: A size or a hash differs from the entry.
    """
    raw = unpack(packed, entry)
    check_raw(raw, entry)
    return raw


def unpack(packed: bytes, entry: ShardEntry) -> bytes:
    """Check a compressed shard against the shard's entry, and return its raw bytes.

    The hash of the raw bytes is not checked. The hash of the compressed bytes is checked, and these
    determine the raw bytes. No more memory is allocated than the size in the entry.

    Raises:
        IntegrityError: The compressed bytes, or the raw size that they state, differ from the
            entry.
    """
    check_packed(packed, entry)
    try:
        # The decompressor allocates the size that the bytes state, so check this size first.
        declared = zstandard.get_frame_parameters(packed).content_size
        check(entry.zip_basename, "bytes when decompressed", entry.raw_bytes, declared)
        return zstandard.ZstdDecompressor().decompress(packed)
    except zstandard.ZstdError as error:
        raise IntegrityError(f"{entry.zip_basename} cannot be decompressed: {error}") from None


def check_packed(packed: bytes, entry: ShardEntry) -> None:
    """Raise `IntegrityError` unless ``packed`` is the compressed shard of ``entry``."""
    check(entry.zip_basename, "bytes", entry.zip_bytes, len(packed))
    check(entry.zip_basename, HASH, entry.zip_hash, hash_bytes(packed))


def check_raw(raw: bytes | memoryview, entry: ShardEntry) -> None:
    """Raise `IntegrityError` unless ``raw`` is the raw shard of ``entry``."""
    check(entry.basename, "bytes", entry.raw_bytes, len(raw))
    check(entry.basename, HASH, entry.raw_hash, hash_bytes(raw))
