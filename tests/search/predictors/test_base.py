"""Predictors learn from few rows at any scale, and are not said to be worth more than they are."""

import csv
from pathlib import Path

import numpy as np
import pytest

from climbstream.search.predictors.base import folds, spearman
from climbstream.search.predictors.gaussian_process import GaussianProcess
from climbstream.search.predictors.mixing_law import MixingLaw
from climbstream.search.predictors.ridge import Ridge
from climbstream.search.predictors.stacking import Stack
from climbstream.search.predictors.trees import LightGBM

MIXTURES = Path(__file__).parents[4] / "shared" / "mixtures"
"""Mixtures and losses of trained models (RegMix), where they lie beside the checkout."""


class Linear:
    """Least squares: a predictor that costs nothing."""

    name = "linear"

    def fit(self, weights, scores):
        """Solve."""
        self._solution, *_ = np.linalg.lstsq(weights, scores)

    def predict(self, weights):
        """Multiply."""
        return weights @ self._solution


def mixtures(n, k=8, seed=0):
    return np.random.default_rng(seed).dirichlet(np.full(k, 0.5), n)


def curve(weights):
    """A score that falls with the logarithm of three weights."""
    return -np.log1p(weights[:, :3] / 0.05) @ np.array([1.0, 0.7, 0.4])


def nmse(measured, predicted):
    return float(((measured - predicted) ** 2).mean() / measured.var())


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


# LightGBM.


@pytest.mark.parametrize("spread", [1e4, 1.0, 0.01, 1e-4])
def test_a_target_of_any_spread_is_learnt_alike(spread):
    weights, fresh = mixtures(64), mixtures(200, seed=1)
    model, same = LightGBM(), LightGBM()
    model.fit(weights, curve(weights))
    same.fit(weights, 3.0 + spread * curve(weights))
    assert np.ptp(same.predict(fresh)) > 0
    assert same.predict(fresh) == pytest.approx(3.0 + spread * model.predict(fresh), rel=1e-3)


@pytest.mark.parametrize(("rows", "most"), [(16, 0.95), (32, 0.6), (112, 0.25)])
def test_few_rows_are_enough_to_beat_the_mean(rows, most):
    weights, fresh = mixtures(rows), mixtures(500, seed=1)
    model = LightGBM()
    model.fit(weights, curve(weights))
    assert nmse(curve(fresh), model.predict(fresh)) < most


def test_every_row_is_fitted():
    # A row that only said when to stop would not pull the fit towards itself.
    weights = mixtures(24)
    scores = curve(weights)
    model, pulled = LightGBM(), LightGBM()
    model.fit(weights, scores)
    for row in range(24):
        pulled.fit(weights, scores + 3 * scores.std() * (np.arange(24) == row))
        assert pulled.predict(weights[[row]]) > model.predict(weights[[row]])


def test_the_same_rows_give_the_same_predictions():
    weights, fresh = mixtures(40), mixtures(50, seed=1)
    answers = []
    for _ in range(2):
        model = LightGBM(seed=3)
        model.fit(weights, curve(weights))
        answers.append(model.predict(fresh))
    assert (answers[0] == answers[1]).all()


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


# The Gaussian process.


@pytest.mark.parametrize(("rows", "most"), [(16, 0.4), (32, 0.12), (112, 0.02)])
def test_a_process_learns_a_curve_from_few_rows(rows, most):
    model = GaussianProcess()
    model.fit(mixtures(rows), curve(mixtures(rows)))
    fresh = mixtures(500, seed=1)
    assert nmse(curve(fresh), model.predict(fresh)) < most


def test_the_gradient_of_a_process_is_that_of_its_loss():
    from scipy.optimize import check_grad

    model = GaussianProcess()
    weights = mixtures(20, k=4)
    model.fit(weights, curve(weights))
    y = (curve(weights) - curve(weights).mean()) / curve(weights).std()
    center, width = np.zeros(8), np.ones(8)
    for seed in range(3):
        theta = np.random.default_rng(seed).normal(0, 0.7, 8)
        wrong = check_grad(
            lambda t: model._loss(t, y, center, width)[0],
            lambda t: model._loss(t, y, center, width)[1],
            theta,
        )
        assert wrong < 1e-3


@pytest.mark.parametrize("knee", [0.002, 0.02, 0.2, 2.0])
def test_a_process_learns_where_the_logarithm_sets_in(knee):
    def bent(weights):
        return np.log1p(weights / knee) @ np.array([1.0, -0.7, 0.4, 0, 0, 0.2, -1, 0])

    weights, fresh = mixtures(48), mixtures(500, seed=1)
    noise = np.random.default_rng(0).normal(0, 0.2 * bent(weights).std(), 48)
    model = GaussianProcess()
    model.fit(weights, bent(weights) + noise)
    assert nmse(bent(fresh), model.predict(fresh)) < 0.04


def test_a_process_knows_how_noisy_runs_are():
    weights = mixtures(150)
    noise = np.random.default_rng(0).normal(0, 0.5, 150)
    model = GaussianProcess()
    model.fit(weights, curve(weights) + noise)
    assert 0.35 < model.noise < 0.65


def test_a_process_of_noise_alone_is_all_but_flat():
    weights = mixtures(64)
    model = GaussianProcess()
    model.fit(weights, np.random.default_rng(0).normal(size=64))
    assert model.predict(mixtures(200, seed=1)).std() < 0.4


def test_a_process_doubts_what_is_far_from_its_rows():
    weights = mixtures(40)
    model = GaussianProcess()
    model.fit(weights, curve(weights))
    assert model.sd(weights).max() < model.sd(np.eye(8)).max()


def test_curves_that_are_sampled_spread_as_a_process_says():
    weights, fresh = mixtures(40), mixtures(12, seed=1)
    model = GaussianProcess()
    model.fit(weights, curve(weights))
    curves = model.draw(fresh, 4000, np.random.default_rng(0))
    assert curves.std(axis=0) == pytest.approx(model.sd(fresh), rel=0.1)


def test_what_is_known_before_carries_where_rows_say_nothing():
    # Of the third weight the rows tell nothing: it is 0 in all of them.
    weights = mixtures(30) * [1, 1, 0, 1, 1, 1, 1, 1]
    weights /= weights.sum(axis=1, keepdims=True)
    fresh = mixtures(200, seed=1)
    plain, informed = GaussianProcess(), GaussianProcess(lambda w: 5 * curve(w) + 7)
    for model in (plain, informed):
        model.fit(weights, curve(weights))
    assert nmse(curve(fresh), informed.predict(fresh)) < 0.02
    assert nmse(curve(fresh), plain.predict(fresh)) > 0.1


# The mixing law.


def test_the_law_is_found_where_it_holds():
    weights, fresh = mixtures(60), mixtures(300, seed=1)
    slopes = np.array([-3.0, -1, 0, 0, 1, 0, 0, 0.5])
    model = MixingLaw()
    model.fit(weights, 2 + np.exp(weights @ slopes))
    assert nmse(2 + np.exp(fresh @ slopes), model.predict(fresh)) < 0.03


# The stack.


def stack(makes, weights, scores):
    model = Stack(makes)
    model.fit(weights, scores)
    return model


def test_the_better_predictor_counts_for_more():
    model = stack([GaussianProcess, Ridge], mixtures(60), curve(mixtures(60)))
    assert model.shares[0] > 0.9
    assert model.shares.sum() == pytest.approx(1)
    names = [skill.predictor for skill in model.skills]
    assert names == ["gaussian process", "ridge", "stack"]
    assert model.skills[0].nmse < model.skills[1].nmse


def test_a_stack_of_useless_predictors_is_the_mean_and_says_so():
    scores = np.random.default_rng(0).normal(size=40)
    model = stack([Linear], mixtures(40), scores)
    assert model.skills[0].verdict == "no better than the mean"
    assert not model.shares.any()
    assert model.predict(mixtures(5)) == pytest.approx(np.full(5, scores.mean()))


def test_a_constant_predictor_is_said_to_be_constant_and_does_not_count():
    class Mean(Linear):
        def predict(self, weights):
            return np.zeros(len(weights))

    weights = mixtures(40)
    model = stack([Mean, Ridge], weights, curve(weights))
    assert (model.skills[0].verdict, model.skills[0].spearman) == ("constant", 0)
    assert model.shares.tolist() == [0, 1]


def test_what_is_known_before_counts_only_if_it_helps():
    weights = mixtures(48)
    for feature, helps in ((curve, True), (lambda w: np.sin(1e4 * w[:, 3]), False)):
        model = stack(
            [lambda f=feature: GaussianProcess(f), GaussianProcess], weights, curve(weights)
        )
        assert (model.shares[0] > 0) == helps
        assert (model.shares[1] > 0) != helps


def test_the_doubt_of_a_process_is_stretched_to_its_errors():
    weights = mixtures(60)
    model = stack([GaussianProcess], weights, curve(weights))
    alone = GaussianProcess()
    alone.fit(weights, curve(weights))
    assert (model.sd(mixtures(9)) >= alone.sd(mixtures(9)) - 1e-12).all()
    assert stack([Ridge], weights, curve(weights)).sd(mixtures(9)) == pytest.approx(
        np.full(9, stack([Ridge], weights, curve(weights)).error)
    )


def test_the_gap_between_two_mixtures_is_surer_the_closer_they_are():
    weights, (one, other) = mixtures(60), mixtures(2, seed=1)
    noise = np.random.default_rng(0).normal(0, 0.3, 60)
    model = stack([GaussianProcess], weights, curve(weights) + noise)
    gaps = [model.gap_sd(np.stack([one, one + part * (other - one)])) for part in (0, 0.01, 0.1, 1)]
    assert gaps[0] == pytest.approx(0, abs=1e-6)
    assert gaps == sorted(gaps)
    assert gaps[2] < model.sd(np.stack([one])) / 2
    assert not stack([Ridge], weights, curve(weights)).knows_gaps


def test_the_doubt_of_a_gap_is_that_of_the_curves_that_may_be_true():
    weights, two = mixtures(40), mixtures(2, seed=1)
    model = stack([GaussianProcess], weights, curve(weights))
    curves = model.draw(two, 4000, np.random.default_rng(0))
    assert (curves[:, 0] - curves[:, 1]).std() == pytest.approx(model.gap_sd(two), rel=0.1)


def test_what_is_measured_out_of_fold_holds_on_fresh_mixtures():
    weights, fresh = mixtures(112), mixtures(500, seed=1)
    model = stack([LightGBM], weights, curve(weights))
    (skill,) = model.skills
    assert skill.nmse == pytest.approx(nmse(curve(fresh), model.predict(fresh)), abs=0.1)
    assert skill.spearman > 0.9


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
