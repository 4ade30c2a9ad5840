"""Engine: where tasks run: in processes of this machine, on a Ray cluster, or in SLURM jobs.

A task is a picklable function of one argument. It may be run twice: it writes each file whole or
not at all. So every engine gives the same bytes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

from climbstream.loader.core.console import Progress
from climbstream.loader.core.errors import ClimbError

from .local import LocalEngine
from .ray import RayEngine
from .slurm import SlurmEngine

ENGINES = ("local", "ray", "slurm")

T = TypeVar("T")
R = TypeVar("R")


class Engine(AbstractContextManager["Engine"], Protocol):
    """Runs tasks; leaving its ``with`` block ends what it started."""

    @property
    def workers(self) -> int:
        """Tasks that run at a time."""

    def run(
        self,
        function: Callable[[T], R],
        tasks: Iterable[T],
        instead: Callable[[T, ClimbError], R] | None = None,
    ) -> Iterator[tuple[T, R]]:
        """Yield (task, result) for each task, as they end; the first error ends the work.

        A task that hangs, or is lost with its process, is tried again. If that fails too,
        ``instead`` makes its result; without ``instead`` it is an error.
        """


def open_engine(
    name: str,
    workers: int | None,
    shared: Path,
    *,
    gpus: bool = False,
    preload: Sequence[str] = (),
) -> Engine:
    """Open the engine named ``name``, one of `ENGINES`; it runs ``workers`` tasks at a time.

    The default is one task a core; with ``gpus``, one a GPU if the machine has some. SLURM has no
    default. ``shared`` is a folder that every machine must see; ``preload`` is that of
    `LocalEngine`.
    """
    if name == "ray":
        return RayEngine(workers, shared, gpus=gpus)
    if name == "slurm":
        return SlurmEngine(workers, shared, gpus=gpus, preload=preload)
    return LocalEngine(workers, gpus=gpus, preload=preload)


def run_stage(
    engine: Engine,
    what: str,
    unit: str,
    function: Callable[[T], int],
    tasks: Iterable[T],
    instead: Callable[[T, ClimbError], int] | None = None,
) -> int:
    """Run the tasks of a stage and show progress; ``function`` returns the units of work of a task.

    ``instead`` is that of `Engine.run`. Returns the units of all tasks.
    """
    total = 0
    with Progress(what, None, unit) as progress:
        for _, done in engine.run(function, tasks, instead):
            progress.add(done)
            total += done
    return total
