"""Earlier runs: predict the scores of a search from runs of other models.

Models of different sizes rank mixtures in nearly the same order. So finished runs of a small model
show where the search for a larger model should begin. A swarm is a set of runs of one model.

Swarms are chained, the cheapest swarm first. Each swarm has a Gaussian process. The mean of a
process is the prediction of the process before it, times a fitted factor. So a process has to learn
only the difference between two swarms. Where the process before it is uncertain, its errors are
part of the difference. Levels, units and even signs of scores may differ between swarms (Le Gratiet
and Garnier 2014, Recursive co-kriging model for design of computer experiments with multiple levels
of fidelity).
"""

from collections.abc import Sequence

from .base import Floats
from .gaussian_process import Feature, GaussianProcess

EARLIER = "earlier runs"
"""Name of the prediction from earlier runs, in tables of predictors."""


class EarlierRuns:
    """Predicts a score from runs of other models. It can be used as an `UncertainFeature`.

    Args:
        swarms: Weights ``[n, K]`` and scores ``[n]`` of each swarm, at least one; the cheapest
            swarm comes first.
        feature: A prediction that needs no runs; it becomes the mean of the first Gaussian process.
    """

    def __init__(
        self, swarms: Sequence[tuple[Floats, Floats]], feature: Feature | None = None
    ) -> None:
        *before, (weights, scores) = swarms
        self.rows = sum(len(scores) for _, scores in swarms)
        """Number of runs of all swarms together."""
        self._process = GaussianProcess(EarlierRuns(before, feature) if before else feature)
        self._process.fit(weights, scores)

    def __call__(self, weights: Floats) -> Floats:
        """Predict the scores of ``weights`` (``[m, K]``) in the unit of the last swarm: ``[m]``."""
        return self._process.predict(weights)

    def sd(self, weights: Floats) -> Floats:
        """Return the sd of the error of each prediction: ``[m]``."""
        return self._process.sd(weights)

    def covariance(self, weights: Floats, others: Floats) -> Floats:
        """Return the covariance of errors for ``weights`` with errors for ``others``: ``[n, m]``.

        ``weights`` are ``n`` mixtures, and ``others`` are ``m`` mixtures.
        """
        return self._process.covariance(weights, others)
