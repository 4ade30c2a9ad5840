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


def test_what_earlier_runs_do_not_know_is_part_of_the_errors():
    noise, hits, sds = curve(FRESH).std() / 2, [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        old, few = mixtures(40, seed=100 + seed), mixtures(16, seed=200 + seed)
        runs = EarlierRuns([(old, curve(old) + rng.normal(0, noise, len(old)))])
        scores = curve(few) + rng.normal(0, noise, len(few))
        for feature in (runs, runs.__call__):  # the second one says nothing of its errors
            process = GaussianProcess(feature)
            process.fit(few, scores)
            sd = process.sd(FRESH)
            hits.append(np.mean(np.abs(process.predict(FRESH) - curve(FRESH)) < 1.96 * sd))
            sds.append(sd.mean())
    assert np.mean(sds[::2]) > 1.2 * np.mean(sds[1::2])
    assert np.mean(hits[::2]) > max(0.93, np.mean(hits[1::2]))


def test_earlier_runs_that_rank_all_mixtures_alike_add_no_errors():
    flat = EarlierRuns([(mixtures(12, seed=1), np.full(12, 3.0))])
    weights = mixtures(12, seed=2)
    informed, plain = GaussianProcess(flat), GaussianProcess()
    for process in (informed, plain):
        process.fit(weights, curve(weights))
    assert informed.predict(FRESH) == pytest.approx(plain.predict(FRESH))
    assert informed.covariance(FRESH) == pytest.approx(plain.covariance(FRESH))
