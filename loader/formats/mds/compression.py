"""Compression of shards; each shard is checked against its entry in the index."""

import zstandard

from climbstream.loader.core.errors import IntegrityError
from climbstream.loader.core.files import HASH, hash_bytes

from .entry import ShardEntry, check
from .index import ZSTD_LEVEL


def compress(raw: bytes) -> bytes:
    """Return a raw shard compressed with zstd; the frame declares the size of the raw shard."""
    # With one worker thread, zstd makes the same bytes as mosaicml-streaming's binding. Without a
    # worker thread, it makes other bytes above half a megabyte.
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, threads=1).compress(raw)


def decompress(packed: bytes, entry: ShardEntry) -> bytes:
    """Return the raw bytes of a compressed shard, checked against its entry before and after.

    Raises:
        IntegrityError: A size or a hash differs from the entry.
    """
    raw = unpack(packed, entry)
    check_raw(raw, entry)
    return raw


def unpack(packed: bytes, entry: ShardEntry) -> bytes:
    """Check a compressed shard against its entry, and return its raw bytes.

    The raw bytes are not hashed, because the compressed bytes, whose hash is checked, determine
    them. No more memory is allocated than the entry says.

    Raises:
        IntegrityError: The compressed bytes or the declared raw size differ from the entry.
    """
    check_packed(packed, entry)
    try:
        # A decompressor allocates the size that a frame declares, so compare that size first.
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
