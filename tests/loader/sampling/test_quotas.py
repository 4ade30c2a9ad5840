"""The draw: every cluster gets its due, whatever was asked for before; every rank its share."""

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from climbstream.loader.formats.mixture import ONE, integer_weights
from climbstream.loader.sampling.lanes import assign_lanes
from climbstream.loader.sampling.quotas import allocate_rows


class Ledger:
    """Draws, and keeps account in exact integers of what was due and what was served."""

    def __init__(self, clusters):
        self.credit = np.zeros(clusters, np.int64)
        self.due = [0] * clusters
        self.served = [0] * clusters

    def draw(self, weights, rows):
        """Draw ``rows`` rows by ``weights``, any non-negative numbers, and return the quotas."""
        integers = integer_weights(np.asarray(weights, np.float64))
        quotas = allocate_rows(integers, rows, self.credit).tolist()
        for k, quota in enumerate(quotas):
            self.due[k] += int(integers[k]) * rows
            self.served[k] += quota
        return quotas

    @property
    def off(self):
        """Rows by which each cluster is ahead of its due."""
        return [served - due / ONE for served, due in zip(self.served, self.due, strict=True)]


def random_weights(draw, clusters):
    """Weights of one of several temperaments, often with many zeros."""
    weights = draw.dirichlet(np.full(clusters, draw.choice([0.05, 1.0, 10.0])))
    weights[draw.random(clusters) < draw.choice([0.0, 0.3, 0.8])] = 0
    if not weights.any():
        weights[draw.integers(clusters)] = 1
    return weights


def deal(quotas, served, lane_rows, consumed, secret=7):
    return assign_lanes(np.array(quotas), served, lane_rows, consumed, np.uint64(secret))


@st.composite
def deals(draw):
    """Arguments of a deal: quotas, rows served before, rows owned, rows consumed."""
    clusters, lanes = draw(st.integers(1, 5)), draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    quotas = draw(st.lists(st.integers(0, 12), min_size=clusters, max_size=clusters))
    assume(any(quotas))
    owned = st.lists(st.integers(1, 50), min_size=lanes, max_size=lanes)
    seen = st.lists(st.integers(0, 99), min_size=lanes, max_size=lanes)
    return (
        quotas,
        draw(st.integers(0, 1 << 40)),
        np.array([draw(owned) for _ in range(clusters)], np.int64),
        np.array([draw(seen) for _ in range(clusters)], np.int64),
    )


# Which cluster comes next.


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rows", [7, 64, 512])
def test_after_200_changes_of_weights_every_cluster_is_within_two_rows_of_its_due(seed, rows):
    draw = np.random.default_rng(seed)
    ledger = Ledger(12)
    for _ in range(200):
        weights = random_weights(draw, 12)
        for _ in range(draw.integers(1, 5)):
            ledger.draw(weights, rows)
            assert max(map(abs, ledger.off)) < 2


@pytest.mark.parametrize("clusters", [1, 2, 20, 1000])
def test_under_constant_weights_every_cluster_is_within_a_row_of_its_due(clusters):
    draw = np.random.default_rng(clusters)
    weights = draw.dirichlet(np.ones(clusters))
    ledger = Ledger(clusters)
    for _ in range(300):
        ledger.draw(weights, 64)
        assert max(map(abs, ledger.off)) <= 1


def only(*clusters):
    """Equal weights of some of eight clusters."""
    return [int(k in clusters) for k in range(8)]


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 4), min_size=8, max_size=8).filter(any),
            st.integers(1, 4),
        ),
        max_size=30,
    )
)
# Leaves cluster 4 owed a row and a half before its weight becomes zero.
@example(
    [(only(*range(8)), 1)] * 4
    + [(only(4, 5), 1), (only(6, 7), 1), (only(4, 6), 1), (only(0), 1), (only(0), 4)]
)
def test_a_weight_of_zero_means_none_and_no_quota_is_negative(history):
    ledger = Ledger(8)
    for weights, rows in history:
        quotas = ledger.draw(weights, rows)
        assert all(quota >= 0 for quota in quotas)
        assert all(weight or not quota for weight, quota in zip(weights, quotas, strict=True))


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 4), min_size=20, max_size=20).filter(any),
            st.integers(1, 4),
        ),
        max_size=30,
    )
)
@example([([1] * 20, 2), ([1, 3] + [0] * 18, 2), ([1] + [0] * 19, 2)])
def test_the_quotas_sum_to_the_rows_of_the_batch_after_any_history(history):
    ledger = Ledger(20)
    for weights, rows in history:
        assert sum(ledger.draw(weights, rows)) == rows
        assert int(ledger.credit.sum()) == 0


@pytest.mark.parametrize(("weight", "every"), [(1e-4, 10_000), (1e-3, 1000), (0.3, 10 / 3)])
def test_a_small_weight_is_served_in_its_time(weight, every):
    ledger = Ledger(3)
    for step in range(4000):
        ledger.draw([0.6 * (1 - weight), weight, 0.4 * (1 - weight)], 16)
        assert abs(ledger.served[1] - 16 * (step + 1) / every) <= 1
    assert ledger.served[1] >= 4000 * 16 // every


def test_a_weight_of_1e_9_is_served_once_in_1e9_rows():
    credit = np.zeros(2, np.int64)
    weights = integer_weights(np.array([1 - 1e-9, 1e-9]))
    times = [step for step in range(500_000) if allocate_rows(weights, 4096, credit)[1]]
    assert len(times) == 2
    # In units of 2**-40 the weight is 1,100, which is 0.05 % too much.
    assert (times[1] - times[0]) * 4096 == pytest.approx(1e9, rel=1e-3)


def test_a_thousand_equal_clusters_take_turns():
    ledger = Ledger(1000)
    for _ in range(125):
        ledger.draw(np.ones(1000), 8)
    assert ledger.served == [1] * 1000


def test_ties_go_to_the_lowest_cluster():
    ledger = Ledger(4)
    served = [ledger.draw([1, 1, 1, 1], 1).index(1) for _ in range(8)]
    assert served == [0, 1, 2, 3, 0, 1, 2, 3]


def test_weights_that_divide_the_batch_are_met_in_every_step():
    ledger = Ledger(3)
    for _ in range(10):
        assert ledger.draw([0.5, 0.25, 0.25], 8) == [4, 2, 2]


def test_the_draw_depends_on_nothing_but_weights_rows_and_credit():
    draw = np.random.default_rng(0)
    history = [(random_weights(draw, 9), int(draw.integers(1, 50))) for _ in range(50)]
    one, two = Ledger(9), Ledger(9)
    for weights, rows in history:
        assert one.draw(weights, rows) == two.draw(weights, rows)
        two.credit = np.array(two.credit.tolist(), np.int64)


# Which lane serves each row.


@given(deals())
def test_every_cluster_gets_its_quota(args):
    quotas = args[0]
    plan = deal(*args)
    assert plan.shape == (sum(quotas), 3)
    assert np.bincount(plan[:, 0], minlength=len(quotas)).tolist() == quotas


@given(deals())
def test_slot_after_slot_belongs_to_lane_after_lane(args):
    _, served, _, consumed = args
    plan = deal(*args)
    assert plan[:, 1].tolist() == [(served + i) % consumed.shape[1] for i in range(len(plan))]


@given(deals())
def test_every_rank_of_a_fitting_world_size_gets_as_many_rows_as_any_other(args):
    lanes = args[3].shape[1]
    plan = deal(*args)
    for world_size in range(1, lanes + 1):
        if lanes % world_size == 0 and len(plan) % world_size == 0:
            ranks = np.bincount(plan[:, 1] % world_size, minlength=world_size)
            assert set(ranks.tolist()) == {len(plan) // world_size}


@given(deals())
def test_a_lane_goes_on_where_it_was_and_skips_nothing(args):
    consumed = args[3]
    before = consumed.copy()
    plan = deal(*args)
    for k, lane in np.ndindex(consumed.shape):
        numbers = plan[(plan[:, 0] == k) & (plan[:, 1] == lane), 2]
        assert sorted(numbers.tolist()) == list(range(before[k, lane], consumed[k, lane]))


def test_the_key_changes_the_order_within_a_batch_alone():
    owned = np.full((3, 4), 100)
    plans = [deal([20, 30, 14], 0, owned, np.zeros((3, 4), np.int64), key) for key in (1, 2)]
    assert plans[0].tolist() != plans[1].tolist()
    assert sorted(plans[0].tolist()) == sorted(plans[1].tolist())


def test_clusters_are_mixed_within_a_batch():
    plan = deal([32, 32], 0, np.full((2, 8), 100), np.zeros((2, 8), np.int64))
    changes = np.count_nonzero(np.diff(plan[:, 0]))
    assert 15 < changes < 50


def test_lanes_of_equal_size_stay_together_under_changing_weights():
    draw = np.random.default_rng(5)
    clusters, lanes, rows = 16, 8, 64
    owned = np.repeat(draw.integers(1, 60, (clusters, 1)), lanes, axis=1)
    consumed = np.zeros((clusters, lanes), np.int64)
    ledger = Ledger(clusters)
    for step in range(600):
        if step % 10 == 0:
            weights = random_weights(draw, clusters)
        deal(ledger.draw(weights, rows), step * rows, owned, consumed, step)
        assert (consumed.max(axis=1) - consumed.min(axis=1)).max() <= 16


def test_one_cluster_alone_is_read_evenly():
    consumed = np.zeros((1, 8), np.int64)
    for step in range(10):
        deal([12], step * 12, np.full((1, 8), 5), consumed)
    assert consumed.tolist() == [[15] * 8]
