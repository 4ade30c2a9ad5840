"""Duplicates: exact ones by hash, near ones by MinHash with locality-sensitive hashing.

Two texts are as alike as the sets of three words in a row that they hold (Jaccard), whatever their
capitals and marks; of three characters in scripts without spaces. Signatures, a byte a hash (Li and
König 2010), estimate that within .04; those that agree in one of `BANDS` parts are compared (Broder
1997; Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3). At .8 a pair escapes
with a chance of 10^-7. Finding them holds 21 bytes a document.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.features.words import code_points, find_words, runs

BANDS, SPAN = 32, 4
SIGNATURE = BANDS * SPAN
_IN_A_ROW = 3
_FEW = 10
"""Texts of fewer words have no near duplicates: a word more or less would be one."""
_SEED = 17
_NOTHING = 0xFF
"""A signature of this alone is one of no words, or of a document that takes no part."""
_PAIRS = 1 << 16
"""Pairs that are compared at a time: 16 MB of signatures."""
_ROWS = 1 << 20
"""Hashes that are compared at a time; more are dealt to files first, so memory does not grow."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Hashes of documents that were there before."""

    total: int
    read: Callable[[str], Iterable[NDArray[np.uint64]]]
    """Gives those of that name, ``text_hashes`` or ``id_hashes``, uint64 ``[n, 2]`` at a time."""
    near: Sequence[Partition] = ()
    """Their ``signatures``, ``total`` in all; none if near duplicates are not looked for."""


def find_repeated(
    parts: Iterable[NDArray[np.uint64]], total: int, before: int = 0
) -> NDArray[np.bool_]:
    """Mark each row of ``parts``, uint64 ``[n, 2]``, that stood there before: bool ``[total]``.

    The first ``before`` rows are only compared with: they are not of the ``total``. Equal hashes go
    to the same temporary file, with their numbers, and each file is looked at alone: 24 bytes a row
    on disk (TMPDIR says where), one byte in memory.
    """
    again = np.zeros(before + total, np.bool_)
    for hashes, numbers in _together(parts, len(again)):
        again[numbers[repeated(hashes)]] = True
    return again[before:]


def _together(
    parts: Iterable[NDArray[np.uint64]], total: int
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Give rows of ``parts`` with their numbers, in order, the same hashes at the same time."""
    count = np.uint64(total // _ROWS + 1)
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
            yield rows[:, :2], rows[:, 2].astype(np.int64)


def repeated(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Mark each row of ``hashes``, uint64 ``[n, 2]``, that stood there before: bool ``[n]``."""
    rows = np.ascontiguousarray(hashes).view([("high", np.uint64), ("low", np.uint64)]).ravel()
    _, first = np.unique(rows, return_index=True)
    again = np.ones(len(rows), np.bool_)
    again[first] = False
    return again


def sign_texts(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Sign texts by MinHash, the low byte of each hash: uint8 ``[SIGNATURE, n]``."""
    sets = []
    for text in texts:
        words, _, _, _ = find_words(code_points(text))
        sets.append(runs(words, _IN_A_ROW) if len(words) >= _FEW else words[:0])
    ends = np.cumsum([0, *map(len, sets)], dtype=np.uint64)
    flat = np.concatenate([np.empty(0, np.uint64), *sets])
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(flat, ends, SIGNATURE, _SEED)
    rows = np.array(matrix.to_rows(), np.uint32).reshape(len(texts), SIGNATURE)
    return np.ascontiguousarray(rows.T.astype(np.uint8))


def near_originals(
    partitions: Sequence[Partition],
    eligible: NDArray[np.bool_],
    worth: NDArray[np.float32],
    least: float,
) -> NDArray[np.int64]:
    """Find for each document that is nearly the same as a better one, which one that is.

    Of documents that are alike by ``least`` or more, the one of highest ``worth``, float32 ``[n]``,
    is the original, the first of equals. Documents that are not ``eligible``, bool ``[n]``, take no
    part. Returns the number of the original, int64 ``[n]``, or -1; it is no copy itself.
    """
    original = np.full(len(worth), -1, np.int64)
    alone = eligible.copy()
    for band in range(BANDS):
        keys = (_band(partition, band) for partition in partitions)
        for hashes, numbers in _together(keys, len(worth)):
            mine = np.flatnonzero(alone[numbers] & (hashes[:, 0] != _EMPTY))
            mine = mine[np.lexsort((-worth[numbers[mine]], hashes[mine, 0]))]
            if not len(mine):
                continue
            begins = np.append(True, np.diff(hashes[mine, 0]) != 0)
            here = numbers[mine]
            copies, bests = here[~begins], here[begins][np.cumsum(begins) - 1][~begins]
            alike = _alike(partitions, copies, bests) >= least
            original[copies[alike]] = bests[alike]
            alone[copies[alike]] = False
    # What was taken for an original may have turned out a copy: what is like it need not be like
    # the original of that one, and then stays.
    copies = np.flatnonzero(original >= 0)
    last = original[copies]
    while (further := original[last] >= 0).any():
        last[further] = original[last[further]]
    original[copies] = np.where(_alike(partitions, copies, last) >= least, last, -1)
    return original


def _band(partition: Partition, band: int) -> NDArray[np.uint64]:
    """Join the signatures of one band to a key: uint64 ``[n, 2]``, the second 0."""
    rows = partition.read("signatures", mapped=True)[band * SPAN : (band + 1) * SPAN].astype(
        np.uint64
    )
    keys = _join(rows)
    return np.column_stack([keys, np.zeros_like(keys)])


def _join(rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    keys = np.zeros(rows.shape[1], np.uint64)
    for row in rows:
        keys = (keys ^ row) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


_EMPTY = _join(np.full((SPAN, 1), _NOTHING, np.uint64))[0]


def _alike(
    partitions: Sequence[Partition], some: NDArray[np.int64], others: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Estimate how alike documents are, pair by pair: float64 ``[len(some)]``, 0 to 1."""
    alike = np.empty(len(some))
    for begin in range(0, len(some), _PAIRS):
        part = slice(begin, begin + _PAIRS)
        wanted, at = np.unique(np.stack([some[part], others[part]]), return_inverse=True)
        one, other = _signatures(partitions, wanted)[:, at.reshape(2, -1)].swapaxes(0, 1)
        alike[part] = (one == other).mean(axis=0)
    return alike


def _signatures(partitions: Sequence[Partition], wanted: NDArray[np.int64]) -> NDArray[Any]:
    """Read the signatures of the documents ``wanted``, in order: uint8 ``[SIGNATURE, m]``."""
    sizes = [partition.read("signatures", mapped=True).shape[1] for partition in partitions]
    ends = np.cumsum(sizes)
    parts = np.split(wanted, np.searchsorted(wanted, ends[:-1]))
    starts = ends - sizes
    return np.concatenate(
        [
            partition.read("signatures", mapped=True)[:, part - start]
            for partition, part, start in zip(partitions, parts, starts, strict=True)
            if len(part)
        ]
        or [np.empty((SIGNATURE, 0), np.uint8)],
        axis=1,
    )
