"""Find the mixture that is best for given targets.

`Search` asks for mixtures and is told what they scored. Names load on first use.
"""

from typing import TYPE_CHECKING

from climbstream.loader.lazy import load_on_use

if TYPE_CHECKING:
    from .answer import Answer
    from .doremi import DoReMi
    from .online import OnlineRule
    from .predictor import Predictor
    from .search import Search
    from .settings import TrainSettings
    from .train import train_model
    from .trial import Trial, TrialLog

__all__ = [
    "Answer",
    "DoReMi",
    "OnlineRule",
    "Predictor",
    "Search",
    "TrainSettings",
    "Trial",
    "TrialLog",
    "train_model",
]

_HOMES = {
    "Answer": "answer",
    "DoReMi": "doremi",
    "OnlineRule": "online",
    "Predictor": "predictor",
    "Search": "search",
    "TrainSettings": "settings",
    "train_model": "train",
    "Trial": "trial",
    "TrialLog": "trial",
}

__getattr__, __dir__ = load_on_use(__name__, _HOMES)
