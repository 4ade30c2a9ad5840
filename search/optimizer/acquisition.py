"""Where to look next, and what to answer: the mixtures that a forecast says may be best."""

from dataclasses import dataclass

import numpy as np

from climbstream.search.predictors.base import Floats

from . import candidates
from .constraints import WeightConstraints
from .presets import Preset
from .surrogate import Surrogate

HOPEFUL = 300
"""Mixtures, of the pool and of a local search each, that a round is chosen from."""
AVERAGED = 100
"""In the mean that is the answer of one shot."""
ELITE = 20
"""Results of the local search in the mean that is its answer."""
CAUTION = 1.0
"""Sd of a prediction that count against a mixture."""


def thompson_sample(
    forecast: Surrogate,
    pool: Floats,
    tried: Floats,
    size: int,
    limits: WeightConstraints,
    rng: np.random.Generator,
) -> Floats:
    """Choose a round by Thompson sampling: each mixture is best on one curve that may be true.

    So the choice is as wide as the doubt is, and none is chosen twice (Kandasamy et al. 2018, on
    parallel Thompson sampling). Returns ``[≤ size, K]``.
    """
    starts = np.concatenate([pool, tried])
    found, _ = candidates.descend(forecast.total, starts, limits, rng, keep=HOPEFUL, steps=8)
    best = pool[np.argsort(forecast.total(pool), kind="stable")[:HOPEFUL]]
    hopeful = candidates.unmeasured(np.concatenate([found, best]), tried)
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
    """Find the mixture that is predicted best, in the way of ``preset``: ``[K]``."""
    if preset.answer == "search":
        starts = np.concatenate([pool, forecast.known.weights])
        rows, _ = candidates.descend(
            lambda w: forecast.total(w) + CAUTION * forecast.sd(w), starts, limits, rng
        )
        best = rows[:ELITE]
    else:
        count = AVERAGED if preset.answer == "average" else 1
        best = pool[np.argsort(forecast.total(pool), kind="stable")[:count]]
    found: Floats = limits.project(best.mean(axis=0, keepdims=True))[0]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """Searches for the best mixture after scores that might as well have come out."""

    best: Floats
    """The mixture that each predicts to be best, ``[draws, K]``."""
    predicted_optimism: float
    """By how much the gain that a search predicts for its ``best`` exceeds the true one: the mean
    over the searches without the sixth at each end, as some fits are far off."""
    measured_optimism: float
    """The same of the mixture with the best score."""


def bootstrap(
    forecast: Surrogate,
    base: Floats,
    pool: Floats,
    limits: WeightConstraints,
    draws: int,
    rng: np.random.Generator,
) -> Bootstrap:
    """Search anew ``draws`` times, each after other scores; gains are over ``base`` (``[K]``).

    Each time the predictors are fitted to what was predicted of the trials and `residuals` in
    another order (the residual bootstrap; Efron and Tibshirani, An Introduction to the Bootstrap,
    chapter 9). There the truth is known: it is what ``forecast`` predicts. So the optimism of a
    choice among many can be read off.
    """
    known = forecast.known
    means, errors = forecast.scores(known.weights), residuals(forecast)
    starts = np.concatenate([pool, known.weights])
    repeats = known.repeats()
    best, optimism = [], []
    for _ in range(draws):
        # Errors of one trial stay together: targets have noise in common.
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
    """Return errors that scores have around the predictions, mean 0: ``[n, T]``.

    Errors of the fit are too small, by 1 - h, the part that a score has in its own prediction, and
    errors out of fold too large by the same. Their geometric mean has the variance of the noise
    (Davison and Hinkley, Bootstrap Methods and their Application, section 6.2).
    """
    known = forecast.known
    fitted = known.scores - forecast.scores(known.weights)
    out_of_fold = known.scores - np.stack([stack.out_of_fold for stack in forecast.stacks], axis=1)
    errors = np.sign(fitted) * np.sqrt(np.abs(fitted * out_of_fold))
    return np.asarray(errors - errors.mean(axis=0), np.float64)
