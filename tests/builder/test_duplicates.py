"""Exact duplicates: the first of each stays."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder.duplicates import hash_texts, repeated


@given(st.lists(st.sampled_from("abcdefgh")))
def test_the_first_of_each_stays(texts):
    again = repeated(hash_texts(texts))
    assert again.tolist() == [text in texts[:i] for i, text in enumerate(texts)]


@given(st.lists(st.text(), unique_by=lambda text: " ".join(text.split())))
def test_different_texts_have_different_hashes(texts):
    hashes = hash_texts(texts)
    assert (hashes.shape, hashes.dtype) == ((len(texts), 2), np.uint64)
    assert len({tuple(row) for row in hashes.tolist()}) == len(texts)


@given(st.lists(st.text("abc", min_size=1), min_size=1), st.sampled_from([" ", "\n\n", "\u2003 "]))
def test_white_space_makes_no_difference(words, space):
    one, other = hash_texts([" ".join(words), f"{space}{space.join(words)}{space}"]).tolist()
    assert one == other


def test_capitals_make_a_difference():
    assert not repeated(hash_texts(["The text.", "the text."])).any()
