"""Outputs: folders that commands fill, and which command filled a folder."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import read_json
from climbstream.loader.core.workdir import begin_or_resume

from .grouping import GROUPING
from .manifest import MANIFEST, PULL

WORK = ".build"
"""Folder of the work in progress of a build, an import or an append."""
BASE = "append to"
"""Key in the plan of an append: the build that it adds to."""
_PLAN = f"{WORK}/plan.json"
_SHARDS = (
    (MANIFEST, {"fingerprint", "clusters"}),
    (PULL, {"pull", "shards"}),
    (GROUPING, {"version", "groups"}),
    *((_PLAN, {key}) for key in ("builder", "importer", BASE)),
)
"""Files that mark a folder as a shard directory, each with keys that its JSON object has."""
_EXPORTS = tuple(
    (name, {key})
    for key, names in {
        "exporter": (".export.json", "export.json", ".export/plan.json"),
        "drawn": (".drawn.json", "drawn.json", ".drawn/plan.json"),
    }.items()
    for name in names
)
"""Files that mark a folder as an export, each with keys that its JSON object has. Early versions
wrote ``export.json``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """The files that a command writes to a folder, which may also hold files of other programs."""

    command: str
    plan: str
    """Name of the file with the plan of the command."""
    keys: frozenset[str]
    """Keys of that plan; no other command's plan has all of them."""
    leaves: tuple[str, ...]
    """Files and folders that the command writes beside the plan. If the plan is missing, none of
    them may exist."""
    more: tuple[str, ...] = ()
    """Files of the user or of another command that may exist before the command begins."""

    def has(self, folder: Path) -> bool:
        """Return whether the command has begun in ``folder``."""
        return self.keys <= keys_of(folder / self.plan)

    def begin(self, out: Path, plan: Mapping[str, Any], *, folders: tuple[str, ...] = ()) -> bool:
        """Begin or resume ``plan`` in ``out`` with `begin_or_resume`; return its result.

        Raises:
            InvalidDataError: Another command fills ``out``, or `begin_or_resume` raises it.
        """
        if owner := _owner(out, self):
            raise InvalidDataError(f"{out} is {owner}; name a new folder")
        return begin_or_resume(out, self.plan, plan, leaves=self.leaves, folders=folders)


TRIALS, ITEMS, CELLS, PROXIES = "trials.jsonl", "items.jsonl", "cells.json", "proxies"
"""Names in the folder of a search: the file of its trials, the file of their scores on each item of
the targets, the file of the cells of its clusters, and the folder of its proxies' parameters."""

SEARCH = RunFolder(
    command="climb search",
    plan="search.json",
    keys=frozenset({"search", "shards", "targets"}),
    leaves=(TRIALS, ITEMS, CELLS, "mixture.json", "answer.json", "report.html", PROXIES),
    more=("events",),
)
DOREMI = RunFolder(
    command="climb search --preset doremi",
    plan="search.json",
    keys=frozenset({"doremi", "shards", "targets"}),
    leaves=(
        "result.json",
        "mixture.json",
        "reference.pt",
        "reference.begun.pt",
        "follower.begun.pt",
        "weights.jsonl",
    ),
)
RESULT = "result.json"
"""File with the loss and the tokens of a run, in the folder of the run; it is written when the run
has ended."""
TRAIN = RunFolder(
    command="climb train",
    plan="run.json",
    keys=frozenset({"train", "shards", "settings"}),
    leaves=(
        RESULT,
        "checkpoint.pt",
        "model",
        "weights.jsonl",
        "served.jsonl",
        "metrics.jsonl",
    ),
    more=("events", "weights.request.json", "weights.clusters.json"),
)
COMPARE = RunFolder(
    command="a comparison",
    plan="compare.json",
    keys=frozenset({"shards", "mixtures", "targets", "seeds"}),
    leaves=("runs.jsonl",),
)
FIT = RunFolder(
    command="climb fit",
    plan="fit.json",
    keys=frozenset({"fit", "tables", "targets"}),
    leaves=("mixture.json", "answer.json", "report.html"),
)
DEMO = RunFolder(
    command="climb demo",
    plan="demo.json",
    keys=frozenset({"demo"}),
    leaves=("shards", "search", "compare", "report.html"),
    more=("cache",),
)
_RUNS = (SEARCH, DOREMI, TRAIN, COMPARE, FIT, DEMO)
_NAMES = frozenset(name for run in _RUNS for name in (run.plan, *run.leaves, *run.more))


def has_ended(run: Path) -> bool:
    """Return whether ``climb train`` has ended in the folder ``run``; False for other trainers."""
    return TRAIN.has(run) and (run / RESULT).exists()


def is_shard_directory(folder: Path) -> bool:
    """Return whether ``folder`` is a shard directory, or a build or pull has begun in it."""
    return _is_marked(folder, _SHARDS)


def writer_of(path: Path) -> str:
    """Return the command that wrote ``path`` or a folder above ``path``.

    Returns "" if there is no such command. Only commands whose folder may also hold files of other
    programs are considered. So climb build, for example, is never returned, because no other
    program may write to its folder.
    """
    for place in (path, *path.parents):
        if place.name in _NAMES:
            for run in _RUNS:
                if place.name in (run.plan, *run.leaves, *run.more) and run.has(place.parent):
                    return run.command
    return ""


def keys_of(path: Path) -> Set[str]:
    """Return the keys of the JSON object in a file; an empty set if the file holds no object."""
    try:
        value = read_json(path) if path.is_file() else None
    except (InvalidDataError, OSError):
        return set()
    return value.keys() if isinstance(value, dict) else set()


def _owner(folder: Path, user: RunFolder) -> str:
    """Describe what fills ``folder``, for a message; "" if only ``user`` or nothing does."""
    if is_shard_directory(folder):
        return "a shard directory"
    if _is_marked(folder, _EXPORTS):
        return "the folder of an export"
    other = next((run for run in _RUNS if run is not user and run.has(folder)), None)
    return f"the folder of {other.command}" if other else ""


def _is_marked(folder: Path, marks: tuple[tuple[str, set[str]], ...]) -> bool:
    return any(keys <= keys_of(folder / name) for name, keys in marks)
