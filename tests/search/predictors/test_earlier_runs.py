"""Runs of other models make up for runs of one's own, as far as they rank mixtures alike."""

import numpy as np
import pytest
from mixture_curves import curve, mixtures, nmse

from climbstream.search.predictors.earlier_runs import EarlierRuns
from climbstream.search.predictors.gaussian_process import GaussianProcess

FRESH = mixtures(300, seed=9)


def error(feature, n, score):
    """NMSE of a process with ``feature`` as its mean, fitted to ``n`` runs at signal/noise 2."""
    weights = mixtures(n, seed=5)
    noise = np.random.default_rng(n).normal(0, score(FRESH).std() / 2, n)
    process = GaussianProcess(feature)
    process.fit(weights, score(weights) + noise)
    return nmse(score(FRESH), process.predict(FRESH))


def tilted(weights):
    """A score of a larger model, which differs by what the first cluster is worth."""
    return 40 - 3 * (curve(weights) + weights[:, 0])


@pytest.mark.parametrize("factor", [1.0, -250.0])
def test_runs_in_another_unit_or_of_another_sign_save_runs_of_ones_own(factor):
    old = mixtures(60, seed=1)
    runs = EarlierRuns([(old, factor * curve(old) + 7)])
    assert runs.rows == 60
    for n in (8, 24):
        assert error(runs, n, tilted) < 0.5 * error(None, n, tilted)


def test_each_swarm_learns_its_difference_from_the_one_before():
    first, second = mixtures(60, seed=1), mixtures(16, seed=2)
    noise = np.random.default_rng(0).normal(0, 0.1, 16)
    swarms = [(first, curve(first)), (second, tilted(second) + noise)]
    chained, alone = EarlierRuns(swarms), EarlierRuns(swarms[1:])
    assert chained.rows == 76
    assert nmse(tilted(FRESH), chained(FRESH)) < 0.5 * nmse(tilted(FRESH), alone(FRESH))
    scale = np.polyfit(EarlierRuns(swarms[:1])(FRESH), tilted(FRESH), 1)
    plain = np.polyval(scale, EarlierRuns(swarms[:1])(FRESH))
    assert nmse(tilted(FRESH), chained(FRESH)) < nmse(tilted(FRESH), plain)


def test_a_guess_before_any_run_is_the_mean_of_the_first_swarm():
    few = mixtures(8, seed=3)
    noisy = curve(few) + np.random.default_rng(0).normal(0, 0.3, 8)
    guessed, blind = EarlierRuns([(few, noisy)], curve), EarlierRuns([(few, noisy)])
    assert nmse(curve(FRESH), guessed(FRESH)) < 0.5 * nmse(curve(FRESH), blind(FRESH))
