"""Exchange: cut documents into blocks, and pass rows between the tasks of blocks in files.

In the first step, there is one task per block, and it writes one file. The rows in the file are
sorted by part, where a part is a block or a range of hashes. In the second step, there is one task
per part, and it reads the slice of its part from every file. So a process has only one file open at
a time, and only the rows of one part in memory.
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
"""Least and largest number of documents in a block. Each block reads a slice of every file, so the
number of slices grows with the square of the number of blocks. Therefore there are three
cases. A small corpus has up to `_BLOCKS` blocks of the least size. A medium corpus has `_BLOCKS`
blocks. A corpus of more than a billion documents has more blocks, all of the largest size."""
_BLOCKS = 256
"""Number of blocks of a corpus of medium size; see `MOST`."""
_CHUNK = 1 << 16
"""Maximum number of rows that are read at a time."""


class Source(Protocol):
    """Consecutive documents whose arrays can be read, such as those of a partition."""

    def read(self, name: ArrayName, *, mapped: bool = False) -> NDArray[Any]:
        """Return the array ``name``; if ``mapped``, map it into memory instead of reading it."""


S = TypeVar("S", bound=Source)


@dataclass(frozen=True, slots=True)
class Block(Generic[S]):
    """Consecutive sources, for one task. Their documents are numbered from ``start`` on."""

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
        """Yield (source, begin, end) for each source.

        The documents of the source have the numbers ``begin`` to ``end`` - 1 in the block.
        """
        ends = accumulate(self.counts)
        for source, count, end in zip(self.sources, self.counts, ends, strict=True):
            yield source, end - count, end


def cut_blocks(sources: Sequence[S], counts: Sequence[int]) -> list[Block[S]]:
    """Cut ``sources`` into blocks of whole sources; ``counts`` are their numbers of documents."""
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
    """Return the number of documents before each block, and of all documents: ``[blocks + 1]``."""
    return np.array([*(block.start for block in blocks), blocks[-1].start + len(blocks[-1])])


def write_parts(path: Path, ends: NDArray[np.int64], chunks: Iterable[NDArray[Any]]) -> None:
    """Write the rows in ``chunks`` to ``path``; the rows are sorted by part.

    ``ends``, ``[parts]``, is the number of rows up to the end of each part.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(np.append(0, ends).astype("<i8").tobytes())
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk).data)


def write_by_hash(path: Path, hashes: NDArray[np.uint64], count: int, rows: NDArray[Any]) -> None:
    """Write ``rows`` to ``path`` in ``count`` parts; each part has an equal range of hashes.

    ``hashes``, ``[n]``, are hashes of the ``rows``, of 32 bits each. Rows of a part keep their
    order.
    """
    part_of = hashes * np.uint64(count) >> np.uint64(32)
    order = np.argsort(part_of, kind="stable")
    write_parts(
        path, np.searchsorted(part_of[order], np.arange(count), side="right"), [rows[order]]
    )


def read_part(
    paths: Iterable[Path], part: int, parts: int, dtype: np.dtype[Any]
) -> Iterator[NDArray[Any]]:
    """Yield, in chunks, the rows of part ``part`` in each file."""
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
    """Return all rows that `read_part` yields, as one array."""
    return np.concatenate([np.empty(0, dtype), *read_part(paths, part, parts, dtype)])
