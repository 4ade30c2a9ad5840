"""Acquisition: choose the mixtures that may be best, by a surrogate's predictions and errors."""

from dataclasses import dataclass

import numpy as np

from climbstream.search.predictors.base import Floats

from . import candidates
from .constraints import WeightConstraints
from .presets import Preset
from .surrogate import Surrogate

HOPEFUL = 300
"""Number of mixtures from the pool, and of mixtures from a local search, of which a round is
chosen."""
AVERAGED = 100
"""Number of mixtures whose mean is the answer of one shot."""
ELITE = 20
"""Number of results of the local search whose mean is its answer."""
CAUTION = 1.0
"""Standard deviations of a prediction that are added to its score."""


def thompson_sample(
    forecast: Surrogate,
    pool: Floats,
    tried: Floats,
    size: int,
    limits: WeightConstraints,
    rng: np.random.Generator,
) -> Floats:
    """Choose a round by Thompson sampling: each mixture is the best of one possible curve.

    So mixtures lie as far apart as predictions are uncertain, and none is chosen twice (Kandasamy
    et al. 2018, on parallel Thompson sampling). Returns ``[≤ size, K]``.
    """
    starts = np.concatenate([pool, tried])
    optima, _ = candidates.descend(forecast.total, starts, limits, rng, keep=HOPEFUL, steps=8)
    best = pool[np.argsort(forecast.total(pool), kind="stable")[:HOPEFUL]]
    hopeful = candidates.unmeasured(np.concatenate([optima, best]), tried)
    chosen: list[int] = []
    for values in forecast.draw(hopeful, size, rng):
        values[chosen] = np.inf
        chosen.append(int(np.argmin(values)))
    return hopeful[chosen[: len(hopeful)]]


def find_best(
    forecast: Surrogate,
    pool: Floats,
    preset: Preset,
    limits: WeightConstraints,
    rng: np.random.Generator,
) -> Floats:
    """Find the mixture that is predicted best, by the method of ``preset``: ``[K]``."""
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
    """Searches for the best mixture, each on other scores that are equally likely."""

    best: Floats
    """The mixture that each search predicts to be best, ``[draws, K]``."""
    predicted_optimism: float
    """Mean over the searches of predicted gain minus true gain of their ``best``. The sixth at each
    end is left out, as some fits are far off."""
    measured_optimism: float
    """The same for the mixture with the best score."""


def bootstrap(
    forecast: Surrogate,
    base: Floats,
    pool: Floats,
    limits: WeightConstraints,
    draws: int,
    rng: np.random.Generator,
) -> Bootstrap:
    """Search ``draws`` times, each on other scores; gains are over ``base`` (``[K]``).

    Each time the predictors are fitted to the predicted scores of the trials plus `residuals` in
    another order (the residual bootstrap; Efron and Tibshirani, An Introduction to the Bootstrap,
    chapter 9). There the true scores are known: they are those that ``forecast`` predicts. So each
    search shows by how much a choice among many is too optimistic.
    """
    known = forecast.known
    means, errors = forecast.fitted(), residuals(forecast)
    starts = np.concatenate([pool, known.weights])
    repeats = known.repeats()
    best, optimism = [], []
    for _ in range(draws):
        # Errors of one trial stay together, as its targets share noise.
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
    """Return errors of scores around the predictions, with mean 0: ``[n, T]``.

    Errors of the fit are too small by the factor 1 - h, where h is the weight of a score in its own
    prediction; errors out of fold are too large by the same factor. Their geometric mean has the
    variance of the noise (Davison and Hinkley, Bootstrap Methods and their Application, section
    6.2).
    """
    known = forecast.known
    fitted = known.scores - forecast.fitted()
    out_of_fold = known.scores - np.stack([stack.out_of_fold for stack in forecast.stacks], axis=1)
    errors = np.sign(fitted) * np.sqrt(np.abs(fitted * out_of_fold))
    return np.asarray(errors - errors.mean(axis=0), np.float64)
