"""The next round, the answer and its optimism are what the forecast says, reckoned by hand."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from mixture_curves import Linear, mixtures

from climbstream.loader import Mixture
from climbstream.search import Trial
from climbstream.search.optimizer import acquisition
from climbstream.search.optimizer.acquisition import (
    bootstrap,
    find_best,
    knowledge_gradient,
    most_informative,
    residuals,
)
from climbstream.search.optimizer.candidates import descend, generator
from climbstream.search.optimizer.constraints import WeightConstraints
from climbstream.search.optimizer.observations import Observations
from climbstream.search.optimizer.presets import PRESETS
from climbstream.search.optimizer.surrogate import Surrogate
from climbstream.search.predictors.gaussian_process import GaussianProcess
from climbstream.search.predictors.ridge import Ridge

NAMES = ["c0", "c1", "c2", "c3"]
PRIOR = np.full(4, 0.25)
LIMITS = WeightConstraints.of(NAMES, PRIOR)
POOL = mixtures(400, 4, seed=3)


@dataclass
class Sloped:
    """A forecast whose total is a slope times the weights, and whose doubt is another one."""

    known: Observations
    slope: np.ndarray
    doubt: np.ndarray

    def total(self, weights):
        """Return totals, ``[m]``."""
        return weights @ self.slope

    def sd(self, weights):
        """Return doubts, ``[m]``."""
        return weights @ self.doubt


def evidence(n=30, noise=0.2, targets=1):
    rng = np.random.default_rng(0)
    weights = mixtures(n, 4)
    weights[1] = weights[0]
    trials = [
        Trial(
            number=i,
            round=1,
            mixture=Mixture.of(dict(zip(NAMES, row.tolist(), strict=True))),
            seed=i,
            scores={f"t{t}": float(row[t] + noise * rng.normal()) for t in range(targets)},
        )
        for i, row in enumerate(weights, start=1)
    ]
    share = np.full(targets, 1 / targets)
    return Observations.of(trials, NAMES, {f"t{t}": "min" for t in range(targets)}, share)


SLOPED = Sloped(evidence(), np.array([1.0, 0.3, -0.2, 0.5]), np.array([0.0, 0.0, 0.9, 0.0]))


def test_a_round_has_new_mixtures_and_none_twice():
    forecast = Surrogate(evidence(), [GaussianProcess, Ridge], 0)
    tried = forecast.known.weights
    rows = most_informative(forecast, POOL, tried, 6, LIMITS, generator(0, 2))
    assert rows.shape == (6, 4)
    assert np.abs(rows.sum(axis=1) - 1).max() < 1e-9
    distances = np.abs(rows[:, None] - np.concatenate([rows, tried])[None]).max(axis=2)
    assert ((distances < 1e-6).sum(axis=1) == 1).all()


def test_a_round_is_no_larger_than_what_there_is():
    pinned = WeightConstraints.of(NAMES, PRIOR, pinned=dict.fromkeys(NAMES, 0.25))
    forecast = Surrogate(evidence(), [GaussianProcess], 0)
    rows = most_informative(forecast, PRIOR[None], np.zeros((0, 4)), 5, pinned, generator(0, 2))
    assert len(rows) == 1


@pytest.mark.parametrize("seed", range(8))
def test_the_choice_is_the_run_after_which_the_best_prediction_is_lowest_on_average(seed):
    rng = np.random.default_rng(seed)
    root, mean, noise = rng.normal(size=(6, 6)) / 2, rng.normal(size=6) / 3, 0.2
    covariance = root @ root.T
    expected = [
        lowest_after_a_run(mean, covariance, noise, place, rng.standard_normal(100_000))
        for place in range(6)
    ]
    (chosen,) = knowledge_gradient(mean, covariance, noise, 1)
    assert expected[chosen] < min(expected) + 0.01


def lowest_after_a_run(mean, covariance, noise, place, normals):
    """Return the mean, over random scores of one candidate, of the lowest prediction afterwards."""
    scores = mean[place] + np.sqrt(covariance[place, place] + noise) * normals
    gain = covariance[:, place] / (covariance[place, place] + noise)
    return (mean + np.outer(scores - mean[place], gain)).min(axis=1).mean()


def test_what_one_run_tells_is_not_measured_twice_in_a_round():
    # The first two candidates are the same mixture in all but name; the third is another one.
    covariance = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.5]])
    assert knowledge_gradient(np.zeros(3), covariance, 0.01, 2) == [0, 2]


def test_of_equal_doubts_the_worst_prediction_waits_and_of_equal_predictions_the_surest():
    assert knowledge_gradient(np.array([0.5, 1.0, 0.0]), np.eye(3), 0.1, 3)[-1] == 1
    doubts = np.diag([0.1, 1.0, 0.5])
    assert knowledge_gradient(np.zeros(3), doubts, 0.1, 3) == [1, 2, 0]


def test_a_search_without_doubt_or_noise_still_chooses():
    assert knowledge_gradient(np.array([0.3, 0.1]), np.zeros((2, 2)), 0.0, 2) == [0, 1]


def test_the_answer_of_climb_is_the_lowest_of_the_pool_and_of_regmix_the_mean_of_100():
    order = np.argsort(SLOPED.total(POOL), kind="stable")
    best = find_best(SLOPED, POOL, PRESETS["climb"], LIMITS, generator(0, 1))
    assert best == pytest.approx(POOL[order[0]])
    mean = find_best(SLOPED, POOL, PRESETS["regmix"], LIMITS, generator(0, 1))
    assert mean == pytest.approx(POOL[order[:100]].mean(axis=0))


def test_the_answer_of_a_search_is_the_mean_of_20_least_by_total_plus_doubt():
    best = find_best(SLOPED, POOL, PRESETS["robust"], LIMITS, generator(0, 1))
    starts = np.concatenate([POOL, SLOPED.known.weights])
    rows, values = descend(
        lambda w: SLOPED.total(w) + SLOPED.sd(w), starts, LIMITS, generator(0, 1)
    )
    assert best == pytest.approx(rows[:20].mean(axis=0))
    # The third cluster scores best, but it is doubted: the second is what is left.
    assert best.argmax() == 1
    assert values[0] == pytest.approx(0.3, abs=0.02)


def test_the_answer_keeps_the_limits():
    capped = WeightConstraints.of(NAMES, PRIOR, max_weight=0.4)
    for preset in ("climb", "regmix", "robust"):
        best = find_best(SLOPED, POOL, PRESETS[preset], capped, generator(0, 1))
        assert best.max() <= 0.4
        assert best.sum() == pytest.approx(1)


# The bootstrap.


def test_residuals_are_the_geometric_mean_of_both_errors_without_their_mean():
    known = evidence(targets=2)
    forecast = Surrogate(known, [Linear], 0)
    expected = np.empty((30, 2))
    for t, stack in enumerate(forecast.stacks):
        fitted = known.scores[:, t] - stack.predict(known.weights)
        out = known.scores[:, t] - stack.out_of_fold
        expected[:, t] = np.sign(fitted) * np.sqrt(np.abs(fitted * out))
    assert residuals(forecast) == pytest.approx(expected - expected.mean(axis=0))


class Told:
    """A forecast that is fitted again to scores by adding what they say of one trial."""

    def __init__(self, known):
        self.known = known
        self.slope = np.array([0.5, -0.4, 0.1, 0.0])
        self.fits = []
        self.stacks = []

    def fitted(self):
        """Return the scores of the trials."""
        return self.scores(self.known.weights)

    def scores(self, weights):
        """Return the total as the score of one target."""
        return (weights @ self.slope)[:, None]

    def total(self, weights):
        """Return totals, ``[m]``."""
        return weights @ self.slope

    def sd(self, weights):
        """Return doubts, ``[m]``."""
        return np.zeros(len(weights))

    def again(self, scores):
        """Keep ``scores``, and move the slope by four of them."""
        self.fits.append(scores)
        slope = self.slope + 0.3 * scores[:4, 0]
        return lambda w: w @ slope


@pytest.mark.parametrize("draws", [3, 6, 13])
def test_optimism_is_by_how_much_a_gain_after_other_scores_exceeds_the_true_one(monkeypatch, draws):
    known = evidence()
    errors = np.random.default_rng(4).normal(size=(30, 1))
    monkeypatch.setattr(acquisition, "residuals", lambda _: errors)
    told, base = Told(known), np.array([0.1, 0.2, 0.3, 0.4])
    found = bootstrap(told, base, POOL, LIMITS, draws, generator(0, 1))

    rng, starts = generator(0, 1), np.concatenate([POOL, known.weights])
    excesses = []
    for scores, best in zip(told.fits, found.best, strict=True):
        order = rng.integers(30, size=30)
        assert scores == pytest.approx((known.weights @ told.slope)[:, None] + errors[order])
        slope = told.slope + 0.3 * scores[:4, 0]
        rows, _ = descend(lambda w, s=slope: w @ s, starts, LIMITS, rng, steps=8)
        assert best == pytest.approx(rows[:20].mean(axis=0))
        # The first two trials are of one mixture, and count as their mean.
        means = scores[:, 0].copy()
        means[:2] = means[:2].mean()
        measured = known.weights[np.argmin(means)]
        off = slope - told.slope
        excesses.append([(base - best) @ off, (base - measured) @ off])
    ordered = np.sort(excesses, axis=0)
    cut = draws // 6
    kept = ordered[cut : draws - cut]
    assert found.predicted_optimism == pytest.approx(kept[:, 0].mean())
    assert found.measured_optimism == pytest.approx(kept[:, 1].mean())


def test_doubt_counts_against_a_mixture_in_the_copies_too(monkeypatch):
    class Doubting(Told):
        def sd(self, weights):
            return 9 * weights[:, 1]

    monkeypatch.setattr(acquisition, "residuals", lambda _: np.zeros((30, 1)))
    for kind, most in ((Told, 1), (Doubting, 3)):
        told = kind(evidence())
        told.again = lambda _, told=told: lambda w: told.total(w)
        found = bootstrap(told, PRIOR, POOL, LIMITS, 1, generator(0, 1))
        assert found.best[0].argmax() == most
        assert found.predicted_optimism == pytest.approx(0.0)


def test_copies_keep_the_limits(monkeypatch):
    capped = WeightConstraints.of(NAMES, PRIOR, max_weight=0.4)
    monkeypatch.setattr(acquisition, "residuals", lambda _: np.zeros((30, 1)))
    found = bootstrap(Told(evidence()), PRIOR, POOL, capped, 2, generator(0, 1))
    assert found.best.max() <= 0.4
    assert found.best.sum(axis=1) == pytest.approx(np.ones(2))


def test_as_many_are_hopeful_as_were_measured_with():
    assert (acquisition.HOPEFUL, acquisition.AVERAGED, acquisition.ELITE) == (300, 100, 20)
    assert acquisition.CAUTION == 1.0
    assert replace(SLOPED, slope=np.zeros(4)).total(POOL[:2]).tolist() == [0, 0]
