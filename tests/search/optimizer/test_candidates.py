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
