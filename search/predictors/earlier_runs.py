"""Earlier runs: predict the scores of a search from runs of other models.

Models of different sizes rank mixtures in nearly the same order. So finished runs of a small model
show where the search for a larger model should begin. A swarm is a set of runs of one model.

Swarms are chained, the cheapest swarm first. Each swarm has a Gaussian process. The mean of a
process is the prediction of the process before it, times a fitted factor. So a process has to learn
only the difference between two swarms. Levels, units and even signs of scores may differ between
swarms (Le Gratiet and Garnier 2014, Recursive co-kriging model for design of computer experiments
with multiple levels of fidelity).
"""

from collections.abc import Sequence

from .base import Floats
from .gaussian_process import Feature, GaussianProcess

EARLIER = "earlier runs"
"""Name of the prediction from earlier runs, in tables of predictors."""


class EarlierRuns:
    """Predicts a score from runs of other models. An object can be used as a `Feature`.

    Args:
        swarms: Weights ``[n, K]`` and scores ``[n]`` of each swarm, at least one; the cheapest
            swarm comes first.
        feature: A prediction that needs no runs; it becomes the mean of the first Gaussian process.
    """

    def __init__(
        self, swarms: Sequence[tuple[Floats, Floats]], feature: Feature | None = None
    ) -> None:
        self.rows = sum(len(scores) for _, scores in swarms)
        """Number of runs of all swarms together."""
        for weights, scores in swarms:
            self._process = GaussianProcess(feature)
            self._process.fit(weights, scores)
            feature = self._process.predict

    def __call__(self, weights: Floats) -> Floats:
        """Predict the scores of ``weights`` (``[m, K]``) in the unit of the last swarm: ``[m]``."""
        return self._process.predict(weights)
