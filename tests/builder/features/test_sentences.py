"""Repeated sentences: what is counted as said again, and what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder.features.characters import is_letter
from climbstream.builder.features.sentences import count_repeated_sentences
from climbstream.builder.features.words import code_points


def repeated(text):
    return count_repeated_sentences(code_points(text))


@pytest.mark.parametrize(
    "text",
    [
        "Read more here. Accept it all.",
        "すべて受け入れる。設定を変更する。",
        "सभी स्वीकार करें। हमारी नीति पढ़ें।",
        "هل توافق على ذلك؟ اقرأ السياسة.",
    ],
)
def test_the_letters_of_sentences_that_stood_before_count(text):
    letters = int(sum(map(is_letter, code_points(text).tolist())))
    assert repeated(f"{text} {text.upper()}") == letters


@pytest.mark.parametrize(
    "text",
    [
        "One sentence alone is said again. " * 9,
        "Row, row, row your boat.\n" * 9,
        "Yes. No. Yes. No. Yes. No.",
        "math.floor(x) and math.floor(x) and math.floor(x)",
        "no mark at the end\nno mark at the end\n",
    ],
    ids=["one alone", "a line of its own", "short", "a name with a dot", "no sentence"],
)
def test_refrains_and_short_words_do_not_count(text):
    assert repeated(text) == 0


@given(st.text())
def test_no_more_than_the_letters_of_a_text_are_repeated(text):
    assert 0 <= repeated(text) <= len(text)
    assert repeated(text) <= repeated(text + "\n" + text)
