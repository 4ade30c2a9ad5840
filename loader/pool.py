"""Work in processes of this machine: tasks in, results out, in any order.

A task is a picklable function of one argument that writes its result whole or not at all, so a
killed run can simply be run again. Processes end with their parent, also when it is killed.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from types import TracebackType
from typing import Any, Self, TypeVar

from .errors import ClimbError

T = TypeVar("T")
R = TypeVar("R")


_number = 0
"""Of this process among those of its pool."""


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_device() -> str:
    """Name the device that this process computes on: a GPU in turn with the others, or the CPU.

    The others are those of a pool, or of torchrun on this node.
    """
    number = int(os.environ.get("LOCAL_RANK", _number))
    return f"cuda:{number % gpus}" if (gpus := _gpus()) else "cpu"


def _gpus() -> int:
    """Count the GPUs that this process sees."""
    import torch  # noqa: PLC0415  (late: it costs seconds, and most pools do without it)

    return torch.cuda.device_count()


class Pool:
    """Processes for many rounds of tasks; they start with the first task.

    Use it in a ``with`` block: leaving it ends the processes, also in the middle of a task.
    """

    def __init__(
        self, workers: int | None = None, *, gpus: bool = False, preload: Sequence[str] = ()
    ) -> None:
        """Make a pool of ``workers`` processes.

        By default these are one a core; with ``gpus``, one a GPU where there are some. ``preload``
        names modules that tasks will import: once for all processes, and not in this one.
        """
        self.workers = workers or (gpus and _gpus()) or cores()
        self._preload = preload
        self._context = multiprocessing.get_context("forkserver")
        self._started = self._context.Value("i", 0)
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._executor is not None:
            processes = list((self._executor._processes or {}).values())
            self._executor.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
                process.join()

    def run(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[T, R]]:
        """Give (task, result) for each task, as they end; the first error ends the work.

        Raises:
            ClimbError: A process was killed, by lack of memory most often.
        """
        waiting: dict[Future[R], T] = {}
        try:
            for task in tasks:
                waiting[self._start(function).submit(function, task)] = task
                # Only a few tasks are handed over at a time, so that results come early.
                if len(waiting) >= 2 * self.workers:
                    yield from _ended(waiting)
            while waiting:
                yield from _ended(waiting)
        except BrokenProcessPool:
            raise ClimbError(
                "a worker process was killed, for want of memory most likely; run the same "
                f"command again with fewer than {self.workers} workers, it goes on where it was"
            ) from None

    def _start(self, function: Callable[[T], R]) -> ProcessPoolExecutor:
        if self._executor is None:
            # Imports cost seconds; the server makes them once, and each process is a copy of it.
            module = getattr(function, "func", function).__module__
            self._context.set_forkserver_preload(["__main__", module, *self._preload])
            self._executor = ProcessPoolExecutor(
                self.workers,
                self._context,
                initializer=_start_worker,
                initargs=(self._started,),
            )
        return self._executor


def _ended(waiting: dict[Future[R], T]) -> Iterator[tuple[T, R]]:
    """Wait until at least one of ``waiting`` has ended; take those out and give them."""
    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
        yield waiting.pop(future), future.result()


def _start_worker(started: Any) -> None:
    """Take a number; leave Ctrl-C, which reaches all of a terminal, to the parent; end with it.

    Without that a pool's workers would wait for ever when their parent is killed.
    """
    global _number
    with started.get_lock():
        _number = started.value
        started.value += 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)
