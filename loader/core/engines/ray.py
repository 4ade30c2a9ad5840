"""Ray engine: the tasks of a stage run on all nodes of a Ray cluster.

All nodes must see the folders that tasks read and write under the same path. A task that is lost
with its node runs again on another one, and writes the same bytes. This process sees no sign of
life of a task, so a deadline counts from the last task that ended; by default there is none.
"""

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from climbstream.loader.core.console import duration
from climbstream.loader.core.errors import ClimbError, UsageError
from climbstream.loader.core.log import get_logger

from .task_timeout import TIMEOUT, Patience, task_name, task_timeout

logger = get_logger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_RETRIES = 5
"""Number of times a task is tried again whose process or node was lost."""


class RayEngine:
    """Runs tasks on the Ray cluster of RAY_ADDRESS or of this node, else on one that it starts.

    Raises:
        UsageError: Ray is not installed, or gives no cluster.
    """

    def __init__(self, workers: int | None, shared: Path, *, gpus: bool = False) -> None:
        try:
            import ray  # it costs seconds, and few runs need it
        except ModuleNotFoundError:
            raise UsageError(
                "--engine ray needs Ray: pip install 'climbstream[ray]', or use --engine local"
            ) from None
        self._ray: Any = ray
        self._workers = workers
        self._shared = shared
        """A file that every node must see."""
        self._gpus = gpus
        """Whether a task takes a GPU, if the cluster has some."""
        self._ours = not ray.is_initialized()

    def __enter__(self) -> Self:
        if self._ours:
            try:
                self._ray.init(log_to_driver=False)
            except ConnectionError as error:
                raise UsageError(f"no Ray cluster answers: {error}") from None
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        logger.info(f"Ray: {len(nodes)} nodes, {self._slots()} tasks at a time")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._ours:
            self._ray.shutdown()

    def run(
        self,
        function: Callable[[T], R],
        tasks: Iterable[T],
        instead: Callable[[T, ClimbError], R] | None = None,
    ) -> Iterator[tuple[T, R]]:
        """Yield (task, result) for each task, as they end; the first error ends the work.

        ``instead`` makes the result of a task that did not end in time, or was lost; without
        ``instead`` that is an error.

        Raises:
            ClimbError: A task was lost with its process or node in every try, or did not end in
                time.
        """
        needs = {"num_cpus": 1, "num_gpus": int(self._needs() == "GPU")}
        start = self._ray.remote(**needs, max_retries=_RETRIES)(_call).remote
        waiting: dict[Any, T] = {}
        try:
            for task in tasks:
                waiting[start(function, task, self._shared)] = task
                # Hand over few tasks at a time, as nodes may come and go meanwhile.
                while len(waiting) >= 2 * self._slots():
                    yield from self._ended(waiting, function, instead)
            while waiting:
                yield from self._ended(waiting, function, instead)
        finally:
            for left in waiting:
                self._ray.cancel(left, force=True)

    def _slots(self) -> int:
        return self._workers or max(1, int(self._ray.cluster_resources().get(self._needs(), 1)))

    def _needs(self) -> str:
        """Name the resource of which a task takes one."""
        return "GPU" if self._gpus and self._ray.cluster_resources().get("GPU") else "CPU"

    def _ended(
        self,
        waiting: dict[Any, T],
        function: Callable[[T], R],
        instead: Callable[[T, ClimbError], R] | None,
    ) -> Iterator[tuple[T, R]]:
        """Wait until one of ``waiting`` has ended; remove and return it."""
        if (ready := self._ready(waiting, function)) is None:
            late = next(iter(waiting))  # in the order in which they were handed over
            task = waiting.pop(late)
            self._ray.cancel(late, force=True)
            error = ClimbError(
                f"{task_name(function, task)} was not done {duration(task_timeout())} after the "
                "task before it; see its node, or give more time with --task-timeout SECONDS"
            )
            yield task, _result_of(error, task, instead)
            return
        task = waiting.pop(ready)
        try:
            result = self._ray.get(ready)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            lost = ClimbError(
                f"a task was lost on the Ray cluster, and {_RETRIES} times again: "
                f"{str(error).splitlines()[0]} Most often a node has too little memory; run the "
                "same command again with fewer --workers; it continues where it stopped"
            )
            result = _result_of(lost, task, instead)
        yield task, result

    def _ready(self, waiting: dict[Any, T], function: Callable[[T], R]) -> Any | None:
        """Return one of ``waiting`` that has ended; None if none ends in time."""
        begun, patience = time.monotonic(), Patience()
        limit = task_timeout() if os.environ.get(TIMEOUT) else float("inf")
        while (passed := time.monotonic() - begun) < limit:
            ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=min(limit - passed, 5))
            if ready:
                return ready[0]
            if patience.over(time.monotonic() - begun):
                logger.warning(
                    f"no task has ended for {duration(time.monotonic() - begun)}; the cluster has "
                    f"{len(waiting)}, the first {task_name(function, next(iter(waiting.values())))}"
                )
        return None


def _result_of(error: ClimbError, task: T, instead: Callable[[T, ClimbError], R] | None) -> R:
    """Return the result for a task that ended with ``error``; without ``instead``, raise it."""
    if instead is None:
        raise error
    logger.warning(str(error))
    return instead(task, error)


def _call(function: Callable[[T], R], task: T, shared: Path) -> R:
    """Run one task, on a node of the cluster."""
    if not shared.exists():
        raise UsageError(
            f"node {platform.node()} does not see {shared}: all nodes of a Ray cluster must mount "
            "the file system of --out under the same path"
        )
    return function(task)
