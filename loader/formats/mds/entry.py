"""ShardEntry: what an index says about one shard. ShardColumns: all shards of a cluster.

An index may list 10^6 shards, and a `ShardEntry` takes 2 kB of memory. So an index is kept as
arrays, with about 180 bytes per shard, which may be mapped from a file. An entry is made only when
a program asks for it.
"""

import re
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import IntegrityError, InvalidDataError

MOST_BYTES = 1 << 30
"""Largest size of a raw shard that readers accept, in bytes. It is larger than `SHARD_BYTES`, the
limit for writers, because a long document is not cut, and may need a larger shard."""
MOST_BINS = MOST_BYTES.bit_length()
"""Largest number of entries in the histogram of document lengths of a shard."""
DIGEST = re.compile("[0-9a-f]{32}")
"""Form of a hash: 32 hex digits."""
_BLOCK = 1024
"""Number of entries that are made together when a program iterates over shards."""


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One shard of an index."""

    basename: str
    """File name of the raw shard; the compressed shard has this name plus ``.zstd``."""
    samples: int
    """Number of documents."""
    lengths: tuple[tuple[int, int], ...]
    """Histogram of document lengths. Pair i is about the documents of 2**i to 2**(i + 1) - 1
    tokens: the number of these documents, and the number of all their tokens. From the histogram, a
    reader computes the number of rows of a shard before the shard is fetched."""
    raw_bytes: int
    raw_hash: str
    zip_bytes: int
    zip_hash: str

    @property
    def tokens(self) -> int:
        """Number of tokens in the shard."""
        return sum(tokens for _, tokens in self.lengths)

    @property
    def zip_basename(self) -> str:
        """File name of the compressed shard."""
        return f"{self.basename}.zstd"


class LazyShards(Sequence[ShardEntry]):
    """A sequence of shards, in which the entry of a shard is made when a program asks for it."""

    __slots__ = ()

    @abstractmethod
    def entry(self, number: int) -> ShardEntry:
        """Return the entry of shard ``number``, counted from 0."""

    @overload
    def __getitem__(self, item: int) -> ShardEntry: ...
    @overload
    def __getitem__(self, item: slice) -> tuple[ShardEntry, ...]: ...
    def __getitem__(self, item: int | slice) -> ShardEntry | tuple[ShardEntry, ...]:
        numbers = range(len(self))[item]
        if isinstance(numbers, range):
            return tuple(map(self.entry, numbers))
        return self.entry(numbers)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardColumns(LazyShards):
    """The n shards of one cluster, as a sequence of `ShardEntry` that is stored in arrays."""

    hashes: NDArray[np.uint8]
    """Hash of the raw shard, 16 bytes, and hash of the compressed shard, 16 bytes, ``[n, 32]``."""
    samples: NDArray[np.uint32]
    """Number of documents of each shard, ``[n]``."""
    tokens: NDArray[np.uint32]
    """Number of tokens of each shard, ``[n]``."""
    raw_bytes: NDArray[np.uint32]
    """Size of each raw shard in bytes, ``[n]``."""
    zip_bytes: NDArray[np.uint32]
    """Size of each compressed shard in bytes, ``[n]``."""
    ends: NDArray[np.uint32]
    """Where the histogram of document lengths of each shard is in `lengths`, ``[n + 1]``: that of
    shard i is ``lengths[ends[i]:ends[i + 1]]``."""
    lengths: NDArray[np.uint32]
    """The pairs of all histograms, as in `ShardEntry`, ``[m, 2]``. Some rows may be of other
    clusters."""
    names: tuple[str, ...] | None = None
    """File name of each raw shard; None: shard i has the name ``shard_name(i)``."""

    @classmethod
    def of(cls, shards: Sequence[ShardEntry]) -> Self:
        """Return ``shards`` in columns.

        Raises:
            InvalidDataError: A shard has an impossible size or hash.
        """
        for shard in shards:
            _check_limits(shard)
        digests = "".join(shard.raw_hash + shard.zip_hash for shard in shards)
        names = tuple(shard.basename for shard in shards)
        return cls(
            hashes=np.frombuffer(bytes.fromhex(digests), np.uint8).reshape(-1, 32),
            samples=_column(shard.samples for shard in shards),
            tokens=_column(shard.tokens for shard in shards),
            raw_bytes=_column(shard.raw_bytes for shard in shards),
            zip_bytes=_column(shard.zip_bytes for shard in shards),
            ends=_column(accumulate((len(shard.lengths) for shard in shards), initial=0)),
            lengths=_column(n for shard in shards for pair in shard.lengths for n in pair).reshape(
                -1, 2
            ),
            names=None if names == tuple(map(shard_name, range(len(names)))) else names,
        )

    def __len__(self) -> int:
        return len(self.samples)

    def entry(self, number: int) -> ShardEntry:
        """Return the entry of shard ``number``.

        Raises:
            IntegrityError: The sums of the shard's histogram are not its numbers of documents and
                tokens.
        """
        return next(self._entries(number, number + 1))

    def __iter__(self) -> Iterator[ShardEntry]:
        for first in range(0, len(self), _BLOCK):
            yield from self._entries(first, min(first + _BLOCK, len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShardColumns) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def _entries(self, first: int, stop: int) -> Iterator[ShardEntry]:
        """Yield the entries of shards ``first`` to ``stop`` - 1; raise the errors of `entry`."""
        ends = (self.ends[first : stop + 1] - self.ends[first]).tolist()
        pairs = [*map(tuple, self.lengths[self.ends[first] : self.ends[stop]].tolist())]
        digests = self.hashes[first:stop].tobytes().hex()
        columns = (self.samples, self.tokens, self.raw_bytes, self.zip_bytes)
        rows = zip(*(column[first:stop].tolist() for column in columns), strict=True)
        for i, (samples, tokens, raw_bytes, zip_bytes) in enumerate(rows):
            entry = ShardEntry(
                basename=self.names[first + i] if self.names else shard_name(first + i),
                samples=samples,
                lengths=tuple(pairs[ends[i] : ends[i + 1]]),
                raw_bytes=raw_bytes,
                raw_hash=digests[64 * i : 64 * i + 32],
                zip_bytes=zip_bytes,
                zip_hash=digests[64 * i + 32 : 64 * i + 64],
            )
            documents = sum(count for count, _ in entry.lengths)
            check(entry.basename, "documents by their lengths", samples, documents)
            check(entry.basename, "tokens by the lengths of documents", tokens, entry.tokens)
            yield entry


class JoinedShards(LazyShards):
    """The shards of several clusters, one cluster after the other."""

    def __init__(self, parts: Sequence[ShardColumns]) -> None:
        self._parts = parts
        self._ends = [*accumulate(map(len, parts), initial=0)]

    def __len__(self) -> int:
        return self._ends[-1]

    def entry(self, number: int) -> ShardEntry:
        """Return the entry of shard ``number``."""
        part = bisect_right(self._ends, number) - 1
        return self._parts[part].entry(number - self._ends[part])

    def __iter__(self) -> Iterator[ShardEntry]:
        return chain.from_iterable(self._parts)


def shard_name(number: int) -> str:
    """Return the name that a build gives to raw shard ``number`` of a cluster.

    >>> shard_name(7)
    'shard.00007.mds'
    """
    return f"shard.{number:05d}.mds"


def _column(values: Iterable[int]) -> NDArray[np.uint32]:
    """Return ``values`` as a read-only array, like the arrays that are mapped from a file."""
    column = np.fromiter(values, np.uint32)
    column.setflags(write=False)
    return column


def _check_limits(shard: ShardEntry) -> None:
    """Raise `InvalidDataError` unless ``shard`` has possible sizes and hashes."""
    sizes = (shard.samples, shard.tokens, shard.raw_bytes, shard.zip_bytes)
    counts = chain(sizes, *shard.lengths)
    if not all(0 <= count <= MOST_BYTES for count in counts) or len(shard.lengths) > MOST_BINS:
        raise InvalidDataError(
            f"shard {shard.basename} is said to have {shard.samples:,} documents of "
            f"{shard.tokens:,} tokens; a shard has at most {MOST_BYTES:,} bytes"
        )
    hashes = [shard.raw_hash, shard.zip_hash]
    if not all(DIGEST.fullmatch(digest) for digest in hashes):  # the cache names files by hashes
        raise InvalidDataError(
            f"shard {shard.basename} has hashes {hashes}; each must be 32 hex digits"
        )


def check(name: str, what: str, expected: object, got: object) -> None:
    """Raise `IntegrityError` if ``got``, a value of shard ``name``, is not ``expected``.

    ``what`` names the value in the message, such as "tokens".
    """
    if expected != got:
        raise IntegrityError(f"{name}: expected {expected} {what}, got {got}")
