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
    """Settings of one method of search."""

    rounds: tuple[int, ...]
    """Ratio in which the budget is split into rounds."""
    predictors: tuple[Make, ...]
    """Functions that make the predictors. Several predictors are combined (`Stack`). If the tuple
    is empty, nothing is predicted."""
    concentration: tuple[float, float]
    """Smallest and largest concentration of the Dirichlet distributions from which mixtures are
    drawn. A concentration is the sum of the parameters (see `candidates`)."""
    tempers: tuple[float, ...] = (1.0,)
    """Mixtures are drawn around the token shares raised to each of these powers. Power 1 gives the
    token shares themselves; power 0 gives equal weights."""
    pool: int = 50_000
    """Number of candidates from which each round and the predicted mixture are chosen. With
    ``answer="search"``, a local search for the predicted mixture starts from these candidates."""
    later: Literal["top", "explore"] = "top"
    """How the rounds after the first are chosen. ``top`` chooses at random from the best predicted
    candidates. ``explore`` chooses by the knowledge gradient (`most_informative`)."""
    top: int = 2
    """For ``later="top"``: number of best predicted candidates to choose from, as a multiple of the
    size of the round."""
    features: bool = False
    """Whether predictors may use two other sources than the trials, if there are any: n-gram counts
    (`ngrams`) and runs of other models (`EarlierRuns`)."""
    answer: Literal["measured", "predicted", "average", "search"]
    """How the predicted mixture is found:

    - ``predicted``: the best predicted candidate;
    - ``average``: the mean of the 100 best predicted candidates;
    - ``search``: a local search for the lowest sum of the predicted score and its sd;
    - ``measured``: nothing is predicted."""


ALL: tuple[Make, ...] = (GaussianProcess, MixingLaw, Ridge, LightGBM)
"""All predictors."""

DOREMI = "doremi"
"""Name of a method that is chosen like a preset, but does not search: see `doremi_search`."""

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
    # Rounds, draws and predictor of the CLIMB paper (arXiv 2504.13161). Pools of 3,000 to 50,000
    # candidates were tried in simulated searches. The largest pool had the least regret, for dense
    # and for sparse optima.
    "climb": Preset(
        rounds=(4, 2, 1), predictors=(LightGBM,), concentration=(2, 50), answer="predicted"
    ),
    # One round, and the mean of the 100 mixtures that are predicted best (RegMix, arXiv
    # 2407.01492).
    "regmix": Preset(rounds=(1,), predictors=(LightGBM,), concentration=(2, 50), answer="average"),
    "random": Preset(rounds=(1,), predictors=(), concentration=(2, 50), answer="measured"),
}
