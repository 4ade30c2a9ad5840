"""Where to look next, and what to answer: the mixtures that a forecast says may be best."""

from collections.abc import Callable

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


def bootstrap(
    forecast: Surrogate,
    pool: Floats,
    limits: WeightConstraints,
    draws: int,
    rng: np.random.Generator,
) -> Floats:
    """Find the best mixture anew from scores that might as well have come out: ``[draws, K]``.

    Each time the predictors are fitted to what was predicted of the trials and errors that were
    made out of fold, in another order (the residual bootstrap; Efron and Tibshirani, An
    Introduction to the Bootstrap, chapter 9).
    """
    known = forecast.known
    means = forecast.scores(known.weights)
    errors = known.scores - np.stack([stack.out_of_fold for stack in forecast.stacks], axis=1)
    errors -= errors.mean(axis=0)
    starts = np.concatenate([pool, known.weights])
    found = []
    for _ in range(draws):
        # Errors of one trial stay together: targets have noise in common.
        scores = means + errors[rng.integers(len(errors), size=len(errors))]
        predict = [
            stack.again(known.weights, column)
            for stack, column in zip(forecast.stacks, scores.T, strict=True)
        ]

        def total(weights: Floats, predict: list[Callable[[Floats], Floats]] = predict) -> Floats:
            return known.joined(np.stack([each(weights) for each in predict], axis=1))

        rows, _ = candidates.descend(total, starts, limits, rng, steps=8)
        found.append(limits.project(rows[:ELITE].mean(axis=0, keepdims=True))[0])
    return np.stack(found)
