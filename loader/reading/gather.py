"""Gather: copy the rows of a batch from memory-mapped shards, with one compiled call per batch.

Rows are scattered over memory, and memory is slow. So while one row is copied, the next row is
prefetched into the processor's caches.

Compiled code gets the memory addresses of shards instead of arrays, for two reasons. First, a token
may begin at an odd byte, where no array of uint16 can begin. Second, passing hundreds of arrays to
compiled code would take longer than copying the rows. Reading outside of a shard is impossible,
because `parse_shard` checks each shard against its index before the shard is opened.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import carray, njit, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numpy.typing import NDArray

from climbstream.loader.formats.mds.reader import ShardView

from .packing import PackedRows

# numba imports 200 modules of its own and of scipy when it first compiles or loads a function. That
# takes most of a second, so it is done when this module is imported, not in the first batch.
cpu_target.typing_context.refresh()
cpu_target.target_context.refresh()

IGNORED = -100
"""Label of a token that the loss ignores: the number that PyTorch and Hugging Face use."""


class ByteSpans(NamedTuple):
    """The packing of a shard as spans of bytes: a row consists of one or several spans."""

    ends: NDArray[np.int64]
    """Number of spans before each row, ``[rows + 1]``; the last entry is the total number."""
    pieces: NDArray[np.uint32]
    """Two numbers for each span, ``[pieces, 2]``: its offset in the raw shard, in bytes, and its
    number of tokens."""
    cut: int
    dropped: int
    """``cut`` and ``dropped`` have the same meaning as in `PackedRows`."""

    @classmethod
    def of(cls, view: ShardView, packed: PackedRows, size: int) -> "ByteSpans":
        """Return ``packed``, a packing of the shard ``view``, as spans of bytes.

        ``size`` is the number of bytes of a token.
        """
        pieces = _find_pieces(packed.pieces, view.starts, size)
        return cls(packed.ends, pieces, packed.cut, packed.dropped)

    @property
    def bytes(self) -> int:
        """Size of the arrays in memory, in bytes."""
        return self.ends.nbytes + self.pieces.nbytes


class OpenShard(NamedTuple):
    """A shard from which `gather` copies rows.

    The memory at ``addresses`` stays valid as long as this object exists.
    """

    data: NDArray[np.uint8]
    """The raw shard."""
    pieces: ByteSpans
    addresses: tuple[int, ...]
    """Memory addresses of ``data``, ``pieces.ends`` and ``pieces.pieces``."""

    @classmethod
    def of(cls, data: NDArray[np.uint8], pieces: ByteSpans) -> "OpenShard":
        """Return the raw shard ``data`` as an open shard, whose rows consist of ``pieces``."""
        arrays = (data, pieces.ends, pieces.pieces)
        return cls(data, pieces, tuple(array.ctypes.data for array in arrays))


def _type_pointer(_context: Any, _address: Any) -> Any:
    """Tell numba the types of `_pointer`, and how to compile it: an integer becomes a pointer."""

    def build(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), build


def _type_prefetch(_context: Any, _address: Any) -> Any:
    """Tell numba the types of `_prefetch`, and how to compile it.

    `_prefetch` loads the memory at an address into the processor's caches. An address that is not
    mapped does no harm.
    """

    def build(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", (cgutils.voidptr_t,), kind)
        address = builder.inttoptr(args[0], cgutils.voidptr_t)
        # The three numbers mean: for reading, into the nearest cache, data and not instructions.
        builder.call(function, [address, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.none(types.int64), build


_pointer: Any = intrinsic(_type_pointer)
_prefetch: Any = intrinsic(_type_prefetch)
_LINE = 64
"""Number of bytes of a cache line."""
_CHUNK = 128
"""Number of tokens that are copied between two prefetches."""


@njit(cache=True)
def _find_pieces(packed: Any, starts: Any, size: Any) -> Any:
    """Return the offset in bytes and the number of tokens of each piece, uint32 ``[n, 2]``.

    ``packed`` is the field ``pieces`` of `PackedRows`, ``starts`` the offset of each document in
    bytes, and ``size`` the number of bytes of a token.
    """
    pieces = np.empty((len(packed), 2), np.uint32)
    for p in range(len(packed)):
        pieces[p, 0] = starts[packed[p, 0]] + packed[p, 1] * size
        pieces[p, 1] = packed[p, 2]
    return pieces


@njit(cache=True, nogil=True)
def gather(addresses: Any, rows: Any, begin: Any, size: Any, padding: Any, out: Any) -> Any:
    """Copy n rows, from number ``begin`` of ``rows`` on, to ``out``, ``[n, seq_len]``.

    Args:
        addresses: The `OpenShard.addresses` of each visit, int64 ``[visits, 3]``.
        rows: Planned rows, as in `PlannedSteps`.
        begin: Index in ``rows`` of the first row to copy.
        size: Number of bytes of a token in a shard, 2 or 4.
        padding: Token that fills the rest of a row with fewer than ``seq_len`` tokens.
        out: Array that gets the tokens, int32 or int64.
    """
    n = len(out)
    # First find where each row begins: these look-ups do not depend on each other.
    firsts = np.empty(n + 1, np.int64)
    for i in range(n):
        visit, row = rows[begin + i, 1], rows[begin + i, 2]
        ends = carray(_pointer(addresses[visit, 1] + 8 * row), 2, np.int64)
        piece = carray(_pointer(addresses[visit, 2] + 8 * ends[0]), 2, np.uint32)
        firsts[i] = addresses[visit, 0] + piece[0]
    firsts[n] = firsts[n - 1]
    for place in range(firsts[0], firsts[0] + size * out.shape[1], _LINE):
        _prefetch(place)
    for i in range(n):
        visit, row = rows[begin + i, 1], rows[begin + i, 2]
        ends = carray(_pointer(addresses[visit, 1] + 8 * row), 2, np.int64)
        target = out[i]
        at = 0
        for p in range(ends[0], ends[1]):
            piece = carray(_pointer(addresses[visit, 2] + 8 * p), 2, np.uint32)
            source = _pointer(addresses[visit, 0] + piece[0])
            # Prefetch the next row as if it were one span, which most rows are.
            ahead, tokens = firsts[i + 1] + size * at, np.int64(piece[1])
            if size == 2:
                at = _widen(carray(source, tokens, np.uint16), target, at, ahead)
            else:
                at = _widen(carray(source, tokens, np.uint32), target, at, ahead)
        target[at:] = padding


@njit(cache=True, nogil=True)
def count_padding(addresses: Any, rows: Any, begin: Any, n: Any, seq_len: Any) -> Any:
    """Return the number of padding tokens in ``n`` rows, from number ``begin`` of ``rows`` on.

    ``addresses`` and ``rows`` are as in `gather`.
    """
    padding = n * seq_len
    for i in range(begin, begin + n):
        ends = carray(_pointer(addresses[rows[i, 1], 1] + 8 * rows[i, 2]), 2, np.int64)
        for p in range(ends[0], ends[1]):
            piece = carray(_pointer(addresses[rows[i, 1], 2] + 8 * p), 2, np.uint32)
            padding -= np.int64(piece[1])
    return padding


@njit(cache=True, nogil=True)
def mark_pieces(
    addresses: Any, rows: Any, begin: Any, labels: Any, positions: Any, bounds: Any
) -> Any:
    """Write labels, positions and bounds of n rows, from number ``begin`` of ``rows`` on.

    Returns the number of pieces for which ``bounds`` had no room. Each of them is treated as a part
    of the last piece for which there was room.

    Args:
        addresses: As in `gather`.
        rows: As in `gather`.
        begin: Index in ``rows`` of the first row.
        labels: Output, ``[n, seq_len]``. It contains the tokens; `IGNORED` is written into padding
            and at the first token of each piece except the first piece of a row.
        positions: Output, int64 ``[n, seq_len]``: positions that begin at 0 in each piece and in
            padding.
        bounds: Output, int32 ``[n, most + 1]``: 0, then the end of each piece, counted in tokens
            from the start of the row; the last end is repeated up to the end of the array.

    An output of 0 rows is not written.
    """
    n = max(len(labels), len(positions), len(bounds))
    most, joined = bounds.shape[1] - 1, 0
    for i in range(n):
        visit, row = rows[begin + i, 1], rows[begin + i, 2]
        ends = carray(_pointer(addresses[visit, 1] + 8 * row), 2, np.int64)
        at = np.int64(0)
        for number in range(ends[1] - ends[0]):
            piece = carray(_pointer(addresses[visit, 2] + 8 * (ends[0] + number)), 2, np.uint32)
            tokens = np.int64(piece[1])
            if len(labels) and at > 0:
                labels[i, at] = IGNORED
            if len(positions):
                for t in range(tokens):
                    positions[i, at + t] = t
            at += tokens
            if len(bounds):
                joined += number >= most
                bounds[i, min(number, most - 1) + 1] = at
        last = min(ends[1] - ends[0], most)
        if len(labels):
            labels[i, at:] = IGNORED
        if len(positions):
            for t in range(positions.shape[1] - at):
                positions[i, at + t] = t
        if len(bounds):
            bounds[i, 0] = 0
            bounds[i, last + 1 :] = at
    return joined


@njit(cache=True, nogil=True)
def _widen(source: Any, target: Any, at: Any, ahead: Any) -> Any:
    """Copy ``source`` to ``target`` from index ``at`` on; return the index after the last token.

    During the copy, as many bytes as ``source`` has are prefetched from address ``ahead`` on.
    """
    done, size = 0, source.itemsize
    while done < len(source):
        end = min(done + _CHUNK, len(source))
        for place in range(ahead + size * done, ahead + size * end, _LINE):
            _prefetch(place)
        # Both slices are indexed from 0, so that the compiler can use vector instructions.
        part, chunk = target[at + done : at + end], source[done:end]
        for i in range(len(part)):
            part[i] = chunk[i]
        done = end
    return at + done
