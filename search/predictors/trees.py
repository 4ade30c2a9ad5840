"""Trees: gradient-boosted trees as in CLIMB, with settings corrected for few trials."""

from typing import Any

import numpy as np

from .base import Floats, folds, standardised

MOST_TREES = 1000
PATIENCE = 20


class LightGBM:
    """CLIMB's gradient-boosted trees, with settings for as few as 16 trials.

    The published recipe has two problems with few trials. It sets some trials aside for early
    stopping, so these trials are missing from the fit. And it regularises raw scores, so it
    predicts the same score for all mixtures if scores span only 0.01. Here the number of trees is
    chosen by cross-validation, the trees are fitted to all trials, and scores are standardised
    first.
    """

    name = "lightgbm"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._mean, self._sd = 0.0, 1.0
        self._trees: Any = None

    def fit(self, weights: Floats, scores: Floats) -> None:
        """Fit to the finite ``scores`` (``[n]``) of the mixtures ``weights`` (``[n, K]``).

        With fewer than 4 different mixtures, or with equal scores, all predictions are the mean.
        """
        self._trees = None
        y, self._mean, self._sd = standardised(scores)
        split = folds(weights, 5, self._seed)
        if len(split) < 4 or not y.any():
            return

        import lightgbm  # noqa: PLC0415  (takes seconds, because it imports scikit-learn)

        settings = self._settings(len(scores))
        data = lightgbm.Dataset(weights, y, params=settings, free_raw_data=False)
        stop = lightgbm.early_stopping(PATIENCE, verbose=False)
        history: dict[str, Any] = lightgbm.cv(
            settings, data, MOST_TREES, folds=split, callbacks=[stop]
        )
        # Fit all rows with the number of trees that had the least mean error over the folds.
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
            # The paper uses 5. With fewer than 40 rows, 5 would allow no good split.
            "min_data_in_leaf": min(5, max(1, rows // 8)),
            "min_data_in_bin": 1,
            "feature_pre_filter": False,
            # Both penalties are in units of the standardised scores.
            "lambda_l1": 0.1,
            "lambda_l2": 1.0,
            "learning_rate": 0.1,
            # With 112 rows, bagging reduces the error by a fifth.
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "seed": self._seed,
            # Make the same trees in every run. For a hundred rows, more threads save no time.
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "verbosity": -1,
        }
