"""Predictors: mixtures in, scores out, from the few trials that a search can pay for.

Every predictor standardises its target, so a target that spans 1e-4 is fitted like one that
spans 10. Each target has predictors of its own; a model of the mean of several targets is several
times worse. What a predictor is worth is measured out of fold, by fitting all of it anew, its own
validation included, without the trials that it is asked about.
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
"""Makes a predictor that has learnt nothing yet."""
Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


class Predictor(Protocol):
    """Learns one score from weights. Its own randomness is fixed: equal rows, equal answers."""

    name: str

    def fit(self, weights: Floats, scores: Floats) -> None:
        """Learn finite ``scores`` (``[n]``) of the mixtures ``weights`` (``[n, K]``)."""

    def predict(self, weights: Floats) -> Floats:
        """Predict the scores of ``weights`` (``[m, K]``): float64 ``[m]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """What a predictor of a target is worth on mixtures that it was not fitted on."""

    predictor: str
    rows: int
    nmse: float
    """Squared error; 1 is what the mean of the other scores would give."""
    spearman: float
    """Rank correlation of predicted and measured; 0 if the predictions are all the same."""
    verdict: str
    """``useful``, ``no better than the mean``, or ``constant``."""
    target: str = ""

    @property
    def r2(self) -> float:
        """Part of the variance that is explained; negative if worse than the mean."""
        return 1 - self.nmse


def judge(
    predictor: str, scores: Floats, predicted: Floats, base: Floats, *, constant: bool
) -> Skill:
    """Say what predictions out of fold are worth.

    Args:
        predictor: Name.
        scores: ``[n]``.
        predicted: ``[n]``, each by a predictor that had not seen that mixture.
        base: ``[n]``, the mean of what each of those had seen.
        constant: Whether all were the same within each fold. They differ from fold to fold,
            which would look like ranks.
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

    Repeats of a mixture share a fold: else one would be predicted from the other.
    """
    _, group = np.unique(weights, axis=0, return_inverse=True)
    groups = np.random.default_rng(seed).permutation(int(group.max()) + 1)
    parts = [np.isin(group, part) for part in np.array_split(groups, min(k, len(groups)))]
    return [(np.flatnonzero(~test), np.flatnonzero(test)) for test in parts]


def one_thread() -> AbstractContextManager[object]:
    """Keep linear algebra on one thread: more change the last bits, and so the next proposals."""
    held: AbstractContextManager[object] = _libraries().limit(limits=1)
    return held


@cache
def _libraries() -> Any:
    """Find the libraries of linear algebra, which takes 15 ms; those of scipy are among them."""
    import scipy.linalg  # noqa: PLC0415  (late: it costs a second)
    from threadpoolctl import ThreadpoolController  # noqa: PLC0415

    assert scipy.linalg
    return ThreadpoolController().select(user_api="blas")


def standardised(scores: Floats) -> tuple[Floats, float, float]:
    """Return ``scores`` with mean 0 and sd 1, the mean and the sd; equal ones become 0, with sd 0.

    Rounding leaves equal scores an sd of an ulp or two, which is nothing to learn from.
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
