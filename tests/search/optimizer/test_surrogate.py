"""A surrogate joins what is predicted of every target as the scores themselves are joined."""

import math
from dataclasses import replace

import numpy as np
import pytest
from mixture_curves import Linear, mixtures

from climbstream.loader import Mixture
from climbstream.search import Trial
from climbstream.search.optimizer.observations import Observations
from climbstream.search.optimizer.surrogate import Surrogate
from climbstream.search.predictors.gaussian_process import GaussianProcess
from climbstream.search.predictors.ridge import Ridge
from climbstream.search.predictors.stacking import Stack

NAMES = ["c0", "c1", "c2"]
WEIGHTS = mixtures(24, 3)
IMPORTANCE = np.array([0.2, 0.8])


def evidence(noise=0.3, weights=WEIGHTS, targets=2, seed=0):
    rng = np.random.default_rng(seed)
    names = ["a", "b"][:targets]
    slopes = np.array([[3.0, -1, 0], [0, 2.0, -2]])[:targets]
    raw = weights @ slopes.T + noise * rng.normal(size=(len(weights), targets))
    trials = [
        Trial(
            number=n,
            round=1,
            mixture=Mixture.of(dict(zip(NAMES, row, strict=True))),
            seed=0,
            scores=dict(zip(names, scores.tolist(), strict=True)),
        )
        for n, (row, scores) in enumerate(zip(weights.tolist(), raw, strict=True), start=1)
    ]
    share = IMPORTANCE if targets == 2 else np.ones(1)
    return Observations.of(trials, NAMES, dict.fromkeys(names, "min"), share)


def stacks(known, makes, seed=0):
    out = []
    for column in known.scores.T:
        stack = Stack(makes, seed)
        stack.fit(known.weights, column)
        out.append(stack)
    return out


def test_predictions_are_those_of_a_stack_a_target_joined_by_importance():
    known, fresh = evidence(), mixtures(5, 3, seed=1)
    surrogate = Surrogate(known, [Linear], 0)
    each = np.stack([stack.predict(fresh) for stack in stacks(known, [Linear])], axis=1)
    assert surrogate.scores(fresh) == pytest.approx(each)
    assert surrogate.total(fresh) == pytest.approx(each @ IMPORTANCE)
    assert {(skill.target, skill.predictor) for skill in surrogate.table} == {
        ("a", "linear"),
        ("b", "linear"),
    }


def test_mixtures_are_proposed_by_the_shares_of_each_target_and_predicted_by_joint_shares():
    known, makes = evidence(), (GaussianProcess, Ridge)
    surrogate = Surrogate(known, makes, 0)
    one, other = (stack.shares for stack in surrogate.stacks)
    exploring = surrogate.exploring()
    for ours, alone in zip(exploring.stacks, stacks(known, makes), strict=True):
        assert ours.shares == pytest.approx(alone.shares)
    assert exploring.stacks[0].shares != pytest.approx(exploring.stacks[1].shares)
    assert not np.allclose(exploring.total(WEIGHTS), surrogate.total(WEIGHTS))
    assert one == pytest.approx(other)
    assert [stack.shares for stack in surrogate.stacks] == [pytest.approx(one)] * 2


def test_the_error_is_that_of_totals_out_of_fold():
    known = evidence()
    surrogate = Surrogate(known, [Linear], 0)
    out = np.stack([stack.out_of_fold for stack in stacks(known, [Linear])], axis=1) @ IMPORTANCE
    assert surrogate.expected == pytest.approx(out)
    assert surrogate.error == pytest.approx(math.sqrt(((out - known.total) ** 2).mean()))
    assert surrogate.useful
    for seed in range(6):
        noise = evidence(noise=100.0, seed=seed)
        surrogate = Surrogate(noise, [Linear], 0)
        assert surrogate.useful == (surrogate.error < noise.total.std())


def test_doubts_of_targets_add_as_of_independent_errors():
    known, fresh = evidence(), mixtures(5, 3, seed=1)
    surrogate = Surrogate(known, [GaussianProcess], 0)
    each = np.stack([s.sd(fresh) for s in stacks(known, [GaussianProcess])], axis=1)
    expected = [math.hypot(0.2 * a, 0.8 * b) for a, b in each]
    assert surrogate.sd(fresh) == pytest.approx(expected)


def test_a_gain_is_what_the_base_scores_more_with_the_doubt_of_both_together():
    known, (one, base) = evidence(), mixtures(2, 3, seed=1)
    surrogate = Surrogate(known, [GaussianProcess], 0)
    assert surrogate.knows_gaps
    gain, sd = surrogate.gain(one, base)
    two = np.stack([one, base])
    assert gain == pytest.approx(float(np.diff(surrogate.total(two))[0]))
    gaps = [stack.gap_sd(two) for stack in stacks(known, [GaussianProcess])]
    assert sd == pytest.approx(math.hypot(0.2 * gaps[0], 0.8 * gaps[1]))
    assert not Surrogate(known, [Linear], 0).knows_gaps


def test_draws_spread_around_the_predictions_as_much_as_they_are_doubted():
    known, fresh = evidence(), mixtures(3, 3, seed=1)
    surrogate = Surrogate(known, [GaussianProcess], 0)
    draws = surrogate.draw(fresh, 8000, np.random.default_rng(0))
    assert draws.shape == (8000, 3)
    assert draws.mean(axis=0) == pytest.approx(surrogate.total(fresh), abs=0.02)
    assert draws.std(axis=0) == pytest.approx(surrogate.sd(fresh), rel=0.06)


def test_fitted_again_to_other_scores_it_predicts_these():
    known, fresh = evidence(noise=0.0), mixtures(5, 3, seed=1)
    surrogate = Surrogate(known, [Linear], 0)
    again = surrogate.again(known.scores[:, ::-1] * 2)
    assert again(fresh) == pytest.approx(2 * surrogate.scores(fresh)[:, ::-1] @ IMPORTANCE)
    assert surrogate.again(known.scores)(fresh) == pytest.approx(surrogate.total(fresh))


def test_what_is_known_of_a_target_is_tried_beside_the_process_without_it():
    known = evidence(targets=1)
    features = {"a": {"prior": lambda w: 3 * w[:, 0] - w[:, 1]}}
    informed = Surrogate(known, [GaussianProcess, Linear], 0, features)
    names = [skill.predictor for skill in informed.table]
    assert names[:3] == ["gaussian process on prior", "gaussian process", "linear"]
    for makes, given in (([Linear], features), ([GaussianProcess], {}), ([GaussianProcess], None)):
        table = Surrogate(known, makes, 0, given).table
        assert "gaussian process on prior" not in {skill.predictor for skill in table}


def test_of_several_guesses_the_one_that_helps_is_used_and_a_bad_one_spoils_nothing():
    known, fresh = evidence(targets=1), mixtures(20, 3, seed=1)

    def good(w):
        return 3 * w[:, 0] - w[:, 1]

    def bad(w):
        return np.sin(1e4 * w[:, 2])

    features = {"a": {"earlier runs": bad, "prior": good}}
    both = Surrogate(known, [GaussianProcess], 0, features)
    names = ["gaussian process on earlier runs", "gaussian process on prior", "gaussian process"]
    assert [skill.predictor for skill in both.table][:3] == names
    alone = Surrogate(known, [GaussianProcess], 0, {"a": {"prior": good}})
    assert both.total(fresh) == pytest.approx(alone.total(fresh))


class AsGoodAsTheMean:
    """Predicts twice the score of the first eight of ``WEIGHTS``, and 0 for all others."""

    name = "twice"

    def fit(self, weights, scores):
        """There is nothing to learn."""

    def predict(self, weights):
        """Predict 2 and -2 in turn for the first eight mixtures, and 0 for all others."""
        twice = dict(zip(map(bytes, WEIGHTS[:8]), [2.0, -2.0] * 4, strict=True))
        return np.array([twice.get(bytes(row), 0.0) for row in weights])


def test_predictions_that_are_as_good_as_the_mean_are_useless():
    known = replace(
        evidence(targets=1, weights=WEIGHTS[:16]),
        weights=WEIGHTS[:16],
        scores=np.array([[1.0], [-1.0]] * 8),
        total=np.array([1.0, -1.0] * 8),
    )
    surrogate = Surrogate(known, [AsGoodAsTheMean], 0)
    assert surrogate.error == known.total.std() == 1.0
    assert not surrogate.useful


def test_predictions_are_surely_useful_if_a_paired_test_says_so():
    from scipy.stats import ttest_1samp

    found = []
    for seed in range(12):
        surrogate = Surrogate(evidence(noise=1.5, targets=1, seed=seed), [Ridge], 0)
        total = surrogate.known.total
        saved = (total - total.mean()) ** 2 - (total - surrogate.expected) ** 2
        assert surrogate.surely_useful == (ttest_1samp(saved, 0).statistic > 1.6449)
        assert surrogate.useful or not surrogate.surely_useful
        found.append((surrogate.useful, surrogate.surely_useful))
    assert {(True, True), (True, False)} <= set(found)
