"""Trees learn from few rows at any scale, from every row, and always the same."""

import numpy as np
import pytest
from mixture_curves import curve, mixtures, nmse

from climbstream.search.predictors.base import folds
from climbstream.search.predictors.trees import LightGBM


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


def test_under_four_mixtures_trees_are_the_mean_and_from_four_on_they_are_not():
    weights, fresh = mixtures(12), mixtures(200, seed=1)
    for different in (3, 4, 12):
        some = weights[np.arange(12) % different]
        model = LightGBM()
        model.fit(some, curve(some))
        assert (np.ptp(model.predict(fresh)) == 0) == (different < 4)
        if different < 4:
            assert model.predict(fresh) == pytest.approx(np.full(200, curve(some).mean()))


@pytest.mark.parametrize(("rows", "least"), [(4, 1), (16, 2), (39, 4), (40, 5), (112, 5)])
def test_settings_are_those_that_the_decisions_were_measured_with(rows, least):
    assert LightGBM(seed=7)._settings(rows) == {
        "objective": "l2",
        "max_depth": 4,
        "num_leaves": 15,
        "min_data_in_leaf": least,
        "min_data_in_bin": 1,
        "feature_pre_filter": False,
        "lambda_l1": 0.1,
        "lambda_l2": 1.0,
        "learning_rate": 0.1,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "seed": 7,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }


def test_there_are_about_as_many_trees_as_are_best_out_of_fold():
    import lightgbm

    weights = mixtures(40)
    scores = curve(weights)
    model = LightGBM(seed=2)
    model.fit(weights, scores)
    y = (scores - scores.mean()) / scores.std()
    settings = model._settings(40)
    data = lightgbm.Dataset(weights, y, params=settings, free_raw_data=False)
    errors = lightgbm.cv(settings, data, 400, folds=folds(weights, 5, 2))["valid l2-mean"]
    assert errors[model._trees.current_iteration() - 1] < 1.02 * min(errors) < 0.7 * errors[20]


def test_equal_scores_are_predicted_as_they_are_and_the_seed_is_0_by_default():
    model = LightGBM()
    model.fit(mixtures(12), np.full(12, 3.0))
    assert model.predict(mixtures(2, seed=1)).tolist() == [3.0, 3.0]
    assert model._settings(12)["seed"] == 0


def test_there_are_as_many_trees_as_five_folds_find_best_with_a_patience_of_twenty():
    import lightgbm

    weights = mixtures(48)
    scores = curve(weights) + np.random.default_rng(0).normal(0, 0.3, 48)
    model = LightGBM(seed=2)
    model.fit(weights, scores)
    y = (scores - scores.mean()) / scores.std()
    settings = model._settings(48)
    errors = np.zeros(400)
    for train, test in folds(weights, 5, 2):
        whole = lightgbm.Dataset(weights, y, params=settings, free_raw_data=False)
        trees = lightgbm.train(settings, whole.subset(train.tolist()), 400)
        for n in range(400):
            predicted = trees.predict(weights[test], num_iteration=n + 1)
            errors[n] += ((y[test] - predicted) ** 2).mean() / 5
    best, since = 0, 0
    for n in range(1, 400):
        best, since = (n, 0) if errors[n] < errors[best] else (best, since + 1)
        if since == 20:
            break
    assert model._trees.num_trees() == best + 1
