"""Ramps and caps in integers: exact, whatever the weights."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from climbstream.loader.formats.mixture import ONE, integer_weights
from climbstream.loader.weights.interpolation import MOST_STEPS, interpolate, without_clusters


@st.composite
def pairs(draw):
    """Two integer mixtures of the same clusters, with zeros and dust in them."""
    clusters = draw(st.integers(1, 12))
    one = st.lists(
        st.sampled_from([0.0, 1e-15, 1e-6, 0.1, 1 / 3, 1.0, 7.0]),
        min_size=clusters,
        max_size=clusters,
    ).filter(any)
    return tuple(integer_weights(np.array(draw(one))) for _ in range(2))


lengths = st.integers(1, 400) | st.integers(1, MOST_STEPS)


def whole(start, end, steps):
    """All steps of a ramp, or some of a long one."""
    at = np.unique(np.linspace(0, steps, min(steps + 1, 401)).astype(np.int64))
    return at, interpolate(start, end, steps, at)


@given(pairs(), lengths)
@example((np.array([ONE, 0]), np.array([0, ONE])), MOST_STEPS)
def test_every_step_of_a_ramp_sums_to_one(pair, steps):
    _, rows = whole(*pair, steps)
    assert (rows.sum(axis=1) == ONE).all()
    assert (rows >= 0).all()


@given(pairs(), lengths)
def test_a_ramp_begins_and_ends_where_it_should(pair, steps):
    _, rows = whole(*pair, steps)
    assert (rows[0] == pair[0]).all()
    assert (rows[-1] == pair[1]).all()


@given(pairs(), lengths)
@example((np.array([ONE, 0]), np.array([0, ONE])), MOST_STEPS)
def test_a_ramp_stays_within_one_unit_of_the_line(pair, steps):
    start, end = pair
    at, rows = whole(start, end, steps)
    for j, row in zip(at.tolist(), rows.tolist(), strict=True):
        for a, b, n in zip(start.tolist(), end.tolist(), row, strict=True):
            assert abs(a + Fraction((b - a) * j, steps) - n) < 1


@given(pairs(), lengths)
def test_a_ramp_goes_one_way_within_rounding(pair, steps):
    start, end = pair
    _, rows = whole(start, end, steps)
    moves = np.diff(rows, axis=0) * np.sign(end - start)
    assert (moves >= -1).all()


@given(pairs(), lengths)
def test_zero_at_both_ends_stays_zero_and_what_does_not_change_stays(pair, steps):
    start, end = pair
    _, rows = whole(start, end, steps)
    still = start == end
    assert (rows[:, still] == start[still]).all()


def by_fractions(start, end, steps, at):
    """The same in exact fractions: floors, then one unit each by largest remainder."""
    exact = [a + Fraction((b - a) * at, steps) for a, b in zip(start, end, strict=True)]
    result = [int(value // 1) for value in exact]
    order = sorted(range(len(exact)), key=lambda k: (-(exact[k] % 1), k))
    for k in order[: ONE - sum(result)]:
        result[k] += 1
    return result


@given(pairs(), st.integers(1, MOST_STEPS), st.data())
def test_a_ramp_is_what_fractions_say(pair, steps, data):
    at = data.draw(st.integers(0, steps))
    expected = by_fractions(*(side.tolist() for side in pair), steps, at)
    assert interpolate(*pair, steps, np.array([at])).tolist() == [expected]


def test_what_is_left_over_goes_to_the_largest_remainder_and_then_to_the_first():
    start, end = np.array([ONE, 0, 0, 0]), np.array([ONE - 6, 2, 2, 2])
    # After one of four steps the first is due 1.5 units less, and each of the others half a unit.
    assert interpolate(start, end, 4, np.array([1])).tolist() == [[ONE - 1, 1, 0, 0]]


@given(pairs(), st.data())
def test_without_some_clusters_the_others_keep_their_proportion(pair, data):
    weights = pair[0]
    out = np.array(data.draw(st.lists(st.booleans(), min_size=len(weights), max_size=len(weights))))
    (row,) = without_clusters(weights[np.newaxis], out)
    left = int(weights[~out].sum())
    assert not row[out].any()
    if not left:
        assert not row.any()
        return
    assert row.sum() == ONE
    assert ((row > 0) == (~out & (weights > 0))).all()
    for n, before in zip(row[~out].tolist(), weights[~out].tolist(), strict=True):
        assert abs(n - Fraction(before * ONE, left)) < 1


@given(pairs())
def test_without_none_nothing_changes(pair):
    rows = np.stack(pair)
    assert (without_clusters(rows, np.zeros(len(pair[0]), np.bool_)) == rows).all()


@pytest.mark.parametrize("steps", [1, 3, 1000, 10**9])
def test_a_thousand_clusters_fit_into_64_bits(steps):
    draw = np.random.default_rng(0)
    start, end = (integer_weights(draw.dirichlet(np.full(1000, 0.1))) for _ in range(2))
    at = np.unique(draw.integers(0, steps + 1, 20))
    assert (interpolate(start, end, steps, at).sum(axis=1) == ONE).all()
