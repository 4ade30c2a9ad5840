"""Task timeout: when a long wait is reported, and when it is given up."""

import os
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import PurePath
from types import FunctionType
from typing import Any

from climbstream.loader.core.errors import UsageError

TIMEOUT = "CLIMBSTREAM_TASK_TIMEOUT"
"""The environment variable that `task_timeout` reads; ``--task-timeout`` sets it for a command."""
_DEFAULT = 600.0
_FIRST = 60.0
"""Seconds after which a wait is first reported; each next report comes after twice the time."""


class Patience:
    """Says when to report a wait: after 60 s, 120 s, 240 s and so on."""

    def __init__(self) -> None:
        self._next = _FIRST

    def over(self, seconds: float) -> bool:
        """Return whether a wait that has lasted ``seconds`` should be reported now."""
        if seconds < self._next:
            return False
        while self._next <= seconds:
            self._next *= 2
        return True


def task_timeout(default: float = _DEFAULT) -> float:
    """Return the seconds without a sign of life after which a task or a wait is given up.

    The environment variable `TIMEOUT` sets this number; without it, the number is ``default``.

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
    """Return the name of a task for messages: names of its function and, if known, its argument.

    If the argument is a path, its name is the path; otherwise its name is its attribute ``name``.
    If it has no such attribute, the first of its elements or fields that has a name counts.
    """
    return f"{function_name(function)} {_subject(task)}".rstrip()


def _subject(value: object) -> str:
    """Return the name of ``value``, or of its first element or field with a name; "" if none."""
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
    """Return the name of a function.

    For a `partial`, return the name of the function that it calls. But if the `partial` binds
    another function as an argument, return the name of this bound function.
    """
    if not isinstance(function, partial):
        return getattr(function, "__name__", type(function).__name__)
    bound = (*function.args, *function.keywords.values())
    inner = next((value for value in bound if isinstance(value, partial | FunctionType)), None)
    return function_name(inner or function.func)
