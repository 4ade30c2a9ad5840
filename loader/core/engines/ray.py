"""Ray engine: the tasks of a stage run on all nodes of a Ray cluster.

The folders that tasks read and write must have the same path on all nodes. A task that is lost with
its node runs again on another node, and writes the same bytes. The command cannot see whether a
task on another node is alive. So with ``--task-timeout``, a task is given up if no task has ended
for this time. By default there is no time limit.

A call takes Ray a millisecond, so short tasks are sent in batches. If a batch at the end of a stage
takes much longer than the others, it is run a second time, because its node may be slow. The result
that comes first is used.
"""

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from climbstream.loader.core.console import counted, duration
from climbstream.loader.core.errors import ClimbError, UsageError
from climbstream.loader.core.log import get_logger

from .batches import BatchQueue, run_batch
from .task_timeout import TIMEOUT, Patience, task_name, task_timeout

logger = get_logger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_RETRIES = 5
"""How often a task is tried again if its process or node is lost."""
_BATCH = 0.2
"""Time that a batch of tasks should take, in seconds; later, no further task of it is begun."""
_LOOK = 5.0
"""Time between two checks, in seconds, of how many tasks can run and which batches are slow."""
_SLOW = 60.0
"""A batch is slow if it takes this number of seconds more than twice the longest finished batch."""
_SOON = 1.0
"""Time for which a call that is no longer needed may go on, in seconds; then it is cancelled."""
_GRACE = 5.0
"""Time in which a cancelled call must end, in seconds; then it is killed."""

_gpu: str | None = None
"""The GPU that Ray gave to this process first; None before that."""


class RayEngine:
    """Runs tasks on a Ray cluster.

    The cluster is that of the environment variable RAY_ADDRESS, else one that already runs on this
    machine, else a new one on this machine.

    Raises:
        UsageError: Ray is not installed, or no Ray cluster answers.
    """

    def __init__(self, workers: int | None, shared: Path, *, gpus: bool = False) -> None:
        try:
            import ray  # the import takes seconds, and few runs need it
        except ModuleNotFoundError:
            raise UsageError(
                "--engine ray needs Ray: pip install 'climbstream[ray]', or use --engine local"
            ) from None
        self._ray: Any = ray
        self._workers = workers
        self._shared = shared
        """A folder that all nodes can read and write."""
        self._gpus = gpus
        """Whether each task uses a GPU, if the cluster has GPUs. If so, each task is sent alone,
        and a slow task is not run a second time."""
        self._looked = float("-inf")
        self._found: dict[str, float] = {}
        self._ours = not ray.is_initialized()

    def __enter__(self) -> Self:
        if self._ours:
            try:
                self._ray.init(log_to_driver=False)
            except ConnectionError as error:
                raise UsageError(f"no Ray cluster answers: {error}") from None
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        slots = counted(self.workers, "task")
        logger.info(f"Ray: {counted(len(nodes), 'node')}, {slots} at a time")
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
        *,
        gpu: bool = False,
    ) -> Iterator[tuple[T, R]]:
        """Yield (task, result) as tasks end; see `Engine.run`.

        A task is given up if it was lost in every try, or did not end in time.

        With ``gpu``, each task takes one GPU, if the cluster has GPUs.

        Raises:
            ClimbError: A task was given up, and ``instead`` is None.
        """
        resource = self._resource(gpu=gpu)
        needs: dict[str, Any] = {"num_cpus": 1, "num_gpus": int(resource == "GPU")}
        call: Callable[..., Any] = _call
        if gpu and resource == "GPU":
            # By default, Ray ends each process that used a GPU, and its model would be loaded anew.
            needs["max_calls"], call = 0, _call_on_gpu
        remote = self._ray.remote(**needs, max_retries=_RETRIES)(call)

        def start(tasks: list[Any], **how: Any) -> Any:
            return remote.options(**how).remote(function, tasks, self._shared)

        name = partial(task_name, function)
        queue = BatchQueue(tasks, _BATCH, short=not self._gpus)
        slots, twice = partial(self._slots, resource), not self._gpus and resource == "CPU"
        yield from _Stage(self._ray, start, name, slots, queue, twice=twice).run(instead)

    @property
    def workers(self) -> int:
        """Number of tasks that run at the same time."""
        return self._slots(self._resource())

    def gpus(self) -> int:
        """Return the number of GPUs of the cluster, or ``workers`` if this is less."""
        gpus = int(self._resources().get("GPU", 0))
        return min(gpus, self._workers or gpus)

    def _slots(self, resource: str) -> int:
        """Return how many tasks run at a time; the number changes as nodes join and leave."""
        return self._workers or max(1, int(self._resources().get(resource, 1)))

    def _resource(self, *, gpu: bool = False) -> str:
        """Return the resource of which each task takes one, ``GPU`` or ``CPU``."""
        return "GPU" if (gpu or self._gpus) and self._resources().get("GPU") else "CPU"

    def _resources(self) -> dict[str, float]:
        """Return the resources of the cluster; ask Ray for them every few seconds."""
        if time.monotonic() - self._looked > _LOOK:
            self._found = self._ray.cluster_resources()
            self._looked = time.monotonic()
        return self._found


@dataclass(slots=True, eq=False)
class _Batch:
    """Tasks that are sent together in one call."""

    tasks: list[Any]
    begun: float
    """When the batch was sent, by `time.monotonic`."""
    calls: list[Any]
    """Ray's references to the results: one, or two if the batch is run a second time."""


class _Stage:
    """The tasks of one `RayEngine.run`."""

    def __init__(
        self,
        ray: Any,
        start: Callable[..., Any],
        name: Callable[[Any], str],
        slots: Callable[[], int],
        queue: BatchQueue,
        *,
        twice: bool,
    ) -> None:
        self._ray, self._start, self._name, self._slots = ray, start, name, slots
        self._queue = queue
        self._twice = twice
        """Whether slow batches may be run a second time."""
        self._longest = 0.0
        """Time of the longest batch that has ended, in seconds."""
        self._waiting: dict[Any, _Batch] = {}
        """Batches that have not ended, by call, in the order in which they were sent."""

    def run(self, instead: Callable[[Any, ClimbError], Any] | None) -> Iterator[tuple[Any, Any]]:
        try:
            while True:
                # Only a few batches are sent before they can run, because nodes may join or leave.
                while len(self._waiting) < 2 * self._slots() and (batch := self._queue.next()):
                    self._hand_over(_Batch(batch, time.monotonic(), []))
                if not self._waiting:
                    return
                yield from self._ended(instead)
        finally:
            self._cancel([*self._waiting])

    def _hand_over(self, batch: _Batch, **how: Any) -> None:
        call = self._start(batch.tasks, **how)
        batch.calls.append(call)
        self._waiting[call] = batch

    def _ended(self, instead: Callable[[Any, ClimbError], Any] | None) -> Iterator[tuple[Any, Any]]:
        """Wait until a batch has ended; yield its finished tasks with their results."""
        if (ready := self._ready()) is None:
            batch = next(iter(self._waiting.values()))  # the one that was sent first
            self._take_out(batch)
            yield from self._queue.give_up(
                batch.tasks,
                f"{self._name(batch.tasks[0])} had not ended {duration(task_timeout())} after the "
                "task before it; look at its node, or allow more time with --task-timeout SECONDS",
                instead,
            )
            return
        batch = self._waiting[ready]
        try:
            results, seconds = self._ray.get(ready)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            del self._waiting[ready]
            batch.calls.remove(ready)
            if not batch.calls:
                yield from self._queue.give_up(
                    batch.tasks,
                    f"a task was lost on the Ray cluster, and {_RETRIES} times again: "
                    f"{str(error).splitlines()[0]} Most often a node has too little memory; run "
                    "the same command again with fewer --workers; it continues where it stopped",
                    instead,
                )
            return
        self._take_out(batch, ready)
        self._longest = max(self._longest, seconds)
        self._queue.note_end(batch.tasks, len(results), seconds)
        yield from zip(batch.tasks, results, strict=False)

    def _take_out(self, batch: _Batch, ended: Any = None) -> None:
        """Stop waiting for ``batch``; cancel all its calls except ``ended``, which has ended."""
        for call in batch.calls:
            del self._waiting[call]
        self._cancel([call for call in batch.calls if call is not ended])

    def _cancel(self, calls: list[Any]) -> None:
        """End ``calls``, by force if necessary.

        Each call first gets 1 s to end by itself, because Ray may crash if a call is cancelled just
        when it ends.
        """
        left = self._left(calls, _SOON)
        for call in left:
            self._ray.cancel(call)
        for call in self._left(left, _GRACE):
            self._ray.cancel(call, force=True)

    def _left(self, calls: list[Any], seconds: float) -> list[Any]:
        """Wait up to ``seconds`` for ``calls`` to end; return those that have not ended then."""
        if not calls:
            return []
        left: list[Any] = self._ray.wait(calls, num_returns=len(calls), timeout=seconds)[1]
        return left

    def _ready(self) -> Any | None:
        """Wait until a call ends, and return it; None if none ends within the task timeout."""
        begun, patience = time.monotonic(), Patience()
        limit = task_timeout() if os.environ.get(TIMEOUT) else float("inf")
        while (passed := time.monotonic() - begun) < limit:
            ready, _ = self._ray.wait(
                list(self._waiting), num_returns=1, timeout=min(limit - passed, _LOOK)
            )
            if ready:
                return ready[0]
            self._run_slow_twice()
            if patience.over(time.monotonic() - begun):
                first = next(iter(self._waiting.values()))
                logger.warning(
                    f"no task has ended for {duration(time.monotonic() - begun)}; the cluster has "
                    f"{counted(len(self._waiting), 'batch', 'batches')} of tasks, the first is "
                    f"{self._name(first.tasks[0])}"
                )
        return None

    def _run_slow_twice(self) -> None:
        """Send slow batches a second time, if there are too few batches left to use all slots."""
        slow = time.monotonic() - _SLOW - 2 * self._longest
        for batch in [*self._waiting.values()]:
            if not self._twice or len(self._waiting) >= self._slots():
                return
            if len(batch.calls) == 1 and batch.begun < slow:
                logger.warning(
                    f"{self._name(batch.tasks[0])} has run for "
                    f"{duration(time.monotonic() - batch.begun)}, and others took "
                    f"{duration(self._longest)} at most; it is run a second time, because its node "
                    "may be slow"
                )
                self._hand_over(batch, scheduling_strategy="SPREAD")


def _call(function: Callable[[T], R], tasks: Sequence[T], shared: Path) -> tuple[list[R], float]:
    """Run a batch on a node of the cluster; return (results, seconds taken).

    Raises:
        UsageError: The node has no folder ``shared``.
    """
    if not shared.exists():
        raise UsageError(
            f"node {platform.node()} does not see {shared}: all nodes of a Ray cluster must mount "
            "the file system of --out under the same path"
        )
    return run_batch(function, tasks, _BATCH)


def _call_on_gpu(
    function: Callable[[T], R], tasks: Sequence[T], shared: Path
) -> tuple[list[R], float]:
    """Do `_call` in a process that never changes its GPU.

    Ray may give a process that it uses again another GPU. But CUDA would go on with the first one,
    beside the process that has this GPU now. So the process ends, and Ray tries the call again.
    """
    global _gpu
    mine = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if _gpu not in (None, mine):
        os._exit(0)
    _gpu = mine
    return _call(function, tasks, shared)
