"""Alignment: find items in the words of a document, in compiled code.

A seed is a few consecutive words that an item and the document share; it shows where the item may
stand. There the item is aligned with the document word by word. So a word that was changed, left
out or inserted costs no more than that word.
"""

from typing import Any

import numpy as np
from numba import njit

from .word_hashes import hash_points

SEED = 15
"""Least cost of a seed: that of five words, or of eight characters in scripts without spaces."""
WORD, CHARACTER = 3, 2
"""Cost of a word, and of a character of a script without spaces."""
CHUNK = 64
"""Most words of an item that are aligned at a time."""
_PART = 6
"""A chunk is aligned only if one in this many of its words stands at the place of the seed."""
_BASE = np.uint64(0x9E3779B97F4A7C15)
_POWERS = np.array([pow(int(_BASE), n, 1 << 64) for n in range(SEED // CHARACTER + 2)], np.uint64)


@njit(cache=True, nogil=True)
def hash_seeds(words: Any, alone: Any) -> Any:
    """Hash the seed that begins at each word, uint64 ``[s]``; none begins at the last words.

    ``alone``, bool ``[w]``, says which words are characters of a script without spaces.
    """
    n = len(words)
    hashes, prefix = np.empty(n, np.uint64), np.zeros(n + 1, np.uint64)
    end = cost = 0
    for begin in range(n):
        while end < n and cost < SEED:
            prefix[end + 1] = prefix[end] * _BASE + words[end]
            cost += CHARACTER if alone[end] else WORD
            end += 1
        if cost < SEED:
            return hashes[:begin]
        value = prefix[end] - prefix[begin] * _POWERS[end - begin]
        value = (value ^ (value >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
        hashes[begin] = value ^ (value >> np.uint64(29))
        cost -= CHARACTER if alone[begin] else WORD
    return hashes[:n]


@njit(cache=True, nogil=True)
def filter_mask(seed: Any) -> Any:
    """Return the bits of a seed in its word of the filter: three of 64."""
    one, six = np.uint64(1), np.uint64(63)
    low, high = (seed >> np.uint64(6)) & six, (seed >> np.uint64(12)) & six
    return one << (seed & six) | one << low | one << high


@njit(cache=True, nogil=True)
def align(document: Any, words: Any, weights: Any, diagonal: Any, row: Any) -> Any:
    """Return the weight of those ``words`` that stand in ``document`` in order, near a diagonal.

    Word ``q`` is expected at ``q + diagonal`` of the document, give or take `band` words. ``row``
    is float32, memory for the sums.
    """
    reach = band(len(words))
    width = 2 * reach + 1
    row[: width + 1] = 0
    for q in range(len(words)):
        left = np.float32(0)
        for k in range(width):
            at = q + diagonal + k - reach
            value = row[k]
            if 0 <= at < len(document) and document[at] == words[q]:
                value += weights[q]
            if k + 1 < width and row[k + 1] > value:
                value = row[k + 1]
            value = max(value, left)
            row[k] = left = value
    return row[width - 1]


@njit(cache=True, nogil=True)
def band(length: Any) -> Any:
    """Most words between a match and its expected place, in an item of ``length`` words."""
    return 3 + length // 8


@njit(cache=True, nogil=True)
def find_items(points: Any, table: Any, index: Any, state: Any) -> Any:
    """Find the items of ``index`` in a document; return their number, and the hashes of words.

    ``points`` are its code points, ``table`` is that of `hash_points`. The items' numbers, shares 0
    to 1 and where they begin are the first of ``state.item``, ``share`` and ``at``. ``index`` and
    ``state`` are `IndexArrays` and `State` of `ItemIndex`.
    """
    document, alone = hash_points(points, table)
    seeds = hash_seeds(document, alone)
    touched = 0
    for at in range(len(seeds)):
        seed = seeds[at]
        # Most seeds are in no item, and cost one read here.
        mask = filter_mask(seed)
        if index.bits[seed >> index.shift[0]] & mask != mask:
            continue
        key = np.searchsorted(index.seeds, seed)
        if key == len(index.seeds) or index.seeds[key] != seed:
            continue
        for n in range(index.first[key], index.first[key + 1]):
            touched = _try_chunk(document, at, n, index, state, touched)
    return _sum_up(touched, index, state), document


@njit(cache=True, nogil=True)
def _try_chunk(document: Any, at: Any, n: Any, index: Any, state: Any, touched: Any) -> Any:
    """Align the chunk of posting ``n``, whose seed is at ``at``, unless that was done."""
    chunk = index.chunk[n]
    begin, end = index.begin[chunk], index.end[chunk]
    diagonal = at - (index.place[n] - begin)
    if state.best[chunk] >= 0 and abs(diagonal - state.diagonal[chunk]) <= band(end - begin):
        return touched
    words = index.words[begin:end]
    if _count_equal(document, words, diagonal) * _PART < len(words):
        return touched
    if state.best[chunk] < 0:
        state.touched[touched] = chunk
        touched += 1
    state.diagonal[chunk] = diagonal
    weight = align(document, words, index.weights[begin:end], diagonal, state.row)
    if weight > state.best[chunk]:
        state.best[chunk] = weight
        state.begin[chunk] = diagonal
    return touched


@njit(cache=True, nogil=True)
def _count_equal(document: Any, words: Any, diagonal: Any) -> Any:
    """Count the words that stand in ``document`` at exactly that diagonal."""
    count = 0
    for q in range(max(0, -diagonal), min(len(words), len(document) - diagonal)):
        count += document[q + diagonal] == words[q]
    return count


@njit(cache=True, nogil=True)
def _sum_up(touched: Any, index: Any, state: Any) -> Any:
    """Sum up the chunks of each item, and reset the state for the next document."""
    items = 0
    for n in range(touched):
        chunk = state.touched[n]
        item = index.item[chunk]
        if state.sum[item] == 0:
            state.item[items] = item
            state.at[items] = state.begin[chunk]
            items += 1
        state.sum[item] += state.best[chunk]
        state.best[chunk] = -1
    kept = 0
    for n in range(items):
        item = state.item[n]
        share = state.sum[item] / index.total[item]
        state.sum[item] = 0
        if share >= index.least[item]:
            state.item[kept], state.share[kept], state.at[kept] = item, share, state.at[n]
            kept += 1
    return kept
