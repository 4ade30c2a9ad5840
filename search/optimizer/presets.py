"""Presets: named methods of search."""

from dataclasses import dataclass
from typing import Literal

from climbstream.search.predictors.base import Make
from climbstream.search.predictors.gaussian_process import GaussianProcess
from climbstream.search.predictors.mixing_law import MixingLaw
from climbstream.search.predictors.ridge import Ridge
from climbstream.search.predictors.trees import LightGBM


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The settings of one method of search."""

    rounds: tuple[int, ...]
    """Ratio in which the budget is split into rounds."""
    predictors: tuple[Make, ...]
    """Functions that make the predictors; several predictors are stacked. If empty, nothing is
    predicted."""
    concentration: tuple[float, float]
    """Least and largest concentration of Dirichlet draws; concentrations are log-uniform."""
    tempers: tuple[float, ...] = (1.0,)
    """Powers of the token shares around which mixtures are drawn: 1 is the token shares, 0 is
    uniform."""
    pool: int = 50_000
    """Number of candidates from which each round and the predicted mixture are chosen; with
    ``answer="search"``, a local search for the predicted mixture starts from these candidates."""
    later: Literal["top", "explore"] = "top"
    """How the rounds after the first are chosen: at random from the ``top`` candidates that are
    predicted best, or by Thompson sampling (`thompson_sample`)."""
    top: int = 2
    """Number of best candidates for ``later="top"``, as a multiple of the size of the round."""
    features: bool = False
    """Whether predictors may use n-gram counts (`ngrams`), if there are any."""
    answer: Literal["measured", "predicted", "average", "search"]
    """How the predicted mixture is found: as the best candidate (``predicted``), as the mean of the
    100 best candidates (``average``), or by a local search for the best sum of prediction and error
    (``search``). With ``measured``, nothing is predicted."""


ALL: tuple[Make, ...] = (GaussianProcess, MixingLaw, Ridge, LightGBM)
"""All predictors."""

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
    # Rounds, draw and predictor of the CLIMB paper (arXiv 2504.13161). Of pools of 3,000 to 50,000
    # candidates, the largest had the least regret in simulated searches, for dense and for sparse
    # optima.
    "climb": Preset(
        rounds=(4, 2, 1), predictors=(LightGBM,), concentration=(2, 50), answer="predicted"
    ),
    # One round, and the mean of the 100 mixtures that are predicted best (RegMix, arXiv
    # 2407.01492).
    "regmix": Preset(rounds=(1,), predictors=(LightGBM,), concentration=(2, 50), answer="average"),
    "random": Preset(rounds=(1,), predictors=(), concentration=(2, 50), answer="measured"),
}
