"""Tests of alignment: when it may stop, and what it gives then."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder.contamination.alignment import CHUNK, align, band

WORDS = st.lists(st.integers(0, 5), min_size=1, max_size=CHUNK)


@given(WORDS, WORDS, st.integers(-3, 3), st.floats(0, 20), st.randoms())
def test_an_alignment_that_stops_was_certain_to_miss_more_than_it_may(
    document, words, diagonal, spare, rng
):
    weights = np.array([rng.randint(1, 8) / 4 for _ in words], np.float32)  # sums are exact
    arrays = np.array(document, np.uint64), np.array(words, np.uint64), weights
    row, reach = np.zeros(4 * CHUNK, np.float32), band(len(words))
    whole = align(*arrays, diagonal, row, reach, np.inf)
    stopped = align(*arrays, diagonal, row, reach, spare)
    assert stopped <= whole
    if weights.sum() - whole <= spare:
        assert stopped == whole
