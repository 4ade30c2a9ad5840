"""Exact duplicates: the same text again, or the same identifier; the first one stays."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

_ROWS = 1 << 20
"""Hashes that are compared at a time; more are dealt to files first, so memory does not grow."""


def hash_texts(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Hash texts, spaces aside: uint64 ``[n, 2]``, the halves of an xxh3-128."""
    digests = [xxhash.xxh3_128_digest(" ".join(text.split()).encode()) for text in texts]
    return np.frombuffer(b"".join(digests), np.uint64).reshape(len(texts), 2)


@dataclass(frozen=True, slots=True)
class Seen:
    """Hashes of documents that were there before."""

    total: int
    read: Callable[[str], Iterable[NDArray[np.uint64]]]
    """Gives those of that name, ``text_hashes`` or ``id_hashes``, uint64 ``[n, 2]`` at a time."""


def find_repeated(
    parts: Iterable[NDArray[np.uint64]], total: int, before: int = 0
) -> NDArray[np.bool_]:
    """Mark each row of ``parts``, uint64 ``[n, 2]``, that stood there before: bool ``[total]``.

    The first ``before`` rows are only compared with: they are not of the ``total``. Equal hashes go
    to the same temporary file, with their numbers, and each file is looked at alone: 24 bytes a row
    on disk (TMPDIR says where), one byte in memory.
    """
    again = np.zeros(before + total, np.bool_)
    count = np.uint64(len(again) // _ROWS + 1)
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(int(count))]
        start = 0
        for part in parts:
            numbers = np.arange(start, start + len(part), dtype=np.uint64)
            file_of = part[:, 0] % count
            for number in np.unique(file_of).tolist():
                mine = file_of == number
                files[number].write(np.column_stack([part[mine], numbers[mine]]).tobytes())
            start += len(part)
        for file in files:
            file.seek(0)
            rows = np.frombuffer(file.read(), np.uint64).reshape(-1, 3)
            again[rows[repeated(rows[:, :2]), 2].astype(np.int64)] = True
    return again[before:]


def repeated(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Mark each row of ``hashes``, uint64 ``[n, 2]``, that stood there before: bool ``[n]``."""
    rows = np.ascontiguousarray(hashes).view([("high", np.uint64), ("low", np.uint64)]).ravel()
    _, first = np.unique(rows, return_index=True)
    again = np.ones(len(rows), np.bool_)
    again[first] = False
    return again
