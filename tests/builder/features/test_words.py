"""Words: runs of letters and digits, whatever their case."""

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder.features.words import (
    CAPITALS,
    DIGITS,
    JUMBLED,
    LETTERS,
    code_points,
    find_characters,
    find_words,
    fold,
    hash_word,
    join_characters,
    runs,
)


def words_of(text):
    points = code_points(text)
    _, begins, ends, _ = find_words(points)
    return [text[b:e] for b, e in zip(begins.tolist(), ends.tolist(), strict=True)]


@given(st.text("abzAZ09 .,-_\n", max_size=80))
def test_words_are_those_of_a_pattern(text):
    assert words_of(text) == re.findall(r"[a-zA-Z0-9]+", text)


@given(
    st.text(
        st.one_of(st.sampled_from("a \n\r\u0301\u0323\u1100\u1161\u11a8\uff11"), st.characters())
    )
)
def test_a_text_is_folded_as_unicode_folds_it(text):
    assert fold(text) == unicodedata.normalize("NFKC", text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("don't 'quote' it\u2019s", ["don't", "quote", "it\u2019s"]),
        (
            "na\u00efve \u0424\u0435\u0434 \u65e5\u672c",
            ["na\u00efve", "\u0424\u0435\u0434", "\u65e5", "\u672c"],
        ),
        ("a\u2014b \u201cc\u201d", ["a", "b", "c"]),
        ("", []),
    ],
)
def test_apostrophes_join_and_letters_are_of_any_script(text, words):
    assert words_of(text) == words


@pytest.mark.parametrize("text", ["ไทยดี", "日本語", "ភាសា", "ລາວ", "ひらカナ"])
def test_in_a_script_without_spaces_each_character_is_a_word(text):
    assert words_of(text) == list(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("नमस्ते दुनिया। ठीक", ["नमस्ते", "दुनिया", "ठीक"]),
        ("שלום־רב", ["שלום", "רב"]),
        ("سلام، دنیا؟", ["سلام", "دنیا"]),
        ("ሰላም፡ዓለም።", ["ሰላም", "ዓለም"]),
        ("བོད་ཡིག", ["བོད", "ཡིག"]),
        ("٣٤ ३४", ["٣٤", "३४"]),
        ("x\U0001f600y \ue000", ["x", "y"]),
    ],
)
def test_marks_of_a_script_part_words_and_its_digits_are_digits(text, words):
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (unicodedata.normalize("NFD", "Çalışma"), "Çalışma"),
        (unicodedata.normalize("NFD", "한국어"), "한국어"),
        ("１２３ＡＢ", "123ab"),
        ("\ufefb", "\u0644\u0627"),  # a ligature of Arabic, and its two letters
        ("\u06cc\u200c\u062e", "\u06cc\u062e"),  # what joins letters and shows nothing
        ("tele\u00adphone", "telephone"),
        ("ĐƯỜNG", "đường"),
        ("ŁÓDŹ", "łódź"),
        ("ΆΝΘΡΩΠΟΣ", "άνθρωποσ"),
        ("MOƆLƐŊƁƊ", "moɔlɛŋɓɗ"),
        ("ᲧᲝᲕᲔᲚ", "ყოველ"),
        ("ⰀⰁ", "ⰰⰱ"),
    ],
)
def test_what_is_written_in_two_ways_is_one_word(one, other):
    assert hash_word(one) == hash_word(other)


def test_pairs_of_characters_stand_for_words_where_there_are_no_spaces():
    hashes, *places = find_words(code_points("日本 word 日本"))
    joined = join_characters(hashes, *places)
    assert joined[0] == joined[3]
    assert joined[0] != hashes[0]
    assert joined[2] == hashes[2]


@pytest.mark.parametrize(
    "pair", [("Word", "wORD"), ("it's", "IT\u2019S"), ("\u00c9t\u00e9", "\u00e9T\u00e9")]
)
def test_case_makes_no_difference(pair):
    assert hash_word(pair[0]) == hash_word(pair[1])


@given(st.sets(st.text("abcdefgh0123", min_size=1, max_size=8), min_size=2))
def test_different_words_have_different_hashes(words):
    assert len({hash_word(word) for word in words}) == len(words)


@pytest.mark.parametrize(
    ("word", "shape"),
    [
        ("word", LETTERS),
        ("ABC", LETTERS | CAPITALS),
        ("42", DIGITS | CAPITALS),
        ("t1e", LETTERS | DIGITS | JUMBLED),
        ("x1", LETTERS | DIGITS),
    ],
)
def test_a_word_has_a_shape(word, shape):
    assert find_words(code_points(word))[3].tolist() == [shape]


@given(st.text())
def test_any_text_can_be_looked_at(text):
    hashes, begins, ends, shapes = find_words(code_points(text))
    assert len(hashes) == len(begins) == len(ends) == len(shapes)
    assert (begins < ends).all()
    assert (ends[:-1] <= begins[1:]).all()


@given(st.lists(st.integers(0, 2**64 - 1), max_size=9), st.integers(1, 4))
def test_there_is_a_run_for_each_place_but_at_least_one(words, length):
    found = runs(np.array(words, np.uint64), length)
    assert len(found) == max(1, len(words) - length + 1)


def test_a_character_alone_is_the_word_that_it_is_in_a_script_without_spaces():
    points = code_points("猫である。")
    assert find_characters(points).tolist() == find_words(points)[0].tolist()
    assert find_characters(code_points("日Ab 1")).tolist() == [hash_word(c) for c in "日ab1"]
