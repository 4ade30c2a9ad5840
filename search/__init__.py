"""Find the mixture that is best for given targets.

`Search` proposes mixtures. The caller trains a model on each proposed mixture, and tells `Search`
the score of the model. Each public name is imported only when it is first used.
"""

from typing import TYPE_CHECKING

from climbstream.loader.core.lazy import load_on_use
from climbstream.loader.core.version import __version__ as __version__

if TYPE_CHECKING:
    from .experiments.prior_runs import PriorRuns
    from .optimizer.answer import Answer
    from .optimizer.search import Search
    from .optimizer.trials import Trial, TrialLog
    from .predictors.base import Predictor
    from .training.doremi import DoReMi
    from .training.online_mixing import OnlineRule
    from .training.settings import TrainSettings
    from .training.trainer import train_model

__all__ = [
    "Answer",
    "DoReMi",
    "OnlineRule",
    "Predictor",
    "PriorRuns",
    "Search",
    "TrainSettings",
    "Trial",
    "TrialLog",
    "train_model",
]

_HOMES = {
    "Answer": "optimizer.answer",
    "DoReMi": "training.doremi",
    "OnlineRule": "training.online_mixing",
    "Predictor": "predictors.base",
    "PriorRuns": "experiments.prior_runs",
    "Search": "optimizer.search",
    "TrainSettings": "training.settings",
    "train_model": "training.trainer",
    "Trial": "optimizer.trials",
    "TrialLog": "optimizer.trials",
}

__getattr__, __dir__ = load_on_use(__name__, _HOMES)
