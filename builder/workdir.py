"""Working folders: folders that a command fills, and continues to fill after an interruption.

A plan decides what the work makes: it has the settings and the fingerprints of the sources. Until
the work is finished, its plan and the files in progress are in a hidden folder inside the working
folder.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.engines.late import LateEngine
from climbstream.loader.core.engines.task_folder import TASKS
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import is_temporary, lock
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.workdir import (
    begin_or_resume,
    check_same_config,
    differences_text,
    read_plan,
)
from climbstream.loader.formats.mixture import some_names
from climbstream.loader.formats.outputs import BASE, keys_of

logger = get_logger(__name__)

PRELOAD = ("climbstream.builder.corpus.ingest",)
"""Modules that an engine loads once for all of its processes."""
UNBOUND = "unbound"
"""File in the folder of work in progress; while it exists, work with another plan may replace this
work. The file is written by a dry run, and after an error in data or settings if no shards have
been written yet."""
_WRITING = "writing"
"""File in the folder of work in progress; it exists as soon as shards may be written."""
_PLANS = ("builder", "importer", "exporter", "drawn", BASE)
"""Keys of plans. Every plan has one of these keys, depending on the kind of work, and is recognised
by it."""


@contextmanager
def open_workdir(
    out: Path,
    hidden: str,
    plan: Mapping[str, Any],
    finished: Callable[[], object | None],
) -> Iterator[Path | None]:
    """Lock ``out`` for this process, and begin or resume ``plan`` in it.

    Yields ``out / hidden``, the folder for work in progress; None if the work is finished already.
    When the ``with`` block ends without an error, ``out / hidden`` is removed. ``finished()``
    returns the plan of the finished work in ``out``, or None.

    Raises:
        InvalidDataError: ``out`` was begun with another plan, or holds other files.
        LockedError: Another process works in ``out``.
    """
    work = out / hidden
    with lock(out):
        yield work if begin_work(out, hidden, plan, finished) else None
        remove_work(work)


def begin_work(
    out: Path,
    hidden: str,
    plan: Mapping[str, Any],
    finished: Callable[[], object | None],
    place: object = None,
) -> bool:
    """Begin or resume ``plan`` in ``out``, as `open_workdir` does; the caller has locked ``out``.

    ``place`` is where finished work is, by default ``out``; messages name this place. Returns False
    if the work is finished already.
    """
    if (finished_plan := finished()) is not None:
        place = place or out
        check_same_config(finished_plan, plan, place)
        logger.info(f"{place} is finished already, from these sources with these settings")
        return False
    give_way(out / hidden, plan)
    if begin_in(out, hidden, plan):
        logger.info(f"continuing the unfinished work in {out}")
    return True


@contextmanager
def engine_in(work: Path, open_engine: Callable[[Path], Engine]) -> Iterator[Engine]:
    """Yield an engine that works in ``work``; the engine is opened for its first tasks."""

    def begin() -> Engine:
        work.mkdir(parents=True, exist_ok=True)
        return open_engine(work)

    try:
        with LateEngine(begin) as engine:
            yield engine
    finally:
        if (work / UNBOUND).exists() and not _has_documents(work):
            remove_work(work)
        with suppress(OSError):  # the folder has files, or does not exist
            work.rmdir()


@contextmanager
def unbound_by_error(work: Path) -> Iterator[None]:
    """Let another plan replace this work if the block raises an error in data or settings.

    The work in progress stays in ``work``, so that the same call can continue it; if no document
    was read, `engine_in` removes the folder. After `bind`, no other plan may replace this work,
    even after an error.
    """
    try:
        yield
    except (InvalidDataError, UsageError):
        if not (work / _WRITING).exists():
            (work / UNBOUND).touch()
        raise


def bind(work: Path) -> None:
    """Keep other plans out of ``work``, because shards will now be written."""
    (work / _WRITING).touch()


def give_way(work: Path, plan: Mapping[str, Any]) -> None:
    """If unbound ``work`` has another plan, remove the work; if it has ``plan``, bind it."""
    if (work / UNBOUND).exists():
        if (before := read_plan(work / "plan.json")) != plan:
            logger.info(
                f"the work in {work} begins again from the start, because the command that failed "
                f"there had {what_differs(before, plan)}"
            )
            remove_work(work)
        (work / UNBOUND).unlink(missing_ok=True)


def what_differs(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return a text on what differs between two plans: sources, settings or both.

    >>> old = {"sources": {"a.txt": "0", "b.txt": "1"}, "settings": {"seed": 1}}
    >>> what_differs(old, {"sources": {"a.txt": "2", "c.txt": "1"}, "settings": {"seed": 1}})
    'other sources (new: c.txt; gone: b.txt; changed: a.txt)'
    >>> what_differs(old, {**old, "settings": {"seed": 2}})
    'other settings (--seed was 1 and is 2)'
    """
    before, after = old.get("sources") or {}, new.get("sources") or {}
    groups = {
        "new": sorted(after.keys() - before.keys()),
        "gone": sorted(before.keys() - after.keys()),
        "changed": [name for name in after if before.get(name, after[name]) != after[name]],
    }
    sources = "; ".join(f"{kind}: {some_names(names)}" for kind, names in groups.items() if names)
    rest = [{k: v for k, v in plan.items() if k != "sources"} for plan in (old, new)]
    parts = {"sources": sources, "settings": differences_text(*rest)}
    return " and ".join(f"other {what} ({text})" for what, text in parts.items() if text)


def _has_documents(work: Path) -> bool:
    units = work / "units"
    return units.is_dir() and any(path.is_dir() for path in units.iterdir())


def is_work(work: Path) -> bool:
    """Whether ``work`` is a folder of work in progress: it contains a plan of climbstream."""
    return not work.is_symlink() and not keys_of(work / "plan.json").isdisjoint(_PLANS)


def is_vacant(work: Path) -> bool:
    """Whether work may begin in the folder ``work``: it is missing, or no work was begun in it.

    A folder in which no work was begun may still contain two things: a plan that was not written
    completely, and a folder of engine tasks.
    """
    if work.is_symlink() or not work.is_dir():
        return not os.path.lexists(work)
    return all(
        is_temporary(path, "plan.json") or (path.name == TASKS and not path.is_symlink())
        for path in work.iterdir()
    )


def remove_work(work: Path) -> None:
    """Remove the folder ``work``; if it has no plan of climbstream, log that it stays.

    The plan is removed last, so that the folder is still recognised if this process is killed.
    """
    if not is_work(work):
        if os.path.lexists(work):
            logger.warning(f"{work} is not removed, because this command did not write it")
        return
    for path in work.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in ("plan.json", UNBOUND):
            path.unlink()
    (work / UNBOUND).unlink(missing_ok=True)
    shutil.rmtree(work)


def begin_in(
    out: Path,
    hidden: str,
    plan: Mapping[str, Any],
    effect: Callable[[Any, Any], str] = lambda _there, _here: "",
) -> bool:
    """Begin or resume ``plan`` in ``out``, which is locked; return True if it was resumed.

    ``effect`` is as in `begin_or_resume`.

    Raises:
        InvalidDataError: ``out`` was begun with another plan, or holds other files.
    """
    return begin_or_resume(
        out,
        f"{hidden}/plan.json",
        plan,
        effect,
        folders=(f"{hidden}/**", "clusters/*", "*"),
        remedy=f"name another folder; to discard the unfinished work, remove {out}",
    )
