"""Find the mixture that is best for given targets.

`Search` asks for mixtures and is told what they scored. Names load on first use.
"""

from typing import TYPE_CHECKING

from climbstream.loader.lazy import load_on_use

if TYPE_CHECKING:
    from .answer import Answer
    from .predictor import Predictor
    from .search import Search
    from .trial import Trial, TrialLog

__all__ = ["Answer", "Predictor", "Search", "Trial", "TrialLog"]

_HOMES = {
    "Answer": "answer",
    "Predictor": "predictor",
    "Search": "search",
    "Trial": "trial",
    "TrialLog": "trial",
}

__getattr__, __dir__ = load_on_use(__name__, _HOMES)
