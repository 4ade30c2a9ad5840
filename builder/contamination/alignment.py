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
SHORT_SEED = 9
"""The same for items of few words: three words, or five characters."""
WORD, CHARACTER = 3, 2
"""Cost of a word, and of a character of a script without spaces."""
CHUNK = 64
"""Most words of an item that are aligned at a time."""
_PART = 6
"""A chunk is aligned only if one in this many of its words stands at the place of the seed."""
_BASE = np.uint64(0x9E3779B97F4A7C15)
_POWERS = np.array([pow(int(_BASE), n, 1 << 64) for n in range(SEED // CHARACTER + 2)], np.uint64)


@njit(cache=True, nogil=True)
def hash_seeds(words: Any, alone: Any, least: Any) -> Any:
    """Hash the seed that begins at each word, uint64 ``[s]``; none begins at the last words.

    ``alone``, bool ``[w]``, says which words are characters of a script without spaces. A seed
    costs ``least`` or more.
    """
    return _hash_seeds(hash_prefixes(words), alone, least)


@njit(cache=True, nogil=True)
def hash_prefixes(words: Any) -> Any:
    """Hash the words before each place, and all of them: uint64 ``[w + 1]``."""
    prefix = np.empty(len(words) + 1, np.uint64)
    prefix[0] = 0
    for n in range(len(words)):
        prefix[n + 1] = prefix[n] * _BASE + words[n]
    return prefix


@njit(cache=True, nogil=True)
def _hash_seeds(prefix: Any, alone: Any, least: Any) -> Any:
    hashes = np.empty(len(alone), np.uint64)
    if not alone.any():  # the common case, in half the time: all seeds are of as many words
        length = -(-least // WORD)
        for begin in range(len(alone) - length + 1):
            hashes[begin] = _hash_run(prefix, begin, begin + length)
        return hashes[: max(0, len(alone) - length + 1)]
    end = cost = 0
    for begin in range(len(alone)):
        while end < len(alone) and cost < least:
            cost += CHARACTER if alone[end] else WORD
            end += 1
        if cost < least:
            return hashes[:begin]
        hashes[begin] = _hash_run(prefix, begin, end)
        cost -= CHARACTER if alone[begin] else WORD
    return hashes


@njit(cache=True, nogil=True)
def _hash_run(prefix: Any, begin: Any, end: Any) -> Any:
    """Hash the words from ``begin`` to ``end``."""
    value = prefix[end] - prefix[begin] * _POWERS[end - begin]
    value = (value ^ (value >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return value ^ (value >> np.uint64(29))


@njit(cache=True, nogil=True)
def filter_mask(seed: Any) -> Any:
    """Return the bits of a seed in its word of the filter: three of 64."""
    one, six = np.uint64(1), np.uint64(63)
    low, high = (seed >> np.uint64(6)) & six, (seed >> np.uint64(12)) & six
    return one << (seed & six) | one << low | one << high


@njit(cache=True, nogil=True)
def filter_shift(size: Any) -> Any:
    """Return by how many bits a seed is shifted to find its word of a filter of ``size`` words."""
    shift = 64
    while size > 1:
        size >>= 1
        shift -= 1
    return np.uint64(shift)


@njit(cache=True, nogil=True)
def align(document: Any, words: Any, weights: Any, diagonal: Any, row: Any, reach: Any) -> Any:
    """Return the weight of those ``words`` that stand in ``document`` in order, near a diagonal.

    Word ``q`` is expected at ``q + diagonal`` of the document, give or take ``reach`` words.
    ``row`` is float32, memory for the sums.
    """
    width = 2 * reach + 1
    row[:width] = 0
    first = 0  # sums of this word are row[first : first + width]; they never fall
    for q in range(len(words)):
        begin = q + diagonal - reach
        low, high = max(begin, 0), min(begin + width, len(document))
        if _holds(document[low:high], words[q]):
            left = np.float32(0)
            for k in range(width):
                at = begin + k
                value = row[first + k]
                if low <= at < high and document[at] == words[q]:
                    value += weights[q]
                if k + 1 < width and row[first + k + 1] > value:
                    value = row[first + k + 1]
                value = max(value, left)
                row[first + k] = left = value
        else:
            # As sums never fall, each is now that of the place behind: they all move by one.
            first += 1
            row[first + width - 1] = row[first + width - 2]
    return row[first + width - 1]


@njit(cache=True, nogil=True)
def _holds(words: Any, word: Any) -> Any:
    """Whether ``word`` is one of ``words``; it compares several at a time."""
    count = 0
    for other in words:
        count += other == word
    return count > 0


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
    prefix = hash_prefixes(document)
    long = _hash_seeds(prefix, alone, SEED)
    short = _hash_seeds(prefix, alone, SHORT_SEED)
    touched = _look_up(document, long, index.bits, index, state, 0)
    touched = _look_up(document, short, index.short_bits, index, state, touched)
    return _sum_up(touched, index, state), document


@njit(cache=True, nogil=True)
def which_hold(points: Any, ends: Any, table: Any, index: Any, state: Any) -> Any:
    """Return which of several documents hold an item, bool ``[d]``.

    ``points`` are the code points of all, one after the other; each ends before its one of
    ``ends``. Other arguments are those of `find_items`.
    """
    holds = np.zeros(len(ends), np.bool_)
    begin = 0
    for number in range(len(ends)):
        count, _ = find_items(points[begin : ends[number]], table, index, state)
        holds[number] = count > 0
        begin = ends[number]
    return holds


@njit(cache=True, nogil=True)
def _look_up(document: Any, seeds: Any, bits: Any, index: Any, state: Any, touched: Any) -> Any:
    """Try the chunks that share one of ``seeds``, of which ``bits`` is the filter.

    ``touched`` is the number of chunks that were tried before; the new number is returned.
    """
    shift = filter_shift(len(bits))
    hits, count = np.empty(len(seeds), np.int32), np.uint32(0)
    # Most seeds are in no item, and cost one read here. Without a branch, many are read at once.
    for at in range(len(seeds)):
        mask = filter_mask(seeds[at])
        hits[count] = at
        count += np.uint32(bits[seeds[at] >> shift] & mask == mask)
    for at in hits[:count]:
        seed = seeds[at]
        key = _find(index, seed)
        if key < 0:
            continue
        for n in range(index.first[key], index.first[key + 1]):
            chunk = index.chunk[n]
            diagonal = at - (index.place[n] - index.begin[chunk])
            touched = _try_chunk(document, chunk, diagonal, index, state, touched)
    return touched


@njit(cache=True, nogil=True)
def _find(index: Any, seed: Any) -> Any:
    """Return the number of ``seed`` among ``index.seeds``; -1 if it is not among them."""
    part = seed >> filter_shift(len(index.parts) - 1)
    for key in range(index.parts[part], index.parts[part + 1]):
        if index.seeds[key] == seed:
            return key
    return -1


@njit(cache=True, nogil=True)
def _try_chunk(
    document: Any, chunk: Any, diagonal: Any, index: Any, state: Any, touched: Any
) -> Any:
    """Align ``document`` with a chunk of an item, unless they are aligned already."""
    begin, end = index.begin[chunk], index.end[chunk]
    reach = band(end - begin)
    if state.best[chunk] >= 0 and abs(diagonal - state.diagonal[chunk]) <= reach:
        return touched
    words = index.words[begin:end]
    equal = _count_equal(document, words, diagonal)
    least = index.proof[index.item[chunk]]
    if least > 0 and equal < len(words) - 1:
        # Where a word was put in or left out, the words behind it stand one place on.
        before = _count_equal(document, words, diagonal - 1)
        equal += max(before, _count_equal(document, words, diagonal + 1))
        if equal < len(words) - 1:
            return touched
    elif equal * _PART < len(words):
        return touched
    if state.best[chunk] < 0:
        state.touched[touched] = chunk
        touched += 1
    state.diagonal[chunk] = diagonal
    weights = index.weights[begin:end]
    weight = align(document, words, weights, diagonal, state.row, reach)
    if least > 0:
        evidence = index.evidence[begin:end]
        proof = align(document, words, evidence, diagonal, state.row, 1) >= least
        state.proven[chunk] = state.proven[chunk] or proof
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
            state.by_proof[items] = state.proven[chunk]
            items += 1
        state.sum[item] += state.best[chunk]
        state.best[chunk] = -1
        state.proven[chunk] = False
    kept = 0
    for n in range(items):
        item = state.item[n]
        share = state.sum[item] / index.total[item]
        state.sum[item] = 0
        if share >= index.least[item] or state.by_proof[n]:
            state.item[kept], state.share[kept], state.at[kept] = item, share, state.at[n]
            state.by_proof[kept] = state.by_proof[n]
            kept += 1
    return kept
