"""Engine: runs tasks in processes of this machine, on a Ray cluster, or in SLURM jobs.

A task is one call of a picklable function of one argument. A task may be run twice, so it must
write each file whole or not at all. If tasks keep this rule, every engine produces the same bytes.
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
    """Runs tasks; leaving its ``with`` block ends the processes and jobs that it started."""

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
        """Yield (task, result) in the order in which the tasks end; the first error ends the work.

        A task that hangs, or is lost with its process, is tried again. If every try fails,
        ``instead(task, error)`` returns a substitute for the result of the task; without
        ``instead``, the error is raised.

        With ``gpu``, one task at a time runs on each GPU, on the device that `own_device` returns,
        and its process stays for the next task. If there is no GPU, tasks run as without ``gpu``.
        """

    def gpus(self) -> int | None:
        """Return on how many GPUs `run` with ``gpu`` runs tasks; None: only the jobs know it."""


def open_engine(
    name: str,
    workers: int | None,
    shared: Path,
    *,
    gpus: bool = False,
    preload: Sequence[str] = (),
) -> Engine:
    """Open the engine named ``name``, one of `ENGINES`; it runs ``workers`` tasks at a time.

    By default, the engine runs one task per core; with ``gpus``, it runs one task per GPU if there
    are GPUs. For SLURM, ``workers`` must be given. ``shared`` is a folder that every machine must
    see. For ``preload``, see `LocalEngine`.

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
    """Run the tasks of a stage and show progress; return how many units of work they did.

    ``function`` returns the units of work that one task did; ``unit`` is their name. For
    ``instead`` and ``gpu``, see `Engine.run`.
    """
    total = 0
    with Progress(what, None, unit) as progress:
        for _, done in engine.run(function, tasks, instead, gpu=gpu):
            progress.add(done)
            total += done
    return total
