"""Engine: runs tasks in processes of this machine, on a Ray cluster, or in SLURM jobs.

A task is one call of a function with one argument; both can be pickled. A task may be run twice, so
it must write each file whole or not at all. Then every engine produces the same bytes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

from climbstream.loader.core.console import Progress
from climbstream.loader.core.errors import ClimbError

from .local import LocalEngine, check_workers
from .ray import RayEngine
from .slurm import SlurmEngine

ENGINES = ("local", "ray", "slurm")

T = TypeVar("T")
R = TypeVar("R")


class Engine(AbstractContextManager["Engine"], Protocol):
    """Interface of an engine; the end of its ``with`` block ends the processes that it started."""

    @property
    def workers(self) -> int:
        """Number of tasks that run at the same time."""

    def run(
        self,
        function: Callable[[T], R],
        tasks: Iterable[T],
        instead: Callable[[T, ClimbError], R] | None = None,
        *,
        gpu: bool = False,
    ) -> Iterator[tuple[T, R]]:
        """Call ``function`` with each of ``tasks``; yield (task, result) as tasks end.

        The first error that a task raises ends the work. A task that hangs, or is lost with its
        process, may be tried again. If it fails in every try, ``instead(task, error)`` returns a
        substitute for its result; if ``instead`` is None, the error is raised.

        With ``gpu``, one task at a time runs on each GPU, on the device that `own_device` returns,
        and its process stays for the next task. If there is no GPU, tasks run as without ``gpu``.
        """

    def gpus(self) -> int | None:
        """Return the number of GPUs that `run` uses with ``gpu``; None: only SLURM jobs know it."""


def open_engine(
    name: str,
    workers: int | None,
    shared: Path,
    *,
    gpus: bool = False,
    preload: Sequence[str] = (),
) -> Engine:
    """Return a new engine.

    Args:
        name: One of `ENGINES`.
        workers: Number of tasks that run at the same time. Default: one per core or, with ``gpus``,
            one per GPU if there are GPUs. For SLURM it must be given.
        shared: A folder that all machines can read and write.
        gpus: Whether each task uses a GPU, if there are GPUs.
        preload: Names of modules that tasks import; see `LocalEngine`.

    Raises:
        UsageError: ``workers`` is below 1, or the engine cannot be used here.
    """
    check_workers(workers)
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
    *,
    gpu: bool = False,
) -> int:
    """Run the tasks of a stage, and show progress; return the number of units of work.

    Args:
        engine: Engine that runs the tasks.
        what: Name of the stage, for the line of progress.
        unit: Name of the units of work, such as "documents".
        function: Function of a task; it returns the number of units of work of the task.
        tasks: The tasks.
        instead: As in `Engine.run`.
        gpu: As in `Engine.run`.
    """
    total = 0
    with Progress(what, None, unit) as progress:
        for _, done in engine.run(function, tasks, instead, gpu=gpu):
            progress.add(done)
            total += done
    return total
