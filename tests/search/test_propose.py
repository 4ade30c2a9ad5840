"""Candidates are mixtures under the caps, different in every round, equal in every run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.loader.errors import UsageError
from climbstream.search import propose

SPREAD = (2.0, 50.0)


@st.composite
def priors_and_caps(draw):
    """A prior over 1 to 12 clusters, some without weight, and caps that leave room."""
    k = draw(st.integers(1, 12))
    prior = np.array(
        draw(st.lists(st.sampled_from([0.0, 1e-3, 0.2, 1.0, 30.0]), min_size=k, max_size=k))
    )
    prior[draw(st.integers(0, k - 1))] = 1.0
    caps = np.array(draw(st.lists(st.floats(0, 1), min_size=k, max_size=k)))
    live = prior > 0
    short = 1 - np.minimum(caps[live], 1).sum()
    if short > 0:
        caps[live] += short / live.sum() + 1e-12
    return prior / prior.sum(), caps


@given(priors_and_caps(), st.integers(0, 10**6))
def test_candidates_are_mixtures_under_the_caps(prior_and_caps, seed):
    prior, caps = prior_and_caps
    drawn = propose.candidates(20, prior, caps, SPREAD, propose.generator(seed, 1))
    assert drawn.sum(axis=1) == pytest.approx(np.ones(20), abs=1e-12)
    assert (drawn >= 0).all()
    assert (drawn <= caps).all()
    assert not drawn[:, prior == 0].any()


@given(priors_and_caps(), st.integers(0, 10**6))
def test_capping_keeps_the_ratios_of_what_is_under_its_cap(prior_and_caps, seed):
    prior, caps = prior_and_caps
    weights = propose.snap(np.random.default_rng(seed).dirichlet(prior + 0.1, 1))[0] * (prior > 0)
    weights = (weights + prior) / (weights + prior).sum()
    capped = propose.cap_weights(weights, caps, prior)
    free = (capped < caps) & (weights > 0)
    if free.any():
        growth = capped[free] / weights[free]
        assert growth == pytest.approx(np.full(len(growth), growth[0]), rel=1e-9)


def test_capping_leaves_zeros_alone_while_there_is_room():
    capped = propose.cap_weights(np.array([0.9, 0.1, 0.0]), np.full(3, 0.6), np.full(3, 1 / 3))
    assert capped == pytest.approx(np.array([0.6, 0.4, 0.0]))


def test_what_has_no_room_goes_to_the_prior():
    prior = np.array([0.2, 0.2, 0.6])
    capped = propose.cap_weights(np.array([1.0, 0.0, 0.0]), np.full(3, 0.4), prior)
    assert capped == pytest.approx(np.array([0.4, 0.2, 0.4]))


def test_impossible_caps_are_refused_with_numbers():
    words = "of the 4 clusters with a prior sum to 0.8, .* at least 0.25"
    with pytest.raises(UsageError, match=words):
        propose.check_caps(np.array([0.25, 0.25, 0.25, 0.25, 0.0]), np.full(5, 0.2))
    propose.check_caps(np.full(10, 0.1), np.full(10, 0.1))


def test_sparse_and_dense_mixtures_are_covered():
    drawn = propose.candidates(
        2000, np.full(20, 0.05), np.ones(20), SPREAD, propose.generator(0, 1)
    )
    alive = (drawn > 0.01).sum(axis=1)
    assert (alive <= 8).mean() > 0.1
    assert (alive >= 18).mean() > 0.1


def test_the_prior_is_the_mean():
    prior = np.array([0.5, 0.3, 0.15, 0.05])
    drawn = propose.candidates(20_000, prior, np.ones(4), SPREAD, propose.generator(0, 1))
    assert drawn.mean(axis=0) == pytest.approx(prior, abs=0.01)


def test_rare_clusters_do_not_break_the_draw():
    prior = np.array([1 - 3e-9, 1e-9, 1e-9, 1e-9])
    drawn = propose.candidates(1000, prior, np.ones(4), SPREAD, propose.generator(0, 1))
    assert np.isfinite(drawn).all()


def test_tiny_weights_are_zero():
    drawn = propose.candidates(
        1000, np.full(20, 0.05), np.ones(20), SPREAD, propose.generator(0, 1)
    )
    assert drawn[drawn > 0].min() >= propose.TINY
    many = propose.snap(np.full((1, 5000), 1 / 5000))
    assert (many > 0).all()


def test_the_pool_differs_from_round_to_round_and_not_from_run_to_run():
    def draw(seed, round_):
        rng = propose.generator(seed, round_)
        return propose.candidates(50, np.full(5, 0.2), np.ones(5), SPREAD, rng)

    assert (draw(0, 1) == draw(0, 1)).all()
    pools = [draw(seed, round_) for seed in (0, 1) for round_ in (1, 2, 3)]
    rows = {tuple(row) for pool in pools for row in pool}
    assert len(rows) == 300


def test_measured_and_repeated_mixtures_are_dropped():
    pool = np.array([[1, 0], [0.5, 0.5], [1, 0], [0.4, 0.6], [0.2, 0.8]])
    measured = np.array([[0.40004, 0.59996]])
    assert propose.unmeasured(pool, measured).tolist() == [[1, 0], [0.5, 0.5], [0.2, 0.8]]
    assert propose.unmeasured(pool, np.zeros((0, 2))).tolist()[0] == [1, 0]


def test_a_round_is_drawn_from_the_top():
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
