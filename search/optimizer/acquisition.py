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
AVERAGED = 100
"""For presets with ``answer="average"``: number of best predicted mixtures that are averaged."""
ELITE = 20
"""For presets with ``answer="search"``: number of best mixtures of the local search that are
averaged."""
CAUTION = 1.0
"""Number of sds of a prediction that are added to the predicted score. So mixtures with uncertain
predictions are avoided, because a lower score is better."""


def thompson_sample(
    forecast: Surrogate,
    pool: Floats,
    tried: Floats,
    size: int,
    limits: WeightConstraints,
    rng: np.random.Generator,
) -> Floats:
    """Choose the mixtures of a round by Thompson sampling (Kandasamy et al. 2018).

    For each place in the round, every candidate gets a random score. The random scores are drawn
    from the joint distribution of the predictions. The candidate with the best random score is
    chosen; no mixture is chosen twice. So the more uncertain the predictions are, the more the
    chosen mixtures differ. Returns the chosen weights, ``[≤ size, K]``.
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
