"""Local engine: runs tasks in processes of this machine.

A task is one call of a function with one argument; both can be pickled. Worker processes end when
their parent ends, even if the parent is killed.

A process that uses no CPU time for `task_timeout` seconds is killed, for example one that was
stopped or waits for a disk. Its task is tried once more in a new process. A task that computes uses
CPU time, so it has no time limit.
"""

import multiprocessing
import multiprocessing.process
import os
import pickle
import queue
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any, Self, TypeVar

from climbstream.loader.core.console import duration
from climbstream.loader.core.errors import ClimbError, UsageError
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.streams import keep_streams

from .packed import pack, unpack
from .task_timeout import Patience, function_name, task_name, task_timeout

logger = get_logger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_TICK = 1.0
"""Longest time between two checks of the processes, in seconds."""
_START = 60.0
"""Smallest timeout of a process that has not yet used any CPU time, in seconds."""
_GRACE = 5.0
"""Longest wait for killed processes to end, in seconds."""
_TRIES = 2

_number = 0
"""Number of this process among the worker processes of its engine, from 0."""


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(workers: int | None) -> None:
    """Raise `UsageError` if ``workers`` is a number below 1; None is allowed."""
    if workers is not None and workers < 1:
        raise UsageError(f"workers is {workers}; it must be 1 or more, or None for the default")


def own_device() -> str:
    """Return the device on which this process should compute: ``cuda:N``, or ``cpu``.

    Process number i of an engine, or of torchrun on this node, uses GPU i modulo the number of
    GPUs.
    """
    number = int(os.environ.get("LOCAL_RANK", _number))
    return f"cuda:{number % gpus}" if (gpus := _gpus()) else "cpu"


def _gpus() -> int:
    """Return the number of GPUs that this process can use."""
    import torch

    return torch.cuda.device_count()


@dataclass(slots=True)
class _Job:
    """A task, with what is needed to send and name it."""

    function: Callable[[Any], Any]
    packed: bytes
    """The function as bytes, as it is sent to a process; all jobs of a stage share these bytes."""
    task: Any
    """The argument of the function."""
    number: int
    """Number of the task in its stage, from 1."""
    tries: int = 0
    """How often the task was started."""

    def __str__(self) -> str:
        return f"task {self.number}, {task_name(self.function, self.task)}"

    @property
    def name(self) -> str:
        """Number and function of the task, for a message; ``str(job)`` also has its argument."""
        return f"task {self.number}, {function_name(self.function)}"


@dataclass(slots=True)
class _Answer:
    """How a job ended."""

    result: Any = None
    error: BaseException | None = None
    lost: bool = False
    """Whether the process of the job ended before the job did."""


class _Worker:
    """A worker process, and the thread that talks to it.

    Only this thread waits if the process does not answer.
    """

    def __init__(
        self, context: Any, number: int, answers: "queue.SimpleQueue[tuple[_Worker, _Answer]]"
    ) -> None:
        self.number = number
        self.job: _Job | None = None
        self.began = False
        """Whether the process was ready for a job."""
        self.silent = 0.0
        """Time for which the worker has used no CPU time, in seconds. Time in which the process of
        the engine itself was stopped does not count."""
        self._seen = 0.0
        self._sent: bytes | None = None
        """The function that was last sent to the process, as bytes."""
        self._patience = Patience()
        self._answers = answers
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._ours, self._theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(number, self._theirs))
        threading.Thread(target=self._speak, daemon=True).start()

    @property
    def name(self) -> str:
        return f"process {self._process.pid}" if self._process.pid else "a process not begun yet"

    def begin(self, job: _Job) -> None:
        """Give ``job`` to the worker."""
        job.tries += 1
        self.job, self.silent, self._patience = job, 0.0, Patience()
        self._jobs.put(job)

    def hangs(self, seconds: float) -> bool:
        """Whether the process has used no CPU time for so long that it counts as hung.

        ``seconds`` is the time since the last call of this method.
        """
        if (cpu := _cpu_time(self._process.pid)) > self._seen:
            self._seen, self.silent, self._patience = cpu, 0.0, Patience()
            return False
        self.silent += seconds
        limit = task_timeout() if self._seen else max(task_timeout(), _START)
        if self.silent < limit and self._patience.over(self.silent):
            logger.warning(
                f"{self.name} has used no CPU time for {duration(self.silent)}, in {self.job}; it "
                f"is ended after {duration(limit)} (--task-timeout)"
            )
        return self.silent >= limit

    def kill(self) -> None:
        """Kill the process with SIGKILL, which, unlike SIGTERM, also ends a stopped process."""
        self._jobs.put(None)
        with suppress(AttributeError):  # it never began
            self._process.kill()

    def join(self, seconds: float) -> None:
        """Wait up to ``seconds`` until the killed process has ended."""
        if self._process.pid is not None:
            self._process.join(seconds)
        if self._process.exitcode is None:
            # The process waits for a disk and cannot end. Without this, Python would wait for it at
            # exit.
            multiprocessing.process._children.discard(self._process)  # type: ignore[attr-defined]

    def _speak(self) -> None:
        """Start the process, send it jobs and receive the answers."""
        try:
            self._process.start()
            self._theirs.close()
            while (job := self._jobs.get()) is not None:
                answer = self._ask(job)
                self._answers.put((self, answer))
                if answer.lost:
                    return
        except Exception as error:
            self._answers.put((self, _Answer(error=error)))
        finally:
            self._ours.close()

    def _ask(self, job: _Job) -> _Answer:
        try:
            if not self.began:
                self.began = self._ours.recv()
            # The function contains settings and fitted models, which are large. So a process gets
            # the function only once per stage.
            function = b"" if job.packed is self._sent else job.packed
            self._ours.send_bytes(len(function).to_bytes(8) + function + pack(job.task))
            self._sent = job.packed
            answer: _Answer = self._ours.recv()
        except (EOFError, ConnectionError):
            return _Answer(lost=True)
        except Exception as error:  # it cannot be pickled
            return _Answer(error=error)
        return answer


class LocalEngine:
    """Runs tasks in several worker processes, which start when there are tasks.

    The end of the ``with`` block ends the processes, even during a task.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        gpus: bool = False,
        preload: Sequence[str] = (),
        remedy: str = "",
    ) -> None:
        """Make an engine.

        Args:
            workers: Number of processes. Default: one per core or, with ``gpus``, one per GPU if
                the machine has GPUs.
            gpus: Whether each task uses a GPU, if there are GPUs.
            preload: Names of modules that tasks import. One server process imports them, and all
                workers are forked from it, so they need not import them again.
            remedy: What a message advises if memory runs out; default: to use fewer workers.

        Raises:
            UsageError: ``workers`` is below 1.
        """
        check_workers(workers)
        self.workers = workers or (gpus and _gpus()) or cores()
        self._preload = preload
        fewer = f"run the same command again with fewer than {self.workers} workers"
        self._remedy = remedy or fewer
        self._context = multiprocessing.get_context("forkserver")
        self._workers: list[_Worker] = []
        self._answers: queue.SimpleQueue[tuple[_Worker, _Answer]] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end(list(self._workers))

    def run(
        self,
        function: Callable[[T], R],
        tasks: Iterable[T],
        instead: Callable[[T, ClimbError], R] | None = None,
        *,
        gpu: bool = False,
    ) -> Iterator[tuple[T, R]]:
        """Yield (task, result) as tasks end; see `Engine.run`.

        A task that hangs is tried once more. A task whose process was killed is tried once more
        only if ``instead`` is given. If not, an error is raised at once, because most often
        memory ran out, and would run out again.

        With ``gpu``, there is one process per GPU, if the machine has GPUs.

        Raises:
            ClimbError: A process was killed, or a task hung twice, and ``instead`` is None.
        """
        # Processes are numbered from 0, and `own_device` is the GPU with the number of the process.
        limit = (gpu and self.gpus()) or self.workers
        packed = pack(function)
        fresh = (_Job(function, packed, task, n) for n, task in enumerate(tasks, start=1))
        again: list[_Job] = []
        try:
            while True:
                while len(self._busy()) < limit:
                    if (job := again.pop() if again else next(fresh, None)) is None:
                        break
                    self._idle(function, limit).begin(job)
                if not self._busy():
                    return
                worker, answer = self._wait()
                job, worker.job = worker.job, None
                assert job is not None
                if answer is not None and not answer.lost:
                    yield job.task, self._result(answer)
                    continue
                self._end([worker])
                end, remedy = self._hung(worker) if answer is None else self._killed(worker)
                if job.tries < _TRIES and (answer is None or instead):
                    logger.warning(f"{job}: {end}; the task is tried again")
                    again.append(job)
                    continue
                times = ", for the second time" if job.tries == _TRIES else ""
                error = ClimbError(f"{job}: {end}{times}; {remedy}")
                if instead is None:
                    raise error
                logger.warning(str(error))
                yield job.task, instead(job.task, error)
        finally:
            self._end(self._busy())

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.job]

    def gpus(self) -> int:
        """Return the number of GPUs that processes of this engine use, one GPU each."""
        return min(self.workers, _gpus())

    def _idle(self, function: Callable[..., Any], limit: int) -> _Worker:
        """Return a worker with a number below ``limit`` and without a job; start one if needed."""
        if idle := [worker for worker in self._workers if not worker.job and worker.number < limit]:
            return idle[0]
        if not self._workers:
            # Imports take seconds, so one server process imports the modules, and all workers are
            # forked from it.
            module = getattr(function, "func", function).__module__
            self._context.set_forkserver_preload(["__main__", module, *self._preload])
            _start_servers()
        numbers = {worker.number for worker in self._workers}
        number = next(n for n in range(limit) if n not in numbers)
        self._workers.append(_Worker(self._context, number, self._answers))
        return self._workers[-1]

    def _wait(self) -> tuple[_Worker, _Answer | None]:
        """Wait until a worker answers or hangs; return it with its answer, or None if it hangs."""
        begun = seen = time.monotonic()
        patience = Patience()
        while True:
            with suppress(queue.Empty):
                worker, answer = self._answers.get(timeout=_TICK)
                if worker in self._workers:
                    return worker, answer
            now = time.monotonic()
            # If this process itself was stopped, its workers were not idle in that time.
            passed, seen = min(now - seen, 2 * _TICK), now
            busy = self._busy()
            if hanging := [worker for worker in busy if worker.hangs(passed)]:
                return hanging[0], None
            if patience.over(now - begun):
                jobs = [worker.job.name for worker in busy if worker.job]
                logger.warning(
                    f"no task has ended for {duration(now - begun)}; {len(jobs)} at work, the "
                    f"first is {jobs[0]}, in {busy[0].name}; they continue while they use CPU time"
                )

    def _hung(self, worker: _Worker) -> tuple[str, str]:
        """Return two parts of a message about a worker that hung: what happened, and the remedy."""
        return (
            f"{worker.name} used no CPU time for {duration(worker.silent)}, because it was stopped "
            "or waited for a disk, and was ended",
            "find out what it waits for, or allow more time with --task-timeout SECONDS",
        )

    def _killed(self, worker: _Worker) -> tuple[str, str]:
        """Return two parts of a message about a killed worker: what happened, and the remedy."""
        if not worker.began:
            # A new process imports the user's script. If the script starts processes when it is
            # imported, Python ends the process.
            return (
                f"{worker.name} ended before it could begin",
                "a script has to call this under `if __name__ == '__main__':`, as each process "
                "imports the script; if it does, there was too little memory",
            )
        return (
            f"{worker.name} was killed, most likely because memory ran out",
            f"{self._remedy}; it continues where it stopped",
        )

    def _result(self, answer: _Answer) -> Any:
        if answer.error is not None:
            raise answer.error
        return answer.result

    def _end(self, workers: list[_Worker]) -> None:
        for worker in workers:
            worker.kill()
            self._workers.remove(worker)
        last = time.monotonic() + _GRACE
        for worker in workers:
            worker.join(max(0.0, last - time.monotonic()))


def _cpu_time(pid: int | None) -> float:
    """Return the CPU time that process ``pid`` has used, in seconds; 0 if it has ended.

    The system counts this time, so the process need not take part. Only Linux tells the CPU time of
    another process. On other systems the result grows with every call, so no process counts as
    hung.
    """
    if sys.platform != "linux":
        return time.monotonic()
    try:
        return time.clock_gettime(~pid << 3 | 2) if pid else 0.0  # clock_getcpuclockid(3)
    except OSError:
        return 0.0


def _start_servers() -> None:
    """Start the helper processes of Python; SIGINT is blocked, so that Ctrl-C does not end them.

    Raises:
        UsageError: The path of the folder for temporary files is too long.
    """
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    except OSError as error:
        if error.errno is not None:
            raise
        # The path of a socket has at most about 100 bytes. Python's own message says no more than
        # "AF_UNIX path too long".
        raise UsageError(
            f"the path {tempfile.gettempdir()} is too long for the sockets between processes; set "
            "TMPDIR to a folder with a shorter path"
        ) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(number: int, connection: Connection) -> None:
    """Run one job after the other: the program of worker process ``number``."""
    keep_streams()
    global _number
    _number = number
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()
    with suppress(OSError):  # the parent is ending
        connection.send(True)
    function: Callable[[Any], Any] | None = None
    while True:  # until it is killed
        try:
            data = memoryview(connection.recv_bytes())
        except (EOFError, OSError):
            return  # the parent is ending
        end = 8 + int.from_bytes(data[:8])
        try:
            if end > 8:
                function = unpack(data[8:end])
            assert function is not None  # the first job contains one
            answer = _Answer(function(unpack(data[end:])))
        except BaseException as error:
            answer = _failed(error)
        try:
            connection.send(answer)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            connection.send(_failed(error))
        except OSError:
            return


def _failed(error: BaseException) -> _Answer:
    """Return an answer with ``error`` and, as a note in it, its traceback.

    If ``error`` cannot be pickled, the answer has a `ClimbError` with its text instead.
    """
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - as the parent will
    except Exception:
        return _Answer(error=ClimbError(repr(error)))
    return _Answer(error=error)


def _exit_after(sentinel: int) -> None:
    """End this process when its parent has ended; ``sentinel`` is the parent's.

    Otherwise a worker whose parent was killed would wait for ever.
    """
    wait_for([sentinel])
    os._exit(1)
