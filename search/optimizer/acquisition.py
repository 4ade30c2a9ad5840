"""Acquisition: choose mixtures that may be best, from predicted scores and the sds of these scores.

The predictions come from a `Surrogate`. An sd is a standard deviation.
"""

from dataclasses import dataclass

import numpy as np

from climbstream.search.predictors.base import Floats

from . import candidates
from .constraints import WeightConstraints
from .presets import Preset
from .surrogate import Surrogate

HOPEFUL = 300
"""A round is chosen from this number of mixtures: the best predicted of the pool. A local search
adds as many mixtures."""
DRAWS = 1000
"""Number of random scores of each candidate, from which covariances are estimated."""
TINY = 1e-12
"""Smallest variance of a score, so that a search without noise does not divide by 0."""
NODES, _weights = np.polynomial.hermite_e.hermegauss(9)
NODE_WEIGHTS = _weights / _weights.sum()
"""Nodes and weights of the Gauss-Hermite quadrature over the standard normal distribution."""
AVERAGED = 100
"""For presets with ``answer="average"``: number of best predicted mixtures that are averaged."""
ELITE = 20
"""For presets with ``answer="search"``: number of best mixtures of the local search that are
averaged."""
CAUTION = 1.0
"""Number of sds of a prediction that are added to the predicted score. So mixtures with uncertain
predictions are avoided, because a lower score is better."""


def most_informative(
    forecast: Surrogate,
    pool: Floats,
    tried: Floats,
    size: int,
    limits: WeightConstraints,
    rng: np.random.Generator,
) -> Floats:
    """Choose the mixtures of a round by the knowledge gradient (Wu and Frazier 2016).

    The chosen mixtures are those whose scores are expected to improve the best prediction most;
    no mixture is chosen twice. Returns their weights, ``[≤ size, K]``.
    """
    starts = np.concatenate([pool, tried])
    optima, _ = candidates.descend(forecast.total, starts, limits, rng, keep=HOPEFUL, steps=8)
    best = pool[np.argsort(forecast.total(pool), kind="stable")[:HOPEFUL]]
    hopeful = candidates.unmeasured(np.concatenate([optima, best]), tried)
    draws = forecast.draw(hopeful, DRAWS, rng)
    mean = draws.mean(axis=0)
    covariance = (draws - mean).T @ (draws - mean) / DRAWS
    noise = float((residuals(forecast) @ forecast.known.importance).var())
    return hopeful[knowledge_gradient(mean, covariance, noise, min(size, len(hopeful)))]


def knowledge_gradient(mean: Floats, covariance: Floats, noise: float, size: int) -> list[int]:
    """Choose ``size`` candidates, one after the other, and return their indexes.

    A run of one candidate would change the predictions of all. The candidate is chosen for which
    the lowest prediction after the run is lowest on average over the possible scores (Frazier,
    Powell and Dayanik 2009). A chosen candidate makes the others more certain, but its score is not
    known yet, so it changes only their covariance.

    Args:
        mean: Predicted scores of the candidates, ``[n]``; less is better.
        covariance: Covariance of the errors of these predictions, ``[n, n]``.
        noise: Variance of the noise of a score.
        size: Number of candidates to choose, at most n.
    """
    chosen: list[int] = []
    for _ in range(size):
        variance = np.maximum(covariance.diagonal() + noise, TINY)
        # Change of each prediction (row) if the score of a candidate (column) is one sd too high.
        change = covariance / np.sqrt(variance)
        lowest = sum(
            weight * (mean[:, None] + node * change).min(axis=0)
            for node, weight in zip(NODES, NODE_WEIGHTS, strict=True)
        )
        place = int(np.argmin(np.where(np.isin(np.arange(len(mean)), chosen), np.inf, lowest)))
        chosen.append(place)
        column = covariance[:, place]
        covariance = covariance - np.outer(column, column) / variance[place]
    return chosen


def find_best(
    forecast: Surrogate,
    pool: Floats,
    preset: Preset,
    limits: WeightConstraints,
    rng: np.random.Generator,
) -> Floats:
    """Return the weights, ``[K]``, of the mixture that is predicted best; see `Preset.answer`."""
    if preset.answer == "search":
        starts = np.concatenate([pool, forecast.known.weights])
        rows, _ = candidates.descend(
            lambda w: forecast.total(w) + CAUTION * forecast.sd(w), starts, limits, rng
        )
        best = rows[:ELITE]
    else:
        count = AVERAGED if preset.answer == "average" else 1
        best = pool[np.argsort(forecast.total(pool), kind="stable")[:count]]
    optimum: Floats = limits.project(best.mean(axis=0, keepdims=True))[0]
    return optimum


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """Best mixtures of searches on resampled scores, with one search per resample."""

    best: Floats
    """The mixture that each search predicts to be best, ``[draws, K]``."""
    predicted_optimism: float
    """Predicted gain minus true gain of the mixture in ``best``, as a mean over the searches. The
    largest and the smallest sixth of the values are left out, because some fits are far off."""
    measured_optimism: float
    """Predicted gain minus true gain of the mixture with the best resampled score, as a mean over
    the searches. The same fractions of the values are left out as for ``predicted_optimism``."""


def bootstrap(
    forecast: Surrogate,
    base: Floats,
    pool: Floats,
    limits: WeightConstraints,
    draws: int,
    rng: np.random.Generator,
) -> Bootstrap:
    """Return the results of searches on ``draws`` resamples of the scores, with their optimism.

    The method is the residual bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap,
    chapter 9). A resample is the predicted scores of the trials plus `residuals`, which are drawn
    with replacement. The predictors are fitted again to each resample. The true scores of a
    resample are known: they are the scores that ``forecast`` predicts. So each search shows by how
    much the predicted gain of a chosen mixture over ``base`` (``[K]``) exceeds its true gain. This
    excess is the optimism.
    """
    known = forecast.known
    means, errors = forecast.fitted(), residuals(forecast)
    starts = np.concatenate([pool, known.weights])
    repeats = known.repeats()
    best, optimism = [], []
    for _ in range(draws):
        # The errors of a trial on all targets stay together, because they are correlated.
        scores = means + errors[rng.integers(len(errors), size=len(errors))]
        total = forecast.again(scores)
        rows, _ = candidates.descend(
            lambda w, total=total: total(w) + CAUTION * forecast.sd(w),  # type: ignore[misc]
            starts,
            limits,
            rng,
            steps=8,
        )
        predicted = limits.project(rows[:ELITE].mean(axis=0, keepdims=True))[0]
        each = known.joined(np.stack([scores[repeat].mean(axis=0) for repeat in repeats]))
        measured = known.weights[repeats[int(np.argmin(each))][0]]
        three = np.stack([base, predicted, measured])
        excess = total(three) - forecast.total(three)
        best.append(predicted)
        optimism.append(excess[0] - excess[1:])
    middle = np.sort(optimism, axis=0)[draws // 6 : draws - draws // 6]
    predicted_optimism, measured_optimism = middle.mean(axis=0).tolist()
    return Bootstrap(
        best=np.stack(best),
        predicted_optimism=predicted_optimism,
        measured_optimism=measured_optimism,
    )


def residuals(forecast: Surrogate) -> Floats:
    """Return the errors of the predictions of all scores, shifted to mean 0: ``[n, T]``.

    The variance of errors of the fit is too small by the factor 1 - h, where h is the weight of a
    score in its own prediction. The variance of out-of-fold errors is too large by the same factor.
    So the geometric mean of the two errors is returned, because its variance is the variance of the
    noise (Davison and Hinkley, Bootstrap Methods and their Application, section 6.2).
    """
    known = forecast.known
    fitted = known.scores - forecast.fitted()
    out_of_fold = known.scores - np.stack([stack.out_of_fold for stack in forecast.stacks], axis=1)
    errors = np.sign(fitted) * np.sqrt(np.abs(fitted * out_of_fold))
    return np.asarray(errors - errors.mean(axis=0), np.float64)
