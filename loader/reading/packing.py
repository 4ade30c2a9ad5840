"""Packing: turn the documents of one shard into rows of ``seq_len`` tokens.

A row is a list of pieces, and a piece is consecutive tokens of one document. So the code that
copies rows is the same for all packings. The number of rows of a shard is computed from its entry
in the index, so the n-th row of a cluster is found without reading other shards.

``concat``
    Documents are joined end to end, and the result is cut every ``seq_len`` tokens.
``bfd``
    Best fit decreasing: documents are taken from the longest to the shortest, and each is put whole
    into the fullest row that has room for it. A document that is longer than a row is first cut
    into full rows and a rest. Documents and rests for which no row has room are cut to fill the
    gaps that are left. So every row is full.
``bos``
    Every piece is the beginning of a document. Of a document longer than a row, only the first
    ``seq_len`` tokens are served. A document for which no row has room is cropped to fill a gap,
    and padding fills the gaps that are left then.

With ``concat`` and ``bfd``, up to ``seq_len`` - 1 tokens of a shard fill no row, and are not served
in an epoch. Which tokens are left out differs between epochs.

The result takes 12 bytes of memory per piece and 8 bytes per row. ``bfd`` packs a shard of 8
million tokens in a few milliseconds.
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
    """The packed rows of one shard."""

    ends: NDArray[np.int64]
    """Number of pieces before each row, ``[rows + 1]``: row r has the pieces
    ``pieces[ends[r]:ends[r + 1]]``."""
    pieces: NDArray[np.uint32]
    """Three numbers for each piece, ``[pieces, 3]``: the document, the position of the piece's
    first token in the document, and the number of tokens of the piece."""
    cut: int
    """Number of documents that were split over several rows or cropped."""
    padding: int
    """Number of tokens of padding in all rows."""
    dropped: int
    """Number of tokens of the shard that are in no row."""


def count_rows(pack: str, tokens: int, lengths: Sequence[tuple[int, int]], seq_len: int) -> int:
    """Return the number of rows of ``seq_len`` tokens that a shard of ``tokens`` tokens has.

    ``lengths`` is the histogram of document lengths in the shard, as in `ShardEntry`. If
    ``seq_len`` is no power of two, the histogram is too coarse for ``bos``: the shard may then get
    slightly fewer rows than its documents could fill.
    """
    if pack == "bos":
        tokens = sum(
            _beginnings(1 << bits, documents, theirs, seq_len)
            for bits, (documents, theirs) in enumerate(lengths)
        )
    return tokens // seq_len


def count_shard_rows(pack: str, index: Index, seq_len: int) -> NDArray[np.int64]:
    """Return how many rows of ``seq_len`` tokens each shard of ``index`` has, int64 ``[n]``."""
    tokens = index.shard_tokens
    if pack == "bos":
        kept = [_count_kept(part.ends, part.lengths, seq_len) for part in index.parts]
        tokens = np.clip(np.concatenate(kept), 0, tokens)
    return tokens // seq_len


def pack_documents(
    pack: str, lengths: NDArray[np.int64], rows: int, seq_len: int, secret: np.uint64
) -> PackedRows:
    """Pack the documents of a shard into ``rows`` rows of ``seq_len`` tokens.

    Args:
        pack: Packing, one of `PACKS`; the docstring of the module describes them.
        lengths: Number of tokens of each document, int64 ``[n]``.
        rows: Number of rows, as `count_rows` returns it.
        seq_len: Number of tokens of a row.
        secret: Key that determines all random choices: which tokens are in no row, and the order of
            documents of the same length.

    Raises:
        UsageError: ``pack`` is not in `PACKS`.
    """
    if pack not in PACKS:
        raise UsageError(f"there is no packing {pack!r}; choose one of {', '.join(PACKS)}")
    function = {"concat": _concat, "bfd": _best_fit, "bos": _beginning_fit}[pack]
    ends, pieces, cut, padding = function(lengths, rows, seq_len, secret)
    served = rows * seq_len - int(padding)
    return PackedRows(ends, pieces, int(cut), int(padding), int(lengths.sum()) - served)


@njit(cache=True)
def _count_kept(ends: Any, lengths: Any, most: Any) -> Any:
    """Return, for each shard, how many tokens remain if documents are cropped to ``most`` tokens.

    The result is int64 ``[n]``; each number is a lower bound, a sum of results of `_beginnings`.
    ``ends`` and ``lengths`` are those of `ShardColumns`.
    """
    kept = np.zeros(len(ends) - 1, np.int64)
    for i in range(len(kept)):
        first = np.int64(ends[i])
        for j in range(first, np.int64(ends[i + 1])):
            documents, tokens = np.int64(lengths[j, 0]), np.int64(lengths[j, 1])
            kept[i] += _beginnings(np.int64(1) << (j - first), documents, tokens, most)
    return kept


@njit(cache=True)
def _beginnings(least: Any, documents: Any, tokens: Any, most: Any) -> Any:
    """Return a lower bound on the tokens that remain if documents are cropped to ``most`` tokens.

    ``documents`` is the number of documents, ``tokens`` the number of tokens of all of them. Each
    document has ``least`` to ``2 * least - 1`` tokens.
    """
    if most >= 2 * least - 1:
        return tokens
    if most <= least:
        return documents * most
    # The sum is least if every document is either as short or as long as possible.
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
    # The tokens that fill no row are cut from random documents, not always from the short ones.
    spare = lengths.sum() - rows * seq_len
    for i in range(n):
        d = order[i]
        off = min(spare, rest[d])
        rest[d] -= off
        spare -= off
    # Number of rows that each document fills alone.
    full = rest // seq_len
    begun = full.sum()
    # A document has a piece for each full row, one for its rest, and one more for each cut.
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
    # Documents for which no row has room are cut to fill the gaps, so that all tokens are served.
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
    # Documents for which no row has room are cropped to fill the gaps, in random order, so that
    # each document has a chance.
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
    """Put each document whole into the fullest row that has room for it, longest document first.

    Returns the new number of pieces in ``table``, and the documents for which no row had room,
    longest first. ``rest`` and ``left`` are updated in place.

    ``rest`` is the number of tokens of each document that are to be placed, at most ``seq_len``;
    they begin at token ``first`` of the document. ``left`` is the room in each row, in tokens.
    Pieces are written to ``table`` from index ``count`` on.
    """
    # Rows with equal room are in a linked list: `head[room]` is its first row, and `after[row]` the
    # row that follows; -1 ends the list.
    head = np.full(seq_len + 1, -1, np.int64)
    after = np.full(len(left), -1, np.int64)
    for row in range(len(left) - 1, -1, -1):
        after[row] = head[left[row]]
        head[left[row]] = row
    # The number of rows in each block of 64 sizes of room: a block without rows is skipped at once.
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
    """Return the documents of ``order`` sorted by ``rest``, largest first.

    Numbers in ``rest`` are 0 to ``most``. Of documents with equal ``rest``, the first in ``order``
    comes first.
    """
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
    """Sort pieces by row; return ends, pieces, cut and padding as in `PackedRows`.

    ``table`` has the row, the document, the first token and the number of tokens of each piece.
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
