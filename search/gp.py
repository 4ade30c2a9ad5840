"""A Gaussian process on the logarithm of the weights: the predictor for few and noisy rows.

What a cluster is worth falls with its weight about as a logarithm does, so weights enter as
log(1 + w / 0.002); on raw weights the error is several times larger (docs/decisions.md). The
covariance is a Matérn-5/2 with a length scale for each cluster plus a linear one (Rasmussen and
Williams, Gaussian Processes for Machine Learning, chapters 2, 4 and 5). Its parameters are the
most probable ones under priors that are wide, but hold where scores are mostly noise: there the
length scales stay long and the noise takes what is left. Exact; one fit takes n^3, so a tenth of
a second at 112 rows and some seconds at 512.
"""

import math
from collections.abc import Callable

import numpy as np

from .predictor import Floats, one_thread, standardised

Feature = Callable[[Floats], Floats]
"""What is known of a target before any trial: from mixtures ``[m, K]`` to numbers ``[m]``."""
KNEE = 0.002
"""Weight at which the logarithm sets in: smaller ones count as linear."""
_JITTER = 1e-8
_STEPS = 25
"""Of the optimiser; more do not change predictions."""

# Priors of the logarithms, as mean and sd; scores have variance 1, features lie between 0 and 1.
_LENGTH_SD = 1.0
_CURVED = (math.log(0.3), 1.5)
_LINEAR = (math.log(1.0), 1.5)
_NOISE = (math.log(0.1), 2.0)


class GaussianProcess:
    """A Gaussian process with parameters that are fitted to every target anew.

    Args:
        feature: What is known before any trial, from ``[m, K]`` to ``[m]``. The mean is this times
            a factor that is fitted.
    """

    name = "gaussian process"

    def __init__(self, feature: Feature | None = None) -> None:
        self._feature = feature
        if feature is not None:
            self.name = "gaussian process on prior"
        self.noise = 0.0
        """Sd of a score between runs of one mixture, as fitted."""

    def fit(self, weights: Floats, scores: Floats) -> None:
        """Learn ``scores`` (``[n]``, finite) of ``weights`` (``[n, K]``); equal ones give it."""
        y, self._mean, self._sd = standardised(scores)
        self._rows = log_features(weights)
        self._center = self._rows.mean(axis=0)
        self._known = np.ones((len(y), 1))
        if self._feature is not None:
            _, *self._scale = standardised(self._feature(weights))
            self._known = self._knowledge(weights)
        self._constant = len(y) < 3 or not y.any()
        if self._constant:
            return
        with one_thread():
            self._theta = self._most_probable(y)
            k, self._lengths, _ = self._covariance(self._theta)
            import scipy.linalg  # noqa: PLC0415  (late: it costs a second)

            k[np.diag_indices_from(k)] += math.exp(self._theta[-1]) + _JITTER
            self._root = scipy.linalg.cholesky(k, lower=True)
            self._alpha = scipy.linalg.cho_solve((self._root, True), y)
        self.noise = self._sd * math.exp(self._theta[-1] / 2)

    def predict(self, weights: Floats) -> Floats:
        """Predict the scores of ``weights`` (``[m, K]``): float64 ``[m]``."""
        if self._constant:
            return np.full(len(weights), self._mean)
        with one_thread():
            return np.asarray(self._cross(weights) @ self._alpha * self._sd + self._mean)

    def sd(self, weights: Floats) -> Floats:
        """Uncertainty of what is predicted, noise of a run left out: float64 ``[m]``."""
        if self._constant:
            return np.full(len(weights), self._sd)
        import scipy.linalg  # noqa: PLC0415

        with one_thread():
            cross = self._cross(weights)
            half = scipy.linalg.solve_triangular(self._root, cross.T, lower=True)
            z = log_features(weights) - self._center
            known = self._knowledge(weights)
            curved, linear = np.exp(self._theta[-3:-1])
            own = (known * known).sum(axis=1) + curved + linear * (z * z).sum(axis=1)
            return np.asarray(np.sqrt(np.maximum(own - (half * half).sum(axis=0), 0)) * self._sd)

    def draw(self, weights: Floats, n: int, rng: np.random.Generator) -> Floats:
        """Draw ``n`` curves that agree with the scores, at ``weights``: float64 ``[n, m]``.

        Only their deviations from what is predicted, so that another mean may be put under them.
        """
        if self._constant:
            return self._sd * rng.standard_normal((n, len(weights)))
        import scipy.linalg  # noqa: PLC0415

        with one_thread():
            z, known = log_features(weights), self._knowledge(weights)
            half = scipy.linalg.solve_triangular(self._root, self._cross(weights).T, lower=True)
            k = self._between(z, known, z, known) - half.T @ half
            k[np.diag_indices_from(k)] += 1e-6 * k.diagonal().max() + _JITTER
            root = scipy.linalg.cholesky(k, lower=True)
            return np.asarray(rng.standard_normal((n, len(z))) @ root.T * self._sd)

    def _most_probable(self, y: Floats) -> Floats:
        """Maximise the posterior of the parameters: logarithms of lengths, variances, noise."""
        from scipy.optimize import minimize  # noqa: PLC0415

        k = self._rows.shape[1]
        center = np.array([math.log(math.sqrt(k))] * k + [_CURVED[0], _LINEAR[0], _NOISE[0]])
        width = np.array([_LENGTH_SD] * k + [_CURVED[1], _LINEAR[1], _NOISE[1]])
        result = minimize(  # type: ignore[call-overload]
            lambda theta: self._loss(theta, y, center, width),
            center,
            jac=True,
            method="L-BFGS-B",
            bounds=[(c - 6, c + 6) for c in center],
            options={"maxiter": _STEPS},
        )
        return np.asarray(result.x, np.float64)

    def _loss(
        self, theta: Floats, y: Floats, center: Floats, width: Floats
    ) -> tuple[float, Floats]:
        """Negative logarithm of the posterior, and its gradient."""
        from scipy.linalg.lapack import dpotrf, dpotri  # noqa: PLC0415

        k, lengths, slope = self._covariance(theta)
        linear, noise = np.exp(theta[-2:])
        total = k.copy()
        total[np.diag_indices_from(total)] += noise + _JITTER
        root, failed = dpotrf(total, lower=1)
        if failed:
            return 1e25, np.zeros_like(theta)
        logdet = 2 * np.log(np.diag(root)).sum()
        inverse, _ = dpotri(root, lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        alpha = inverse @ y
        # d loss / d K, of which every gradient is the product with d K / d parameter.
        outer = 0.5 * (inverse - np.outer(alpha, alpha))
        z = self._rows
        m = outer * slope
        # sum_ab M_ab (z_a - z_b)^2 for each cluster, without an array of n x n x K.
        pulls = 2 * ((z * z).T @ m.sum(axis=1) - (z * (m @ z)).sum(axis=0))
        centered = z - self._center
        straight = linear * (centered @ centered.T)
        by_linear = float((outer * straight).sum())
        by_curved = float((outer * (k - straight - self._known @ self._known.T)).sum())
        by_noise = float(np.trace(outer)) * noise
        off = (theta - center) / width
        loss = 0.5 * float(y @ alpha) + 0.5 * logdet + 0.5 * float(off @ off)
        gradient = np.array([*(pulls / lengths**2), by_curved, by_linear, by_noise]) + off / width
        return loss, gradient

    def _covariance(self, theta: Floats) -> tuple[Floats, Floats, Floats]:
        """Covariance of the rows without noise ``[n, n]``, the lengths, and its slope."""
        lengths = np.exp(theta[:-3])
        curved, linear = np.exp(theta[-3:-1])
        distance = _distances(self._rows / lengths, self._rows / lengths)
        fall = curved * np.exp(-distance)
        centered = self._rows - self._center
        k = fall * (1 + distance + distance**2 / 3) + linear * (centered @ centered.T)
        return k + self._known @ self._known.T, lengths, fall * (1 + distance) * (5 / 3)

    def _cross(self, weights: Floats) -> Floats:
        """Covariance of ``weights`` with the rows: ``[m, n]``."""
        known = self._knowledge(weights)
        return self._between(log_features(weights), known, self._rows, self._known)

    def _between(self, a: Floats, known_a: Floats, b: Floats, known_b: Floats) -> Floats:
        """Covariance of features ``[n, K]`` with ``[m, K]``: ``[n, m]``."""
        curved, linear = np.exp(self._theta[-3:-1])
        distance = _distances(a / self._lengths, b / self._lengths)
        k = curved * np.exp(-distance) * (1 + distance + distance**2 / 3)
        straight = linear * ((a - self._center) @ (b - self._center).T)
        return np.asarray(k + straight + known_a @ known_b.T, np.float64)

    def _knowledge(self, weights: Floats) -> Floats:
        """What the mean is made of: ones, and the feature if there is one, ``[m, 1 or 2]``."""
        ones = np.ones(len(weights))
        if self._feature is None:
            return ones[:, None]
        mean, sd = self._scale
        return np.stack([ones, (self._feature(weights) - mean) / (sd or 1.0)], axis=1)


def log_features(weights: Floats) -> Floats:
    """Turn weights into log(1 + w / `KNEE`), scaled to lie between 0 and 1."""
    return np.asarray(np.log1p(weights / KNEE) / math.log1p(1 / KNEE), np.float64)


def _distances(a: Floats, b: Floats) -> Floats:
    """Euclidean distances times the root of 5, between rows of ``[n, K]`` and ``[m, K]``."""
    squared = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * (a @ b.T)
    return np.asarray(np.sqrt(5 * np.maximum(squared, 0.0)), np.float64)
