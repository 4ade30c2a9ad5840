"""Packing: the documents of one shard become rows of ``seq_len`` tokens.

A row is a list of pieces, and each piece is a run of tokens of one document. So the code that
copies rows, positions and masks need not know how rows were packed. The number of rows of a shard
follows from its entry in the index, so the n-th row of a cluster is found without other shards.

``concat``
    The documents stand one after the other and are cut every ``seq_len`` tokens.
``bfd``
    Best fit decreasing: each document goes, the longest first, whole into the fullest row that has
    room. A document that is longer than a row is cut, and what finds no room whole is cut to fill
    what is left. Every row is full.
``bos``
    Every piece begins a document. Only the beginning of a document longer than a row is served. A
    document that finds no room whole is cropped to fill a hole, and padding fills what is left.

With ``concat`` and ``bfd``, fewer than ``seq_len`` tokens of a shard fill no row, and are not
served in that epoch. Another epoch leaves out other tokens.

Memory: 12 bytes a piece, 8 a row. `bfd` packs a shard of 8 million tokens in some milliseconds.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.permutation import permutation, subkey
from climbstream.loader.formats.mds.index import Index

PACKS = ("concat", "bfd", "bos")
_BLOCK = 64


class PackedRows(NamedTuple):
    """The rows of one shard."""

    ends: NDArray[np.int64]
    """Pieces up to each row, ``[rows + 1]``: row r has the pieces ends[r] to ends[r + 1]."""
    pieces: NDArray[np.uint32]
    """Document, first token of it, and number of tokens of each piece: ``[pieces, 3]``."""
    cut: int
    """Number of documents of which a row holds only a part."""
    padding: int
    """Tokens of padding in all rows."""
    dropped: int
    """Tokens that are in no row."""


def count_rows(pack: str, tokens: int, lengths: Sequence[tuple[int, int]], seq_len: int) -> int:
    """Count the rows of ``seq_len`` tokens that a shard of ``tokens`` tokens gives.

    ``lengths`` are its documents and tokens by the length of documents in bits, as in `ShardEntry`.
    With ``bos`` that is exact where ``seq_len`` is a power of two, and a little less elsewhere.
    """
    if pack == "bos":
        tokens = sum(
            _beginnings(1 << bits, documents, theirs, seq_len)
            for bits, (documents, theirs) in enumerate(lengths)
        )
    return tokens // seq_len


def count_shard_rows(pack: str, index: Index, seq_len: int) -> list[int]:
    """Count the rows of ``seq_len`` tokens that each shard of ``index`` gives; see `count_rows`."""
    return [count_rows(pack, shard.tokens, shard.lengths, seq_len) for shard in index.shards]


def pack_documents(
    pack: str, lengths: NDArray[np.int64], rows: int, seq_len: int, secret: np.uint64
) -> PackedRows:
    """Pack documents of ``lengths`` tokens, int64 ``[n]``, into ``rows`` rows, as above.

    ``secret`` keys all random choices: which tokens are in no row, and the order of equals.

    Raises:
        UsageError: There is no such packing.
    """
    if pack not in PACKS:
        raise UsageError(f"there is no packing {pack!r}; choose one of {', '.join(PACKS)}")
    function = {"concat": _concat, "bfd": _best_fit, "bos": _beginning_fit}[pack]
    ends, pieces, cut, padding = function(lengths, rows, seq_len, secret)
    served = rows * seq_len - int(padding)
    return PackedRows(ends, pieces, int(cut), int(padding), int(lengths.sum()) - served)


def _beginnings(least: int, documents: int, tokens: int, most: int) -> int:
    """Fewest tokens of documents of ``least`` to ``2 * least - 1``, each counted up to ``most``."""
    if most >= 2 * least - 1:
        return tokens
    if most <= least:
        return documents * most
    # The sum is least where every document is as short, or as long, as it can be.
    long = (tokens - documents * least) // (least - 1)
    return (documents - long) * least + long * most


@njit(cache=True)
def _concat(lengths: Any, rows: Any, seq_len: Any, secret: Any) -> Any:
    total = lengths.sum()
    spare = total - rows * seq_len
    skip = np.int64(subkey(secret, 0) % np.uint64(spare + 1))
    # Each piece ends with a document or with a row.
    pieces = np.empty((len(lengths) + rows, 3), np.uint32)
    ends = np.zeros(rows + 1, np.int64)
    count, row, left, cut = 0, 0, seq_len, 0
    for d in range(len(lengths)):
        first = np.int64(0)
        if skip > 0:
            first = min(skip, lengths[d])
            skip -= first
        begun = count
        while first < lengths[d] and row < rows:
            take = min(lengths[d] - first, left)
            pieces[count, 0], pieces[count, 1], pieces[count, 2] = d, first, take
            count += 1
            first += take
            left -= take
            if left == 0:
                row += 1
                ends[row] = count
                left = seq_len
        if count > begun and (count > begun + 1 or pieces[begun, 2] < lengths[d]):
            cut += 1
    return ends, pieces[:count], cut, 0


@njit(cache=True)
def _best_fit(lengths: Any, rows: Any, seq_len: Any, secret: Any) -> Any:
    n = len(lengths)
    order = permutation(n, subkey(secret, 0))
    first, rest = np.zeros(n, np.int64), lengths.copy()
    # The tokens that fill no row are cut off documents by chance, not always off the short ones.
    spare = lengths.sum() - rows * seq_len
    for i in range(n):
        d = order[i]
        off = min(spare, rest[d])
        rest[d] -= off
        spare -= off
    # Rows that one document fills alone.
    full = rest // seq_len
    begun = full.sum()
    # A document gives a piece for each full row, one for the rest, and one more for each cut.
    table = np.empty((2 * n + 2 * rows, 4), np.int64)
    count, row = 0, np.int64(0)
    for d in range(n):
        for _ in range(full[d]):
            table[count, 0], table[count, 1], table[count, 2], table[count, 3] = (
                row,
                d,
                first[d],
                seq_len,
            )
            count += 1
            row += 1
            first[d] += seq_len
        rest[d] -= full[d] * seq_len
    left = np.full(rows, seq_len, np.int64)
    left[:begun] = 0
    count, over = _fit_whole(order, first, rest, left, seq_len, table, count)
    # Documents that found no room whole are cut to fill the holes, so that all tokens are served.
    hole = begun
    for i in range(len(over)):
        d = over[i]
        while rest[d] > 0:
            while left[hole] == 0:
                hole += 1
            take = min(rest[d], left[hole])
            table[count, 0], table[count, 1], table[count, 2], table[count, 3] = (
                hole,
                d,
                first[d],
                take,
            )
            count += 1
            first[d] += take
            rest[d] -= take
            left[hole] -= take
    return _by_row(table[:count], rows, lengths, 0)


@njit(cache=True)
def _beginning_fit(lengths: Any, rows: Any, seq_len: Any, secret: Any) -> Any:
    n = len(lengths)
    order = permutation(n, subkey(secret, 0))
    first, rest = np.zeros(n, np.int64), np.minimum(lengths, seq_len)
    left = np.full(rows, seq_len, np.int64)
    table = np.empty((n, 4), np.int64)
    count, over = _fit_whole(order, first, rest, left, seq_len, table, 0)
    # Those that found no room are cropped to fill the holes, in random order, so that each has a
    # chance.
    turn, i = permutation(len(over), subkey(secret, 1)), 0
    for hole in range(rows):
        while left[hole] > 0 and i < len(over):
            d = over[turn[i]]
            take = min(rest[d], left[hole])
            table[count, 0], table[count, 1], table[count, 2], table[count, 3] = hole, d, 0, take
            count += 1
            i += 1
            left[hole] -= take
    return _by_row(table[:count], rows, lengths, left.sum())


@njit(cache=True)
def _fit_whole(
    order: Any, first: Any, rest: Any, left: Any, seq_len: Any, table: Any, count: Any
) -> Any:
    """Put each document whole into the fullest row that has room for it, the longest first.

    The tokens to place of a document are ``rest``, at most ``seq_len``, from token ``first`` on;
    ``left`` is the room of each row. Appends to ``table``. Returns the length of ``table`` and the
    documents that found no room, longest first.
    """
    # Rows by the room they have, in lists: `head` by room, `after` by row.
    head = np.full(seq_len + 1, -1, np.int64)
    after = np.full(len(left), -1, np.int64)
    for row in range(len(left) - 1, -1, -1):
        after[row] = head[left[row]]
        head[left[row]] = row
    # Blocks of sizes that no row has as room are passed over at once.
    filled = np.zeros(seq_len // _BLOCK + 1, np.int64)
    for row in range(len(left)):
        filled[left[row] // _BLOCK] += 1
    over = np.empty(len(rest), np.int64)
    missed = 0
    for d in _longest_first(order, rest, seq_len):
        need = rest[d]
        if need == 0:
            break
        room = need
        while room <= seq_len and head[room] < 0:
            room += 1 if filled[room // _BLOCK] else _BLOCK - room % _BLOCK
        if room > seq_len:
            over[missed] = d
            missed += 1
            continue
        row = head[room]
        head[room] = after[row]
        table[count, 0], table[count, 1], table[count, 2], table[count, 3] = row, d, first[d], need
        count += 1
        left[row] = room - need
        after[row] = head[room - need]
        head[room - need] = row
        filled[room // _BLOCK] -= 1
        filled[(room - need) // _BLOCK] += 1
        rest[d] = 0
    return count, over[:missed]


@njit(cache=True)
def _longest_first(order: Any, rest: Any, most: Any) -> Any:
    """Sort the documents of ``order`` by ``rest``, 0 to ``most``, longest first, and stably."""
    place = np.zeros(most + 2, np.int64)
    for size in rest:
        place[most - size + 1] += 1
    for i in range(most + 1):
        place[i + 1] += place[i]
    result = np.empty(len(order), np.int64)
    for d in order:
        i = most - rest[d]
        result[place[i]] = d
        place[i] += 1
    return result


@njit(cache=True)
def _by_row(table: Any, rows: Any, lengths: Any, padding: Any) -> Any:
    """Sort pieces (row, document, first token, tokens) by row; count the documents that are cut.

    Returns the fields of `PackedRows`.
    """
    ends = np.zeros(rows + 1, np.int64)
    for i in range(len(table)):
        ends[table[i, 0] + 1] += 1
    for row in range(rows):
        ends[row + 1] += ends[row]
    place = ends.copy()
    pieces = np.empty((len(table), 3), np.uint32)
    whole = np.zeros(len(lengths), np.bool_)
    served = np.zeros(len(lengths), np.bool_)
    for i in range(len(table)):
        row, d = table[i, 0], table[i, 1]
        pieces[place[row]] = table[i, 1:]
        place[row] += 1
        served[d] = True
        whole[d] |= table[i, 3] == lengths[d]
    return ends, pieces, (served & ~whole).sum(), padding
