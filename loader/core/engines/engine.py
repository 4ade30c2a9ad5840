"""Engine: where tasks run, in processes of this machine or on a Ray cluster.

A task is a picklable function of one argument that may be run twice: what it writes, it writes
whole or not at all. So every engine gives the same bytes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

from climbstream.loader.core.console import Progress
from climbstream.loader.core.errors import ClimbError

from .local import LocalEngine
from .ray import RayEngine

ENGINES = ("local", "ray")

T = TypeVar("T")
R = TypeVar("R")


class Engine(AbstractContextManager["Engine"], Protocol):
    """Runs tasks; leaving its ``with`` block ends what it started."""

    def run(
        self,
        function: Callable[[T], R],
        tasks: Iterable[T],
        instead: Callable[[T, ClimbError], R] | None = None,
    ) -> Iterator[tuple[T, R]]:
        """Give (task, result) for each task, as they end; the first error ends the work.

        ``instead`` makes the result of a task that hung, or was lost with its process, again and
        again; without it that is an error.
        """


def open_engine(
    name: str,
    workers: int | None,
    shared: Path,
    *,
    gpus: bool = False,
    preload: Sequence[str] = (),
) -> Engine:
    """Open engine ``name`` of `ENGINES`; ``workers`` tasks run at a time.

    By default these are one a core; with ``gpus``, one a GPU where there are some. ``shared`` is a
    file that every machine must see; ``preload`` as of `LocalEngine`.
    """
    if name == "ray":
        return RayEngine(workers, shared, gpus=gpus)
    return LocalEngine(workers, gpus=gpus, preload=preload)


def run_stage(
    engine: Engine,
    what: str,
    unit: str,
    function: Callable[[T], int],
    tasks: Iterable[T],
    instead: Callable[[T, ClimbError], int] | None = None,
) -> None:
    """Run a stage; ``function`` returns how many units of work a task was.

    ``instead`` as of `Engine.run`.
    """
    with Progress(what, None, unit) as progress:
        for _, done in engine.run(function, tasks, instead):
            progress.add(done)
