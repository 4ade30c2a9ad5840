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
    residuals,
    thompson_sample,
)
from climbstream.search.optimizer.candidates import descend, generator
from climbstream.search.optimizer.constraints import WeightConstraints
from climbstream.search.optimizer.observations import Observations
from climbstream.search.optimizer.presets import PRESETS
from climbstream.search.optimizer.surrogate import Surrogate

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

    def draw(self, weights, n, _):
        """Draw the totals themselves, so that every curve has the same order."""
        return np.tile(self.total(weights), (n, 1))


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


def test_a_round_takes_the_best_of_every_curve_and_none_twice():
    tried = POOL[:3]
    rows = thompson_sample(SLOPED, POOL, tried, 6, LIMITS, generator(0, 2))
    assert rows.shape == (6, 4)
    values = SLOPED.total(rows)
    # All curves are the same, so the six best follow one another.
    assert (np.diff(values) >= 0).all()
    assert len({tuple(row.round(3)) for row in rows}) == 6
    assert values[-1] < np.sort(SLOPED.total(POOL))[0]
    taken = {tuple(row.round(3)) for row in rows}
    assert not taken & {tuple(row.round(3)) for row in tried}


def test_each_draw_chooses_by_its_own_curve():
    class Drawn(Sloped):
        def draw(self, weights, n, _):
            return np.stack([weights @ np.eye(4)[i % 4] for i in range(n)])

    rows = thompson_sample(
        Drawn(evidence(), np.zeros(4), np.zeros(4)), POOL, POOL[:1], 4, LIMITS, generator(0, 2)
    )
    for i, row in enumerate(rows):
        assert row[i] == pytest.approx(0.0, abs=1e-3)


def test_a_round_is_no_larger_than_what_there_is():
    one = WeightConstraints.of(["a", "b"], np.full(2, 0.5), pinned={"a": 0.5, "b": 0.5})
    forecast = Sloped(evidence(), np.ones(2), np.zeros(2))
    pool = np.array([[0.5, 0.5]])
    assert len(thompson_sample(forecast, pool, np.zeros((0, 2)), 5, one, generator(0, 2))) == 1


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
