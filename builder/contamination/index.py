"""ItemIndex: an index of all items of tasks. A document is compared with all items in one pass.

An item is a question of a task, or a text. A task is a test for models, such as one of lm-eval.
Each word of an item has a weight. The share of an item in a document is the total weight of those
words that the document contains, divided by the weight of all words. The index contains hashes of
words, not the text of the questions.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.features.words import code_points, find_words, fold
from climbstream.loader.core.files import atomic_path, reading

from .alignment import (
    CHARACTER,
    CHUNK,
    SEED,
    SHORT_SEED,
    WORD,
    align,
    band,
    filter_mask,
    filter_shift,
    find_items,
    hash_seeds,
    which_hold,
)
from .tasks import Item, Task
from .word_hashes import TABLE, hash_words, unfolded_table, utf8

LEAST = 0.8
"""An item is found if a document contains at least this share of it. Words that are rare in the
task have a higher weight."""
LEAST_SHORT = 0.85
"""Like `LEAST`, for short items: those whose words cost at least `TINY` and less than `SHORT`. For
the cost of words see `alignment.WORD`."""
SHORT = 13 * WORD
"""Cost of 13 words; an item whose words cost less is called short."""
TINY = 8 * WORD
"""Cost of eight words. An item whose words cost less is found only if the document contains all of
them, or by its evidence (`LEAST_PROOF`). If the item has an answer, the answer must also be near
the question."""
LEAST_PROOF = 20.0
"""If one word of a short item is missing, the item is found only if its evidence reaches this
value. Each word of the item that is present adds evidence: minus the natural logarithm of the
fraction of items that contain this word."""
LEAST_ANSWER = 0.8
"""An answer counts as present if at least this fraction of its words is near its question."""
LEAST_WEIGHT = 3.0
"""A question whose words have a lower total weight is taken for a template ("Which of these is
true?"). A template is found only together with its answer."""
_NUMBER = np.float32(2)
"""Factor of the weight of a number. It is above 1, because an exercise with other numbers is
another exercise."""
_NEAR = 100
"""The answer to a question is searched for in this number of words after the question."""
_APART = 3
"""Largest distance, in words, between two short items that count as the same place. Of two such
items, only the one with the larger share is reported."""
_MISSING, _MISSING_NUMBER = np.float32(200), np.float32(2000)
"""Evidence that each word, and each number, of a short item adds if it is present, whether rare or
not. These values are larger than all other evidence for an item together. So the evidence is too
small if two words, or one number, are missing."""
_BELIEF, _COMMON_LETTERS = 10, 3
"""The frequency of a word among items is the average of its measured and an assumed frequency. The
first number is the weight of the assumed frequency in this average, as a number of items. The
second is the largest number of letters of a common word. A common word is assumed to be in one of
ten items, any other word in one of a thousand."""
_RAREST = 1 / 4000
"""A word is assumed to be in at least this fraction of the items."""
_COMMON = 16
"""Largest number of chunks that may share a seed. A seed of more chunks is left out of the index,
but each chunk keeps its `_FEW` rarest seeds."""
_FEW = 4
_AT_ONCE = 1 << 18
"""Number of characters that are searched per call of compiled code. The call itself takes as long
as searching 500 characters."""
_BITS = 16
"""Number of bits that a Bloom filter has per seed."""


class IndexArrays(NamedTuple):
    """The arrays that compiled code reads.

    Each additional array makes each call a little slower.
    """

    seeds: NDArray[np.uint64]
    """Hashes of all different seeds, sorted, ``[k]``."""
    parts: NDArray[np.int32]
    """For each value of a seed's highest bits, the index of the first seed with that value; the
    last number is ``k``. The number of bits is chosen so that each value has about one seed. The
    array is not saved, because it is computed from ``seeds``."""
    first: NDArray[np.int64]
    """First posting of each seed, and the end of the last posting, ``[k + 1]``. A posting is one
    occurrence of a seed in a chunk."""
    chunk: NDArray[np.int32]
    """Chunk of each posting."""
    place: NDArray[np.int32]
    """Index in ``words`` of the first word of the seed of each posting."""
    bits: NDArray[np.uint64]
    """Bloom filter of the seeds of five words. For each seed, the bits of `filter_mask` are set in
    number ``seed >> filter_shift``."""
    short_bits: NDArray[np.uint64]
    """Bloom filter of the seeds of three words. Only short items have such seeds."""
    words: NDArray[np.uint64]
    """Hashes of the words of all items; ``weights`` has the weight of each word."""
    weights: NDArray[np.float32]
    evidence: NDArray[np.float32]
    """Evidence that each word adds, to be compared with ``proof``; 0 for words of longer items."""
    begin: NDArray[np.int64]
    """Index in ``words`` of the first word of each chunk."""
    end: NDArray[np.int64]
    """Index in ``words`` after the last word of each chunk."""
    item: NDArray[np.int32]
    """Number of the item of each chunk."""
    total: NDArray[np.float32]
    """Total weight of the words of each item."""
    least: NDArray[np.float32]
    """Least share at which each item is found."""
    proof: NDArray[np.float32]
    """Least evidence at which each short item is found although a word is missing; 0 for items that
    are not short."""


class State(NamedTuple):
    """Arrays that compiled code reuses for all documents.

    When the comparison of a document begins, all values of ``best`` are -1, and all values of
    ``sum`` are 0. The code that compares a document restores these values at its end.
    """

    best: NDArray[np.float32]
    diagonal: NDArray[np.int64]
    begin: NDArray[np.int64]
    proven: NDArray[np.bool_]
    touched: NDArray[np.int32]
    row: NDArray[np.float32]
    sum: NDArray[np.float32]
    item: NDArray[np.int32]
    share: NDArray[np.float32]
    at: NDArray[np.int64]
    by_proof: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Match:
    """An item that a document contains."""

    item: int
    """Number of the item."""
    share: float
    """Share of the question of the item that the document contains, 0 to 1."""
    answer: bool
    """Whether the document also has the right answer near the question."""
    at: int
    """Index, in the words of the document, of the word at which the item begins."""


@dataclass(frozen=True, slots=True)
class ItemIndex:
    """Finds items of tasks in documents."""

    tasks: tuple[str, ...]
    ids: tuple[str, ...]
    """Name of each item."""
    task: NDArray[np.int32]
    """Number of the task of each item."""
    strict: NDArray[np.bool_]
    """Whether each item counts only if its answer is near its question."""
    missing: NDArray[np.bool_]
    """Whether each item is too short to be searched for."""
    answers: NDArray[np.uint64]
    """Hashes of the words of all answers, one answer after the other."""
    answer_ends: NDArray[np.int64]
    """Start of the answer of each item in ``answers``, and the end of the last answer,
    ``[n + 1]``."""
    lengths: NDArray[np.int32]
    """Number of words of each question."""
    arrays: IndexArrays
    state: State

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> Self:
        """Return the index of ``tasks``."""
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
        """Return the name of the task of item number ``item``, followed by the name of the item."""
        return f"{self.tasks[self.task[item]]}: {self.ids[item]}"

    def find(self, text: str) -> list[Match]:
        """Return the items that ``text`` contains."""
        folded = np.frombuffer(utf8(fold(text)), np.uint8)
        count, words = find_items(folded, TABLE, self.arrays, self.state)
        return [] if not count else self._matches(words, count)

    def find_all(self, texts: Sequence[str]) -> list[list[Match]]:
        """Return the items that each of ``texts`` contains; faster than `find` for each text."""
        found: list[list[Match]] = []
        for batch in _batches(texts):
            encoded = [utf8(text) for text in batch]
            ends = np.cumsum(list(map(len, encoded)), dtype=np.int64)
            joined = np.frombuffer(b"".join(encoded), np.uint8)
            holds = which_hold(joined, ends, unfolded_table(), self.arrays, self.state)
            found += [self.find(t) if h else [] for t, h in zip(batch, holds.tolist(), strict=True)]
        return found

    def _matches(self, words: NDArray[np.uint64], count: int) -> list[Match]:
        state = self.state
        candidates = []
        for n in range(count):
            item, at = int(state.item[n]), int(state.at[n])
            plain = self._plain_share(words, item, at)
            share = min(1.0, float(state.share[n]), plain)
            if share >= self.arrays.least[item] or state.by_proof[n]:
                candidates.append((item, share, max(at, 0)))
        return [
            Match(item, share, answer, at)
            for item, share, at in candidates
            if not self._is_another(item, share, at, candidates)
            and ((answer := self._answered(words, item, at)) or not self.strict[item])
        ]

    def _is_another(
        self, item: int, share: float, at: int, candidates: Sequence[tuple[int, float, int]]
    ) -> bool:
        """Whether ``item`` is short, and another item with a larger share begins near ``at``."""
        return bool(self.arrays.proof[item]) and any(
            other_share > share and abs(other - at) <= _APART
            for _, other_share, other in candidates
        )

    def _plain_share(self, words: NDArray[np.uint64], item: int, at: int) -> float:
        """Return the share of ``item`` that is present at ``at``, with equal weights of all words.

        If only a few rare words are present, this share is small, although their weights may be
        large. For an item of several chunks, the result is always 1.
        """
        chunk, after = np.searchsorted(self.arrays.item, [item, item + 1]).tolist()
        if after - chunk > 1:
            return 1.0
        own = self.arrays.words[self.arrays.begin[chunk] : self.arrays.end[chunk]]
        row, ones = np.zeros(4 * CHUNK, np.float32), np.ones(len(own), np.float32)
        return float(align(words, own, ones, at, row, band(len(own)), np.inf)) / len(own)

    def _answered(self, words: NDArray[np.uint64], item: int, at: int) -> bool:
        """Whether the answer of ``item`` is soon after its question, which begins at ``at``."""
        answer = self.answers[self.answer_ends[item] : self.answer_ends[item + 1]][:CHUNK]
        if not len(answer):
            return False
        near = words[at : at + int(self.lengths[item]) + len(answer) + _NEAR]
        ones = np.ones(len(answer), np.float32)
        row = np.zeros(4 * CHUNK, np.float32)
        starts = np.flatnonzero(np.isin(near, answer[:4]))
        reach = band(len(answer))
        most = max(
            (align(near, answer, ones, int(start), row, reach, np.inf) for start in starts),
            default=np.float32(0),
        )
        return bool(most >= LEAST_ANSWER * len(answer))

    def save(self, path: Path) -> None:
        """Write the index to a file; equal indexes give equal bytes."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _SAVED}
        arrays |= {"tasks": np.array(self.tasks, np.str_), "ids": np.array(self.ids, np.str_)}
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            kept = self.arrays._asdict()
            del kept["parts"]
            np.savez_compressed(file, **arrays, **kept)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an index that `save` wrote.

        Raises:
            InvalidDataError: The file contains no index.
        """
        with reading(path, "index of tasks"), np.load(path, allow_pickle=False) as file:
            arrays = _loaded_arrays(file)
            return cls(
                tasks=tuple(file["tasks"].tolist()),
                ids=tuple(file["ids"].tolist()),
                **{name: file[name] for name in _SAVED},
                arrays=arrays,
                state=_state(arrays),
            )


def _loaded_arrays(file: Mapping[str, Any]) -> IndexArrays:
    """Return the arrays in ``file``; arrays that an earlier version did not write get defaults.

    With the defaults, a short item is not found if one of its words is missing.
    """
    later: dict[str, Any] = {
        "parts": _parts(file["seeds"]),
        "short_bits": _filter(np.empty(0, np.uint64)),
        "evidence": np.zeros(len(file["words"]), np.float32),
        "proof": np.zeros(len(file["total"]), np.float32),
    }
    return IndexArrays(**{n: file[n] if n in file else later[n] for n in IndexArrays._fields})


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield ``texts`` in lists; the texts of a list have about `_AT_ONCE` characters in total."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


_SAVED = ("task", "strict", "missing", "answers", "answer_ends", "lengths")


def load_index(path: Path) -> ItemIndex:
    """Return the index in ``path``, kept in memory; read the file again only if it has changed."""
    return _load(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _load(path: Path, _written: int) -> ItemIndex:
    return ItemIndex.load(path)


@dataclass(frozen=True, slots=True)
class _Laid:
    """One item, with the words and weights that the index needs."""

    words: NDArray[np.uint64]
    alone: NDArray[np.bool_]
    weights: NDArray[np.float32]
    evidence: NDArray[np.float32]
    answer: NDArray[np.uint64]
    least: float
    proof: float
    strict: bool
    missing: bool


_WordTable = tuple[NDArray[np.uint64], NDArray[np.float32]]
"""Hashes of words, sorted, and a number for each word."""


def _lay_task(task: Task) -> list[_Laid]:
    """Prepare the items of a task; words that are in many items get a small weight."""
    letters: dict[int, int] = {}
    held = []
    for item in task.items:
        words, begins, ends, _ = find_words(code_points(item.question))
        letters |= zip(words.tolist(), (ends - begins).tolist(), strict=True)
        held.append(np.unique(words))
    distinct, holders = np.unique(np.concatenate(held), return_counts=True)
    most = holders.max(initial=1)
    weights = (np.log1p(most / holders) / np.log1p(most)).astype(np.float32)
    common = np.array([letters[word] <= _COMMON_LETTERS for word in distinct.tolist()], np.bool_)
    believed = _BELIEF * np.where(common, 1 / 10, 1 / 1000)
    # Fraction of the other items that contain the word, averaged with the assumed fraction.
    part = (holders - 1 + believed) / (len(held) - 1 + _BELIEF)
    rarity = -np.log(np.maximum(part, _RAREST)).astype(np.float32)
    return [_lay(item, (distinct, weights), (distinct, rarity)) for item in task.items]


def _lay(item: Item, weight: _WordTable, rarity: _WordTable) -> _Laid:
    """Prepare an item; ``weight`` and ``rarity`` are tables for all words of its task."""
    words, alone = hash_words(item.question)
    own = _by_word(words, weight)
    numbers, _ = hash_words(" ".join(re.findall(r"\d+", fold(item.question))))
    is_number = np.isin(words, numbers)
    own = np.where(is_number, _NUMBER * own, own)
    answer, answer_alone = hash_words(item.answer)
    # An item may lack one word only if its other words alone would be long enough for an item.
    short = (SEED + WORD if len(answer) else TINY) <= _cost(alone) < SHORT
    there = np.where(is_number, _MISSING_NUMBER, _MISSING)
    evidence = np.where(is_number, there, there + _by_word(words, rarity)).astype(np.float32)
    enough = float(there.sum()) - float(_MISSING) + LEAST_PROOF if short else 0.0
    asks = len(answer) > 0 and (_cost(alone) < TINY or own.sum() < LEAST_WEIGHT)
    if _cost(alone) < SEED:  # too short alone, but perhaps long enough with its answer
        words, alone = np.append(words, answer), np.append(alone, answer_alone)
        own = np.append(own, np.ones(len(answer), np.float32))
    cost = _cost(alone)
    least = 0.999 if cost < TINY else LEAST_SHORT if cost < SHORT else LEAST
    return _Laid(
        words=words,
        alone=alone,
        weights=own,
        evidence=evidence if short else np.zeros(len(words), np.float32),
        answer=answer,
        least=least,
        proof=enough,
        strict=asks,
        missing=cost < SEED,
    )


def _by_word(words: NDArray[np.uint64], table: _WordTable) -> NDArray[np.float32]:
    return table[1][np.searchsorted(table[0], words)]


def _cost(alone: NDArray[np.bool_]) -> int:
    characters = int(np.count_nonzero(alone))
    return WORD * (len(alone) - characters) + CHARACTER * characters


def _arrays(laid: Sequence[_Laid]) -> IndexArrays:
    starts = np.cumsum([0, *(len(entry.words) for entry in laid)])
    begins: list[int] = []
    ends: list[int] = []
    items: list[int] = []
    long, short = _Seeds(), _Seeds()
    for number, entry in enumerate(laid):
        start = int(starts[number])
        pieces = -(-len(entry.words) // CHUNK)
        edges = np.linspace(0, len(entry.words), pieces + 1).astype(int).tolist()
        for low, high in pairwise(edges):
            words, alone = entry.words[low:high], entry.alone[low:high]
            seeds, hashes = long, hash_seeds(words, alone, SEED)
            places = np.arange(len(hashes), dtype=np.int64)
            if entry.proof and not len(places := _apart(hashes, entry)):
                seeds, hashes = short, hash_seeds(words, alone, SHORT_SEED)
                places = _apart(hashes, entry)
                places = places if len(places) else np.array([0, len(hashes) - 1])
            seeds.add(hashes[places], len(begins), start + low + places)
            begins.append(start + low)
            ends.append(start + high)
            items.append(number)
    bits, short_bits = (_filter(np.unique(seeds.kept[0])) for seeds in (long, short))
    pairs = zip(long.kept, short.kept, strict=True)
    postings: list[NDArray[Any]] = [np.concatenate(pair) for pair in pairs]
    order = np.argsort(postings[0], kind="stable")
    keys, first = np.unique(postings[0][order], return_index=True)
    flat = np.empty(0, np.float32)
    return IndexArrays(
        seeds=keys,
        parts=_parts(keys),
        first=np.append(first, len(order)).astype(np.int64),
        chunk=postings[1][order],
        place=postings[2][order],
        bits=bits,
        short_bits=short_bits,
        words=np.concatenate([np.empty(0, np.uint64), *(entry.words for entry in laid)]),
        weights=np.concatenate([flat, *(entry.weights for entry in laid)]),
        evidence=np.concatenate([flat, *(entry.evidence for entry in laid)]),
        begin=np.array(begins, np.int64),
        end=np.array(ends, np.int64),
        item=np.array(items, np.int32),
        total=np.array([max(entry.weights.sum(), 1e-6) for entry in laid], np.float32),
        least=np.array([entry.least for entry in laid], np.float32),
        proof=np.array([entry.proof for entry in laid], np.float32),
    )


def _apart(hashes: NDArray[np.uint64], entry: _Laid) -> NDArray[np.int64]:
    """Return where two seeds of a short item begin that have no word in common: int64 ``[2]``.

    If a document has one word of the item changed, it still contains one of the two seeds. Of all
    pairs of seeds without a common word, the pair with the rarest words is chosen, because seeds of
    common words are in many documents. If there is no such pair, the array is empty.
    """
    count = len(hashes)
    width = len(entry.words) - count + 1
    rare = np.convolve(entry.evidence, np.ones(width), "valid")
    pairs = [(n, m) for n in range(count) for m in range(n + width, count)]
    best = max(pairs, key=lambda pair: min(rare[pair[0]], rare[pair[1]]), default=())
    return np.array(best, np.int64)


class _Seeds:
    """Collects the seeds of all chunks, with the chunk and the place of each."""

    def __init__(self) -> None:
        self._hashes = [np.empty(0, np.uint64)]
        self._chunks = [np.empty(0, np.int32)]
        self._places = [np.empty(0, np.int32)]

    def add(self, hashes: NDArray[np.uint64], chunk: int, places: NDArray[np.int64]) -> None:
        """Add seeds of a chunk.

        ``places`` are the indexes of the seeds' first words in `IndexArrays.words`.
        """
        self._hashes.append(hashes)
        self._chunks.append(np.full(len(hashes), chunk, np.int32))
        self._places.append(places.astype(np.int32))

    @cached_property
    def kept(self) -> tuple[Any, Any, Any]:
        """Return the added seeds that are rare, and the chunk and place of each: see `_rare`."""
        return _rare(
            np.concatenate(self._hashes),
            np.concatenate(self._chunks),
            np.concatenate(self._places),
        )


def _rare(seeds: Any, chunks: Any, places: Any) -> tuple[Any, Any, Any]:
    """Return postings sorted by seed, without seeds of many chunks (of a template, for example)."""
    _, inverse, counts = np.unique(seeds, return_inverse=True, return_counts=True)
    often = counts[inverse]
    order = np.lexsort((places, often, chunks))
    ranks = np.arange(len(order)) - np.searchsorted(chunks[order], chunks[order])
    kept = order[(ranks < _FEW) | (often[order] <= _COMMON)]
    kept = kept[np.lexsort((places[kept], chunks[kept], seeds[kept]))]
    return seeds[kept], chunks[kept], places[kept]


def _filter(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    size = 1 << max(6, int(_BITS * max(len(keys), 1) // 64).bit_length())
    bits = np.zeros(size, np.uint64)
    np.bitwise_or.at(bits, keys >> filter_shift(size), filter_mask(keys))
    return bits


def _parts(seeds: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Return `IndexArrays.parts` for sorted ``seeds``: int32 ``[2 ** bits + 1]``."""
    bits = max(1, len(seeds).bit_length())
    edges = np.arange(1 << bits, dtype=np.uint64) << np.uint64(64 - bits)
    return np.append(np.searchsorted(seeds, edges), len(seeds)).astype(np.int32)


def _state(arrays: IndexArrays) -> State:
    chunks, items = len(arrays.begin), len(arrays.total)
    # One place per chunk in the results: an item is listed again for each of its chunks while the
    # sum of its weights is 0.
    return State(
        best=np.full(chunks, -1, np.float32),
        diagonal=np.zeros(chunks, np.int64),
        begin=np.zeros(chunks, np.int64),
        proven=np.zeros(chunks, np.bool_),
        touched=np.zeros(chunks, np.int32),
        row=np.zeros(4 * CHUNK, np.float32),
        sum=np.zeros(items, np.float32),
        item=np.zeros(chunks, np.int32),
        share=np.zeros(chunks, np.float32),
        at=np.zeros(chunks, np.int64),
        by_proof=np.zeros(chunks, np.bool_),
    )
