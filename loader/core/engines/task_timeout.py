"""Task timeout: when a long wait is reported, and when it is given up."""

import os
import textwrap
from collections.abc import Callable
from typing import Any

from climbstream.loader.core.errors import UsageError

TIMEOUT = "CLIMBSTREAM_TASK_TIMEOUT"
"""The environment variable of `task_timeout`; ``--task-timeout`` sets it for one command."""
_DEFAULT = 600.0
_FIRST = 60.0
"""Seconds after which a wait is reported; then after twice that, and so on."""


class Patience:
    """Says when to report a wait: after 60 s, 120 s, 240 s and so on."""

    def __init__(self) -> None:
        self._next = _FIRST

    def over(self, seconds: float) -> bool:
        """Whether a wait that has lasted ``seconds`` should be reported now."""
        if seconds < self._next:
            return False
        while self._next <= seconds:
            self._next *= 2
        return True


def task_timeout(default: float = _DEFAULT) -> float:
    """Seconds without a sign of life after which a task or a wait is given up.

    The environment variable sets them; without it they are ``default``.

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
    """Name a task in one line: its function, and the beginning of its argument."""
    return f"{function_name(function)}({textwrap.shorten(repr(task), 100, placeholder=' …')})"


def function_name(function: Callable[..., Any]) -> str:
    """Name what tasks do: the function, without what is bound to it."""
    called = getattr(function, "func", function)
    return getattr(called, "__name__", type(called).__name__)
