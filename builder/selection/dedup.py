"""Duplicates: find exact copies by hash, and compute the signatures by which near copies are found.

The similarity of two texts is the Jaccard index of their sets of runs, where a run is three
consecutive words. Case and punctuation are ignored. In a script without spaces, a run is three
consecutive letters or digits, and counts as often as it occurs. MinHash signatures with one byte
per hash (Li and König 2010) estimate the similarity with a standard error of about .04.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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

from .exchange import Block, Source, read_whole_part, starts_of, write_by_hash, write_parts

BANDS, SPAN = 32, 4
"""Number of bands into which a signature is divided, and number of hashes in a band. Near copies
almost always have at least one whole band in common."""
SIGNATURE = BANDS * SPAN
NOTHING = 0xFF
"""Value of all bytes of a signature if the document is not compared, or has no words."""
_IN_A_ROW = 3
_FEW = 10
"""A text with fewer words is not compared. If it were, two short texts would count as near
duplicates although one of them has an additional word."""
_UNSPACED = 0.1
"""If more than this fraction of a text's words are characters of a script without spaces, the text
counts as one in such a script."""
_SEED = 17
_ROW = np.dtype([("hash", "<u8", (2,)), ("number", "<i8")])
_REPEAT = np.dtype([("copy", "<i8"), ("first", "<i8")])


@dataclass(frozen=True, slots=True)
class Seen:
    """Hashes and signatures of the documents that were in the directory before an append."""

    parts: Sequence[Source] = ()
    """Parts of the catalogue, from which the arrays ``text_hashes`` and ``id_hashes``, uint64 ``[n,
    2]``, can be read."""
    counts: Sequence[int] = ()
    """Number of documents in each of ``parts``."""
    near: Sequence[Partition] = ()
    """For each of ``parts``, a partition with the array ``signatures``. Empty if near copies are
    not searched for."""

    @property
    def total(self) -> int:
        """Number of documents in all parts."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class HashTask:
    """Input of one step of `find_repeated`, for one ``block`` of consecutive documents.

    ``folder`` has the files that the tasks of all blocks exchange.
    """

    block: Block[Source]
    folder: Path
    hashes: "Hashes"
    starts: NDArray[np.int64]
    """Number of the first document of each block, ``[blocks + 1]``."""


class Hashes(Protocol):
    """A function that returns the hashes of the documents to compare; it can be pickled."""

    def __call__(self, source: Source, number: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return the hashes to compare, ``[m, 2]``, and the row of each in ``source``, ``[m]``.

        Row 0 of ``source`` is document ``number`` of the corpus.
        """


def find_repeated(
    engine: Engine, blocks: Sequence[Block[Source]], hashes: Hashes, folder: Path
) -> None:
    """Find all documents with the hash of an earlier document; `firsts_in` returns the result."""
    tasks = [HashTask(block, folder, hashes, starts_of(blocks)) for block in blocks]
    for function in (deal_hashes, compare_hashes) if len(blocks) > 1 else (deal_hashes,):
        for _ in engine.run(function, tasks):
            pass


def deal_hashes(task: HashTask) -> None:
    """Write the first document with each different hash in a block.

    `compare_hashes` reads these documents, which are sorted by range of hashes. All other documents
    repeat a hash of the same block. Another file has a pair of numbers for each of them: its own
    number, and the number of the first document with its hash.
    """
    done = task.folder / f"inside-{task.block.number}.npy"
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
    places = first_places(rows["hash"])
    count = len(task.starts) - 1
    first = rows[places < 0]
    path = task.folder / f"hashes-{task.block.number}"
    write_by_hash(path, first["hash"][:, 0] >> np.uint64(32), count, first)
    with atomic_path(done) as temporary, temporary.open("wb") as file:
        np.save(file, _repeats(rows["number"], places))


def compare_hashes(task: HashTask) -> None:
    """Write which documents have a hash that an earlier block has, for one range of hashes."""
    done = task.folder / f"across-{task.block.number}"
    if done.exists():
        return
    count = len(task.starts) - 1
    paths = [task.folder / f"hashes-{number}" for number in range(count)]
    rows = read_whole_part(paths, task.block.number, count, _ROW)
    repeats = _repeats(rows["number"], first_places(rows["hash"]))
    repeats = repeats[np.argsort(repeats["copy"])]
    write_parts(done, np.searchsorted(repeats["copy"], task.starts[1:]), [repeats])


def firsts_in(task: HashTask) -> NDArray[np.int64]:
    """Return, for the documents of a block, the number of the first document of the same hash.

    The result is int64 ``[n]``; -1 stands for a document that is the first itself, or that is not
    compared.
    """
    start, count = task.block.start, len(task.starts) - 1
    firsts = np.full(len(task.block), -1, np.int64)
    inside = np.load(task.folder / f"inside-{task.block.number}.npy")
    firsts[inside["copy"] - start] = inside["first"]
    if count > 1:
        paths = [task.folder / f"across-{part}" for part in range(count)]
        across = read_whole_part(paths, task.block.number, count, _REPEAT)
        firsts[across["copy"] - start] = across["first"]
        # The first document of the block may itself repeat a document of an earlier block.
        earlier = firsts[inside["first"] - start]
        firsts[inside["copy"] - start] = np.where(earlier < 0, inside["first"], earlier)
    return firsts


def first_places(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return, for each row of ``hashes``, uint64 ``[n, 2]``, the place of the first equal row.

    The result is int64 ``[n]``; it is -1 for a row that equals no earlier row.
    """
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    ordered = hashes[order]
    begins = np.ones(len(hashes), np.bool_)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = order[begins][np.cumsum(begins) - 1]
    places = np.full(len(hashes), -1, np.int64)
    places[order[~begins]] = first[~begins]
    return places


def _repeats(numbers: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[Any]:
    """Return two numbers for each document that repeats another: its own, and that of the first."""
    copies = np.flatnonzero(places >= 0)
    repeats = np.empty(len(copies), _REPEAT)
    repeats["copy"], repeats["first"] = numbers[copies], numbers[places[copies]]
    return repeats


def least_agreement(alike: float) -> float:
    """Return the least fraction of equal bytes at which two signatures count as near copies.

    Near copies have at least the similarity ``alike``, and the fraction of equal bytes estimates
    the similarity. The result is ``alike`` minus one standard error of this estimate. In about one
    of six cases, the estimate is more than one standard error below the true value. So of the pairs
    whose similarity is exactly ``alike``, about five of six are found.
    """
    error: float = np.sqrt(alike * (1 - alike) / SIGNATURE)
    return alike - error


def tell_apart(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return ``hashes`` in another order, with a new hash for each repetition of a hash.

    The hashes are those of the runs of three characters of a text. Two texts are compared by the
    sets of their hashes, and a set has each hash only once. With the new hashes, a run that occurs
    many times counts many times. In a long text, most runs occur many times. If each counted only
    once, the rare runs that a small change creates would be a large part of the set, and the change
    would seem large.
    """
    ordered = np.sort(hashes)
    place = np.arange(len(ordered))
    first = np.ones(len(ordered), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    times = place - np.maximum.accumulate(np.where(first, place, 0))
    return ordered + times.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def sign_texts(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Return the MinHash signature of each text, uint8 ``[SIGNATURE, n]``, one byte per hash."""
    sets = []
    for text in texts:
        points = code_points(text)
        words, _, _, shapes = find_words(points)
        # In such a text, names and numbers in other letters are also split into characters. Then a
        # character that differs is only one of many.
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
