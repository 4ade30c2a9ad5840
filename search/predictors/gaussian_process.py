"""Gaussian process on the logarithm of the weights: the predictor for few and noisy scores.

The effect of a cluster on the score is about logarithmic in the weight of the cluster. So the
inputs of the process are the features log(1 + w / knee) instead of the weights w. The knee is a
fitted weight, below which the effect is about linear. On raw weights, the error is several times as
large (docs/decisions/predictors.md). The features are scaled to a mean variance of 1 over the
mixtures, so that one prior is right for every knee.

The covariance is the sum of a linear kernel and a Matérn-5/2 kernel, which has a length scale for
each cluster (Rasmussen and Williams, Gaussian Processes for Machine Learning, chapters 2, 4 and 5).

The parameters of the kernels and the knee are the most probable ones under wide priors. If scores
are mostly noise, the priors decide: the length scales stay long, and the remaining variance counts
as noise. With these parameters, predictions are computed without approximation. The time of one fit
grows with the cube of the number of scores: a tenth of a second for 112 scores, and some seconds
for 512 scores.
"""

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from .base import Floats, one_thread, standardised

Feature = Callable[[Floats], Floats]
"""A function that predicts scores ``[m]`` of mixtures ``[m, K]``, without any trial."""


@runtime_checkable
class UncertainFeature(Protocol):
    """A `Feature` that also estimates the errors of its predictions, such as `EarlierRuns`."""

    def __call__(self, weights: Floats) -> Floats:
        """Predict the scores of ``weights`` (``[m, K]``): ``[m]``."""

    def sd(self, weights: Floats) -> Floats:
        """Return the sd of the error of each prediction: ``[m]``."""

    def covariance(self, weights: Floats, others: Floats) -> Floats:
        """Return the covariance of errors for ``weights`` with errors for ``others``: ``[n, m]``.

        ``weights`` are ``n`` mixtures, and ``others`` are ``m`` mixtures.
        """


_JITTER = 1e-8
_STEPS = 25
"""Largest number of iterations of the optimiser; more iterations do not change predictions."""

# Priors of the logarithms of the parameters, as (mean, sd). Scores and features have variance 1.
_LENGTH = 3.5
"""Prior median of the length scale of each cluster, divided by the square root of the number of
clusters."""
_LENGTH_SD = 0.8
_CURVED = (math.log(0.3), 1.5)
_LINEAR = (math.log(0.1), 1.5)
_KNEE = (math.log(0.01), 1.5)
"""The knee: the effect of a weight is logarithmic above the knee, and about linear below it."""
_NOISE = (math.log(0.2), 1.2)


class GaussianProcess:
    """A Gaussian process whose parameters are fitted to the scores on one target.

    Args:
        feature: A function that predicts scores without any trial (`Feature`). The mean of the
            process is this feature times a fitted factor. The errors of an `UncertainFeature` are
            part of the process, so that scores correct the feature where it is uncertain.
        on: Name of the feature.
    """

    name = "gaussian process"

    def __init__(self, feature: Feature | None = None, on: str = "prior") -> None:
        self._feature = feature
        if feature is not None:
            self.name = f"gaussian process on {on}"
        self.noise = 0.0
        """Fitted sd of the scores of repeated runs of one mixture, in the unit of the scores."""

    def fit(self, weights: Floats, scores: Floats) -> None:
        """Fit to the finite ``scores`` (``[n]``) of the mixtures ``weights`` (``[n, K]``)."""
        y, self._mean, self._sd = standardised(scores)
        self._weights = weights
        if self._feature is not None:
            _, *self._scale = standardised(self._feature(weights))
        self._constant = len(y) < 3 or not y.any()
        if self._constant:
            return
        with one_thread():
            self._mean_part = self._mean_covariance(weights, weights)
            self._theta = self._most_probable(y)
            self._lengths = np.exp(self._theta[:-4])
            _, self._center, self._spread = _scaled(log_features(weights, self._knee))
            k = self._prior(weights, weights)
            import scipy.linalg  # noqa: PLC0415  (imported late, because it takes a second)

            k[np.diag_indices_from(k)] += math.exp(self._theta[-1]) + _JITTER
            self._root = scipy.linalg.cholesky(k, lower=True)
            self._alpha = scipy.linalg.cho_solve((self._root, True), y)
        self.noise = self._sd * math.exp(self._theta[-1] / 2)

    def predict(self, weights: Floats) -> Floats:
        """Predict the scores of ``weights`` (``[m, K]``): float64 ``[m]``."""
        if self._constant:
            return np.full(len(weights), self._mean)
        with one_thread():
            cross = self._prior(weights, self._weights)
            return np.asarray(cross @ self._alpha * self._sd + self._mean)

    def sd(self, weights: Floats) -> Floats:
        """Return the sd of the error of each prediction, without the noise of runs: ``[m]``."""
        if self._constant:
            return np.full(len(weights), self._sd)
        with one_thread():
            z, half = self._features(weights), self._half(weights)
            curved, linear = np.exp(self._theta[-4:-2])
            own = self._mean_variance(weights) + curved + linear * (z * z).mean(axis=1)
            return np.asarray(np.sqrt(np.maximum(own - (half * half).sum(axis=0), 0)) * self._sd)

    def covariance(self, weights: Floats, others: Floats | None = None) -> Floats:
        """Return the covariance of prediction errors, without the noise of runs: ``[n, m]``.

        ``weights`` are ``n`` mixtures. ``others`` are ``m`` mixtures, or None for the same ones.
        """
        if self._constant:
            same = np.eye(len(weights)) if others is None else np.zeros((len(weights), len(others)))
            return same * self._sd**2
        with one_thread():
            half = self._half(weights)
            if others is None:
                others, theirs = weights, half
            else:
                theirs = self._half(others)
            return np.asarray((self._prior(weights, others) - half.T @ theirs) * self._sd**2)

    def draw(self, weights: Floats, n: int, rng: np.random.Generator) -> Floats:
        """Draw ``n`` functions from the posterior, evaluated at ``weights``: float64 ``[n, m]``.

        Returns the deviations of the drawn functions from the predictions. So the caller can add
        another mean to them.
        """
        if self._constant:
            return self._sd * rng.standard_normal((n, len(weights)))
        import scipy.linalg  # noqa: PLC0415

        k = self.covariance(weights) / self._sd**2
        with one_thread():
            k[np.diag_indices_from(k)] += 1e-6 * k.diagonal().max() + _JITTER
            root = scipy.linalg.cholesky(k, lower=True)
            return np.asarray(rng.standard_normal((n, len(k))) @ root.T * self._sd)

    def _most_probable(self, y: Floats) -> Floats:
        """Return the parameters that maximise the posterior, as logarithms, ``[K + 4]``.

        They are the length scales, the variances of the Matérn and the linear kernel, the knee, and
        the variance of the noise.
        """
        from scipy.optimize import minimize  # noqa: PLC0415

        k = self._weights.shape[1]
        lengths = [(math.log(_LENGTH * math.sqrt(k)), _LENGTH_SD)] * k
        center, width = np.array([*lengths, _CURVED, _LINEAR, _KNEE, _NOISE]).T
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
        """Return the negative logarithm of the posterior, and its gradient by ``theta``."""
        from scipy.linalg.lapack import dpotrf, dpotri  # noqa: PLC0415

        lengths = np.exp(theta[:-4])
        curved, linear, knee, noise = np.exp(theta[-4:])
        z, _, spread = _scaled(log_features(self._weights, knee))
        distance = _distances(z / lengths, z / lengths)
        fall = np.exp(-distance)
        bent = curved * fall * (1 + distance + distance**2 / 3)
        straight = linear * (z @ z.T) / z.shape[1]
        total = bent + straight + self._mean_part
        total[np.diag_indices_from(total)] += noise + _JITTER
        root, failed = dpotrf(total, lower=1)
        if failed:
            return 1e25, np.zeros_like(theta)
        logdet = 2 * np.log(np.diag(root)).sum()
        inverse, _ = dpotri(root, lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        alpha = inverse @ y
        # d loss / d K. The sum of its products with d K / d parameter is the gradient.
        outer = 0.5 * (inverse - np.outer(alpha, alpha))
        m = outer * (curved * fall * (1 + distance) * (5 / 3))
        # d loss / d z of the Matérn part: sum_b M_ab (z_a - z_b), without an array [n, n, K].
        pulls = 2 * (z * m.sum(axis=1)[:, None] - m @ z) / lengths**2
        # d z / d log knee: the features change, and so do their means and their common variance.
        moved = -self._weights / (knee + self._weights) / spread
        moved -= moved.mean(axis=0)
        moved -= z * (z * moved).mean()
        by_knee = float((moved * (2 * linear / z.shape[1] * (outer @ z) - pulls)).sum())
        by_curved, by_linear = float((outer * bent).sum()), float((outer * straight).sum())
        by_noise = float(np.trace(outer)) * noise
        off = (theta - center) / width
        loss = 0.5 * float(y @ alpha) + 0.5 * logdet + 0.5 * float(off @ off)
        gradient = [*(z * pulls).sum(axis=0), by_curved, by_linear, by_knee, by_noise]
        return loss, np.array(gradient) + off / width

    @property
    def _knee(self) -> float:
        return math.exp(self._theta[-2])

    def _features(self, weights: Floats) -> Floats:
        """Transform weights ``[m, K]`` to features ``[m, K]``, scaled like the fitted rows."""
        return np.asarray((log_features(weights, self._knee) - self._center) / self._spread)

    def _half(self, weights: Floats) -> Floats:
        """Return L⁻¹ C, ``[n, m]``, from which the covariance of prediction errors follows.

        C is the prior covariance of the fitted mixtures with ``weights`` (``[m, K]``), and L is the
        Cholesky factor of the covariance of the fitted scores.
        """
        import scipy.linalg  # noqa: PLC0415

        cross = self._prior(weights, self._weights)
        return np.asarray(scipy.linalg.solve_triangular(self._root, cross.T, lower=True))

    def _prior(self, weights: Floats, others: Floats) -> Floats:
        """Return the prior covariance of mixtures ``[n, K]`` with ``others`` ``[m, K]``."""
        a = self._features(weights)
        b = a if others is weights else self._features(others)
        curved, linear = np.exp(self._theta[-4:-2])
        distance = _distances(a / self._lengths, b / self._lengths)
        k = curved * np.exp(-distance) * (1 + distance + distance**2 / 3)
        k = k + linear * (a @ b.T) / a.shape[1]
        return np.asarray(k + self._mean_covariance(weights, others), np.float64)

    def _mean_covariance(self, weights: Floats, others: Floats) -> Floats:
        """Return the part of the prior covariance that is due to the mean: ``[n, m]``.

        The constant and the factor of the feature have the prior mean 0 and the prior variance 1.
        So the covariance of an uncertain feature's errors is added with the factor 1.
        """
        basis = self._mean_basis(weights)
        mean = basis @ (basis if others is weights else self._mean_basis(others)).T
        if (feature := self._uncertain_feature()) is not None:
            mean += feature.covariance(weights, others) / self._scale[1] ** 2
        return np.asarray(mean, np.float64)

    def _mean_variance(self, weights: Floats) -> Floats:
        """Return the part of the prior variance that is due to the mean: ``[m]``."""
        basis = self._mean_basis(weights)
        variance = (basis * basis).sum(axis=1)
        if (feature := self._uncertain_feature()) is not None:
            variance += (feature.sd(weights) / self._scale[1]) ** 2
        return np.asarray(variance, np.float64)

    def _uncertain_feature(self) -> UncertainFeature | None:
        """Return the feature if its errors are part of the process.

        A feature that is equal for all fitted mixtures has no scale, so its errors are left out.
        """
        if isinstance(self._feature, UncertainFeature) and self._scale[1] > 0:
            return self._feature
        return None

    def _mean_basis(self, weights: Floats) -> Floats:
        """Return the basis of the mean, ``[m, 1 or 2]``: ones, and the feature if there is one."""
        ones = np.ones(len(weights))
        if self._feature is None:
            return ones[:, None]
        mean, sd = self._scale
        return np.stack([ones, (self._feature(weights) - mean) / (sd or 1.0)], axis=1)


def log_features(weights: Floats, knee: float) -> Floats:
    """Turn weights into log(1 + w / ``knee``)."""
    return np.asarray(np.log1p(weights / knee), np.float64)


def _scaled(features: Floats) -> tuple[Floats, Floats, float]:
    """Shift each feature (``[n, K]``) to mean 0, and divide all by one sd, to mean variance 1.

    Returns:
        The scaled features ``[n, K]``, their means ``[K]``, and the common sd.
    """
    center = features.mean(axis=0)
    spread = float(np.sqrt(((features - center) ** 2).mean())) or 1.0
    return (features - center) / spread, center, spread


def _distances(a: Floats, b: Floats) -> Floats:
    """Return the distances between rows of ``a`` and rows of ``b``, times the square root of 5."""
    squared = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * (a @ b.T)
    return np.asarray(np.sqrt(5 * np.maximum(squared, 0.0)), np.float64)
