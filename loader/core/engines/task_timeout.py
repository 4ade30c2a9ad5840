"""Task timeout: when a long wait for a task is logged, and when it is given up."""

import os
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import PurePath
from types import FunctionType
from typing import Any

from climbstream.loader.core.errors import UsageError

TIMEOUT = "CLIMBSTREAM_TASK_TIMEOUT"
"""Environment variable with the task timeout in seconds; the option ``--task-timeout`` sets it."""
_DEFAULT = 600.0
_FIRST = 60.0
"""Time after which a wait is first logged, in seconds; it is logged again after twice the time, and
so on."""


class Patience:
    """Says when to log a wait: after 60 s, 120 s, 240 s and so on."""

    def __init__(self) -> None:
        self._next = _FIRST

    def over(self, seconds: float) -> bool:
        """Whether a wait that has lasted ``seconds`` should be logged now."""
        if seconds < self._next:
            return False
        while self._next <= seconds:
            self._next *= 2
        return True


def task_timeout(default: float = _DEFAULT) -> float:
    """Return the task timeout: the time without a sign of life after which a task is given up.

    It is in seconds, from the environment variable `TIMEOUT`; if that is not set, it is
    ``default``. Some other waits have the same time limit.

    Raises:
        UsageError: The environment variable has no number above 0.
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
    """Return the name of a task for messages: the name of its function, and that of its argument.

    The name of an argument is the path if it is a path, else its attribute ``name``. If it has no
    such attribute, the name is that of its first element or field with a name.
    """
    return f"{function_name(function)} {_subject(task)}".rstrip()


def _subject(value: object) -> str:
    """Return the name of ``value``, as `task_name` defines it; "" if it has none."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(name := getattr(value, "name", None), str):
        return name
    parts: Iterable[object] = ()
    if isinstance(value, tuple):
        parts = value
    elif is_dataclass(value):
        parts = (getattr(value, field.name) for field in fields(value))
    return next(filter(None, map(_subject, parts)), "")


def function_name(function: Callable[..., Any]) -> str:
    """Return the name of a function for messages.

    The name of a `partial` is the name of the function that it calls. But if an argument of the
    `partial` is itself a function, the name is that of the argument.
    """
    if not isinstance(function, partial):
        return getattr(function, "__name__", type(function).__name__)
    bound = (*function.args, *function.keywords.values())
    inner = next((value for value in bound if isinstance(value, partial | FunctionType)), None)
    return function_name(inner or function.func)
