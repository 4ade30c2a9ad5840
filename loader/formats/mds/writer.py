"""Writer: turn documents into the bytes of a shard, and make the shard's entry in the index."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import hash_bytes

from .entry import MOST_BYTES, ShardEntry
from .index import BEFORE_LENGTH, DTYPES, shard_config


def encode_document(tokens: NDArray[Any]) -> bytes:
    """Return one document, uint16 or uint32 ``[n]`` with n > 0, as the bytes of an MDS sample.

    Raises:
        InvalidDataError: The document is empty, which MDS cannot store, or of another type.
    """
    if tokens.dtype.name not in DTYPES:
        raise InvalidDataError(f"tokens are {' or '.join(DTYPES)}, not {tokens.dtype}")
    if not len(tokens):
        raise InvalidDataError("a document of 0 tokens cannot be stored; leave it out")
    n = len(tokens)
    code = next(code for code in range(4) if n < 1 << (8 << code))
    payload = bytes([1 << 2 | code]) + n.to_bytes(1 << code, "little") + tokens.tobytes()
    return len(payload).to_bytes(4, "little") + payload


def sample_bytes(lengths: NDArray[np.int64], itemsize: int) -> NDArray[np.int64]:
    """Return the sizes in bytes that `encode_document` gives to documents of ``lengths`` tokens.

    ``lengths`` and the result are int64 ``[n]``; ``itemsize`` is the size of a token in bytes.

    >>> sample_bytes(np.array([1, 300]), 2).tolist()
    [8, 607]
    """
    code = np.searchsorted([1 << 8, 1 << 16, 1 << 32], lengths, side="right")
    return np.asarray(BEFORE_LENGTH + (1 << code) + lengths * itemsize, np.int64)


def encode_shard(samples: Sequence[bytes], dtype: str) -> bytes:
    """Return the bytes of a raw shard of ``samples``, documents that `encode_document` encoded."""
    config = json.dumps(shard_config(dtype), sort_keys=True).encode()
    first = 4 + 4 * (len(samples) + 1) + len(config)
    offsets = np.zeros(len(samples) + 1, np.uint64)
    np.cumsum([len(sample) for sample in samples], out=offsets[1:])
    offsets += np.uint64(first)
    head = np.uint32(len(samples)).tobytes() + offsets.astype(np.uint32).tobytes()
    return b"".join((head, config, *samples))


def describe_shard(basename: str, lengths: ArrayLike, raw: bytes, packed: bytes) -> ShardEntry:
    """Return the index entry of a shard.

    Args:
        basename: File name of the raw shard.
        lengths: Number of tokens of each document.
        raw: The raw shard.
        packed: The compressed shard.

    Raises:
        InvalidDataError: The shard is larger than readers accept.
    """
    sizes = np.asarray(lengths, np.int64)
    if (most := max(len(raw), len(packed))) > MOST_BYTES:
        raise InvalidDataError(
            f"shard {basename} would have {most:,} bytes, and a shard has at most {MOST_BYTES:,}; "
            f"its longest document has {sizes.max():,} tokens: cut that in the corpus"
        )
    return ShardEntry(
        basename,
        len(sizes),
        count_lengths(sizes),
        len(raw),
        hash_bytes(raw),
        len(packed),
        hash_bytes(packed),
    )


def count_lengths(lengths: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """Return the histogram of document lengths, as in `ShardEntry`.

    ``lengths``, int64 ``[n]``, is the number of tokens of each document.

    >>> count_lengths(np.array([1, 2, 3, 700]))[:3]
    ((1, 1), (2, 5), (0, 0))
    """
    # The exponent of the float is the number of bits of the length, because float64 represents all
    # lengths exactly.
    bits = np.frexp(lengths.astype(np.float64))[1] - 1
    documents = np.bincount(bits)
    tokens = np.bincount(bits, lengths).astype(np.int64)
    return tuple(zip(documents.tolist(), tokens.tolist(), strict=True))
