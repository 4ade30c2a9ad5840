"""Duplicates: exact ones, by hash; and signatures, which find near ones.

The similarity of two texts is the Jaccard index of their sets of three consecutive words, without
capitals and punctuation; in texts of a script without spaces, of three consecutive letters and
digits, each as often as it occurs. Signatures of one byte a hash (Li and König 2010) estimate it to
within .04.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.features.words import (
    UNSPACED,
    code_points,
    find_characters,
    find_words,
    runs,
)
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.files import atomic_path

from .exchange import Block, Source, read_whole_part, starts_of, write_parts

BANDS, SPAN = 32, 4
"""Number of bands in a signature, and of hashes in a band: near copies agree in at least one
band."""
SIGNATURE = BANDS * SPAN
NOTHING = 0xFF
"""Byte that fills the signature of a text without words, or of a document that takes no part."""
_IN_A_ROW = 3
_FEW = 10
"""Texts with fewer words have no near duplicates: one word more or less would make one."""
_UNSPACED = 0.1
"""Part of the words that are characters of scripts without spaces, in texts of such a script."""
_SEED = 17
_ROW = np.dtype([("hash", "<u8", (2,)), ("number", "<i8")])


@dataclass(frozen=True, slots=True)
class Seen:
    """Hashes and signatures of the documents before an append."""

    parts: Sequence[Source] = ()
    """Parts that return ``text_hashes`` and ``id_hashes``, uint64 ``[n, 2]``."""
    counts: Sequence[int] = ()
    """Number of documents in each part."""
    near: Sequence[Partition] = ()
    """Parts that return ``signatures``, one for each of `hashes`; empty if near duplicates are not
    looked for."""

    @property
    def total(self) -> int:
        """Number of documents in all parts."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class HashTask:
    """Find the repeated hashes in ``block``; the files of all blocks lie in ``folder``."""

    block: Block[Source]
    folder: Path
    hashes: "Hashes"
    starts: NDArray[np.int64]
    """Number of the first document of each block, ``[blocks + 1]``."""


class Hashes(Protocol):
    """Interface for the hashes of a source's documents that take part; instances can be pickled."""

    def __call__(self, source: Source, number: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return hashes ``[m, 2]`` and their rows ``[m]``; ``number`` is the first document's."""


def find_repeated(
    engine: Engine, blocks: Sequence[Block[Source]], hashes: Hashes, folder: Path
) -> None:
    """Find each document whose hashes an earlier one has too; `repeated_in` reads the result."""
    tasks = [HashTask(block, folder, hashes, starts_of(blocks)) for block in blocks]
    for function in (deal_hashes, compare_hashes) if len(blocks) > 1 else (deal_hashes,):
        for _ in engine.run(function, tasks):
            pass


def deal_hashes(task: HashTask) -> None:
    """Write the first row of each hash in a block to the part of its hash; mark the other rows."""
    done = task.folder / f"repeats-{task.block.number}.npy"
    if done.exists():
        return
    parts = [
        (values, rows + task.block.start + begin)
        for source, begin, _ in task.block.parts()
        for values, rows in [task.hashes(source, task.block.start + begin)]
    ]
    rows = np.empty(sum(len(numbers) for _, numbers in parts), _ROW)
    rows["hash"] = np.concatenate([values for values, _ in parts])
    rows["number"] = np.concatenate([numbers for _, numbers in parts])
    again = repeated(rows["hash"])
    count = len(task.starts) - 1
    first = rows[~again]
    part_of = (first["hash"][:, 0] >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)
    order = np.argsort(part_of, kind="stable")
    ends = np.searchsorted(part_of[order], np.arange(count), side="right")
    write_parts(task.folder / f"hashes-{task.block.number}", ends, [first[order]])
    with atomic_path(done) as path, path.open("wb") as file:
        np.save(file, rows["number"][again])


def compare_hashes(task: HashTask) -> None:
    """Write the rows of one part that repeat an earlier one, to the blocks of these rows."""
    done = task.folder / f"again-{task.block.number}"
    if done.exists():
        return
    count = len(task.starts) - 1
    paths = [task.folder / f"hashes-{number}" for number in range(count)]
    rows = read_whole_part(paths, task.block.number, count, _ROW)
    numbers = np.sort(rows["number"][repeated(rows["hash"])])
    write_parts(done, np.searchsorted(numbers, task.starts[1:]), [numbers])


def repeated_in(task: HashTask) -> NDArray[np.bool_]:
    """Return which documents of a block have the hashes of an earlier document, ``[n]``."""
    again = np.zeros(len(task.block), np.bool_)
    again[np.load(task.folder / f"repeats-{task.block.number}.npy") - task.block.start] = True
    count = len(task.starts) - 1
    if count > 1:
        paths = [task.folder / f"again-{part}" for part in range(count)]
        numbers = read_whole_part(paths, task.block.number, count, np.dtype("<i8"))
        again[numbers - task.block.start] = True
    return again


def repeated(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Mark each row of ``hashes``, uint64 ``[n, 2]``, that equals an earlier row: bool ``[n]``."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    ordered = hashes[order]
    again = np.zeros(len(hashes), np.bool_)
    again[order[1:]] = (ordered[1:] == ordered[:-1]).all(axis=1)
    return again


def least_agreement(alike: float) -> float:
    """Return the least part of two signatures that agrees if texts are ``alike`` by so much.

    That is an estimate, lowered by one standard error: so five of six copies at the bar are found.
    """
    error: float = np.sqrt(alike * (1 - alike) / SIGNATURE)
    return alike - error


def tell_apart(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Give the second, third and further of equal hashes hashes of their own, in any order.

    A long text has most runs of three characters often, so that a set of them would count what is
    changed many times, and what stays once.
    """
    ordered = np.sort(hashes)
    place = np.arange(len(ordered))
    first = np.ones(len(ordered), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    times = place - np.maximum.accumulate(np.where(first, place, 0))
    return ordered + times.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def sign_texts(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Sign texts by MinHash, the low byte of each hash: uint8 ``[SIGNATURE, n]``."""
    sets = []
    for text in texts:
        points = code_points(text)
        words, _, _, shapes = find_words(points)
        # A character that differs there is one of many in a name or number in other letters.
        if np.count_nonzero(shapes & UNSPACED) > _UNSPACED * len(words):
            shingles = tell_apart(runs(find_characters(points), _IN_A_ROW))
        else:
            shingles = runs(words, _IN_A_ROW)
        sets.append(shingles if len(words) >= _FEW else words[:0])
    ends = np.cumsum([0, *map(len, sets)], dtype=np.uint64)
    flat = np.concatenate([np.empty(0, np.uint64), *sets])
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(flat, ends, SIGNATURE, _SEED)
    rows = np.array(matrix.to_rows(), np.uint32).reshape(len(texts), SIGNATURE)
    return np.ascontiguousarray(rows.T.astype(np.uint8))
