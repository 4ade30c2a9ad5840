"""Workdir: the folder that a command fills; the same command can resume its work there.

All settings on which the result depends are stored in a file beside the result: the plan. Only a
command with an equal plan may resume the work.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .console import counted
from .engines.task_folder import TASKS
from .errors import InvalidDataError
from .files import is_temporary, read_json, remove_temporaries, write_json

_MOST = 5
"""Largest number of differences, or of other files, that a message names."""
_OTHER_PLACE = "name another folder"
_ABSENT = "absent"
"""Stands for the value of a setting that a plan does not have."""
_NOTHING: tuple[object, ...] = (None, _ABSENT, [])
"""Values of a setting that was not given."""
_HASH = re.compile("[0-9a-f]{32}|[0-9a-f]{64}")
"""Hash of contents, such as the text of a file. Messages do not show it."""
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
    """Begin or resume a command's work in the folder ``place``; return whether it had begun before.

    If the file of the plan is missing, it is written. If it exists, its plan must equal ``plan``;
    the temporary files of a killed process are then removed. No other file is removed or
    overwritten.

    Args:
        place: The folder that a command fills.
        name: Name of the plan's file. It marks a folder in which climbstream has begun.
        plan: The settings on which the result depends, as JSON values.
        effect: Function of the old plan and the new one. It returns a text that says, for the
            message, what their differences would change in the result.
        leaves: Names of the files and folders that the command writes to ``place``. None of these
            may exist before the work begins. Default: ``place`` must be empty before.
        folders: Glob patterns of folders below ``place`` to which the command writes.
        remedy: What to do instead of using the old plan, for the end of the message.

    Raises:
        InvalidDataError: The plan in ``place`` differs, or ``place`` has other files although no
            work has begun there; the message names the differences or the files.
    """
    path = place / name
    if path.exists():
        old = read_plan(path)
        check_same_config(old, plan, place, effect(old, plan), remedy)
        remove_temporaries(place, *folders)
        return True
    if others := _others(place, path, leaves):
        why = (
            "is not empty: it"
            if leaves is None
            else f"has no {name}, so climb did not write it, and it"
        )
        raise InvalidDataError(
            f"{place} {why} holds {', '.join(others[:_MOST])}; name a new folder"
        )
    for temporary in path.parent.glob(".tmp-*"):
        if is_temporary(temporary, path.name):
            temporary.unlink(missing_ok=True)
    write_json(path, plan)
    return False


def read_plan(path: Path) -> dict[str, Any]:
    """Return the plan in the file ``path``.

    Raises:
        InvalidDataError: The file is missing, or has no JSON object.
    """
    plan = read_json(path)
    if not isinstance(plan, dict):
        raise InvalidDataError(f"{path} is not a JSON object of settings; name a new folder")
    return plan


def _others(place: Path, path: Path, leaves: Sequence[str] | None) -> list[str]:
    """Return the names of files and folders that keep a command from beginning in ``place``.

    A process that was killed before it wrote its plan may have left three things, which are
    allowed: the temporary file of the plan, the folder of the plan, and in it the task folder of an
    engine.
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
    """Raise `InvalidDataError` if two plans differ; the message names the differences.

    ``place`` is the folder of the old plan. ``effect`` follows the differences in the message, and
    says what they would change. ``remedy``, at the end of the message, says what to do instead of
    using the old plan.
    """
    if differences := differences_text(old, new):
        raise InvalidDataError(
            f"{place} was begun differently: {differences}{effect}. "
            f"Use the settings it was begun with, or {remedy}"
        )


def differences_text(old: object, new: object) -> str:
    """Return a text on the differences of two plans, by names of options; "" if there are none.

    The first differences are described. The others are counted, and options among them are named.
    """
    differences = [*_differences(old, new)]
    text = "; ".join(_difference_text(*each) for each in differences[:_MOST])
    if not (rest := differences[_MOST:]):
        return text
    names = dict.fromkeys(setting_name(keys) for keys, _, _ in rest)
    options = ", ".join(name for name in names if name.startswith("--"))
    more = counted(len(rest), "more difference")
    return f"{text}; and {more}{options and f', also in {options}'}"


def _difference_text(keys: tuple[str, ...], before: object, now: object) -> str:
    """Return a text on one difference of two plans; hashes of contents are not shown."""
    if keys[0] == "sources" and len(keys) == 2:
        change = "is new" if before is _ABSENT else "is missing" if now is _ABSENT else "changed"
        return f"the source {keys[1]} {change}"
    name = setting_name(keys)
    if not (is_hash(before) or is_hash(now)):
        return f"{name} was {_shown(before)} and is {_shown(now)}"
    if before in _NOTHING:
        return f"{name} was not given"
    return f"{name} is not given now" if now in _NOTHING else f"the contents of {name} differ"


def is_hash(value: object) -> bool:
    """Whether ``value`` is the hash of contents, as `hash_file` and `hash_json` return it."""
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _differences(
    old: object, new: object, keys: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], object, object]]:
    """Yield (keys, old value, new value) for each difference of two plans.

    ``keys`` are the keys that lead to the value in the nested plan.
    """
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and not _are_names(old, new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*new, *old]):
            yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), (*keys, str(key)))
    elif old != new:
        yield keys, old, new


def setting_name(keys: tuple[str, ...]) -> str:
    """Return the name, for messages, of the value at ``keys`` of a plan.

    The name of a setting is the option of the command line that sets it.

    >>> setting_name(("settings", "proxy", "tokens")), setting_name(("settings", "seq_len"))
    ('--proxy-tokens', '--seq-len')
    >>> setting_name(("settings", "min_document_score", "overall"))
    '--min-document-score overall'
    >>> setting_name(("max_epochs",)), setting_name(("targets", "loss"))
    ('--max-epochs', 'targets.loss')
    """
    if keys == ("max_epochs",):
        keys = ("settings", *keys)
    if keys[0] == "end" and len(keys) == 2:
        return f"the {'number' if keys[1] == 'id' else keys[1]} of the end token"
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
    """Whether ``values`` are texts in lists of different lengths, to be compared as a whole."""
    texts = all(isinstance(item, str) for value in values for item in value)
    return texts and len({len(value) for value in values}) > 1


def _shown(value: object) -> str:
    if value in _NOTHING:
        return "not given"
    if isinstance(value, list | tuple) and len(value) > _MOST:
        return f"a list of {len(value):,}"
    return repr(value)
