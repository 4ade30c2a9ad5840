"""Predictors: mixtures in, scores out, learned from the few trials that a search can pay for.

Every predictor standardises its target, so that a target that spans 1e-4 is fitted like one that
spans 10. Each target has predictors of its own: the error of a model of the mean of several targets
is several times as large. A predictor is judged out of fold: it is fitted anew, with its own
validation, without the trials that it then predicts.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Make = Callable[[], "Predictor"]
"""Makes a predictor that has learned nothing yet."""
Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


class Predictor(Protocol):
    """Learns one score from weights. Its randomness is fixed: equal rows give equal predictions."""

    name: str

    def fit(self, weights: Floats, scores: Floats) -> None:
        """Learn finite ``scores`` (``[n]``) of the mixtures ``weights`` (``[n, K]``)."""

    def predict(self, weights: Floats) -> Floats:
        """Predict the scores of ``weights`` (``[m, K]``): float64 ``[m]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """How good a predictor of a target is on mixtures that it was not fitted on."""

    predictor: str
    rows: int
    nmse: float
    """Mean squared error, where 1 is that of predicting the mean of the other scores."""
    spearman: float
    """Rank correlation of predicted and measured scores; 0 if all predictions are the same."""
    verdict: str
    """``useful``, ``no better than the mean``, or ``constant``."""
    target: str = ""

    @property
    def r2(self) -> float:
        """Explained part of the variance; negative if worse than the mean."""
        return 1 - self.nmse


def judge(
    predictor: str, scores: Floats, predicted: Floats, base: Floats, *, constant: bool
) -> Skill:
    """Measure how good out-of-fold predictions are.

    Args:
        predictor: Name of the predictor.
        scores: Measured scores, ``[n]``.
        predicted: Predictions, ``[n]``, each without that mixture.
        base: Mean of the scores that each prediction was fitted on, ``[n]``.
        constant: Whether all predictions of a fold were the same. They differ between folds, which
            would look like a rank correlation.
    """
    variance = float(((scores - base) ** 2).mean())
    error = float(((scores - predicted) ** 2).mean())
    nmse = error / variance if variance > 0 else 1.0
    verdict = "useful" if nmse < 1 else "no better than the mean"
    return Skill(
        predictor=predictor,
        rows=len(scores),
        nmse=nmse if math.isfinite(nmse) else math.inf,
        spearman=0.0 if constant else spearman(scores, predicted),
        verdict="constant" if constant else verdict,
    )


def folds(weights: Floats, k: int, seed: int) -> list[Fold]:
    """Split rows into at most ``k`` folds: row numbers to fit on and to test on.

    Repeats of a mixture share a fold, so that none is predicted from another.
    """
    _, group = np.unique(weights, axis=0, return_inverse=True)
    groups = np.random.default_rng(seed).permutation(int(group.max()) + 1)
    parts = [np.isin(group, part) for part in np.array_split(groups, min(k, len(groups)))]
    return [(np.flatnonzero(~test), np.flatnonzero(test)) for test in parts]


def one_thread() -> AbstractContextManager[object]:
    """Limit linear algebra to one thread: more change the last bits, and so the proposals."""
    held: AbstractContextManager[object] = _libraries().limit(limits=1)
    return held


@cache
def _libraries() -> Any:
    """Find the libraries of linear algebra, those of scipy too; this takes 15 ms."""
    import scipy.linalg  # noqa: PLC0415  (late: it costs a second)
    from threadpoolctl import ThreadpoolController  # noqa: PLC0415

    assert scipy.linalg
    return ThreadpoolController().select(user_api="blas")


def standardised(scores: Floats) -> tuple[Floats, float, float]:
    """Return ``scores`` with mean 0 and sd 1, their mean and their sd; equal scores become 0.

    Rounding gives equal scores an sd of an ulp or two, which is taken for 0.
    """
    mean, sd = float(scores.mean()), float(scores.std())
    if sd <= 1e-12 * abs(mean):
        return np.zeros_like(scores), mean, 0.0
    return (scores - mean) / sd, mean, sd


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation of ``a`` and ``b`` (``[n]``), ties sharing their mean rank."""
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 else 0.0


def _ranks(values: Floats) -> Floats:
    """Rank ``values``: float64 ``[n]``."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place], np.float64)
