"""Exact duplicates: the first of each stays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder import duplicates
from climbstream.builder.duplicates import find_repeated, hash_texts, repeated


@given(st.lists(st.sampled_from("abcdefgh")))
def test_the_first_of_each_stays(texts):
    again = repeated(hash_texts(texts))
    assert again.tolist() == [text in texts[:i] for i, text in enumerate(texts)]


@given(st.lists(st.lists(st.sampled_from("abcdefghijklmnop"))), st.integers(1, 20))
def test_it_makes_no_difference_how_many_are_compared_at_a_time(parts, rows):
    hashes = [hash_texts(part) for part in parts]
    total = sum(map(len, parts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_ROWS", rows)
        found = find_repeated(hashes, total)
    whole = np.concatenate([np.empty((0, 2), np.uint64), *hashes])
    np.testing.assert_array_equal(found, repeated(whole))


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
