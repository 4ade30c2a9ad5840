"""Predictors: mixtures in, scores out, from the few trials that a search can pay for.

Every predictor standardises its target, so a target that spans 1e-4 is fitted like one that
spans 10. `PerTarget` gives each target a predictor of its own; a model of the mean of several
targets is several times worse. What a predictor is worth is measured out of fold, by fitting all
of it anew, its own validation included, without the trials that it is asked about.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Fold = tuple[NDArray[np.int64], NDArray[np.int64]]

MOST_TREES = 1000
PATIENCE = 20


class Predictor(Protocol):
    """Learns one score from weights. Its own randomness is fixed: equal rows, equal answers."""

    name: str

    def fit(self, weights: Floats, scores: Floats) -> None:
        """Learn finite ``scores`` (``[n]``) of the mixtures ``weights`` (``[n, K]``)."""

    def predict(self, weights: Floats) -> Floats:
        """Predict the scores of ``weights`` (``[m, K]``): float64 ``[m]``."""


class LightGBM:
    """CLIMB's gradient-boosted trees, with settings that work from 16 rows on.

    The published recipe stops early on rows that are then lost to the fit, and regularises
    the raw target, which leaves a constant when scores span 0.01. Here the number of trees comes
    from cross-validation, all rows are fitted, and the target is standardised first.
    """

    name = "lightgbm"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._mean, self._sd = 0.0, 1.0
        self._trees: Any = None

    def fit(self, weights: Floats, scores: Floats) -> None:
        """Learn ``scores``; fewer than 4 different mixtures, or equal scores, give their mean."""
        self._trees = None
        self._mean, self._sd = float(scores.mean()), float(scores.std())
        split = folds(weights, 5, self._seed)
        # Rounding leaves equal scores an sd of an ulp or two, which is nothing to learn from.
        if len(split) < 4 or self._sd <= 1e-12 * abs(self._mean):
            return

        import lightgbm  # noqa: PLC0415  (costs seconds: it brings scikit-learn)

        settings = self._settings(len(scores))
        data = lightgbm.Dataset(
            weights, (scores - self._mean) / self._sd, params=settings, free_raw_data=False
        )
        stop = lightgbm.early_stopping(PATIENCE, verbose=False)
        history: dict[str, Any] = lightgbm.cv(
            settings, data, MOST_TREES, folds=split, callbacks=[stop]
        )
        # As long as the best was, by the mean over the folds; and then on all rows.
        self._trees = lightgbm.train(settings, data, len(history["valid l2-mean"]))

    def predict(self, weights: Floats) -> Floats:
        """Predict the scores of ``weights`` (``[m, K]``): float64 ``[m]``."""
        if self._trees is None:
            return np.full(len(weights), self._mean)
        return np.asarray(self._trees.predict(weights) * self._sd + self._mean, np.float64)

    def _settings(self, rows: int) -> dict[str, Any]:
        return {
            "objective": "l2",
            "max_depth": 4,
            "num_leaves": 15,
            # 5 as published; under 40 rows that would not allow one good split.
            "min_data_in_leaf": min(5, max(1, rows // 8)),
            "min_data_in_bin": 1,
            "feature_pre_filter": False,
            # Both in units of a standardised target.
            "lambda_l1": 0.1,
            "lambda_l2": 1.0,
            "learning_rate": 0.1,
            # Bagging takes a fifth off the error at 112 rows.
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "seed": self._seed,
            # The same trees on every run; more threads do not pay for a hundred rows.
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "verbosity": -1,
        }


class PerTarget:
    """One predictor for each target: from ``[n, K]`` to ``[n, T]``."""

    def __init__(self, make: Callable[[], Predictor], weights: Floats, scores: Floats) -> None:
        """Fit a predictor that ``make`` gives to each column of ``scores`` (``[n, T]``)."""
        self._models = [make() for _ in scores.T]
        for model, column in zip(self._models, scores.T, strict=True):
            model.fit(weights, column)

    def predict(self, weights: Floats) -> Floats:
        """Predict all targets of ``weights`` (``[m, K]``): float64 ``[m, T]``."""
        return np.stack([model.predict(weights) for model in self._models], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """What a predictor of a target is worth on mixtures that it was not fitted on."""

    predictor: str
    target: str
    rows: int
    nmse: float
    """Squared error, in units of the variance of the scores: 1 is what their mean would give."""
    spearman: float
    """Rank correlation of predicted and measured; 0 if the predictions are all the same."""
    verdict: str
    """``useful``, ``no better than the mean``, or ``constant``."""

    @property
    def r2(self) -> float:
        """Part of the variance that is explained; negative if worse than the mean."""
        return 1 - self.nmse


def cross_validate(
    make: Callable[[], Predictor],
    targets: Sequence[str],
    weights: Floats,
    scores: Floats,
    seed: int = 0,
) -> tuple[Floats, list[Skill]]:
    """Measure what `PerTarget` is worth for each column of ``scores`` (``[n, T]``).

    Returns:
        The predictions out of fold, float64 ``[n, T]``, and one skill for each target.
    """
    predicted = np.empty_like(scores)
    constant = np.ones(len(targets), np.bool_)
    for train, test in folds(weights, 5, seed):
        everywhere = PerTarget(make, weights[train], scores[train]).predict(weights)
        predicted[test] = everywhere[test]
        constant &= np.ptp(everywhere, axis=0) == 0
    variance = scores.var(axis=0)
    error = ((predicted - scores) ** 2).mean(axis=0)
    skills = []
    for t, target in enumerate(targets):
        nmse = float(error[t] / variance[t]) if variance[t] > 0 else 1.0
        useful = "useful" if nmse < 1 else "no better than the mean"
        skills.append(
            Skill(
                predictor=make().name,
                target=target,
                rows=len(scores),
                nmse=nmse,
                # A constant differs from fold to fold, which would look like ranks.
                spearman=0.0 if constant[t] else spearman(scores[:, t], predicted[:, t]),
                verdict="constant" if constant[t] else useful,
            )
        )
    return predicted, skills


def folds(weights: Floats, k: int, seed: int) -> list[Fold]:
    """Split rows into at most ``k`` folds, as row numbers to fit on and to test on.

    Repeats of a mixture share a fold: else one would be predicted from the other.
    """
    _, group = np.unique(weights, axis=0, return_inverse=True)
    groups = np.random.default_rng(seed).permutation(int(group.max()) + 1)
    parts = [np.isin(group, part) for part in np.array_split(groups, min(k, len(groups)))]
    return [(np.flatnonzero(~test), np.flatnonzero(test)) for test in parts]


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
