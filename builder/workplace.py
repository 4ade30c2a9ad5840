"""Workplace: a folder that a command fills, begun once, gone on with, and finished.

Until it is finished, what was planned and what is in progress lie in a hidden folder within.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from climbstream.loader.plan import begin_or_continue, check_same
from climbstream.loader.progress import say
from climbstream.loader.storage import lock


@contextmanager
def workplace(
    out: Path, hidden: str, plan: Mapping[str, Any], finished: Callable[[], object | None]
) -> Iterator[Path | None]:
    """Hold ``out`` for this process, to do in it what ``plan`` says.

    Gives the folder ``hidden`` of work in progress, which goes when the block ends well; or None if
    all is done already. ``finished`` returns the plan of what is done, or None.

    Raises:
        InvalidDataError: ``out`` was begun with another plan, or holds other files.
        LockedError: Another process works in ``out``.
    """
    work = out / hidden
    with lock(out):
        if (there := finished()) is not None:
            check_same(there, plan, out)
            shutil.rmtree(work, ignore_errors=True)
            say(f"{out} is finished already, from these sources with these settings")
            yield None
            return
        if begin_in(out, hidden, plan):
            say(f"going on with what was begun in {out}")
        yield work
        shutil.rmtree(work)


def begin_in(
    out: Path,
    hidden: str,
    plan: Mapping[str, Any],
    effect: Callable[[Any, Any], str] = lambda _there, _here: "",
) -> bool:
    """Begin ``plan`` in ``out``, which is locked, or go on with it; return whether it was begun.

    ``effect`` is that of `begin_or_continue`.

    Raises:
        InvalidDataError: ``out`` was begun with another plan, or holds other files.
    """
    return begin_or_continue(
        out, f"{hidden}/plan.json", plan, effect, folders=(f"{hidden}/**", "clusters/*", "*")
    )
