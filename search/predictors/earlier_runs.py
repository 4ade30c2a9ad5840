"""Earlier runs: what runs of other models say of a mixture, for a search that begins.

Models of different sizes rank mixtures much alike, so finished runs of a small one tell where a
search of a larger one should look. Swarms of runs are chained, the cheapest first. The first swarm
has a Gaussian process of its own. The mean of the process of each later one is the prediction of
the one before, times a factor that is learnt; what this mean leaves is the difference between the
two, which the process learns. So levels, units and even signs of scores may differ (Le Gratiet and
Garnier 2014, Recursive co-kriging model for design of computer experiments with multiple levels of
fidelity).
"""

from collections.abc import Sequence

from .base import Floats
from .gaussian_process import Feature, GaussianProcess

EARLIER = "earlier runs"
"""Name of such a guess in tables of predictors."""


class EarlierRuns:
    """A guess at a score, by runs of other models; a `Feature`.

    Args:
        swarms: Weights ``[n, K]`` and scores ``[n]`` of each swarm, at least one.
        feature: A guess before any run, the mean of the first process.
    """

    def __init__(
        self, swarms: Sequence[tuple[Floats, Floats]], feature: Feature | None = None
    ) -> None:
        self.rows = sum(len(scores) for _, scores in swarms)
        """Number of runs."""
        for weights, scores in swarms:
            self._process = GaussianProcess(feature)
            self._process.fit(weights, scores)
            feature = self._process.predict

    def __call__(self, weights: Floats) -> Floats:
        """Guess the scores of ``weights`` (``[m, K]``), in the unit of the last swarm: ``[m]``."""
        return self._process.predict(weights)
