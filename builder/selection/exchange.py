"""Exchange: documents in blocks, and files by which the tasks of blocks pass rows to each other.

Each task writes one file, with its rows sorted by the part that they go to. The task of a part
reads its slice of every file. So a process has one file open at a time, and holds the rows of one
part in memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import ArrayName
from climbstream.loader.core.files import atomic_path, naming, open_regular

FEWEST, MOST = 1 << 20, 1 << 22
"""Documents in a block: the first number for a small corpus, the second for a billion documents or
more. Each block reads a slice of the file of every other block, so blocks grow before they become
many."""
_BLOCKS = 256
"""Number of blocks from which on blocks grow."""
_CHUNK = 1 << 16
"""Number of rows that are read at a time."""


class Source(Protocol):
    """Arrays of consecutive documents."""

    def read(self, name: ArrayName, *, mapped: bool = False) -> NDArray[Any]:
        """Read an array, or map it into memory."""


S = TypeVar("S", bound=Source)


@dataclass(frozen=True, slots=True)
class Block(Generic[S]):
    """Consecutive sources; their documents have the numbers from ``start`` on."""

    number: int
    start: int
    sources: tuple[S, ...]
    counts: tuple[int, ...]
    """Number of documents in each source."""

    @property
    def name(self) -> str:
        """Name of the block in messages."""
        return f"block {self.number}"

    def __len__(self) -> int:
        return sum(self.counts)

    def parts(self) -> Iterator[tuple[S, int, int]]:
        """Yield each source, and the places in the block at which it begins and ends."""
        ends = accumulate(self.counts)
        for source, count, end in zip(self.sources, self.counts, ends, strict=True):
            yield source, end - count, end


def cut_blocks(sources: Sequence[S], counts: Sequence[int]) -> list[Block[S]]:
    """Cut ``sources``, with ``counts`` documents each, into blocks."""
    total = sum(counts)
    size = min(max(total // _BLOCKS, FEWEST), MOST)
    blocks: list[Block[S]] = []
    first = start = count = 0
    for i, more in enumerate(counts):
        count += more
        if count >= size or i + 1 == len(counts):
            part = slice(first, i + 1)
            blocks.append(Block(len(blocks), start, tuple(sources[part]), tuple(counts[part])))
            first, start, count = i + 1, start + count, 0
    return blocks


def starts_of(blocks: Sequence[Block[S]]) -> NDArray[np.int64]:
    """Return the number of documents before each block, and in all, ``[blocks + 1]``."""
    return np.array([*(block.start for block in blocks), blocks[-1].start + len(blocks[-1])])


def write_parts(path: Path, ends: NDArray[np.int64], chunks: Iterable[NDArray[Any]]) -> None:
    """Write rows that are sorted by part, in chunks; ``ends``, ``[p]``, is the end of each part."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(np.append(0, ends).astype("<i8").tobytes())
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk).data)


def read_part(
    paths: Iterable[Path], part: int, parts: int, dtype: np.dtype[Any]
) -> Iterator[NDArray[Any]]:
    """Yield the rows of one part from files of ``parts`` parts, in order, in chunks."""
    for path in paths:
        with naming(path), open_regular(path) as file:
            file.seek(8 * part)
            row, end = np.frombuffer(file.read(16), "<i8").tolist()
            file.seek(8 * (parts + 1) + row * dtype.itemsize)
            while row < end:
                count = min(_CHUNK, end - row)
                yield np.frombuffer(file.read(count * dtype.itemsize), dtype)
                row += count


def read_whole_part(
    paths: Iterable[Path], part: int, parts: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return all rows that `read_part` yields."""
    return np.concatenate([np.empty(0, dtype), *read_part(paths, part, parts, dtype)])
