"""A stack trusts its predictors by what they are worth, and says what it is worth itself."""

import numpy as np
import pytest
from mixture_curves import Linear, curve, mixtures, nmse

from climbstream.search.predictors.gaussian_process import GaussianProcess
from climbstream.search.predictors.ridge import Ridge
from climbstream.search.predictors.stacking import Stack
from climbstream.search.predictors.trees import LightGBM


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
