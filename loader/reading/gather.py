"""Gather: copy the rows of a batch out of mapped shards, with one compiled call a batch.

Rows lie anywhere in memory, and memory is slow: while one row is copied, the next is prefetched.

Compiled code reads a shard through its address. A token may begin at an odd byte, where no array of
uint16 can begin, and to pass hundreds of arrays would cost more than the copy. `parse_shard` checks
a shard against its index when it is opened, so no address points outside of it.
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
# takes most of a second, so it is done at import and not in the first batch.
cpu_target.typing_context.refresh()
cpu_target.target_context.refresh()

IGNORED = -100
"""Label of a token that the loss leaves out: PyTorch and Hugging Face use the same number."""


class ByteSpans(NamedTuple):
    """The spans of bytes in a shard that its rows are made of."""

    ends: NDArray[np.int64]
    """Number of spans before each row, ``[rows + 1]``."""
    pieces: NDArray[np.uint32]
    """First byte in the raw shard and number of tokens of each span, ``[pieces, 2]``."""
    cut: int
    dropped: int
    """As in `PackedRows`."""

    @classmethod
    def of(cls, view: ShardView, packed: PackedRows, size: int) -> "ByteSpans":
        """Join a packing to its shard, whose tokens have ``size`` bytes each."""
        pieces = _find_pieces(packed.pieces, view.starts, size)
        return cls(packed.ends, pieces, packed.cut, packed.dropped)

    @property
    def bytes(self) -> int:
        """Size of these arrays in memory, in bytes."""
        return self.ends.nbytes + self.pieces.nbytes


class OpenShard(NamedTuple):
    """A shard to copy rows from; it keeps the memory alive that its addresses point to."""

    data: NDArray[np.uint8]
    """The raw shard."""
    pieces: ByteSpans
    addresses: tuple[int, ...]
    """Addresses in memory of the shard, of `ends` and of `pieces`."""

    @classmethod
    def of(cls, data: NDArray[np.uint8], pieces: ByteSpans) -> "OpenShard":
        """Open raw shard ``data``, whose rows are made of ``pieces``."""
        arrays = (data, pieces.ends, pieces.pieces)
        return cls(data, pieces, tuple(array.ctypes.data for array in arrays))


def _type_pointer(_context: Any, _address: Any) -> Any:
    """Make a pointer of an integer."""

    def build(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), build


def _type_prefetch(_context: Any, _address: Any) -> Any:
    """Prefetch the cache line at an address; nothing happens where no memory is mapped."""

    def build(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", (cgutils.voidptr_t,), kind)
        address = builder.inttoptr(args[0], cgutils.voidptr_t)
        # Arguments: for reading, into the nearest cache, of data.
        builder.call(function, [address, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.none(types.int64), build


_pointer: Any = intrinsic(_type_pointer)
_prefetch: Any = intrinsic(_type_prefetch)
_LINE = 64
"""Bytes of a cache line."""
_CHUNK = 128
"""Tokens that are copied between two prefetches."""


@njit(cache=True)
def _find_pieces(packed: Any, starts: Any, size: Any) -> Any:
    """First byte and tokens of each piece (document, first token, tokens), uint32 ``[n, 2]``."""
    pieces = np.empty((len(packed), 2), np.uint32)
    for p in range(len(packed)):
        pieces[p, 0] = starts[packed[p, 0]] + packed[p, 1] * size
        pieces[p, 1] = packed[p, 2]
    return pieces


@njit(cache=True, nogil=True)
def gather(addresses: Any, rows: Any, begin: Any, size: Any, padding: Any, out: Any) -> Any:
    """Copy the rows from ``begin`` on to ``out``, int32 or int64 ``[n, seq_len]``.

    ``addresses`` are int64 ``[visits, 3]``, those of `OpenShard`; ``rows`` as in `PlannedSteps`;
    ``size`` the bytes of a token in a shard, 2 or 4. The rest of a row is filled with ``padding``.
    """
    n = len(out)
    # First find where each row begins: these look-ups do not wait for each other.
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
            # The first bytes of a row were prefetched; most rows are one span.
            ahead, tokens = firsts[i + 1] + size * at, np.int64(piece[1])
            if size == 2:
                at = _widen(carray(source, tokens, np.uint16), target, at, ahead)
            else:
                at = _widen(carray(source, tokens, np.uint32), target, at, ahead)
        target[at:] = padding


@njit(cache=True, nogil=True)
def count_padding(addresses: Any, rows: Any, begin: Any, n: Any, seq_len: Any) -> Any:
    """Count the tokens of padding in ``n`` rows from ``begin`` on; arguments as in `gather`."""
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
    """Mark where documents begin in the rows from ``begin`` on; an output of 0 rows is not written.

    ``labels``, ``[n, seq_len]``, holds the tokens, and gets `IGNORED` where a document begins
    behind another one, and in padding. ``positions``, int64 ``[n, seq_len]``, count from 0 in each
    piece and in padding. ``bounds``, int32 ``[n, most + 1]``, gets the end of each piece, and the
    end of the row in what is left; pieces beyond the last place are joined to the last. Returns how
    many are joined.
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

    Meanwhile as many bytes are prefetched from the address ``ahead``.
    """
    done, size = 0, source.itemsize
    while done < len(source):
        end = min(done + _CHUNK, len(source))
        for place in range(ahead + size * done, ahead + size * end, _LINE):
            _prefetch(place)
        # Both are indexed from 0, so that the compiler makes vector instructions of the loop.
        part, chunk = target[at + done : at + end], source[done:end]
        for i in range(len(part)):
            part[i] = chunk[i]
        done = end
    return at + done
