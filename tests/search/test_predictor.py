"""Predictors learn from few rows at any scale, and are not said to be worth more than they are."""

import csv
from pathlib import Path

import numpy as np
import pytest

from climbstream.search.predictor import (
    LightGBM,
    PerTarget,
    Predictor,
    cross_validate,
    folds,
    spearman,
)

MIXTURES = Path(__file__).parents[3] / "shared" / "mixtures"
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


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_too_few_rows_give_their_mean(rows):
    weights = mixtures(rows)
    model = LightGBM()
    model.fit(weights, curve(weights))
    assert model.predict(mixtures(5)) == pytest.approx(np.full(5, curve(weights).mean()))


def test_equal_scores_give_their_value():
    model = LightGBM()
    model.fit(mixtures(20), np.full(20, 0.1) + 0.2)
    assert model.predict(mixtures(3)) == pytest.approx(np.full(3, 0.3))


def test_a_new_fit_forgets_the_one_before():
    weights = mixtures(40)
    model = LightGBM()
    model.fit(weights, curve(weights))
    model.fit(weights, np.ones(40))
    assert np.ptp(model.predict(weights)) == 0


# Several targets.


def test_each_target_has_a_model_of_its_own():
    weights = mixtures(40)
    scores = np.stack([weights[:, 0], 1e-4 * weights[:, 5], -weights[:, 2]], axis=1)
    made: list[Predictor] = []

    def make():
        made.append(Linear())
        return made[-1]

    model = PerTarget(make, weights, scores)
    assert len(made) == 3
    assert model.predict(weights) == pytest.approx(scores)


# Cross-validation.


def test_repeats_of_a_mixture_share_a_fold():
    weights = np.repeat(mixtures(10), 3, axis=0)
    seen = []
    for train, test in folds(weights, 5, seed=0):
        assert not {tuple(row) for row in weights[train]} & {tuple(row) for row in weights[test]}
        seen += test.tolist()
    assert sorted(seen) == list(range(30))


def test_a_good_predictor_is_said_to_be_useful():
    weights = mixtures(60)
    scores = np.stack([weights[:, 0], weights @ np.arange(8.0)], axis=1)
    predicted, skills = cross_validate(Linear, ["a", "b"], weights, scores)
    assert predicted == pytest.approx(scores)
    for skill, target in zip(skills, "ab", strict=True):
        assert (skill.target, skill.predictor, skill.verdict) == (target, "linear", "useful")
        assert (skill.rows, skill.r2) == (60, pytest.approx(1))
        assert skill.spearman == pytest.approx(1)


def test_a_predictor_of_noise_is_said_to_be_no_better_than_the_mean():
    noise = np.random.default_rng(0).normal(size=(40, 1))
    _, (skill,) = cross_validate(Linear, ["noise"], mixtures(40), noise)
    assert skill.verdict == "no better than the mean"
    assert skill.nmse > 1


def test_a_constant_predictor_is_said_to_be_constant():
    class Mean(Linear):
        def predict(self, weights):
            return np.zeros(len(weights))

    weights = mixtures(40)
    _, (skill,) = cross_validate(Mean, ["loss"], weights, curve(weights)[:, None])
    assert (skill.verdict, skill.spearman) == ("constant", 0)


def test_what_is_measured_out_of_fold_holds_on_fresh_mixtures():
    weights, fresh = mixtures(112), mixtures(500, seed=1)
    _, (skill,) = cross_validate(LightGBM, ["loss"], weights, curve(weights)[:, None])
    model = LightGBM()
    model.fit(weights, curve(weights))
    assert skill.nmse == pytest.approx(nmse(curve(fresh), model.predict(fresh)), abs=0.1)
    assert skill.spearman > 0.9


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
        model = LightGBM(seed)
        model.fit(weights[rows], losses["y_pile_cc"][rows])
        errors.append(nmse(there["y_pile_cc"], model.predict(fresh)))
    assert np.median(errors) <= 0.12
