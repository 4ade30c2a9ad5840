"""Plan: what decides a result, kept beside it, so that nothing goes on as something else."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import InvalidDataError
from .storage import read_json, write_json

_NAMED = 5
"""Differences that a message names."""


def begin_or_continue(
    place: Path,
    name: str,
    plan: Mapping[str, Any],
    effect: Callable[[Any, Any], str] = lambda _there, _here: "",
) -> bool:
    """Write ``plan``, plain JSON values, to file ``name`` in ``place``; or see that it is there.

    Returns whether it was there. ``effect(there, here)`` says what a difference means.

    Raises:
        InvalidDataError: Another plan is there; the message names what differs.
    """
    path = place / name
    if not path.exists():
        write_json(path, plan)
        return False
    there = read_json(path)
    check_same(there, plan, place, effect(there, plan))
    return True


def check_same(there: object, here: object, place: Path, effect: str = "") -> None:
    """Raise `InvalidDataError` with what differs and its ``effect``, unless plans are the same."""
    if found := list(_differences(there, here)):
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise InvalidDataError(
            f"{place} was begun differently: {'; '.join(found[:_NAMED])}{more}{effect}. "
            "Use what it was begun with, or name another place"
        )


def _differences(there: object, here: object, name: str = "") -> Iterator[str]:
    """Name every value in which two plans differ, by its path: ``settings.seed``."""
    if isinstance(there, list | tuple) and isinstance(here, list | tuple):
        there, here = dict(enumerate(there)), dict(enumerate(here))
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in dict.fromkeys([*here, *there]):
            path = f"{name}.{key}" if name else str(key)
            yield from _differences(there.get(key, "absent"), here.get(key, "absent"), path)
    elif there != here:
        yield f"{name} was {there!r} and is {here!r}"
