"""Tests of word hashes: a text gives the same words whether it is folded before it is read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder.contamination.word_hashes import (
    TABLE,
    hash_utf8,
    hash_words,
    unfolded_table,
    utf8,
)


def hash_unfolded(text):
    return hash_utf8(np.frombuffer(utf8(text), np.uint8), unfolded_table())


def test_every_character_that_is_read_unfolded_gives_the_words_of_the_folded_text():
    points = [n for n in range(0x40100) if not 0xD800 <= n < 0xE000]
    lines = [f"a{chr(n)}b {chr(n)}" for n in points]
    read = [line for line in lines if hash_unfolded(line)[2]]
    assert len(read) > 50_000
    text = "\n".join(read)
    hashes, alone, complete = hash_unfolded(text)
    expected, expected_alone = hash_words(text)
    assert complete
    assert np.array_equal(hashes, expected)
    assert np.array_equal(alone, expected_alone)


@given(
    st.text(
        st.sampled_from(
            "abÉ09'’-.\n…½ﬁ™ \u00a0\u00ad\u200d\u0301\u0323가\u1100\u1161\u11a8か\u3099ﾞ，１漢กำ😀"
        )
        | st.characters(),
        max_size=30,
    )
)
def test_a_text_that_is_read_to_its_end_gives_the_words_of_the_folded_text(text):
    hashes, alone, complete = hash_unfolded(text)
    expected, expected_alone = hash_words(text)
    if complete:
        assert hashes.tolist() == expected.tolist()
        assert alone.tolist() == expected_alone.tolist()


@pytest.mark.parametrize("text", ["naïve “quotes” … 5\u00a0km", "全角，１２", "Мир", "가각"])
def test_common_text_is_read_without_folding(text):
    assert hash_unfolded(text)[2]


@pytest.mark.parametrize("text", ["e\u0301", "1½", "ﬁne", "\u1100\u1161", "か\u3099"])
def test_reading_ends_at_a_character_that_folding_joins_or_splits(text):
    assert not hash_unfolded(text)[2]
    assert hash_utf8(np.frombuffer(utf8(text), np.uint8), TABLE)[2]
