"""Find the mixture that is best for given targets.

`Search` asks for mixtures and is told what they scored. Names load on first use.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .answer import Answer
    from .predictor import Predictor
    from .search import Search
    from .trial import Trial, TrialLog

__all__ = ["Answer", "Predictor", "Search", "Trial", "TrialLog"]

_HOME = {
    "Answer": "answer",
    "Predictor": "predictor",
    "Search": "search",
    "Trial": "trial",
    "TrialLog": "trial",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
