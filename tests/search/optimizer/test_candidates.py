"""Candidates are mixtures under the caps, different in every round, equal in every run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.search.optimizer import candidates as propose
from climbstream.search.optimizer.constraints import WeightConstraints

SPREAD = (2.0, 50.0)


def draw(n, prior, seed=0, round_=1, limits=None):
    """Draw candidates around a prior."""
    names = [f"c{i}" for i in range(len(prior))]
    limits = limits or WeightConstraints.of(names, prior)
    return propose.candidates(n, [prior], limits, SPREAD, propose.generator(seed, round_))


def test_sparse_and_dense_mixtures_are_covered():
    mixtures = draw(2000, np.full(20, 0.05))
    alive = (mixtures > 0.01).sum(axis=1)
    assert (alive <= 8).mean() > 0.1
    assert (alive >= 18).mean() > 0.1


def test_the_prior_is_the_mean():
    prior = np.array([0.5, 0.3, 0.15, 0.05])
    mixtures = draw(20_000, prior)
    assert mixtures.mean(axis=0) == pytest.approx(prior, abs=0.01)


def test_rare_clusters_do_not_break_the_draw():
    prior = np.array([1 - 3e-9, 1e-9, 1e-9, 1e-9])
    mixtures = draw(1000, prior)
    assert np.isfinite(mixtures).all()


def test_tiny_weights_are_zero():
    mixtures = draw(1000, np.full(20, 0.05))
    assert mixtures[mixtures > 0].min() >= propose.TINY
    many = propose.snap(np.full((1, 5000), 1 / 5000))
    assert (many > 0).all()


def test_the_pool_differs_from_round_to_round_and_not_from_run_to_run():
    even = np.full(5, 0.2)
    assert (draw(50, even) == draw(50, even)).all()
    pools = [draw(50, even, seed, round_) for seed in (0, 1) for round_ in (1, 2, 3)]
    rows = {tuple(row) for pool in pools for row in pool}
    assert len(rows) == 300


def test_measured_and_repeated_mixtures_are_dropped():
    pool = np.array([[1, 0], [0.5, 0.5], [1, 0], [0.4, 0.6], [0.2, 0.8]])
    measured = np.array([[0.40004, 0.59996]])
    assert propose.unmeasured(pool, measured).tolist() == [[1, 0], [0.5, 0.5], [0.2, 0.8]]
    assert propose.unmeasured(pool, np.zeros((0, 2))).tolist()[0] == [1, 0]


def test_a_round_is_sampled_from_the_top():
    pool = np.arange(20.0)[:, None]
    rng = propose.generator(0, 2)
    chosen = propose.from_top(pool, -np.arange(20.0), top=8, n=4, rng=rng)[:, 0]
    assert set(chosen) <= set(range(12, 20))
    assert len(set(chosen)) == 4
    assert chosen.tolist() != [19, 18, 17, 16]
    assert len(propose.from_top(pool[:3], np.zeros(3), top=8, n=4, rng=rng)) == 3


@pytest.mark.parametrize(
    ("budget", "rounds", "sizes"),
    [
        (112, (4, 2, 1), [64, 32, 16]),
        (28, (4, 2, 1), [16, 8, 4]),
        (16, (4, 2, 1), [9, 5, 2]),
        (1, (4, 2, 1), [1]),
        (10, (1,), [10]),
        (10, (2, 2, 1, 1), [3, 3, 2, 2]),
    ],
)
def test_the_budget_is_split_in_the_ratio_of_the_rounds(budget, rounds, sizes):
    assert propose.split_budget(budget, rounds) == sizes


@given(st.integers(1, 500), st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any))
def test_the_whole_budget_is_spent(budget, rounds):
    assert sum(propose.split_budget(budget, rounds)) == budget


def test_priors_take_turns_and_tempered_ones_are_flatter():
    prior = np.array([0.6, 0.3, 0.1, 0.0])
    assert propose.temper(prior, 1.0) == pytest.approx(prior)
    assert propose.temper(prior, 0.0) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    names = ["a", "b", "c", "d"]
    priors = [prior, propose.temper(prior, 0.0)]
    mixtures = propose.candidates(
        20_000, priors, WeightConstraints.of(names, prior), SPREAD, propose.generator(0, 1)
    )
    for part, expected in zip((mixtures[::2], mixtures[1::2]), priors, strict=True):
        assert part.mean(axis=0) == pytest.approx(expected, abs=0.02)


def test_a_local_search_finds_what_the_pool_does_not_hold():
    prior = np.full(10, 0.1)
    goal = np.array([0.5, 0.3, 0.2, 0, 0, 0, 0, 0, 0, 0])
    pool = draw(200, prior)

    def far(weights):
        return np.abs(weights - goal).sum(axis=1)

    limits = WeightConstraints.of([f"c{i}" for i in range(10)], prior)
    rows, values = propose.descend(far, pool, limits, propose.generator(0, 2))
    assert values[0] < 0.4 * far(pool).min()
    assert values == pytest.approx(far(rows))
    assert (np.diff(values) >= 0).all()


def test_a_local_search_keeps_the_limits():
    prior = np.array([0.5, 0.3, 0.2, 0.0])
    limits = WeightConstraints.of(
        ["a", "b", "c", "d"], prior, max_weight=0.6, min_weight={"b": 0.1}
    )
    rows, _ = propose.descend(
        lambda w: -w[:, 0], draw(50, prior, limits=limits), limits, propose.generator(0, 2)
    )
    assert rows[0][0] == pytest.approx(0.6)
    assert rows[:, 1].min() >= 0.1
    assert not rows[:, 3].any()


# One step of the local search, as its parts say.

CLUSTERS = 6


@pytest.fixture(scope="module")
def steps():
    """Parents, and what each of five steps makes of them; none of it is ever better.

    The last cluster has no tokens. Weights are large, so that none is taken for 0.
    """
    prior = np.array([0.2, 0.2, 0.2, 0.2, 0.2, 0.0])
    limits = WeightConstraints.of([f"c{i}" for i in range(CLUSTERS)], prior)
    parents = np.zeros((400, CLUSTERS))
    parents[:, :5] = np.random.default_rng(0).dirichlet(np.full(5, 8.0), 400)
    calls = []

    def score(rows):
        calls.append(rows)
        return np.arange(len(rows)) + (0.0 if len(calls) == 1 else 1e9)

    kept, values = propose.descend(
        score, parents, limits, propose.generator(0, 1), keep=400, steps=5
    )
    assert (kept == parents).all()
    assert values.tolist() == [*range(400)]
    # towards another one, by factors, moved between two, one left out
    return parents, [call.reshape(4, 400, CLUSTERS) for call in calls[1:]]


def test_every_step_makes_mixtures_of_clusters_with_tokens(steps):
    for made in steps[1]:
        assert made.sum(axis=2) == pytest.approx(np.ones((4, 400)))
        assert not made[:, :, 5].any()


def test_a_step_towards_another_one_goes_from_half_away_to_all_the_way(steps):
    parents, made = steps
    parts = []
    for parent, child in zip(parents, made[0][0], strict=True):
        # Which of the parents lies on the line, and how far the child went.
        ways = parents - parent
        lengths = (ways**2).sum(axis=1)
        part = (ways @ (child - parent)) / np.where(lengths > 0, lengths, 1.0)
        error = np.abs(parent + part[:, None] * ways - child).sum(axis=1)
        error[lengths == 0] = np.inf
        if error.min() < 1e-9:  # not where a weight fell below 0, or it was drawn to itself
            parts.append(part[np.argmin(error)])
    assert len(parts) > 250
    assert -0.5 <= min(parts) < -0.4
    assert 0.9 < max(parts) <= 1
    assert np.mean(parts) == pytest.approx(0.25, abs=0.06)


def test_factors_spread_less_from_step_to_step(steps):
    parents, made = steps
    spreads = []
    for step in (0, 2, 4):
        ratio = np.log(np.maximum(made[step][1][:, :5], 1e-4) / parents[:, :5])
        ratio -= ratio.mean(axis=1, keepdims=True)  # scaling to sum 1 takes that away
        spreads.append(ratio.std() / np.sqrt(4 / 5))
    assert spreads == pytest.approx([1, 0.7, 0.49], rel=0.1)


def test_weight_is_moved_from_one_cluster_to_one_other(steps):
    parents, made = steps
    change = made[0][2] - parents
    moved = np.abs(change) > 0.0025  # what is left of a giver may be taken for 0
    assert set(moved.sum(axis=1)) <= {0, 2}
    assert (moved.sum(axis=1) == 2).mean() == pytest.approx(0.8, abs=0.07)
    # In the fifth step the largest part that may be moved is a factor .7 ** 2 less.
    for step, most in ((0, 1.0), (4, 0.49)):
        change = (made[step][2] - parents)[moved.any(axis=1)]
        given = parents[moved.any(axis=1), change.argmin(axis=1)]
        part = -change.min(axis=1)[given > 0] / given[given > 0]
        assert part.max() == pytest.approx(most, abs=0.02)
        assert part[part > 0.01].mean() == pytest.approx(most / 2, abs=0.06)


def test_one_cluster_is_left_out_and_the_others_keep_their_ratios(steps):
    parents, made = steps
    out = (made[0][3] == 0) & (parents > 0)
    # One of six, of which one has no weight.
    assert set(out.sum(axis=1)) == {0, 1}
    assert (out.sum(axis=1) == 0).mean() == pytest.approx(1 / 6, abs=0.06)
    expected = np.where(out, 0.0, parents)
    assert made[0][3] == pytest.approx(expected / expected.sum(axis=1, keepdims=True))


def test_a_local_search_takes_fifteen_steps_from_a_hundred_mixtures():
    sizes = []
    prior = np.full(4, 0.25)
    limits = WeightConstraints.of(["a", "b", "c", "d"], prior)

    def score(rows):
        sizes.append(len(rows))
        return rows[:, 0]

    rows, _ = propose.descend(score, draw(500, prior), limits, propose.generator(0, 1))
    assert len(rows) <= 100
    assert len(sizes) == 16
    assert sizes[:2] == [500, pytest.approx(400, abs=10)]


def test_the_smallest_weight_is_a_thousandth_or_a_tenth_of_an_equal_share():
    few = np.array([[0.00099, 0.0011, 1 - 0.00209]])
    assert propose.snap(few) == pytest.approx(np.array([[0, 0.0011, 0.99791]]) / 0.99901)
    many = np.full((1, 1000), 1.0)
    many[0, :2] = 0.09, 0.12  # of an equal share
    kept = propose.snap(many / many.sum())
    assert kept[0, 0] == 0
    assert kept[0, 1] == pytest.approx(0.12 / (998 + 0.12))


def test_of_rows_that_agree_to_three_decimals_the_best_is_kept():
    rows = np.array([[0.5, 0.5], [0.5004, 0.4996], [0.501, 0.499], [0.2, 0.8]])
    kept, values = propose._best(rows, np.array([2.0, 1.0, 3.0, 4.0]), 2)
    assert kept.tolist() == [[0.5004, 0.4996], [0.501, 0.499]]
    assert values.tolist() == [1.0, 3.0]


def test_the_concentration_lies_log_uniformly_between_its_bounds():
    prior = np.full(4, 0.25)
    limits = WeightConstraints.of(["a", "b", "c", "d"], prior)
    for low, high in ((2.0, 2.0), (50.0, 50.0), (2.0, 50.0)):
        rows = propose.candidates(40_000, [prior], limits, (low, high), propose.generator(0, 1))
        # The variance of a weight, given the sum a of the parameters, is p (1 - p) / (a + 1).
        mean = 1 / (low + 1)
        if high > low:
            mean = np.log((high / (high + 1)) / (low / (low + 1))) / np.log(high / low)
        assert rows.var(axis=0) == pytest.approx(np.full(4, 3 / 16 * mean), rel=0.05)


def test_a_draw_of_next_to_one_cluster_does_not_underflow():
    limits = WeightConstraints.of(["a", "b", "c"], np.full(3, 1 / 3))
    rows = propose.candidates(
        50, [np.full(3, 1 / 3)], limits, (1e-3, 1e-3), np.random.default_rng(0)
    )
    assert rows.sum(axis=1) == pytest.approx(np.ones(50))
    assert set(np.argmax(rows, axis=1)) == {0, 1, 2}


def test_a_weight_of_a_thousandth_stays():
    assert propose.snap(np.array([[0.001, 0.999]])).tolist() == [[0.001, 0.999]]
    assert propose.snap(np.array([[0.0009999, 0.9990001]]))[0, 0] == 0
