"""ItemIndex: all items of tasks in one index, so that a document is compared with all at once.

The index holds hashes of words, not the text of the questions.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.features.words import fold
from climbstream.loader.core.files import atomic_path, reading

from .alignment import CHARACTER, CHUNK, SEED, WORD, align, filter_mask, find_items, hash_seeds
from .tasks import Item, Task
from .word_hashes import TABLE, hash_words, points_of

LEAST = 0.8
"""Least share of an item that a document must hold; rare words of its task weigh more."""
LEAST_SHORT = 0.85
"""The same for an item of fewer than `SHORT` words."""
SHORT = 13 * WORD
"""Cost of 13 words."""
TINY = 8 * WORD
"""Cost of eight words: shorter items must stand there whole, with their answer near them."""
LEAST_ANSWER = 0.8
"""Least share of an answer that must stand near its question."""
LEAST_WEIGHT = 3.0
"""Questions whose words weigh less than this are templates ("Which of these is true?"): they count
only with their answer."""
_NUMBER = np.float32(2)
"""Weight of a number: an exercise with other numbers is another exercise."""
_NEAR = 100
"""Number of words after a question in which its answer is looked for."""
_COMMON = 16
"""A seed of more chunks than this is skipped, as long as a chunk keeps `_FEW` other seeds."""
_FEW = 4
_BITS = 16
"""Bits of the filter for each seed."""


class IndexArrays(NamedTuple):
    """The arrays that compiled code reads."""

    seeds: NDArray[np.uint64]
    """Hashes of seeds, sorted, each once, ``[k]``."""
    first: NDArray[np.int64]
    """First posting of each seed, and the end of the last, ``[k + 1]``."""
    chunk: NDArray[np.int32]
    """Chunk of each posting."""
    place: NDArray[np.int32]
    """Index of its seed in ``words``."""
    bits: NDArray[np.uint64]
    """Filter: word ``seed >> shift`` has the bits of `filter_mask` of each seed."""
    shift: NDArray[np.uint64]
    words: NDArray[np.uint64]
    """Words of all items; ``weights``, float32, has the weight of each."""
    weights: NDArray[np.float32]
    begin: NDArray[np.int64]
    """First word and end of each chunk in ``words``."""
    end: NDArray[np.int64]
    item: NDArray[np.int32]
    """Number of the item of each chunk."""
    total: NDArray[np.float32]
    """Sum of the weights of each item."""
    least: NDArray[np.float32]
    """Least share of each item that a document must hold."""


class State(NamedTuple):
    """Memory of compiled code; between documents ``best`` is -1 and ``sum`` 0."""

    best: NDArray[np.float32]
    diagonal: NDArray[np.int64]
    begin: NDArray[np.int64]
    touched: NDArray[np.int32]
    row: NDArray[np.float32]
    sum: NDArray[np.float32]
    item: NDArray[np.int32]
    share: NDArray[np.float32]
    at: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Match:
    """An item that a document holds."""

    item: int
    """Number of the item."""
    share: float
    """Share of its question that the document holds, 0 to 1."""
    answer: bool
    """Whether its right answer stands near the question."""
    at: int
    """Index of the document's word where it begins."""


@dataclass(frozen=True, slots=True)
class ItemIndex:
    """Finds items of tasks in documents."""

    tasks: tuple[str, ...]
    ids: tuple[str, ...]
    """Name of each item."""
    task: NDArray[np.int32]
    """Number of the task of each item."""
    strict: NDArray[np.bool_]
    """Whether each item counts only with its answer near it."""
    missing: NDArray[np.bool_]
    """Items that are too short to look for."""
    answers: NDArray[np.uint64]
    """Words of all answers."""
    answer_ends: NDArray[np.int64]
    """End of the answer of each item, after the begin of the first, ``[n + 1]``."""
    lengths: NDArray[np.int32]
    """Number of words of each question."""
    arrays: IndexArrays
    state: State

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> Self:
        """Make the index of ``tasks``."""
        laid = [entry for task in tasks for entry in _lay_task(task)]
        arrays = _arrays(laid)
        answers = [entry.answer for entry in laid]
        return cls(
            tasks=tuple(task.name for task in tasks),
            ids=tuple(item.id for task in tasks for item in task.items),
            task=np.repeat(np.arange(len(tasks)), [len(t.items) for t in tasks]).astype(np.int32),
            strict=np.array([entry.strict for entry in laid], np.bool_),
            missing=np.array([entry.missing for entry in laid], np.bool_),
            answers=np.concatenate([np.empty(0, np.uint64), *answers]),
            answer_ends=np.cumsum([0, *map(len, answers)], dtype=np.int64),
            lengths=np.array([len(entry.words) for entry in laid], np.int32),
            arrays=arrays,
            state=_state(arrays),
        )

    def name(self, item: int) -> str:
        """Return the name of item number ``item``, after that of its task."""
        return f"{self.tasks[self.task[item]]}: {self.ids[item]}"

    def find(self, text: str) -> list[Match]:
        """Find the items that ``text`` holds."""
        count, words = find_items(points_of(text), TABLE, self.arrays, self.state)
        return [] if not count else self._matches(words, count)

    def _matches(self, words: NDArray[np.uint64], count: int) -> list[Match]:
        state = self.state
        matches = []
        for n in range(count):
            item, at = int(state.item[n]), int(state.at[n])
            share = min(float(state.share[n]), self._plain_share(words, item, at))
            answer = self._answered(words, item, max(at, 0))
            if share >= self.arrays.least[item] and (answer or not self.strict[item]):
                matches.append(Match(item, min(1.0, share), answer, max(at, 0)))
        return matches

    def _plain_share(self, words: NDArray[np.uint64], item: int, at: int) -> float:
        """Share of an item in one chunk, with equal weights: rare words alone are not enough."""
        chunk, after = np.searchsorted(self.arrays.item, [item, item + 1]).tolist()
        if after - chunk > 1:
            return 1.0
        own = self.arrays.words[self.arrays.begin[chunk] : self.arrays.end[chunk]]
        row = np.zeros(4 * CHUNK, np.float32)
        return float(align(words, own, np.ones(len(own), np.float32), at, row)) / len(own)

    def _answered(self, words: NDArray[np.uint64], item: int, at: int) -> bool:
        """Whether the answer of ``item`` stands after its question, which begins at ``at``."""
        answer = self.answers[self.answer_ends[item] : self.answer_ends[item + 1]][:CHUNK]
        if not len(answer):
            return False
        near = words[at : at + int(self.lengths[item]) + len(answer) + _NEAR]
        ones = np.ones(len(answer), np.float32)
        row = np.zeros(4 * CHUNK, np.float32)
        starts = np.flatnonzero(np.isin(near, answer[:4]))
        most = max(
            (align(near, answer, ones, int(start), row) for start in starts), default=np.float32(0)
        )
        return bool(most >= LEAST_ANSWER * len(answer))

    def save(self, path: Path) -> None:
        """Write the index to a file; equal indexes are equal bytes."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _SAVED}
        arrays |= {"tasks": np.array(self.tasks, np.str_), "ids": np.array(self.ids, np.str_)}
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays, **self.arrays._asdict())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an index that `save` wrote.

        Raises:
            InvalidDataError: The file holds no index.
        """
        with reading(path, "index of tasks"), np.load(path, allow_pickle=False) as file:
            arrays = IndexArrays(*(file[name] for name in IndexArrays._fields))
            return cls(
                tasks=tuple(file["tasks"].tolist()),
                ids=tuple(file["ids"].tolist()),
                **{name: file[name] for name in _SAVED},
                arrays=arrays,
                state=_state(arrays),
            )


_SAVED = ("task", "strict", "missing", "answers", "answer_ends", "lengths")


def load_index(path: Path) -> ItemIndex:
    """Read an index, once in a process as long as the file stays the same."""
    return _load(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _load(path: Path, _written: int) -> ItemIndex:
    return ItemIndex.load(path)


@dataclass(frozen=True, slots=True)
class _Laid:
    """The words of one item."""

    words: NDArray[np.uint64]
    alone: NDArray[np.bool_]
    weights: NDArray[np.float32]
    answer: NDArray[np.uint64]
    least: float
    strict: bool
    missing: bool


def _lay_task(task: Task) -> list[_Laid]:
    """Prepare the items of a task; words that many of them hold get little weight."""
    questions = [hash_words(item.question)[0] for item in task.items]
    held = [np.unique(words) for words in questions]
    distinct, holders = np.unique(np.concatenate(held), return_counts=True)
    most = holders.max(initial=1)
    weights = (np.log1p(most / holders) / np.log1p(most)).astype(np.float32)
    return [_lay(item, distinct, weights) for item in task.items]


def _lay(item: Item, distinct: NDArray[np.uint64], weights: NDArray[np.float32]) -> _Laid:
    """Prepare an item; ``weights`` are those of the words ``distinct``, which are sorted."""
    words, alone = hash_words(item.question)
    own = weights[np.searchsorted(distinct, words)]
    numbers, _ = hash_words(" ".join(re.findall(r"\d+", fold(item.question))))
    own = np.where(np.isin(words, numbers), _NUMBER * own, own)
    answer, answer_alone = hash_words(item.answer)
    asks = len(answer) > 0 and (_cost(alone) < TINY or own.sum() < LEAST_WEIGHT)
    if _cost(alone) < SEED:  # too little by itself, but perhaps enough with its answer
        words, alone = np.append(words, answer), np.append(alone, answer_alone)
        own = np.append(own, np.ones(len(answer), np.float32))
    cost = _cost(alone)
    least = 0.999 if cost < TINY else LEAST_SHORT if cost < SHORT else LEAST
    return _Laid(words, alone, own, answer, least, asks, cost < SEED)


def _cost(alone: NDArray[np.bool_]) -> int:
    characters = int(np.count_nonzero(alone))
    return WORD * (len(alone) - characters) + CHARACTER * characters


def _arrays(laid: Sequence[_Laid]) -> IndexArrays:
    starts = np.cumsum([0, *(len(entry.words) for entry in laid)])
    begins: list[int] = []
    ends: list[int] = []
    items: list[int] = []
    seeds, chunks, places = [], [], []
    for number, entry in enumerate(laid):
        start = int(starts[number])
        pieces = -(-len(entry.words) // CHUNK)
        edges = np.linspace(0, len(entry.words), pieces + 1).astype(int).tolist()
        for low, high in pairwise(edges):
            hashes = hash_seeds(entry.words[low:high], entry.alone[low:high])
            seeds.append(hashes)
            chunks.append(np.full(len(hashes), len(begins), np.int32))
            places.append(np.arange(start + low, start + low + len(hashes), dtype=np.int32))
            begins.append(start + low)
            ends.append(start + high)
            items.append(number)
    empty = np.empty(0, np.int32)
    postings = _rare(
        np.concatenate([np.empty(0, np.uint64), *seeds]),
        np.concatenate([empty, *chunks]),
        np.concatenate([empty, *places]),
    )
    keys, first = np.unique(postings[0], return_index=True)
    bits, shift = _filter(keys)
    flat = np.empty(0, np.float32)
    return IndexArrays(
        seeds=keys,
        first=np.append(first, len(postings[0])).astype(np.int64),
        chunk=postings[1],
        place=postings[2],
        bits=bits,
        shift=shift,
        words=np.concatenate([np.empty(0, np.uint64), *(entry.words for entry in laid)]),
        weights=np.concatenate([flat, *(entry.weights for entry in laid)]),
        begin=np.array(begins, np.int64),
        end=np.array(ends, np.int64),
        item=np.array(items, np.int32),
        total=np.array([max(entry.weights.sum(), 1e-6) for entry in laid], np.float32),
        least=np.array([entry.least for entry in laid], np.float32),
    )


def _rare(seeds: Any, chunks: Any, places: Any) -> tuple[Any, Any, Any]:
    """Sort postings by seed, without seeds that are in many items, as those of a template."""
    _, inverse, counts = np.unique(seeds, return_inverse=True, return_counts=True)
    often = counts[inverse]
    order = np.lexsort((places, often, chunks))
    ranks = np.arange(len(order)) - np.searchsorted(chunks[order], chunks[order])
    kept = order[(ranks < _FEW) | (often[order] <= _COMMON)]
    kept = kept[np.lexsort((places[kept], chunks[kept], seeds[kept]))]
    return seeds[kept], chunks[kept], places[kept]


def _filter(keys: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    size = max(6, int(_BITS * max(len(keys), 1) // 64).bit_length())
    shift = np.uint64(64 - size)
    bits = np.zeros(1 << size, np.uint64)
    np.bitwise_or.at(bits, keys >> shift, filter_mask(keys))
    return bits, np.array([shift], np.uint64)


def _state(arrays: IndexArrays) -> State:
    chunks, items = len(arrays.begin), len(arrays.total)
    return State(
        best=np.full(chunks, -1, np.float32),
        diagonal=np.zeros(chunks, np.int64),
        begin=np.zeros(chunks, np.int64),
        touched=np.zeros(chunks, np.int32),
        row=np.zeros(4 * CHUNK, np.float32),
        sum=np.zeros(items, np.float32),
        item=np.zeros(items, np.int32),
        share=np.zeros(items, np.float32),
        at=np.zeros(items, np.int64),
    )
