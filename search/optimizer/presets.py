"""Presets: the recipes of search."""

from dataclasses import dataclass
from typing import Literal

from climbstream.search.predictors.base import Make
from climbstream.search.predictors.gaussian_process import GaussianProcess
from climbstream.search.predictors.mixing_law import MixingLaw
from climbstream.search.predictors.ridge import Ridge
from climbstream.search.predictors.trees import LightGBM


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A recipe of search."""

    rounds: tuple[int, ...]
    """Ratio in which the rounds share the budget."""
    predictors: tuple[Make, ...]
    """Names of the predictors; several are stacked. None: nothing is predicted."""
    concentration: tuple[float, float]
    """Concentration of the Dirichlet draws: least and most, log-uniform between."""
    tempers: tuple[float, ...] = (1.0,)
    """Powers of the token shares to draw around: 1 is the shares, 0 is uniform."""
    pool: int = 50_000
    """Number of candidates from which a round is chosen, and the answer if there is no local
    search."""
    later: Literal["top", "explore"] = "top"
    """How a later round is chosen: at random from the ``top`` candidates that are predicted best,
    or by Thompson sampling (`thompson_sample`)."""
    top: int = 2
    """Number of these ``top`` candidates, as a multiple of the size of the round."""
    features: bool = False
    """Whether predictors may use n-gram counts (`ngrams`), if there are any."""
    answer: Literal["measured", "predicted", "average", "search"]
    """How the answer is predicted: the best candidate, the mean of the 100 best, or a local search
    for the best prediction with its error added; or nothing is predicted."""


ALL: tuple[Make, ...] = (GaussianProcess, MixingLaw, Ridge, LightGBM)
"""Every predictor there is."""

DOREMI = "doremi"
"""Name of a method that is chosen like a preset but does not search: see `doremi_search`."""

PRESETS = {
    "robust": Preset(
        rounds=(2, 1, 1, 1, 1),
        predictors=(GaussianProcess, MixingLaw, Ridge),
        concentration=(2, 50),
        tempers=(1.0, 0.5, 0.0),
        pool=4_000,
        later="explore",
        features=True,
        answer="search",
    ),
    # Rounds, draw and predictor of the paper (arXiv 2504.13161). Of pools from 3,000 to 50,000 the
    # largest had the least regret in simulated searches, for dense and for sparse optima.
    "climb": Preset(
        rounds=(4, 2, 1), predictors=(LightGBM,), concentration=(2, 50), answer="predicted"
    ),
    # One shot and the mean of the 100 that are predicted best (RegMix, arXiv 2407.01492).
    "regmix": Preset(rounds=(1,), predictors=(LightGBM,), concentration=(2, 50), answer="average"),
    "random": Preset(rounds=(1,), predictors=(), concentration=(2, 50), answer="measured"),
}
