"""Quality: four scores of a document from 0 to 5, by counting, without a model; 5 is best.

CLIMB scores documents with fastText models (arXiv 2504.13161, section 3.1). This module replaces
these models by rules. Each score is computed from the first `HEAD` characters of a document:

* overall: 5, reduced for each of these faults: few letters; many digits; repeated phrases,
  sentences or lines; few different words; words or letters in random order; mangled encoding; lists
  of fragments; long strings that are not words; many words in capitals; too few words. In English,
  two more faults count: few common words, and pairs of words that grammar forbids.
* educational: the overall score, reduced for few words that explain, define or give examples.
* informational: the overall score, reduced for few different words, few names and few numbers.
* advertisement: 5, reduced for calls to buy, click, subscribe or consent, for terms of use, for
  exclamation marks, and for words in capitals.

The form of a text is judged in every language, its choice of words only in English. In code of
any programming language, only these faults count: few letters, many digits, mangled encoding,
repeated phrases or lines, long strings that are not words, and too few words.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from climbstream.builder.language_codes import CODE, UNDETERMINED

from .characters import is_capital, is_digit, is_letter, is_unspaced
from .mangled import count_mangled
from .order import (
    count_brackets,
    count_character_order,
    count_letter_order,
    count_sentence_starts,
    count_word_order,
    has_case,
)
from .quality_words import (
    ARTICLE,
    COMMON,
    EXPLAIN,
    NEVER_AFTER_ARTICLE,
    NEVER_AFTER_PREPOSITION,
    PREPOSITION,
    SELL,
    SELL_PHRASES,
    SHOUT,
    TERMS_PHRASES,
)
from .sentences import count_repeated_sentences
from .words import (
    CAPITALS,
    DIGITS,
    JUMBLED,
    LETTERS,
    code_points,
    find_words,
    hash_word,
    join_characters,
    runs,
)

HEAD = 8_000
"""Number of characters that are examined, from the beginning of a text."""
_ADDRESSES = 4
"""Number of web addresses, from the beginning of a text, that do not count as long strings. A
signature of a mail has a few addresses; a list of links has more."""
_LONG, _ENDLESS = 30, 60
"""A run of characters without a space is long if it has more than the first number of characters,
and endless if it has more than the second. The second number is for programs, in which punctuation
marks join names to long runs."""
_FRAGMENT = 24
"""In scripts without capitals: largest number of columns, not counting spaces, of a line that may
be an item of a list."""
_LETTERS = 2_000
"""Number of characters, from the beginning of a text, in which the order of letters is examined."""

_SETS = (
    ARTICLE,
    PREPOSITION,
    NEVER_AFTER_ARTICLE,
    NEVER_AFTER_PREPOSITION,
    COMMON,
    EXPLAIN,
    SELL,
    SHOUT,
)


def _table(hashes: Iterable[tuple[int, int]]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the different hashes, sorted, and for each hash a mask of the sets that contain it.

    ``hashes`` are pairs of a hash and the number of a set.
    """
    sets: dict[int, int] = {}
    for value, number in hashes:
        sets[value] = sets.get(value, 0) | 1 << number
    keys = sorted(sets)
    return np.array(keys, np.uint64), np.array([sets[key] for key in keys], np.uint64)


def _hash_phrase(phrase: str) -> int:
    words = np.array([hash_word(word) for word in phrase.split()], np.uint64)
    return int(runs(words, 2)[0])


_WORDS = _table((hash_word(word), i) for i, words in enumerate(_SETS) for word in words.split())
_PHRASES = _table(
    (_hash_phrase(phrase), i)
    for i, phrases in enumerate((SELL_PHRASES, TERMS_PHRASES))
    for phrase in phrases.split(",")
)
COUNTS = (
    "length solid letters digits capitals long endless mangled words shouted jumbled common "
    "explain sell shout sell_phrases terms joints disorder distinct repeats top lines again "
    "broken bullets bangs spaced pairs pairs_back unspaced unspaced_pairs unspaced_back "
    "threes threes_back small_starts capital_starts sentences formulas brackets unmatched"
).split()
"""Names of the counts of a text, in the order of the result of `count_text`."""


ENGLISH = "en"
"""Code of the only language that has lists of words."""
_USUAL = 0.5
"""Factor of the educational score in all languages but English, which have no list of words that
explain."""


def score_documents(texts: Sequence[str], languages: Sequence[str]) -> NDArray[np.float32]:
    """Return the scores of ``texts``, float32 ``[n, 4]``; the columns are those of `SCORES`."""
    counts = np.array([count_text(text) for text in texts]).reshape(len(texts), len(COUNTS))
    return score_counts(counts, np.array(languages, np.str_))


def count_text(text: str) -> NDArray[np.float64]:
    """Return the counts from which a text is scored: float64 ``[len(COUNTS)]``."""
    head = text[:HEAD]
    points = code_points(head)
    words = find_words(points)
    counts: NDArray[np.float64] = _count(points, words, join_characters(*words), *_WORDS, *_PHRASES)
    counts[_MANGLED] = count_mangled(head)
    return counts


_MANGLED = COUNTS.index("mangled")


def score_counts(counts: NDArray[np.float64], languages: NDArray[np.str_]) -> NDArray[np.float32]:
    """Return scores, float32 ``[n, 4]``, for the ``counts``, float64 ``[n, len(COUNTS)]``."""
    c = dict(zip(COUNTS, np.maximum(counts.T, 0), strict=True))
    english, code = languages == ENGLISH, languages == CODE
    n = np.maximum(c["words"], 1)
    length = np.maximum(c["length"], 1)
    plain = np.prod([1 - loss for loss in _losses(counts, english, code)], axis=0)
    sold = (
        (c["sell"] + 3 * c["shout"] + 4 * c["sell_phrases"] + 4 * c["terms"])
        / (n + 20)
        * (english | code | (languages == UNDETERMINED))
        + 0.05 * _ramp(c["bangs"] / (n + 20), 0.01, 0.05) * ~code
        + 0.10 * _ramp(c["shouted"] / (n + 10), 0.05, 0.4) * ~code
    )
    named = (c["digits"] + c["capitals"]) / length
    explained = np.where(english, _ramp(c["explain"] / n, 0, 0.025), _USUAL)
    scores = (
        5 * plain,
        5 * plain * explained,
        5 * plain * _ramp(c["distinct"] / n**0.8, 0.4, 1.6) * (0.5 + 0.5 * _ramp(named, 0, 0.06)),
        5 * (1 - _ramp(sold, 0.01, 0.14)),
    )
    return np.stack(scores, axis=1).astype(np.float32)


def _losses(
    counts: NDArray[np.float64], english: NDArray[np.bool_], code: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], ...]:
    """Return, for each fault, the fraction of the overall score that it subtracts, ``[n]``."""
    c = dict(zip(COUNTS, np.maximum(counts.T, 0), strict=True))
    n = np.maximum(c["words"], 1)
    lines = np.maximum(c["lines"], 1)
    length, solid = np.maximum(c["length"], 1), np.maximum(c["solid"], 1)
    # Mathematics has fewer letters than prose, and it repeats its commands.
    formal = code | (c["formulas"] > 0.08 * n)
    return (
        _ramp(c["letters"] / solid, np.where(formal, 0.55, 0.65), np.where(formal, 0.25, 0.30)),
        _ramp(c["digits"] / length, 0.12, 0.30),
        _ramp(c["mangled"] / length, 0.001, 0.006),
        # Programs join names by marks. Only packed or encoded data is longer without a space.
        _ramp(c["long"] / length, 0.10, 0.50) * ~code,
        _ramp(c["endless"] / length, 0.05, 0.25) * code,
        _ramp(np.maximum(n, solid / 6), 60, 25) * 0.95,
        # Limits are higher for code, which repeats itself more, and for all languages but English.
        _ramp(c["repeats"] / n, np.where(code, 0.5, 0.3), np.where(code, 0.85, 0.7)),
        _ramp(c["again"] / lines, np.where(english, 0.25, 0.45), np.where(english, 0.8, 0.95)),
        # In dialogues, sentences that repeat have up to .25 of the letters. In pages of notices,
        # they have .25 or more.
        _ramp(c["sentences"] / np.maximum(c["letters"], 1), 0.20, 0.28) * ~code,
        # English is often simple: rhymes and dialogues have few different words.
        _ramp(c["distinct"] / n**0.65, np.where(english, 1.4, 2.0), np.where(english, 1.0, 1.55))
        * ~code,
        _disorder(counts) * ~code,
        _ramp(c["top"] / (n + 10), 0.08, 0.18) * ~formal,
        _ramp((c["broken"] - 2) / lines, 0.10, 0.38) * ~code,
        _ramp(c["bullets"] / (lines + 3), 0.5, 1.0) * 0.5 * ~code,
        _ramp(c["shouted"] / (n + 10), 0.25, 0.8) * ~code,
        _ramp(c["common"] / n, 0.08, 0.0) * english,
        _ramp(c["jumbled"] / (n + 10), 0.02, 0.09) * ~code,
        _ramp((c["disorder"] - 1) / (c["joints"] + 3), 0.06, 0.15) * english,
    )


def _disorder(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the fraction of the score to subtract for random order of words or letters, ``[n]``.

    In random order, pairs of words and runs of letters occur in reverse as often as forward. In a
    normal text, many of them occur in one direction only:

    - .45 to .95 of the runs of three letters that repeat;
    - about 50 pairs of words in 400 words;
    - in scripts without spaces, at least .2 of all pairs of characters.

    Random order has two other signs: most sentences begin with a lower-case letter, and brackets
    lack their partners. These two signs count only if few pairs occur in one direction only.
    """
    c = dict(zip(COUNTS, np.maximum(counts.T, 0), strict=True))
    one_way = (c["pairs"] - c["pairs_back"]) / np.maximum(c["spaced"], 1)
    # With more pairs, the counts depend less on chance.
    many = _ramp(c["spaced"], 250, 450)
    by_words = _ramp(one_way, 0.02 + 0.025 * many, 0.006 + 0.019 * many)
    by_words *= _ramp(c["spaced"], 80, 170)
    one_way_characters = (c["unspaced_pairs"] - c["unspaced_back"]) / np.maximum(c["unspaced"], 1)
    by_characters = _ramp(one_way_characters, 0.12, 0.05) * _ramp(c["unspaced"], 60, 120)
    by_letters = _ramp(
        (c["threes"] - c["threes_back"] + 7) / (c["threes"] + c["threes_back"] + 10), 0.36, 0.20
    )
    starts = c["small_starts"] + c["capital_starts"]
    by_sentences = (
        _ramp(c["small_starts"] / np.maximum(starts, 1), 0.4, 0.7)
        * _ramp(starts, 2, 4)
        * _ramp(one_way, 0.05, 0.02)
        # Do not count this sign for texts without capitals.
        * _ramp(c["capitals"] / np.maximum(c["letters"], 1), 0.01, 0.02)
    )
    by_brackets = (
        _ramp(c["unmatched"] / (c["brackets"] + 2), 0.28, 0.45)
        * _ramp(c["brackets"], 2, 4)
        * _ramp(one_way, 0.05, 0.02)
        * _ramp(one_way_characters, 0.12, 0.05)
    )
    losses = (by_words, by_characters, by_letters, by_sentences, by_brackets)
    worst: NDArray[np.float64] = np.max(np.stack(losses), axis=0)
    return worst


def _ramp(value: NDArray[np.float64], start: Any, end: Any) -> NDArray[np.float64]:
    """Return 0 up to ``start``, 1 from ``end`` on, and linear values between them.

    If ``end`` is below ``start``, the result is 1 up to ``end``, and 0 from ``start`` on.
    """
    part: NDArray[np.float64] = np.clip((value - start) / (end - start), 0, 1)
    return part


@njit(cache=True, nogil=True)
def _count_characters(points: Any) -> Any:
    """Count characters by kind and in long and endless runs, exclamation marks, and formulas.

    The number of formulas is the number of dollar signs and of commands of TeX.
    """
    solid = letters = digits = capitals = long = endless = bangs = formulas = 0
    run = waiting = addresses = 0
    linked = begun = colon = False
    before = np.uint32(0)
    for point in points:
        solid += point > 0x20
        if point == 0x21:
            waiting += begun
        else:
            # In programs and mark-up, "!" begins a line or is directly before the negated name.
            bangs += waiting * _ends_shout(point)
            waiting = 0
        begun = point > 0x20 or (begun and point != 0x0A)
        letters += is_letter(point)
        digits += is_digit(point)
        capitals += is_capital(point)
        # Two things are not text: the target of a link, between "](" and ")"; and a few addresses.
        colon = point == 0x3A or (colon and point == 0x2F)
        address = colon and before == point == 0x2F
        addresses += address
        formulas += point == 0x24 or (before == 0x5C and is_letter(point))
        linked = (linked and point > 0x20 and point != 0x29) or (
            (before == 0x5D and point == 0x28) or (address and addresses <= _ADDRESSES)
        )
        before = point
        if point <= 0x20 or linked or is_unspaced(point) or _parts(point):
            long += run * (run > _LONG)
            endless += run * (run > _ENDLESS)
            run = 0
        else:
            run += 1
    long += run * (run > _LONG)
    endless += run * (run > _ENDLESS)
    return solid, letters, digits, capitals, long, endless, bangs + waiting, formulas


@njit(cache=True, nogil=True)
def _parts(point: Any) -> Any:
    """Whether a mark of Tibetan, Ethiopic or TeX (a backslash) separates words as a space does."""
    return point == 0x0F0B or point == 0x1361 or point == 0x5C


@njit(cache=True, nogil=True)
def _ends_shout(after: Any) -> Any:
    """Whether a "!" is an exclamation mark, not an operator; ``after`` is the code point after it.

    The "!" is an operator if ``after`` is a letter, a digit, or one of ``=$([``.
    """
    operand = after == 0x3D or after == 0x24 or after == 0x28 or after == 0x5B
    return not (operand or is_letter(after) or is_digit(after))


@njit(cache=True, nogil=True)
def _count_words(points: Any, segments: Any, joined: Any, words: Any, word_sets: Any) -> Any:
    """Return the hashes of the words that consist of letters alone, and the counts of words."""
    hashes, begins, ends, shapes = segments
    plain = np.empty(len(hashes), np.uint64)
    n = shouted = jumbled = common = explain = sell = shout = joints = disorder = 0
    preceding, last = 0, -2
    for i in range(len(hashes)):
        shape = shapes[i]
        jumbled += (shape & JUMBLED) > 0
        if not shape & LETTERS or shape & DIGITS:
            preceding = 0
            continue
        plain[n] = joined[i]
        n += 1
        shouted += ends[i] - begins[i] > 1 and (shape & CAPITALS) > 0
        sets = _sets_of(hashes[i], words, word_sets)
        # A word follows another only if exactly one space is between them.
        follows = last == i - 1 and begins[i] == ends[last] + 1 and points[ends[last]] <= 0x20
        if follows:
            article, preposition = preceding & 1 and sets & 4, preceding & 2 and sets & 8
            disorder += article > 0 or preposition > 0
        joints += (sets & 3) > 0
        common += (sets & 16) > 0
        explain += (sets & 32) > 0
        if sets & 192 and _stands_alone(points, begins[i], ends[i]):
            sell += (sets & 64) > 0
            shout += (sets & 128) > 0
        preceding, last = sets, i
    return plain[:n], (shouted, jumbled, common, explain, sell, shout, joints, disorder)


@njit(cache=True, nogil=True)
def _count(
    points: Any,
    segments: Any,
    joined: Any,
    words: Any,
    word_sets: Any,
    phrases: Any,
    phrase_sets: Any,
) -> Any:
    """Return the counts named in `COUNTS`, float64; ``words`` leaves out words with digits."""
    solid, letters, digits, capitals, long, endless, bangs, formulas = _count_characters(points)
    plain, counts = _count_words(points, segments, joined, words, word_sets)
    shouted, jumbled, common, explain, sell, shout, joints, disorder = counts
    n = len(plain)
    sell_phrases = terms = 0
    pairs = runs(plain, 2)
    for pair in pairs:
        sets = _sets_of(pair, phrases, phrase_sets)
        sell_phrases += (sets & 1) > 0
        terms += (sets & 2) > 0
    lines, again, broken, bullets = _count_lines(points)
    spaced, pairs_again, pairs_back = count_word_order(points, segments)
    unspaced, unspaced_again, unspaced_back = count_character_order(points, segments)
    small_starts, capital_starts = count_sentence_starts(points)
    threes_again, threes_back = count_letter_order(points[:_LETTERS])
    brackets, unmatched = count_brackets(points)
    return np.array(
        [
            len(points),
            solid,
            letters,
            digits,
            capitals,
            long,
            endless,
            0,
            n,
            shouted,
            jumbled,
            common,
            explain,
            sell,
            shout,
            sell_phrases,
            terms,
            joints,
            disorder,
            _distinct(plain)[0],
            n - 2 - _distinct(runs(plain, 3))[0],
            _distinct(pairs)[1],
            lines,
            again,
            broken,
            bullets,
            bangs,
            spaced,
            pairs_again,
            pairs_back,
            unspaced,
            unspaced_again,
            unspaced_back,
            threes_again,
            threes_back,
            small_starts,
            capital_starts,
            count_repeated_sentences(points),
            formulas,
            brackets,
            unmatched,
        ],
        np.float64,
    )


@njit(cache=True, nogil=True)
def _stands_alone(points: Any, begin: Any, end: Any) -> Any:
    """Whether a word stands alone: it is not part of an identifier, a path or a call."""
    before = points[begin - 1] if begin else 0x20
    after = points[end] if end < len(points) else 0x20
    # _ . - > / before; _ ( after
    joined = before == 0x5F or before == 0x2E or before == 0x2D or before == 0x3E or before == 0x2F
    return not (joined or after == 0x5F or after == 0x28)


@njit(cache=True, nogil=True)
def _count_lines(points: Any) -> Any:
    """Count lines that are not blank, lines that repeat, fragments, and bullets.

    Returns these four numbers. A fragment is a line that looks like an item of a list: it ends in a
    letter and has no colon. The next line begins with a capital in the same column. So four things
    are not fragments: wrapped prose, headings with blank lines around them, names with values, and
    terms whose meaning is further to the right. If the next line begins with a letter without case,
    it needs no capital. Then both lines must have at most `_FRAGMENT` columns, end in letters, and
    have no colon.
    """
    seen = np.empty(len(points) + 1, np.uint64)
    lines = fragments = bullets = 0
    first, last, value = -1, -1, np.uint64(0)
    begin = column = columns = 0
    open_end = colon = short = False
    for at in range(len(points) + 1):
        if at < len(points) and points[at] != 0x0A:
            if points[at] > 0x20:
                first = at if first < 0 else first
                last = at
                colon |= points[at] == 0x3A
                columns += 1 + is_unspaced(points[at])
                value = (value ^ np.uint64(points[at])) * np.uint64(1099511628211)
            continue
        begin, indent = at + 1, first - begin
        if first < 0:
            open_end = False
            continue
        head, tail = points[first], points[last]
        open_start = is_letter(head) and not has_case(head)
        now_open, now_short = is_letter(tail) and not colon, columns <= _FRAGMENT
        item = open_start and short and now_open and now_short
        fragments += open_end and (is_capital(head) or item) and indent == column
        column, columns = indent, 0
        bullets += head == 0x2D or head == 0x2A or head == 0x2B or head == 0x2022 or head == 0xB7
        open_end, short = now_open, now_short
        seen[lines] = value
        lines += 1
        first, last, value, colon = -1, -1, np.uint64(0), False
    return lines, lines - _distinct(seen[:lines])[0], fragments, bullets


@njit(cache=True, nogil=True)
def _distinct(hashes: Any) -> Any:
    """Return the number of different ``hashes``, and how often the most frequent hash occurs."""
    ordered = np.sort(hashes)
    different = most = same = 0
    for i in range(len(ordered)):
        same = same + 1 if i and ordered[i] == ordered[i - 1] else 1
        different += same == 1
        most = max(most, same)
    return different, most


@njit(cache=True, nogil=True)
def _sets_of(value: Any, hashes: Any, sets: Any) -> Any:
    """Return the bits of the sets that contain ``value``; 0 if no set contains it."""
    at = np.searchsorted(hashes, value)
    return np.int64(sets[at]) if at < len(hashes) and hashes[at] == value else np.int64(0)
