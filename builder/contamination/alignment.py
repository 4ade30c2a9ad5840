"""Alignment: find items in the words of a document, in compiled code.

An item is a question of a task, or a text. A seed is a few consecutive words. If an item and a
document have a seed in common, the document may contain the item at the place of this seed. There,
the item is aligned with the document word by word, and the weights of the words that match are
added up. So a changed, missing or inserted word lowers this sum at most by the weight of one word.
"""

from typing import Any

import numpy as np
from numba import njit

from .word_hashes import hash_utf8

SEED = 15
"""A seed takes words until the sum of their costs reaches this number: five words, or eight
characters in scripts without spaces. For costs see `WORD`."""
SHORT_SEED = 9
"""The same for items that are too short for two separate seeds of cost `SEED`: three words, or five
characters."""
WORD, CHARACTER = 3, 2
"""Cost of one word, and of one character in a script without spaces: how much it adds to the length
of a seed or an item."""
CHUNK = 64
"""Largest number of words in a chunk. A chunk is a part of an item that is aligned as a whole."""
_PART = 6
"""A chunk is aligned only if at least one in six of its words is exactly where the seed's place in
the document predicts it."""
_BASE = np.uint64(0x9E3779B97F4A7C15)
_POWERS = np.array([pow(int(_BASE), n, 1 << 64) for n in range(SEED // CHARACTER + 2)], np.uint64)


@njit(cache=True, nogil=True)
def hash_seeds(words: Any, alone: Any, least: Any) -> Any:
    """Return the hash of the seed, a series of words, that begins at each word: uint64 ``[s]``.

    A seed takes consecutive words until the sum of their costs (`WORD` or `CHARACTER`) reaches
    ``least``. No seed begins at the last few words, whose costs do not reach ``least``. ``alone``,
    bool ``[w]``, marks the words that are characters of a script without spaces.
    """
    return _hash_seeds(hash_prefixes(words), alone, least)


@njit(cache=True, nogil=True)
def hash_prefixes(words: Any) -> Any:
    """Return the hash of the first 0, 1, 2 … w words: uint64 ``[w + 1]``."""
    prefix = np.empty(len(words) + 1, np.uint64)
    prefix[0] = 0
    for n in range(len(words)):
        prefix[n + 1] = prefix[n] * _BASE + words[n]
    return prefix


@njit(cache=True, nogil=True)
def _hash_seeds(prefix: Any, alone: Any, least: Any) -> Any:
    hashes = np.empty(len(alone), np.uint64)
    if not alone.any():  # the usual case takes half the time, because all seeds have equal lengths
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
    """Return the hash of words ``begin`` to ``end`` - 1, from the result of `hash_prefixes`."""
    value = prefix[end] - prefix[begin] * _POWERS[end - begin]
    value = (value ^ (value >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return value ^ (value >> np.uint64(29))


@njit(cache=True, nogil=True)
def filter_mask(seed: Any) -> Any:
    """Return the bits, at most three, that a seed sets in its 64-bit number of the Bloom filter."""
    one, six = np.uint64(1), np.uint64(63)
    low, high = (seed >> np.uint64(6)) & six, (seed >> np.uint64(12)) & six
    return one << (seed & six) | one << low | one << high


@njit(cache=True, nogil=True)
def filter_shift(size: Any) -> Any:
    """Return by how many bits a seed is shifted right; the result is its index in a Bloom filter.

    ``size`` is how many numbers the filter has.
    """
    shift = 64
    while size > 1:
        size >>= 1
        shift -= 1
    return np.uint64(shift)


@njit(cache=True, nogil=True)
def align(
    document: Any, words: Any, weights: Any, diagonal: Any, row: Any, reach: Any, spare: Any
) -> Any:
    """Return the total weight of ``words`` that ``document`` has in this order, near a diagonal.

    Word ``q`` is expected at place ``q + diagonal`` of the document, and may be up to ``reach``
    places before or after it. ``row``, float32, is working memory for the sums. The search ends
    early if words with a total weight of more than ``spare`` are missing.
    """
    width = 2 * reach + 1
    row[:width] = 0
    first = 0  # the sums up to word q are row[first : first + width], in ascending order
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
            # This word is missing, and sums ascend. So the sum at each place becomes the sum at the
            # next place: all sums move by one.
            first += 1
            row[first + width - 1] = row[first + width - 2]
            spare -= weights[q]
            if spare < 0:
                break
    return row[first + width - 1]


@njit(cache=True, nogil=True)
def _holds(words: Any, word: Any) -> Any:
    """Whether ``word`` is one of ``words``.

    The loop has no branch, so that the processor compares several words at once.
    """
    count = 0
    for other in words:
        count += other == word
    return count > 0


@njit(cache=True, nogil=True)
def band(length: Any) -> Any:
    """Return the largest allowed distance, in words, between a match and its expected place.

    ``length`` is the number of words of the item.
    """
    return 3 + length // 8


@njit(cache=True, nogil=True)
def find_items(text: Any, table: Any, index: Any, state: Any) -> Any:
    """Find items in a document; return their number, and the hashes of the document's words.

    ``text`` and ``table`` are the arguments of `hash_utf8`. ``index`` and ``state`` are the
    `IndexArrays` and the `State` of an `ItemIndex`.

    Three arrays get one value for each item that is found, from place 0 on. ``state.item`` gets the
    number of the item, and ``state.share`` its share, from 0 to 1. ``state.at`` gets the index of
    the document's word at which the item begins. If the text has a character that `fold` may
    change, the number of items is -1: the caller must first fold the text.
    """
    document, alone, complete = hash_utf8(text, table)
    if not complete:
        return -1, document
    prefix = hash_prefixes(document)
    long = _hash_seeds(prefix, alone, SEED)
    short = _hash_seeds(prefix, alone, SHORT_SEED)
    touched = _look_up(document, long, index.bits, index, state, 0)
    touched = _look_up(document, short, index.short_bits, index, state, touched)
    return _sum_up(touched, index, state), document


@njit(cache=True, nogil=True)
def which_hold(text: Any, ends: Any, table: Any, index: Any, state: Any) -> Any:
    """Return which documents contain an item, or may contain one after folding: bool ``[d]``.

    ``text`` has all documents in UTF-8, one document after the other; ``ends`` has the index after
    the last byte of each document. The other arguments are those of `find_items`.
    """
    holds = np.zeros(len(ends), np.bool_)
    begin = 0
    for number in range(len(ends)):
        count, _ = find_items(text[begin : ends[number]], table, index, state)
        holds[number] = count != 0
        begin = ends[number]
    return holds


@njit(cache=True, nogil=True)
def _look_up(document: Any, seeds: Any, bits: Any, index: Any, state: Any, touched: Any) -> Any:
    """Align the chunks that contain one of ``seeds``; return how many chunks were aligned so far.

    ``seeds`` are the seeds of the document. ``bits`` is the filter of the index's seeds.
    ``touched`` is the number of chunks that were aligned with this document before; the result
    includes them.
    """
    shift = filter_shift(len(bits))
    hits, count = np.empty(len(seeds), np.int32), np.uint32(0)
    # Most seeds are in no item, so they take one read here. Without a branch, several are read at
    # once.
    for at in range(len(seeds)):
        mask = filter_mask(seeds[at])
        hits[count] = at
        count += np.uint32(bits[seeds[at] >> shift] & mask == mask)
    for at in hits[:count]:
        seed = seeds[at]
        key = _find(index.seeds, index.parts, seed)
        if key < 0:
            continue
        for n in range(index.first[key], index.first[key + 1]):
            chunk = index.chunk[n]
            begin, end = index.begin[chunk], index.end[chunk]
            diagonal = at - (index.place[n] - begin)
            short = index.proof[index.item[chunk]] > 0
            if _is_likely(document, index.words[begin:end], diagonal, short):
                touched = _try_chunk(document, chunk, diagonal, index, state, touched)
    return touched


@njit(cache=True, nogil=True)
def _find(seeds: Any, parts: Any, seed: Any) -> Any:
    """Return the index of ``seed`` in ``seeds``, which are sorted; -1 if it is not there."""
    part = seed >> filter_shift(len(parts) - 1)
    for key in range(parts[part], parts[part + 1]):
        if seeds[key] == seed:
            return key
    return -1


@njit(cache=True, nogil=True)
def _is_likely(document: Any, words: Any, diagonal: Any, short: Any) -> Any:
    """Whether enough ``words`` of a chunk are exactly where the seed says that they should be.

    For a ``short`` item, at most one word may be missing. Its words may also be one place further
    on or back, because that is where they are after an inserted or a missing word.
    """
    equal = _count_equal(document, words, diagonal)
    if not short:
        return equal * _PART >= len(words)
    if equal < len(words) - 1:
        before = _count_equal(document, words, diagonal - 1)
        equal += max(before, _count_equal(document, words, diagonal + 1))
    return equal >= len(words) - 1


@njit(cache=True, nogil=True)
def _try_chunk(
    document: Any, chunk: Any, diagonal: Any, index: Any, state: Any, touched: Any
) -> Any:
    """Align ``document`` with a chunk, unless this was done near ``diagonal`` before.

    Returns the number of chunks that were aligned with the document so far; ``touched`` is this
    number before the call.
    """
    begin, end = index.begin[chunk], index.end[chunk]
    reach = band(end - begin)
    if state.best[chunk] >= 0 and abs(diagonal - state.diagonal[chunk]) <= reach:
        return touched
    if state.best[chunk] < 0:
        state.touched[touched] = chunk
        touched += 1
    state.diagonal[chunk] = diagonal
    item = index.item[chunk]
    words, weights = index.words[begin:end], index.weights[begin:end]
    least = index.proof[item]
    # The item cannot be found if more than this weight is missing; 1.001, as sums are rounded. The
    # limit does not apply to a short item that may be found by its evidence: its whole share is
    # reported.
    spare = (1.001 - index.least[item]) * index.total[item] if least == 0 else np.inf
    weight = align(document, words, weights, diagonal, state.row, reach, spare)
    if least > 0:
        evidence = index.evidence[begin:end]
        proof = align(document, words, evidence, diagonal, state.row, 1, np.inf) >= least
        state.proven[chunk] = state.proven[chunk] or proof
    if weight > state.best[chunk]:
        state.best[chunk] = weight
        state.begin[chunk] = diagonal
    return touched


@njit(cache=True, nogil=True)
def _count_equal(document: Any, words: Any, diagonal: Any) -> Any:
    """Count the ``words`` that ``document`` has exactly ``diagonal`` places further on."""
    count = 0
    for q in range(max(0, -diagonal), min(len(words), len(document) - diagonal)):
        count += document[q + diagonal] == words[q]
    return count


@njit(cache=True, nogil=True)
def _sum_up(touched: Any, index: Any, state: Any) -> Any:
    """Add up the results by item, and reset the state; return the number of items found."""
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
