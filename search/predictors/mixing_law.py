"""Mixing law: a loss is a constant plus an exponential of a linear function of the weights.

The law is equation 1 of Ye et al., Data Mixing Laws (arXiv 2403.16952). Because the law fixes the
shape of the loss, it is better than the other predictors mainly if there are few scores to fit. The
law is wrong if a model can learn the same from several clusters.
"""

import numpy as np

from .base import Floats, one_thread, standardised

_PENALTIES = (0.1, 1.0, 10.0)
_STEPS = 40


class MixingLaw:
    """Predicts ``c + exp(a + w . t)`` for weights ``w``.

    ``c``, ``a`` and ``t`` are fitted by least squares, with a penalty mainly on ``t``.
    """

    name = "mixing law"

    def __init__(self) -> None:
        self._mean = self._sd = 0.0
        self._law = np.zeros(0)

    def fit(self, weights: Floats, scores: Floats) -> None:
        """Fit to the finite ``scores`` (``[n]``) of the mixtures ``weights`` (``[n, K]``).

        Lower scores are better.
        """
        y, self._mean, self._sd = standardised(scores)
        n, k = weights.shape
        self._law = np.concatenate([[-1.0, 0.0], np.zeros(k)])
        if not y.any() or n < 4:
            self._sd = 0.0
            return
        least = np.inf
        with one_thread():
            for penalty in _PENALTIES:
                law, error = _fit(weights, y, penalty)
                if error < least:
                    least, self._law = error, law

    def predict(self, weights: Floats) -> Floats:
        """Predict the scores of ``weights`` (``[m, K]``): float64 ``[m]``."""
        return _values(weights, self._law) * self._sd + self._mean


def _fit(weights: Floats, y: Floats, penalty: float) -> tuple[Floats, float]:
    """Fit the law with ``penalty``.

    Returns:
        The parameters ``c``, ``a`` and ``t`` of the law, ``[K + 2]``, and the generalised
        cross-validation error.
    """
    n, k = weights.shape
    start = np.array([-2.0, np.log(2.0), *np.zeros(k)])
    # Penalise c and a too: they diverge if the exponential is nearly a straight line.
    held = penalty * np.array([0.1, 0.1, *np.ones(k)])
    law, damping = start, 1e-3
    loss = np.inf
    for _ in range(_STEPS):
        # Levenberg-Marquardt: keep a step if it reduces the error; else shorten the next step.
        slopes, errors = _slopes(weights, law), _values(weights, law) - y
        normal = slopes.T @ slopes + np.diag(held)
        loss = errors @ errors + held @ (law - start) ** 2
        pull = slopes.T @ errors + held * (law - start)
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), pull)
        errors = _values(weights, law - step) - y
        after = errors @ errors + held @ (law - step - start) ** 2
        if not after < loss:
            damping *= 8
            continue
        law, damping = law - step, damping / 4
        if loss - after < 1e-6 * loss:
            break
    slopes, errors = _slopes(weights, law), _values(weights, law) - y
    square = slopes.T @ slopes
    used = np.trace(np.linalg.solve(square + np.diag(held), square))
    return law, float(errors @ errors / max(n - used, 1e-9) ** 2)


def _values(weights: Floats, law: Floats) -> Floats:
    """Return the losses that ``law`` predicts for ``weights``: ``[n]``."""
    return np.asarray(law[0] + np.exp(np.minimum(law[1] + weights @ law[2:], 5.0)), np.float64)


def _slopes(weights: Floats, law: Floats) -> Floats:
    """Return the derivatives of `_values` with respect to ``law``: ``[n, K + 2]``."""
    rise = (_values(weights, law) - law[0])[:, None]
    return np.hstack([np.ones_like(rise), rise, rise * weights])
