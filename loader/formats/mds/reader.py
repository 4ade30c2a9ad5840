"""Reader: find the documents in a raw shard, and compare their number and lengths with the index.

The search is compiled code, because a loader opens shards all the time during a run.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from climbstream.loader.core.errors import IntegrityError

from .entry import ShardEntry, check
from .index import BEFORE_LENGTH

_LEAST = 7
"""Least size of a sample in bytes: 5 before the length, 1 for the length, 1 or more of values."""
_MISFIT, _SHAPE, _TYPE = 1, 2, 3
_WRONG = {
    _MISFIT: "the table of offsets does not fit its {bytes} bytes",
    _SHAPE: "a document is not a one-dimensional array",
    _TYPE: "a document is no array of {dtype}",
}


@dataclass(frozen=True, slots=True)
class ShardView:
    """A raw shard, with the places of its n documents."""

    data: NDArray[np.uint8]
    """The raw shard."""
    starts: NDArray[np.uint32]
    """Offset of the first byte of each document's tokens in ``data``, ``[n]``."""
    lengths: NDArray[np.int64]
    """Number of tokens of each document, ``[n]``."""

    @property
    def tokens(self) -> int:
        """Number of tokens in the shard."""
        return int(self.lengths.sum())

    def document(self, sample: int, dtype: str) -> NDArray[Any]:
        """Return a copy of the tokens of document ``sample``, as an array of type ``dtype``."""
        size = int(self.lengths[sample]) * np.dtype(dtype).itemsize
        start = int(self.starts[sample])
        return np.frombuffer(self.data[start : start + size].tobytes(), np.dtype(dtype))


def parse_shard(
    data: NDArray[np.uint8], entry: ShardEntry, dtype: str, *, again: bool = False
) -> ShardView:
    """Return a raw shard with the places of its documents; compare its counts with the index.

    Args:
        data: The raw shard, uint8 ``[bytes]``.
        entry: Entry of the shard in the index.
        dtype: Type of a token, ``uint16`` or ``uint32``.
        again: Whether the same bytes were parsed before. If so, only the table of offsets is read,
            because reading from all documents is slow.

    Raises:
        IntegrityError: The shard is damaged, or its counts differ from the index.
    """
    name = entry.basename
    n = int.from_bytes(data[:4].tobytes(), "little")
    check(name, "documents", entry.samples, n)
    table = data[4 : 4 + 4 * (n + 1)]
    offsets = table[: len(table) // 4 * 4].view(np.uint32)
    if len(offsets) != n + 1 or offsets[-1] != len(data):
        raise IntegrityError(f"{name}: {_WRONG[_MISFIT].format(bytes=len(data))}")
    size = np.dtype(dtype).itemsize
    wrong, starts, lengths, documents, tokens = _find(data, offsets, size, not again)
    if again and int(tokens.sum()) != entry.tokens:
        wrong, starts, lengths, documents, tokens = _find(data, offsets, size, True)
    if wrong:
        raise IntegrityError(f"{name}: {_WRONG[wrong].format(bytes=len(data), dtype=dtype)}")
    check(name, "tokens", entry.tokens, int(tokens.sum()))
    counts = tuple(zip(documents.tolist(), tokens.tolist(), strict=True))
    check(name, "documents and tokens by length", entry.lengths, counts)
    return ShardView(data, starts, lengths)


@njit(cache=True)
def _find(data: Any, offsets: Any, size: Any, look: Any) -> Any:
    """Find the documents; return (error, starts, lengths, documents, tokens).

    ``error`` is a key of `_WRONG`, or 0. ``starts`` and ``lengths`` are those of `ShardView`.
    ``documents`` and ``tokens`` are the two columns of the histogram of lengths in `ShardEntry`.

    A sample states the length of its document in 1, 2, 4 or 8 bytes. If ``look`` is true, the
    sample is read to find this number of bytes. If ``look`` is false, the smallest possible number
    is assumed. If the assumption is wrong, too many tokens are counted, so the caller notices it.
    """
    n = len(offsets) - 1
    starts, lengths = np.empty(n, np.uint32), np.empty(n, np.int64)
    documents, tokens = np.zeros(64, np.int64), np.zeros(64, np.int64)
    most, wrong, shift = -1, 0, size // 2  # a division would take most of the time here
    bits = 0  # kept from one document to the next, because their lengths are often similar
    # This loop reads what is slow to read from memory. No step of it waits for an earlier read, so
    # the processor reads several places at the same time.
    for i in range(n):
        begin, end = np.int64(offsets[i]), np.int64(offsets[i + 1])
        if end - begin < _LEAST or end > len(data):
            wrong = _MISFIT
            break
        if look:
            starts[i] = data[begin + 4]
    for i in range(n if not wrong else 0):
        begin, end = np.int64(offsets[i]), np.int64(offsets[i + 1])
        code = (
            np.int64(starts[i]) - (1 << 2) if look else _fewest(end - begin - BEFORE_LENGTH, size)
        )
        if code < 0 or code > 3:
            wrong = _SHAPE
            break
        start = begin + BEFORE_LENGTH + (1 << code)
        length = (end - start) >> shift
        if length <= 0 or length << shift != end - start:
            wrong = _TYPE
            break
        starts[i], lengths[i] = start, length
        while length >> (bits + 1):
            bits += 1
        while not length >> bits:
            bits -= 1
        documents[bits] += 1
        tokens[bits] += length
        most = max(most, bits)
    return wrong, starts, lengths, documents[: most + 1], tokens[: most + 1]


@njit(cache=True)
def _fewest(rest: Any, size: Any) -> Any:
    """Return the smallest code, 0 to 3, with which length and tokens take ``rest`` bytes together.

    With code c, the length takes 2**c bytes. A token takes ``size`` bytes. Returns 4 if no code
    fits.
    """
    for code in range(4):
        tokens = rest - (1 << code)
        if tokens & (size - 1) == 0 and tokens >> (size // 2) < 1 << min(8 << code, 62):
            return code
    return 4
