"""Plan: all settings that decide a result; only a command with equal settings may resume the work.

A plan is stored in a file beside the result.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .engines.task_folder import TASKS
from .errors import InvalidDataError
from .files import is_temporary, read_json, remove_temporaries, write_json

_MOST = 5
"""Largest number of differences, or of foreign files, that a message names."""
_OTHER_PLACE = "name another place"
_ABSENT = "absent"
"""Stands for a value that a plan does not have."""
_OPTIONS = {"scores": "score", "pinned": "pin", "groups": "group", "allowed": "allow"}
"""Name of the option, by name of the setting, where the two names differ."""


def begin_or_resume(
    place: Path,
    name: str,
    plan: Mapping[str, Any],
    effect: Callable[[Any, Any], str] = lambda _there, _here: "",
    *,
    leaves: Sequence[str] | None = None,
    folders: Sequence[str] = (),
    remedy: str = _OTHER_PLACE,
) -> bool:
    """Write ``plan`` to the file ``name`` in ``place``; if the file exists, compare the plans.

    Returns whether the file existed. In that case the temporary files of a killed process are
    removed; no other file is removed or overwritten.

    Args:
        place: The folder that a command fills.
        name: Name of the plan's file. A folder with this file was begun by climbstream.
        plan: The settings that decide the result, as JSON values.
        effect: ``effect(old plan, new plan)`` returns a text: what the differences of the two plans
            would change in the result.
        leaves: Names of the files and folders that the command leaves in ``place``. If the plan's
            file is missing, none of these may exist. Default: if the plan's file is missing,
            ``place`` must be empty.
        folders: Glob patterns of further folders below ``place`` to which the command writes.
        remedy: What to do instead of using the old plan; the message ends with it.

    Raises:
        InvalidDataError: The plan in ``place`` differs, or ``place`` has files of other programs;
            the message names the differences or the files.
    """
    path = place / name
    if path.exists():
        old = read_plan(path)
        check_same_config(old, plan, place, effect(old, plan), remedy)
        remove_temporaries(place, *folders)
        return True
    if others := _others(place, path, leaves):
        why = "is not empty: it" if leaves is None else f"has no {name}, so it is not ours, and"
        raise InvalidDataError(
            f"{place} {why} holds {', '.join(others[:_MOST])}; name a new folder"
        )
    for temporary in path.parent.glob(".tmp-*"):
        if is_temporary(temporary, path.name):
            temporary.unlink(missing_ok=True)
    write_json(path, plan)
    return False


def read_plan(path: Path) -> dict[str, Any]:
    """Read the plan in the file ``path``.

    Raises:
        InvalidDataError: The file holds no JSON object.
    """
    plan = read_json(path)
    if not isinstance(plan, dict):
        raise InvalidDataError(f"{path} holds no plan, which is a JSON object; name a new folder")
    return plan


def _others(place: Path, path: Path, leaves: Sequence[str] | None) -> list[str]:
    """Return the names of the entries of ``place`` that keep a command from beginning there.

    Some leftovers of a process that was killed before it wrote its plan are allowed. They are the
    temporary file of the plan, the folder of the plan, and an engine's task folder in it.
    """
    if leaves is not None:
        return [name for name in leaves if os.path.lexists(place / name)]
    ours = [path.parent] if path.parent == place else [path.parent, path.parent / TASKS]
    here = [place, path.parent] if path.parent.is_dir() else [place]
    entries = [entry for folder in dict.fromkeys(here) for entry in folder.iterdir()]
    return sorted(
        str(entry.relative_to(place))
        for entry in entries
        if not is_temporary(entry, path.name) and (entry.is_symlink() or entry not in ours)
    )


def check_same_config(
    old: object, new: object, place: object, effect: str = "", remedy: str = _OTHER_PLACE
) -> None:
    """Raise `InvalidDataError` with the differences and their ``effect`` if the plans differ.

    The message ends with ``remedy``, what to do instead of using the old plan.
    """
    if differences := differences_text(old, new):
        raise InvalidDataError(
            f"{place} was begun differently: {differences}{effect}. "
            f"Use the settings it was begun with, or {remedy}"
        )


def differences_text(old: object, new: object) -> str:
    """Describe how two plans differ, by the options that set the values; "" if they are equal."""
    texts = [
        f"{setting_name(keys)} was {_shown(before)} and is {_shown(now)}"
        for keys, before, now in _differences(old, new)
    ]
    more = f" and {len(texts) - _MOST} more" if len(texts) > _MOST else ""
    return "; ".join(texts[:_MOST]) + more


def _differences(
    old: object, new: object, keys: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], object, object]]:
    """Yield (keys that lead to a value, old value, new value) for each difference of two plans."""
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and not _are_names(old, new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*new, *old]):
            yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), (*keys, str(key)))
    elif old != new:
        yield keys, old, new


def setting_name(keys: tuple[str, ...]) -> str:
    """Return a name for the value at ``keys`` of a plan: for a setting, the option that sets it.

    >>> setting_name(("settings", "proxy", "tokens")), setting_name(("settings", "seq_len"))
    ('--proxy-tokens', '--seq-len')
    >>> setting_name(("settings", "min_document_score", "overall"))
    '--min-document-score overall'
    >>> setting_name(("max_epochs",)), setting_name(("targets", "loss"))
    ('--max-epochs', 'targets.loss')
    """
    if keys == ("max_epochs",):
        keys = ("settings", *keys)
    if keys[:1] != ("settings",) or len(keys) == 1:
        return ".".join(keys)
    first, *rest = keys[1:]
    if first == "proxy" and rest:
        first, *rest = ("proxy_tokens" if rest[0] == "tokens" else rest[0]), *rest[1:]
    option = f"--{_OPTIONS.get(first, first).replace('_', '-')}"
    value = ".".join(rest)
    if option.endswith("-score") and value == "advertisement":
        value = "ad-free"  # as people write it
    return f"{option} {value}".rstrip()


def _are_names(*values: list[Any] | tuple[Any, ...]) -> bool:
    """Whether ``values`` are lists of text of different lengths, which are compared as a whole."""
    texts = all(isinstance(item, str) for value in values for item in value)
    return texts and len({len(value) for value in values}) > 1


def _shown(value: object) -> str:
    if value is None or value is _ABSENT or value == []:
        return "not given"
    if isinstance(value, list | tuple) and len(value) > _MOST:
        return f"a list of {len(value):,}"
    return repr(value)
