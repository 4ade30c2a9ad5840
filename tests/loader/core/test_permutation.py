"""Orders: keyed permutations of any size, the same today and tomorrow."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from climbstream.loader.core.permutation import derive_key, permutation, permute, shuffled, subkey

keys = st.integers(0, (1 << 64) - 1)


@given(st.integers(0, 3000), keys)
@example(1, 0)
@example(1024, 0)
@example(1025, (1 << 64) - 1)
def test_every_position_is_visited_once(n, secret):
    assert sorted(permutation(n, np.uint64(secret)).tolist()) == list(range(n))


@given(st.integers(1, 3000), keys, st.data())
def test_one_position_is_found_without_the_others(n, secret, data):
    position = data.draw(st.integers(0, n - 1))
    whole = permutation(n, np.uint64(secret))
    assert permute(position, n, np.uint64(secret)) == whole[position]


@given(st.integers(1, 1 << 45), keys, st.data())
def test_positions_of_a_large_set_stay_in_it(n, secret, data):
    position = data.draw(st.integers(0, n - 1))
    assert 0 <= permute(position, n, np.uint64(secret)) < n


@given(keys, keys)
def test_other_keys_give_other_orders(one, two):
    same = np.array_equal(permutation(200, np.uint64(one)), permutation(200, np.uint64(two)))
    assert same == (one == two)


def test_neighbours_do_not_stay_neighbours():
    order = shuffled(10_000, "neighbours")
    assert (np.abs(np.diff(order)) == 1).sum() < 10


@pytest.mark.parametrize("n", [3, 4, 5])
def test_each_order_of_a_few_is_about_as_likely_as_any_other(n):
    draws = 2000 * n
    places = np.array([shuffled(n, "fair", i) for i in range(draws)])
    for position in range(n):
        share = np.bincount(places[:, position], minlength=n) / draws
        assert share == pytest.approx(np.full(n, 1 / n), abs=0.04)


def test_a_key_depends_on_every_part_and_their_order():
    parts = [(17, "c03", "rows"), (18, "c03", "rows"), (17, "c04", "rows"), (17, "rows", "c03")]
    assert len({derive_key(*p) for p in parts}) == len(parts)


def test_orders_are_the_same_today_and_tomorrow():
    # A change here changes the order of every run and breaks the resuming of old ones.
    assert derive_key(17, "c03", "rows") == 0x2E7FCE891C82FC8E
    assert shuffled(10, 17, "c03", "rows").tolist() == [3, 8, 5, 6, 2, 4, 1, 0, 9, 7]
    assert permute(10**9, 10**12, np.uint64(17)) == 84_936_716_436


@pytest.mark.parametrize("n", [5, 8, 13, 64])
def test_every_position_goes_to_every_place_as_often(n):
    times = 2000 * n
    seen = np.zeros((n, n))
    for number in range(times):
        order = permutation(n, np.uint64(subkey(17, number)))
        seen[np.arange(n), order] += 1
    # Chi-squared over its degrees of freedom, which a fair shuffle puts near 1.
    assert ((seen - times / n) ** 2 / (times / n)).sum() / (n - 1) ** 2 < 1.5
