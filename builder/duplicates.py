"""Exact duplicates: the same text again, or the same identifier; the first one stays."""

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray


def hash_texts(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Hash texts, spaces aside: uint64 ``[n, 2]``, the halves of an xxh3-128."""
    digests = [xxhash.xxh3_128_digest(" ".join(text.split()).encode()) for text in texts]
    return np.frombuffer(b"".join(digests), np.uint64).reshape(len(texts), 2)


def repeated(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Mark each row of ``hashes``, uint64 ``[n, 2]``, that stood there before: bool ``[n]``."""
    rows = np.ascontiguousarray(hashes).view([("high", np.uint64), ("low", np.uint64)]).ravel()
    _, first = np.unique(rows, return_index=True)
    again = np.ones(len(rows), np.bool_)
    again[first] = False
    return again
