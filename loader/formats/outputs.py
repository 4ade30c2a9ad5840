"""Outputs: the folders that commands fill, and how to find out which command filled a folder."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import read_json
from climbstream.loader.core.workdir import begin_or_resume

from .grouping import GROUPING

MANIFEST = "manifest.json"
PULL = "pull.json"
"""Name of the file that lists what a pull into the directory fetches."""
WORK = ".build"
"""Folder of unfinished work of a build, an import or an append, in the shard directory."""
BASE = "append to"
"""Key in the plan of an append; its value names the build to which documents are added. A plan is
the file with the settings of a command (`core.workdir`)."""
_PLAN = f"{WORK}/plan.json"
_SHARDS = (
    (MANIFEST, {"fingerprint", "clusters"}),
    (PULL, {"pull", "shards"}),
    (GROUPING, {"version", "groups"}),
    *((_PLAN, {key}) for key in ("builder", "importer", BASE)),
)
"""Files that mark a folder as a shard directory, each with keys that its JSON object must have."""
_EXPORTS = tuple(
    (name, {key})
    for key, names in {
        "exporter": (".export.json", "export.json", ".export/plan.json"),
        "drawn": (".drawn.json", "drawn.json", ".drawn/plan.json"),
    }.items()
    for name in names
)
"""Files that mark a folder as an export, each with a key that its JSON object must have. Early
versions wrote ``export.json``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """The files of a command in a folder that may also contain files of other programs."""

    command: str
    """The command, for messages."""
    plan: str
    """Name of the command's plan, the file with its settings."""
    keys: frozenset[str]
    """Keys of the plan by which it is recognised: no other command's plan has all of them."""
    leaves: tuple[str, ...]
    """Files and folders that the command writes beside the plan. None of them may exist before the
    command begins."""
    more: tuple[str, ...] = ()
    """Files of the user or of another command that may exist before the command begins."""
    use: str = ""
    """What to do with the folder, for messages."""

    def has(self, folder: Path) -> bool:
        """Whether the command has begun in ``folder``."""
        return self.keys <= keys_of(folder / self.plan)

    def begin(self, out: Path, plan: Mapping[str, Any], *, folders: tuple[str, ...] = ()) -> bool:
        """Begin the work of ``plan`` in the folder ``out``; return whether it had begun before.

        ``folders`` is as in `begin_or_resume`, which this method calls.

        Raises:
            InvalidDataError: Another command fills ``out``; or ``out`` has other files, or a plan
                that differs.
        """
        if owner := _owner(out, self):
            raise InvalidDataError(f"{out} is {owner}; name a new folder")
        return begin_or_resume(out, self.plan, plan, leaves=self.leaves, folders=folders)


TRIALS, ITEMS, CELLS, PROXIES = "trials.jsonl", "items.jsonl", "cells.json", "proxies"
"""Names in the folder of a search: the file of trials, the file of their scores on each item of the
targets, the file of the cells of each cluster, and the folder of proxies' parameters."""
BEST_OTHER = "best_other.json"
"""Name, in the folder of a search whose answer is the token shares, of the file with the best other
mixture."""

_ANSWER = "read its report.html, or compare it with others by climb compare"
SEARCH = RunFolder(
    command="climb search",
    plan="search.json",
    keys=frozenset({"search", "shards", "targets"}),
    leaves=(
        TRIALS,
        ITEMS,
        CELLS,
        "mixture.json",
        BEST_OTHER,
        "answer.json",
        "report.html",
        PROXIES,
    ),
    more=("events",),
    use=_ANSWER,
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
"""Name of the file with the loss and the number of tokens of a run, in the folder of the run. It is
written when the run ends."""
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
    use="see it with climb monitor, climb audit or climb explain",
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
    use=_ANSWER,
)
DEMO = RunFolder(
    command="climb demo",
    plan="demo.json",
    keys=frozenset({"demo"}),
    leaves=("shards", "search", "compare", "report.html"),
    more=("cache",),
    use="its shards are in the folder shards, and its search is in the folder search",
)
_RUNS = (SEARCH, DOREMI, TRAIN, COMPARE, FIT, DEMO)
_NAMES = frozenset(name for run in _RUNS for name in (run.plan, *run.leaves, *run.more))


def has_ended(run: Path) -> bool:
    """Whether the folder ``run`` is that of a ``climb train`` that has ended.

    The result is False for a run of another trainer, whose end is not known.
    """
    return TRAIN.has(run) and (run / RESULT).exists()


def is_shard_directory(folder: Path) -> bool:
    """Whether ``folder`` is a shard directory, or a command that writes one has begun in it."""
    return _is_marked(folder, _SHARDS)


def writer_of(path: Path) -> str:
    """Return the command that wrote ``path`` or a folder that contains it; "" if none did.

    Commands without a `RunFolder`, such as climb build, are never returned.
    """
    for place in (path, *path.parents):
        if place.name in _NAMES:
            for run in _RUNS:
                if place.name in (run.plan, *run.leaves, *run.more) and run.has(place.parent):
                    return run.command
    return ""


def contents_of(folder: Path) -> str:
    """Say in words, for a message, what a command of ours wrote to ``folder``; "" if none did."""
    if is_shard_directory(folder):
        return "a shard directory; see it with climb inspect"
    run = next((run for run in _RUNS if run.has(folder)), None)
    what = _owner(folder, run) or (f"the folder of {run.command}" if run else "")
    return f"{what}; {run.use}" if run and run.use else what


def keys_of(path: Path) -> Set[str]:
    """Return the keys of the JSON object in a file; an empty set if the file holds no object."""
    try:
        value = read_json(path) if path.is_file() else None
    except (InvalidDataError, OSError):
        return set()
    return value.keys() if isinstance(value, dict) else set()


def _owner(folder: Path, user: RunFolder | None) -> str:
    """Say in words, for a message, what ``folder`` is; "" if it is of ``user`` or of no command."""
    if is_shard_directory(folder):
        return "a shard directory"
    if _is_marked(folder, _EXPORTS):
        return "the folder of an export"
    other = next((run for run in _RUNS if run is not user and run.has(folder)), None)
    return f"the folder of {other.command}" if other else ""


def _is_marked(folder: Path, marks: tuple[tuple[str, set[str]], ...]) -> bool:
    return any(keys <= keys_of(folder / name) for name, keys in marks)
