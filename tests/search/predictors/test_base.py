"""Predictors learn from few rows at any scale, and are not said to be worth more than they are."""

import csv
from pathlib import Path

import numpy as np
import pytest
from mixture_curves import curve, mixtures, nmse

from climbstream.search.predictors.base import folds, judge, one_thread, spearman, standardised
from climbstream.search.predictors.gaussian_process import GaussianProcess
from climbstream.search.predictors.mixing_law import MixingLaw
from climbstream.search.predictors.ridge import Ridge
from climbstream.search.predictors.trees import LightGBM

MIXTURES = Path(__file__).parents[4] / "shared" / "mixtures"
"""Mixtures and losses of trained models (RegMix), where they lie beside the checkout."""


def table(name):
    """Weights and losses by domain of a table of real runs."""
    path = MIXTURES / name
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    weights = [key for key in rows[0] if key.startswith("w_")]
    columns = {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}
    return np.stack([columns[key] for key in weights], axis=1), columns


# What they have in common.


@pytest.fixture(params=[GaussianProcess, MixingLaw, Ridge, LightGBM], ids=lambda make: make.name)
def make(request):
    """Each predictor."""
    return request.param


def test_a_target_of_any_spread_and_level_is_learnt_alike(make):
    weights, fresh = mixtures(64), mixtures(200, seed=1)
    model, same = make(), make()
    model.fit(weights, curve(weights))
    same.fit(weights, 3.0 + 1e-4 * curve(weights))
    assert np.ptp(model.predict(fresh)) > 0.1
    assert same.predict(fresh) == pytest.approx(3.0 + 1e-4 * model.predict(fresh), abs=3e-6)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_rows_do_not_break_a_fit(make, rows):
    model = make()
    model.fit(mixtures(rows), curve(mixtures(rows)))
    assert np.isfinite(model.predict(mixtures(20, seed=1))).all()


def test_equal_scores_give_their_value_everywhere(make):
    model = make()
    model.fit(mixtures(20), np.full(20, 0.1) + 0.2)
    assert model.predict(mixtures(3)) == pytest.approx(np.full(3, 0.3))


def test_a_second_fit_forgets_the_first(make):
    model, fresh = make(), make()
    model.fit(mixtures(40), curve(mixtures(40)))
    model.fit(mixtures(30, seed=2), -curve(mixtures(30, seed=2)))
    fresh.fit(mixtures(30, seed=2), -curve(mixtures(30, seed=2)))
    assert model.predict(mixtures(9)) == pytest.approx(fresh.predict(mixtures(9)))


def test_a_cluster_that_no_row_has_does_not_break_a_fit(make):
    weights = np.hstack([mixtures(30), np.zeros((30, 2))])
    model = make()
    model.fit(weights, curve(weights))
    assert np.isfinite(model.predict(np.eye(10))).all()


# Cross-validation.


def test_repeats_of_a_mixture_share_a_fold():
    weights = np.repeat(mixtures(10), 3, axis=0)
    seen = []
    for train, test in folds(weights, 5, seed=0):
        assert not {tuple(row) for row in weights[train]} & {tuple(row) for row in weights[test]}
        seen += test.tolist()
    assert sorted(seen) == list(range(30))


def test_rank_correlation_shares_ranks_among_ties():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 50).astype(float), rng.normal(size=50)
    assert spearman(a, b) == pytest.approx(float(spearmanr(a, b).statistic))
    assert spearman(np.ones(5), np.arange(5.0)) == 0
    assert spearman(np.array([1.0, 2]), np.array([7.0, 8])) == pytest.approx(1)


# Real runs.


def test_real_losses_are_predicted_from_112_runs():
    weights, losses = table("regmix_1m_a512.csv")
    fresh, there = table("regmix_test_1m.csv")
    errors = []
    for seed in range(5):
        rows = np.random.default_rng(seed).permutation(len(weights))[:112]
        model = GaussianProcess()
        model.fit(weights[rows], losses["y_pile_cc"][rows])
        errors.append(nmse(there["y_pile_cc"], model.predict(fresh)))
    assert np.median(errors) <= 0.03


# By hand.


def test_skill_is_the_error_by_that_of_the_mean_of_what_was_seen():
    scores, base = np.array([1.0, 2, 3, 6]), np.array([2.0, 2, 2, 4])
    predicted = np.array([1.0, 1, 3, 4])
    skill = judge("some", scores, predicted, base, constant=False)
    # (0 + 1 + 0 + 4) / (1 + 0 + 1 + 4)
    assert (skill.nmse, skill.r2, skill.rows) == pytest.approx((5 / 6, 1 / 6, 4))
    assert (skill.verdict, skill.predictor) == ("not surely better than the mean", "some")
    assert skill.spearman == pytest.approx(spearman(scores, predicted))
    worse = judge("some", scores, base, base, constant=False)
    assert (worse.nmse, worse.verdict) == (1.0, "no better than the mean")
    constant = judge("some", scores, predicted, base, constant=True)
    assert (constant.verdict, constant.spearman) == ("constant", 0.0)
    same = judge("some", base, predicted, base, constant=False)
    assert (same.nmse, same.verdict) == (1.0, "no better than the mean")
    assert judge("some", scores, predicted * np.inf, base, constant=False).nmse == np.inf
    small = judge("some", scores / 9, predicted / 9, base / 9, constant=False)
    assert small.nmse == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("order", "verdict"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "useful"),
        ([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], "not surely better than the mean"),
        ([0, 9, 1, 8, 2, 7, 3, 6, 4, 5], "not surely better than the mean"),
    ],
)
def test_predictions_are_useful_only_if_chance_would_hardly_order_the_mixtures_so(order, verdict):
    scores = np.arange(10.0)
    # So near the mean that the errors are a little smaller, whatever the order is.
    base = np.full(10, 4.0)
    predicted = 4.1 + 1e-3 * np.array(order)
    skill = judge("some", scores, predicted, base, constant=False)
    assert (skill.nmse < 1, skill.verdict) == (True, verdict)


def test_scores_are_standardised_unless_they_differ_by_rounding_alone():
    y, mean, sd = standardised(np.array([1.0, 3, 5]))
    assert (mean, sd) == pytest.approx((3, np.sqrt(8 / 3)))
    assert y == pytest.approx(np.array([-2, 0, 2]) / sd)
    y, mean, sd = standardised(np.array([0.1 + 0.2, 0.3, 0.3]))
    assert (y.tolist(), sd) == ([0, 0, 0], 0.0)
    assert mean == pytest.approx(0.3)
    assert standardised(np.array([-1e6, -1e6 + 1e-3]))[2] == pytest.approx(5e-4)
    assert standardised(np.array([1.0, 1.0 + 1.5e-12]))[2] == 0.0
    assert standardised(np.array([1.0, 1.0 + 3e-12]))[2] > 0.0
    assert standardised(np.array([-1.0, -1.0 - 1.5e-12]))[2] == 0.0


def test_zeros_are_equal_and_so_are_large_numbers_that_differ_by_rounding():
    assert standardised(np.zeros(3))[0].tolist() == [0, 0, 0]
    assert standardised(np.array([1e6, 1e6 + 2e-7]))[2] == 0.0


def test_linear_algebra_has_one_thread():
    from threadpoolctl import threadpool_info

    with one_thread():
        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    assert {pool["num_threads"] for pool in pools} == {1}


def test_there_are_as_many_folds_as_asked_and_no_more_than_mixtures():
    weights = mixtures(11)
    assert [len(test) for _, test in folds(weights, 5, 0)] == [3, 2, 2, 2, 2]
    assert [len(test) for _, test in folds(weights[:3], 5, 0)] == [1, 1, 1]
    for train, test in folds(weights, 5, 0):
        assert sorted([*train, *test]) == list(range(11))
    one, other = ([t.tolist() for _, t in folds(weights, 5, seed)] for seed in (0, 1))
    assert one != other
