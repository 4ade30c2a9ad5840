"""Ridge regression on the weights: the baseline with which all other predictors are compared."""

import numpy as np

from .base import Floats, one_thread, standardised

_PENALTIES = np.logspace(-4, 3, 29)


class Ridge:
    """Ridge regression, with a penalty chosen by generalised cross-validation (Golub 1979)."""

    name = "ridge"

    def __init__(self) -> None:
        self._center = self._slope = np.zeros(0)
        self._mean = 0.0

    def fit(self, weights: Floats, scores: Floats) -> None:
        """Fit to the finite ``scores`` (``[n]``) of the mixtures ``weights`` (``[n, K]``)."""
        y, self._mean, sd = standardised(scores)
        self._center = weights.mean(axis=0)
        with one_thread():
            left, sizes, right = np.linalg.svd(weights - self._center, full_matrices=False)
            shares = left.T @ y
            kept = sizes**2 / (sizes**2 + _PENALTIES[:, None])
            rest = y @ y - ((1 - (1 - kept) ** 2) * shares**2).sum(axis=1)
            # Fitting the mean uses one degree of freedom.
            free = np.maximum(len(y) - 1 - kept.sum(axis=1), 1e-9)
            best = kept[int(np.argmin(rest / free**2))]
            sound = sizes > 1e-10
            self._slope = sd * (right[sound].T @ ((best * shares)[sound] / sizes[sound]))

    def predict(self, weights: Floats) -> Floats:
        """Predict the scores of ``weights`` (``[m, K]``): float64 ``[m]``."""
        return np.asarray((weights - self._center) @ self._slope + self._mean, np.float64)
