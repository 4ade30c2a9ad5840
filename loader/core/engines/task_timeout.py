"""Patience: when a wait is told of, and when it ends."""

import os
import textwrap
from collections.abc import Callable
from typing import Any

from climbstream.loader.core.errors import UsageError

TIMEOUT = "CLIMBSTREAM_TASK_TIMEOUT"
"""The environment variable of `task_timeout`; ``--task-timeout`` sets it for one command."""
_DEFAULT = 600.0
_FIRST = 60.0
"""Seconds after which a wait is told of; then after twice that, and so on."""


class Patience:
    """Says when to tell of a wait: after 60 s, 120 s, 240 s and so on."""

    def __init__(self) -> None:
        self._next = _FIRST

    def over(self, seconds: float) -> bool:
        """Whether a wait of ``seconds`` by now is to be told of."""
        if seconds < self._next:
            return False
        while self._next <= seconds:
            self._next *= 2
        return True


def task_timeout(default: float = _DEFAULT) -> float:
    """Seconds without a sign of life after which a task or a wait is given up.

    They are ``default`` unless the environment variable says otherwise.

    Raises:
        UsageError: The environment variable holds no positive number.
    """
    word = os.environ.get(TIMEOUT) or default
    try:
        seconds = float(word)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UsageError(f"{TIMEOUT} is {word!r}; it must be seconds, more than 0")
    return seconds


def task_name(function: Callable[..., Any], task: object) -> str:
    """Name a task in a line: what is called, and the beginning of its argument."""
    called = getattr(function, "func", function)
    name = getattr(called, "__name__", type(called).__name__)
    return f"{name}({textwrap.shorten(repr(task), 100, placeholder=' …')})"
