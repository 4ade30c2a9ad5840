"""Lanes: the n-th row of a lane is a pure function, and an epoch is every row once."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from climbstream.loader.sampling.lanes import Lanes, locate, next_runs

shard_rows = st.lists(st.integers(0, 15), min_size=1, max_size=8)
lane_counts = st.sampled_from([1, 2, 3, 4, 8, 12])


def deal(*clusters, lanes, seed=17):
    """Deal clusters, each given by the rows of its shards."""
    return Lanes.deal([f"c{k:02}" for k in range(len(clusters))], clusters, lanes, seed)


def epoch(dealt, number, cluster=0):
    """Places of all rows of an epoch, lane after lane: (shard, row, epoch)."""
    return [
        locate(dealt, cluster, lane, number * rows + i)
        for lane, rows in enumerate(dealt.owned[cluster].tolist())
        for i in range(rows)
    ]


# Epochs.


@given(shard_rows, lane_counts, st.integers(0, 5))
@example([0, 3], 3, 0)
def test_every_row_is_served_once(rows, lanes, number):
    if sum(rows) < lanes:
        return
    places = epoch(deal(rows, lanes=lanes), number)
    expected = [(shard, row, number) for shard, held in enumerate(rows) for row in range(held)]
    assert sorted(places) == expected


@given(st.lists(shard_rows, min_size=1, max_size=4), lane_counts)
def test_lanes_own_equal_parts_within_a_row(clusters, lanes):
    dealt = deal(*clusters, lanes=lanes)
    assert dealt.owned.shape == (len(clusters), lanes)
    for owned, rows in zip(dealt.owned, clusters, strict=True):
        assert owned.max() - owned.min() <= 1
        assert owned.sum() == (max(sum(rows), lanes) if sum(rows) else 0)


@given(st.lists(shard_rows.filter(any), min_size=2, max_size=4), lane_counts, st.integers(0, 3))
def test_clusters_do_not_depend_on_each_other(clusters, lanes, number):
    together = deal(*clusters, lanes=lanes)
    names = [f"c{k:02}" for k in range(len(clusters))]
    for k, rows in enumerate(clusters):
        alone = Lanes.deal([names[k]], [rows], lanes, 17)
        assert epoch(together, number, k) == epoch(alone, number)


@given(st.integers(1, 7), st.integers(0, 3))
def test_where_rows_are_fewer_than_lanes_each_lane_owns_one_and_all_are_served(rows, number):
    dealt = deal([1] * rows, lanes=8)
    assert dealt.owned.tolist() == [[1] * 8]
    assert {shard for shard, _, _ in epoch(dealt, number)} == set(range(rows))


def test_a_cluster_without_a_row_owns_none():
    assert deal([0] * 5, [4], lanes=4).owned.tolist() == [[0] * 4, [1] * 4]


def test_the_next_epoch_comes_in_another_order():
    dealt = deal([50] * 4, lanes=2)
    orders = [[place[:2] for place in epoch(dealt, number)] for number in range(3)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])


def test_a_lane_reads_shard_after_shard():
    dealt = deal([10] * 6, lanes=2)
    for number in range(3):
        shards = [locate(dealt, 0, 0, number * 30 + i)[0] for i in range(30)]
        assert np.count_nonzero(np.diff(shards)) == len(set(shards)) - 1


def test_lanes_touch_few_shards():
    dealt = deal([10] * 64, lanes=8)
    for lane in range(8):
        assert len({locate(dealt, 0, lane, i)[0] for i in range(80)}) == 8


# A pure function.


@given(shard_rows.filter(any), lane_counts, st.data())
def test_a_row_does_not_depend_on_what_was_asked_before(rows, lanes, data):
    asked = deal(rows, lanes=lanes)
    places = st.tuples(st.integers(0, lanes - 1), st.integers(0, 10_000))
    for lane, number in data.draw(st.lists(places, min_size=1, max_size=5)):
        assert locate(asked, 0, lane, number) == locate(deal(rows, lanes=lanes), 0, lane, number)


def test_another_seed_or_name_gives_another_order():
    orders = [
        epoch(deal([50] * 4, lanes=2), 0),
        epoch(deal([50] * 4, lanes=2, seed=18), 0),
        epoch(Lanes.deal(["c01"], [[50] * 4], 2, 17), 0),
    ]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


# What comes next.


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2), (3, 4)])
def test_the_next_shard_of_a_lane_is_the_one_that_it_turns_to(rank, world_size):
    rows = [7, 5, 0, 9, 3, 8, 6, 1]
    dealt = deal(rows, [20], lanes=4)
    for consumed in range(40):
        counts = np.full((2, 4), consumed)
        soon, found = next_runs(dealt, counts, np.array([0.5, 0.0]), rank, world_size)
        lanes = range(rank, 4, world_size)
        assert len(soon) == len(found) == len(lanes)
        for lane, steps, (cluster, shard) in zip(lanes, soon, found.tolist(), strict=True):
            left = int(steps * 0.5)
            now = locate(dealt, 0, lane, consumed)
            last = locate(dealt, 0, lane, consumed + left - 1)
            turned = locate(dealt, 0, lane, consumed + left)
            assert (cluster, shard) == (0, turned[0])
            assert (last[0], last[2]) == (now[0], now[2])
            assert (turned[0], turned[2]) != (now[0], now[2])


def test_a_lane_of_a_single_shard_turns_to_none():
    soon, found = next_runs(deal([20], lanes=4), np.zeros((1, 4), np.int64), np.ones(1), 0, 1)
    assert len(soon) == len(found) == 0
