"""Raw shards to packed ones and back, each checked against its entry in the index."""

import zstandard

from climbstream.loader.core.errors import IntegrityError
from climbstream.loader.core.files import HASH, hash_bytes

from .index import ZSTD_LEVEL, ShardEntry, check


def compress(raw: bytes) -> bytes:
    """Compress a raw shard; the frame declares its size."""
    # With one worker thread zstd gives the bytes that mosaicml-streaming's binding gives; without
    # any it takes another path, whose bytes differ above half a megabyte.
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, threads=1).compress(raw)


def decompress(packed: bytes, entry: ShardEntry) -> bytes:
    """Decompress a shard to the bytes that its entry promises.

    Raises:
        IntegrityError: Bytes, declared size or a hash differ from the entry.
    """
    raw = unpack(packed, entry)
    check_raw(raw, entry)
    return raw


def unpack(packed: bytes, entry: ShardEntry) -> bytes:
    """Decompress a shard whose compressed bytes are those of its entry.

    The raw bytes are not hashed: they follow from the compressed ones, whose hash is checked.

    Raises:
        IntegrityError: Compressed bytes or declared size differ from the entry. Nothing larger
            than the entry says is ever allocated.
    """
    check_packed(packed, entry)
    try:
        # A decompressor believes the size that a frame declares, so compare it first.
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
