"""SLURM engine: the tasks of a stage run in the jobs of a SLURM array.

Tasks and answers are files in a folder that all nodes can read and write (`task_folder`). Each job
runs one task at a time, and goes on through all stages. A task whose job is lost goes to another
job, and writes the same bytes. If the command is killed, its jobs wait for ten minutes. If the same
command is run again within that time, it uses these jobs.
"""

import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from climbstream.loader.core.console import counted, duration
from climbstream.loader.core.errors import ClimbError, InvalidDataError, UsageError
from climbstream.loader.core.log import get_logger

from .batches import BatchQueue
from .packed import unpack
from .slurm_jobs import Jobs, PrintedJobs, SubmittedJobs
from .slurm_worker import BATCH, MEMORY
from .task_folder import TASKS, Answer, Facts, Heartbeat, Pulse, TaskFolder, Work
from .task_timeout import Patience, task_name
from .versions import versions_here

logger = get_logger(__name__)

T = TypeVar("T")
R = TypeVar("R")

PRINT = "CLIMBSTREAM_SLURM_PRINT"
"""Environment variable that the option ``--slurm-print`` sets: the user submits the jobs."""
_RETRIES = 5
"""How often a task is tried again if its job is lost."""
_BEAT = 10.0
"""Time between two signs of life of a job or of this process, in seconds."""
_LOST = 120.0
"""Time without a sign of life after which a job counts as lost, in seconds. The time is long,
because a network file system may show the new time of a file a minute late."""
_ORPHAN = 600.0
"""Time without a sign of life of this process after which its jobs end, in seconds."""
_LOOK = 5.0
"""Time between two checks of the jobs, in seconds."""
_PAUSES = 0.02, 0.5
"""Shortest and longest time between two looks for answers, in seconds."""


class SlurmEngine:
    """Runs tasks in jobs of SLURM, each with one core.

    Raises:
        UsageError: The number of jobs, ``workers``, is not given.
    """

    def __init__(
        self,
        workers: int | None,
        shared: Path,
        *,
        gpus: bool = False,
        preload: Sequence[str] = (),
    ) -> None:
        """Make an engine of ``workers`` jobs, which are submitted when there are tasks.

        Args:
            workers: Number of jobs.
            shared: A folder that all nodes can read and write; the task folder is made in it.
            gpus: Whether tasks use GPUs. Such tasks take long, so each is sent alone.
            preload: Names of modules that tasks import; see `LocalEngine`.
        """
        if workers is None:
            raise UsageError(
                "--engine slurm needs --workers N, the number of jobs to submit, each with one core"
            )
        self.workers = workers
        self._short = not gpus
        self._facts = Facts(
            name=f"climbstream-{secrets.token_hex(4)}",
            versions=versions_here(),
            environment={k: v for k, v in os.environ.items() if k.startswith("CLIMBSTREAM_")},
            preload=list(preload),
            beat=_BEAT,
            patience=_ORPHAN,
        )
        folder = TaskFolder(shared / TASKS)
        jobs = PrintedJobs(folder) if os.environ.get(PRINT) else SubmittedJobs(folder)
        self._folder, self._staff = folder, _Staff(jobs, folder, workers)
        self._heartbeat = Heartbeat(folder.driver, _BEAT)

    def __enter__(self) -> Self:
        self._facts = self._staff.adopt(self._facts)
        self._folder.create(self._facts)
        self._heartbeat.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._heartbeat.__exit__(kind, error, trace)
        try:
            self._staff.end()
        finally:
            # An error may name the logs of jobs.
            self._folder.remove(keep_logs=isinstance(error, Exception))

    def run(
        self,
        function: Callable[[T], R],
        tasks: Iterable[T],
        instead: Callable[[T, ClimbError], R] | None = None,
        *,
        gpu: bool = False,
    ) -> Iterator[tuple[T, R]]:
        """Yield (task, result) as tasks end; see `Engine.run`.

        A task is given up in two cases: it hung or was killed twice in one job, or its job was lost
        in every try.

        ``gpu`` changes nothing: all jobs run tasks of every stage, and a job keeps the GPU that
        SLURM gave it, if any.

        Raises:
            ClimbError: A task was given up, and ``instead`` is None; or all jobs have ended, and
                none took a task.
            UsageError: SLURM refuses the jobs, or a job has other versions of packages than this
                process.
        """
        del gpu
        queue = BatchQueue(tasks, BATCH, short=self._short)
        yield from _Stage(self._folder, self._staff, function, queue).run(instead)

    def gpus(self) -> int | None:
        """Return None: only a job itself knows which GPUs it has."""
        return None


class _Staff:
    """The jobs that work on the tasks in a folder; jobs that end early are replaced."""

    def __init__(self, jobs: Jobs, folder: TaskFolder, workers: int) -> None:
        self._jobs, self._folder, self.workers = jobs, folder, workers
        self._name = ""
        self._submitted: float | None = None
        """When jobs were first submitted, by `time.monotonic`; None: not yet."""
        self._patience = Patience()
        self._pulses: dict[str, Pulse] = {}
        self._worked = False
        """Whether a job has taken a task since jobs were last submitted."""

    def adopt(self, facts: Facts) -> Facts:
        """Return ``facts`` with the name of the jobs: those of a killed command, or new ones.

        A command that was killed in this folder may have left jobs. They are used if their facts
        equal ``facts`` in all but the name, and if there are not too many. Otherwise they are
        cancelled.
        """
        self._jobs.check()
        try:
            before = self._folder.facts()
        except InvalidDataError:
            self._name = facts.name
            return facts
        left = self._jobs.left(before.name)
        fit = replace(facts, name=before.name) == before
        if fit and (left is None or len(left) <= self.workers):
            self._name = before.name
            return before
        if left:
            self._jobs.cancel(before.name)
        self._folder.remove(keep_logs=False)
        self._name = facts.name
        return facts

    def begin(self) -> None:
        """Submit the jobs that are missing; only the first call does this."""
        if self._submitted is None:
            self._submitted = time.monotonic()
            left = self.left() or {}
            if left:
                logger.info(
                    f"SLURM: continuing with {counted(len(left), 'job')}, called {self._name}"
                )
            self._submit(self.workers - len(left))

    def note_work(self) -> None:
        """Note that a job has taken a task."""
        self._worked = True

    def left(self) -> dict[str, str] | None:
        """Return the states of the jobs that wait or run, by number of the job; None: unknown."""
        return self._jobs.left(self._name)

    def check(self, left: Mapping[str, str] | None, wanted: int) -> None:
        """Submit new jobs for jobs that ended early, at most one for each batch that waits.

        ``left`` is the result of `left`, and ``wanted`` the number of batches that wait.

        Raises:
            ClimbError: All jobs have ended, and none took a task.
            UsageError: A job refuses to work.
        """
        for why in self._folder.refusals():
            raise UsageError(f"{why}; install the same versions on all nodes (climb doctor)")
        if left is None:
            return
        missing = min(self.workers, wanted) - len(left)
        assert self._submitted is not None  # tasks wait
        waited = time.monotonic() - self._submitted
        if missing > 0 and not left and not self._worked:
            raise ClimbError(
                f"all jobs of SLURM have ended, and none took a task{self._last_words()}. Their "
                f"nodes must see {self._folder.path} and {sys.executable} under the same paths"
            )
        if missing > 0 and (not left or self._patience.over(waited)):
            logger.warning(
                f"SLURM: submitting {counted(missing, 'job')} again in place of jobs that ended "
                f"early; their logs are in {self._folder.logs}"
            )
            self._submit(missing)

    def is_lost(self, job: str, left: Mapping[str, str] | None) -> bool:
        """Whether ``job`` has shown no sign of life for so long that it counts as lost.

        ``left`` is the result of `left`; a job that SLURM does not list counts as lost sooner.
        """
        pulse = self._pulses.setdefault(job, self._folder.pulse(job))
        gone = left is not None and job.rpartition("-")[0] not in left
        return pulse.silent() > (2 * _BEAT if gone else _LOST)

    def describe(self) -> str:
        """Return a text about the jobs, for a message: their number and most frequent states."""
        left = self.left()
        if left is None:
            return f"jobs called {self._name} must be submitted"
        states = Counter(left.values()).most_common(3)
        return counted(len(left), "job") + "".join(f", {n} {state}" for state, n in states)

    def end(self) -> None:
        """Cancel all jobs, if jobs were submitted."""
        if self._submitted is not None:
            self._jobs.cancel(self._name)

    def _submit(self, count: int) -> None:
        if count > 0:
            self._worked = False
            self._jobs.submit(self._name, count)

    def _last_words(self) -> str:
        """Return the last line in the newest log of a job, and its path, for a message."""
        logs = [path for path in self._folder.logs.iterdir() if path.stat().st_size]
        if not logs:
            return ", nor wrote to its log"
        log = max(logs, key=lambda path: path.stat().st_mtime)
        return f": {log.read_text(errors='replace').splitlines()[-1]!r} ({log})"


@dataclass(slots=True)
class _Batch:
    """Tasks that are sent together."""

    tasks: list[Any]
    losses: int = 0
    """How often the batch was lost with its job."""


class _Stage:
    """The tasks of one `SlurmEngine.run`."""

    def __init__(
        self,
        folder: TaskFolder,
        staff: _Staff,
        function: Callable[[Any], Any],
        queue: BatchQueue,
    ) -> None:
        self._folder, self._staff, self._function, self._queue = folder, staff, function, queue
        self._waiting: dict[str, _Batch] = {}
        """Batches without an answer, by name."""
        self._looked = time.monotonic()

    def run(self, instead: Callable[[Any, ClimbError], Any] | None) -> Iterator[tuple[Any, Any]]:
        try:
            while True:
                while len(self._waiting) < 2 * self._staff.workers and (
                    tasks := self._queue.next()
                ):
                    self._hand_over(_Batch(tasks))
                if not self._waiting:
                    return
                self._staff.begin()
                for batch, answer in self._ended():
                    yield from self._results(batch, answer, instead)
        finally:
            for name in self._waiting:
                self._folder.withdraw(name)

    def _hand_over(self, batch: _Batch) -> None:
        # A batch gets a new name each time it is sent, because a job that counts as lost may still
        # answer under the old name.
        name = secrets.token_hex(8)
        self._waiting[name] = batch
        work = Work.of(task_name(self._function, batch.tasks[0]), self._function, batch.tasks)
        self._folder.add(name, work)

    def _ended(self) -> list[tuple[_Batch, Answer]]:
        """Wait until batches have ended or were lost; return (batch, answer) of those that ended.

        Batches that are given up also count as ended. Lost batches are sent again; if there are
        only such batches, the result is [].
        """
        begun, patience, pause = time.monotonic(), Patience(), _PAUSES[0]
        while True:
            answers = [*self._folder.answers()]
            if ended := [(self._waiting.pop(n), a) for n, a in answers if n in self._waiting]:
                self._staff.note_work()
                return ended
            now = time.monotonic()
            if now - self._looked > _LOOK:
                self._looked = now
                waiting = len(self._waiting)
                if (lost := self._lost()) or len(self._waiting) < waiting:
                    return lost
            if patience.over(now - begun):
                logger.warning(
                    f"no task has ended for {duration(now - begun)}; {self._staff.describe()}"
                )
            time.sleep(pause)
            pause = min(2 * pause, _PAUSES[1])

    def _lost(self) -> list[tuple[_Batch, Answer]]:
        """Send the batches of lost jobs again; return (batch, answer) of those that are given up.

        The answer says why the batch is given up.
        """
        # Ask for the jobs before files are read, because a job that has ended by now writes no
        # more files.
        left = self._staff.left()
        taken = {name: job for name, job in self._folder.taken().items() if name in self._waiting}
        if taken:
            self._staff.note_work()
        self._staff.check(left, len(self._waiting))
        given_up = []
        for name, job in taken.items():
            if not self._staff.is_lost(job, left):
                continue
            batch = self._waiting.pop(name)
            batch.losses += 1
            task = task_name(self._function, batch.tasks[0])
            if len(batch.tasks) == 1 and batch.losses > _RETRIES:
                why = (
                    f"{task}: its job was lost, and {_RETRIES} times again, most likely because "
                    f"memory ran out; {MEMORY}; it continues where it stopped"
                )
                given_up.append((batch, Answer(lost=why)))
                continue
            logger.warning(f"{task}: job {job} was lost; its work goes to another job")
            if len(batch.tasks) > 1:
                self._queue.note_loss(batch.tasks)
            else:
                self._hand_over(batch)
        return given_up

    def _results(
        self, batch: _Batch, answer: Answer, instead: Callable[[Any, ClimbError], Any] | None
    ) -> Iterator[tuple[Any, Any]]:
        """Yield (task, result) of the finished tasks of a batch; the others go to later batches.

        Raises the error of a task.

        Raises:
            ClimbError: The batch was lost, and ``instead`` is None.
        """
        if answer.error is not None:
            raise answer.error
        if answer.lost:
            yield from self._queue.give_up(batch.tasks, answer.lost, instead)
            return
        results = unpack(answer.results)
        self._queue.note_end(batch.tasks, len(results), answer.seconds)
        yield from zip(batch.tasks, results, strict=False)
