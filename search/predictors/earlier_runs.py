"""Earlier runs: scores that runs of other models predict for a mixture, as a start of a search.

Models of different sizes rank mixtures much alike, so finished runs of a small model show where the
search for a larger model should look. A swarm is a set of runs of one model. Swarms are chained,
the cheapest first: each swarm has a Gaussian process, and the mean of each later process is the
prediction of the process before, times a factor that is fitted. So the later process learns only
the difference between the two swarms, and levels, units and even signs of scores may differ between
swarms (Le Gratiet and Garnier 2014, Recursive co-kriging model for design of computer experiments
with multiple levels of fidelity).
"""

from collections.abc import Sequence

from .base import Floats
from .gaussian_process import Feature, GaussianProcess

EARLIER = "earlier runs"
"""Name of a prediction from earlier runs in tables of predictors."""


class EarlierRuns:
    """A `Feature` that predicts a score from runs of other models.

    Args:
        swarms: Weights ``[n, K]`` and scores ``[n]`` of each swarm, the cheapest first; at least
            one swarm.
        feature: A prediction that needs no run, used as the mean of the first process.
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
        """Predict the scores of ``weights`` (``[m, K]``) in the last swarm's unit: ``[m]``."""
        return self._process.predict(weights)
