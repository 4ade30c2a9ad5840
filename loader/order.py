"""In which order things are read: keyed permutations, pure functions of (key, position).

Nothing is shuffled in memory. Position i of n is sent to another by a Feistel network over the
next even power of two, walked until it falls below n, so any position of any epoch costs the same.
"""

from typing import Any

import numpy as np
import xxhash
from numba import njit
from numpy.typing import NDArray

_ROUNDS = 6


def key(*parts: object) -> int:
    """Return a 64-bit key for ``parts``: 17, "c03" and "rows", say."""
    return xxhash.xxh3_64_intdigest("\0".join(str(part) for part in parts).encode())


@njit(cache=True)
def mix(value: Any) -> Any:
    """Scramble a uint64 (the finaliser of MurmurHash3 with Stafford's constants)."""
    value = np.uint64(value)
    value ^= value >> np.uint64(30)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(27)
    value *= np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(cache=True)
def permute(position: Any, n: Any, secret: Any) -> Any:
    """Send ``position`` in [0, n) to its place under the permutation that ``secret`` keys.

    ``position`` and ``n`` are int64, ``secret`` is uint64; returns int64.
    """
    half = np.uint64(1)
    while (1 << (2 * half)) < n:
        half += np.uint64(1)
    mask = np.uint64((1 << half) - 1)
    value = np.uint64(position)
    while True:
        left, right = value >> half, value & mask
        for turn in range(_ROUNDS):
            scrambled = mix(right + mix(np.uint64(secret) + np.uint64(turn)))
            left, right = right, left ^ (scrambled & mask)
        value = (left << half) | right
        if value < np.uint64(n):
            return np.int64(value)


@njit(cache=True)
def permutation(n: Any, secret: Any) -> Any:
    """Return the whole permutation of [0, n) that ``secret`` keys, int64 ``[n]``."""
    result = np.empty(n, np.int64)
    for position in range(n):
        result[position] = permute(position, n, secret)
    return result


def shuffled(n: int, *parts: object) -> NDArray[np.int64]:
    """Return [0, n) in the order that the key of ``parts`` gives, int64 ``[n]``."""
    order: NDArray[np.int64] = permutation(n, np.uint64(key(*parts)))
    return order
