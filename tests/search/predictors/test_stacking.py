"""A stack trusts its predictors by what they are worth, and says what it is worth itself."""

import numpy as np
import pytest
from mixture_curves import Linear, curve, mixtures, nmse

from climbstream.search.predictors.base import folds
from climbstream.search.predictors.gaussian_process import GaussianProcess
from climbstream.search.predictors.ridge import Ridge
from climbstream.search.predictors.stacking import Stack, _stretch, share_by_error
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


# Shares, by hand.


class Shifted:
    """Knows the scores, and errs by a fixed pattern of a size of its own."""

    def __init__(self, size, name="shifted"):
        self.size, self.name = size, name

    def fit(self, weights, scores):
        """There is nothing to learn."""

    def predict(self, weights):
        """Err, one way or the other, by the size."""
        return curve(weights) + self.size * np.sign(weights[:, 3] - weights[:, 4])


def shifted(*sizes):
    return [lambda size=size: Shifted(size) for size in sizes]


def test_shares_of_one_target_are_the_inverse_squares_of_squared_errors():
    weights = mixtures(50)
    model = stack(shifted(0.1, 0.15), weights, curve(weights))
    ratio = (0.15 / 0.1) ** 4
    assert model.shares == pytest.approx([ratio / (1 + ratio), 1 / (1 + ratio)])
    expected = model.shares @ np.stack([m().predict(weights) for m in shifted(0.1, 0.15)])
    assert model.predict(weights) == pytest.approx(expected)
    assert model.out_of_fold == pytest.approx(expected)
    assert model.error == pytest.approx(np.sqrt(((expected - curve(weights)) ** 2).mean()))
    assert model.skills[-1].nmse == pytest.approx(model.error**2 / fold_variance(weights), rel=1e-9)


def fold_variance(weights):
    """Mean square of the scores around the mean of what each fold has seen."""
    scores, squares = curve(weights), []
    for train, test in folds(weights, 5, 0):
        squares += [(scores[row] - scores[train].mean()) ** 2 for row in test]
    return np.mean(squares)


def test_one_that_errs_nowhere_has_all_and_one_that_errs_as_much_as_the_mean_has_nothing():
    weights = mixtures(50)
    sd = np.sqrt(fold_variance(weights))
    assert stack(shifted(0.3, 0.0), weights, curve(weights)).shares.tolist() == [
        pytest.approx(0.0, abs=1e-12),
        pytest.approx(1.0),
    ]
    assert stack(shifted(1.01 * sd, 0.3), weights, curve(weights)).shares.tolist() == [0, 1]
    assert stack(shifted(0.99 * sd, 0.3), weights, curve(weights)).shares[0] > 0
    nothing = stack(shifted(1.01 * sd), weights, curve(weights))
    assert nothing.shares.tolist() == [0]
    assert nothing.out_of_fold == pytest.approx(nothing.base)


def as_if(scores, base, rivals, noise=0.0, constant=None):
    """A stack whose errors out of fold are given; ``trust`` keeps what it is told."""

    class Told(Stack):
        noise = 0.0

        def trust(self, shares):
            self.shares = shares

    told = Told([])
    told.scores, told.base, told.rivals = map(np.asarray, (scores, base, rivals))
    told.constant = np.array(constant or [False] * len(rivals))
    type(told).noise = noise
    return told


def test_the_noise_of_one_target_is_not_taken_off():
    ones = np.tile([1.0, -1.0], 50)
    told = as_if(2 * ones, 0 * ones, [(2 - 0.5**0.5) * ones, ones], noise=0.5)
    share_by_error([told], np.ones(1))
    assert told.shares == pytest.approx([4 / 5, 1 / 5])


def test_as_much_noise_as_error_leaves_what_a_mean_of_squares_is_uncertain_by():
    ones = np.tile([1.0, -1.0], 50)
    pair = [
        as_if(2 * ones, 0 * ones, [(2 - 0.5**0.5) * ones, ones], noise=noise)
        for noise in (1.0, 1.0)
    ]
    share_by_error(pair, np.array([0.5, 0.5]))
    # Squared errors .5 and 1, the noise of the mean .5.
    ratio = (0.5 / (0.5 * 0.02**0.5)) ** 4
    assert pair[0].shares == pytest.approx([ratio / (1 + ratio), 1 / (1 + ratio)])


def test_of_several_targets_the_error_of_the_joint_score_decides_for_all():
    ones = np.tile([1.0, -1.0], 50)
    # The first errs by opposite amounts, which cancel in the mean; the second errs by less.
    a = as_if(2 * ones, 0 * ones, [3 * ones, 2.5 * ones])
    b = as_if(2 * ones, 0 * ones, [1.2 * ones, 2.5 * ones])
    share_by_error([a, b], np.array([0.4, 0.6]))
    # .4 * 1 - .6 * .8 = -.08, against .5
    ratio = (0.5 / 0.08) ** 8
    assert a.shares == pytest.approx([ratio / (1 + ratio), 1 / (1 + ratio)])
    assert b.shares == pytest.approx(a.shares)


def test_noise_of_several_targets_averages_out():
    ones = np.tile([1.0, -1.0], 50)
    both = [
        as_if(2 * ones, 0 * ones, [(2 - 0.5**0.5) * ones, ones], noise=noise)
        for noise in (0.8, 0.6)
    ]
    share_by_error(both, np.array([0.5, 0.5]))
    # The noise of the mean is (.64 + .36) / 4.
    assert both[0].shares == pytest.approx([81 / 82, 1 / 82])


def test_what_is_constant_for_every_target_has_no_share():
    ones = np.tile([1.0, -1.0], 50)
    pair = [
        as_if(2 * ones, 0 * ones, [1.5 * ones, ones, ones], constant=[True, first, not first])
        for first in (True, False)
    ]
    share_by_error(pair, np.array([0.5, 0.5]))
    assert pair[0].shares.tolist() == [0, 0.5, 0.5]


def test_a_process_doubts_out_of_fold_what_each_fold_leaves_in_doubt():
    weights = mixtures(40)
    scores = curve(weights) + np.random.default_rng(3).standard_t(1.5, 40)
    model = stack([GaussianProcess], weights, scores)
    squares = []
    for train, test in folds(weights, 5, 0):
        process = GaussianProcess()
        process.fit(weights[train], scores[train])
        errors = scores[test] - process.predict(weights[test])
        squares += ((errors**2) / (process.sd(weights[test]) ** 2 + process.noise**2)).tolist()
    if not model.shares.any():
        pytest.fail("the process has no share, so its errors are not those of the stack")
    assert model._stretch == pytest.approx(max(1.0, np.sqrt(np.mean(squares))))
    assert model._stretch > 1


def test_the_doubt_is_stretched_to_the_errors_and_never_shrunk():
    assert _stretch(np.array([3.0, -1]), np.array([1.0, 1])) == pytest.approx(np.sqrt(5))
    assert _stretch(np.array([6.0, -2]), np.array([2.0, 2])) == pytest.approx(np.sqrt(5))
    assert _stretch(np.array([0.3, -0.1]), np.array([1.0, 1])) == 1.0
    assert _stretch(np.array([3.0, -1]), np.array([1.0, 0])) == 1.0


def test_the_gap_is_that_of_the_covariance_stretched():
    weights, two = mixtures(40), mixtures(2, seed=1)
    noise = np.random.default_rng(0).normal(0, 0.5, 40)
    model = stack([GaussianProcess], weights, curve(weights) + noise)
    process = model._models[0]
    (a, c), (_, b) = process.covariance(two)
    assert model.gap_sd(two) == pytest.approx(np.sqrt(a + b - 2 * c) * model._stretch)
    assert model.sd(two) == pytest.approx(process.sd(two) * model._stretch)
    one, other = (m.draw(two, 3, np.random.default_rng(5)) for m in (model, process))
    assert one == pytest.approx(other * model._stretch)
    assert model.noise == process.noise > 0


def test_without_a_process_draws_are_errors_of_the_stack():
    weights = mixtures(40)
    model = stack([Ridge], weights, curve(weights))
    drawn = model.draw(weights[:4], 5000, np.random.default_rng(0))
    assert drawn.std(axis=0) == pytest.approx(np.full(4, model.error), rel=0.05)
    assert model.noise == 0.0


def test_fitted_again_it_trusts_as_before_and_predicts_the_new_scores():
    weights, fresh = mixtures(40), mixtures(7, seed=1)
    model = stack([Linear, Ridge], weights, curve(weights))
    again = model.again(weights, 3 - 2 * curve(weights))
    parts = []
    for make in (Linear, Ridge):
        part = make()
        part.fit(weights, 3 - 2 * curve(weights))
        parts.append(part.predict(fresh))
    assert again(fresh) == pytest.approx(model.shares @ parts)
    flat = stack([Linear], weights, np.random.default_rng(0).normal(size=40))
    assert flat.shares.tolist() == [0]
    assert flat.again(weights, np.arange(40.0))(fresh) == pytest.approx(np.full(7, 19.5))


def test_one_mixture_alone_is_predicted_as_its_mean():
    weights = np.repeat(mixtures(1), 4, axis=0)
    model = stack([Linear], weights, np.array([1.0, 2, 3, 6]))
    assert model.out_of_fold == pytest.approx(np.full(4, 3.0))
    assert model.predict(mixtures(2)) == pytest.approx(np.full(2, 3.0))
