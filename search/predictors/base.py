"""Predictors: functions from mixtures to scores, learned from the few trials of a search.

Every predictor standardises the scores of its target. So scores that span 1e-4 are fitted in the
same way as scores that span 10. Each target has its own predictors, because a single predictor of
the mean score of several targets has an error several times as large. A predictor is judged by its
out-of-fold errors: it is fitted again, including its own cross-validation, without the trials that
it then predicts.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

USEFUL = "useful"
"""Verdict of a predictor whose predictions are surely better than the mean."""
NORMAL_95 = 1.6449
"""The 95 % quantile of the normal distribution."""
Floats = NDArray[np.float64]
Make = Callable[[], "Predictor"]
"""A function that makes a predictor that is not yet fitted."""
Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Indexes of the rows to fit on, and of the rows to test on."""


class Predictor(Protocol):
    """Predicts one score from weights.

    Predictors that are fitted to the same weights and scores make the same predictions.
    """

    name: str

    def fit(self, weights: Floats, scores: Floats) -> None:
        """Fit to the finite ``scores`` (``[n]``) of the mixtures ``weights`` (``[n, K]``)."""

    def predict(self, weights: Floats) -> Floats:
        """Predict the scores of ``weights`` (``[m, K]``): float64 ``[m]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """Quality of a predictor's predictions for mixtures that it was not fitted on."""

    predictor: str
    """Name of the predictor."""
    rows: int
    """Number of predictions that were compared with a measured score."""
    nmse: float
    """Mean squared error, divided by the error of always predicting the mean of the fitted scores.
    A value below 1 means that the predictor is better than the mean."""
    spearman: float
    """Rank correlation of predicted and measured scores; 0 if all predictions are the same."""
    verdict: str
    """``useful``, ``not surely better than the mean``, ``no better than the mean``, or
    ``constant``. ``useful`` means two things: the errors are smaller than those of the mean, and
    chance alone would give such a rank correlation in at most 5 % of cases."""
    target: str = ""

    @property
    def r2(self) -> float:
        """Explained fraction of the variance; negative if the predictor is worse than the mean."""
        return 1 - self.nmse


def judge(
    predictor: str, scores: Floats, predicted: Floats, base: Floats, *, constant: bool
) -> Skill:
    """Return the quality of the out-of-fold predictions of a predictor.

    Args:
        predictor: Name of the predictor.
        scores: Measured scores, ``[n]``.
        predicted: Predictions, ``[n]``, each from a fit without the mixture that it predicts.
        base: Mean of the scores that each prediction was fitted on, ``[n]``.
        constant: Whether the predictor returned one score for all mixtures in every fold. These
            scores differ between folds, so their rank correlation would be misleading.
    """
    variance = float(((scores - base) ** 2).mean())
    error = float(((scores - predicted) ** 2).mean())
    nmse = error / variance if variance > 0 else 1.0
    rank = 0.0 if constant else spearman(scores, predicted)
    verdict = "no better than the mean"
    if constant:
        verdict = "constant"
    elif nmse < 1:
        # Of unrelated ranks, the correlation has mean 0 and sd 1 / sqrt(n - 1).
        sure = rank * math.sqrt(len(scores) - 1) > NORMAL_95
        verdict = USEFUL if sure else "not surely better than the mean"
    return Skill(
        predictor=predictor,
        rows=len(scores),
        nmse=nmse if math.isfinite(nmse) else math.inf,
        spearman=rank,
        verdict=verdict,
    )


def folds(weights: Floats, k: int, seed: int) -> list[Fold]:
    """Split mixtures into at most ``k`` folds; return the row indexes of each `Fold`.

    Repeats of a mixture are in the same fold, so that no score is predicted from a repeat.
    """
    _, group = np.unique(weights, axis=0, return_inverse=True)
    groups = np.random.default_rng(seed).permutation(int(group.max()) + 1)
    parts = [np.isin(group, part) for part in np.array_split(groups, min(k, len(groups)))]
    return [(np.flatnonzero(~test), np.flatnonzero(test)) for test in parts]


def one_thread() -> AbstractContextManager[object]:
    """Return a context that limits linear algebra to one thread.

    With more threads, results differ in their last bits, and then the proposed mixtures differ.
    """
    held: AbstractContextManager[object] = _libraries().limit(limits=1)
    return held


@cache
def _libraries() -> Any:
    """Find the BLAS libraries that numpy and scipy have loaded; the look-up takes 15 ms."""
    import scipy.linalg  # noqa: PLC0415  (imported late, because it takes a second)
    from threadpoolctl import ThreadpoolController  # noqa: PLC0415

    assert scipy.linalg
    return ThreadpoolController().select(user_api="blas")


def standardised(scores: Floats) -> tuple[Floats, float, float]:
    """Return ``scores`` shifted and scaled to mean 0 and sd 1, and their original mean and sd.

    Equal scores become 0, with sd 0. Because of rounding, the computed sd of equal scores may be
    slightly above 0. So an sd below 1e-12 times the mean counts as 0.
    """
    mean, sd = float(scores.mean()), float(scores.std())
    if sd <= 1e-12 * abs(mean):
        return np.zeros_like(scores), mean, 0.0
    return (scores - mean) / sd, mean, sd


def spearman(a: Floats, b: Floats) -> float:
    """Return the rank correlation of ``a`` and ``b`` (``[n]``); ties have their mean rank.

    The result is 0 if all values of ``a`` or of ``b`` are equal.
    """
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 else 0.0


def _ranks(values: Floats) -> Floats:
    """Return the rank of each of ``values``, from 1, float64 ``[n]``; ties have their mean rank."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place], np.float64)
