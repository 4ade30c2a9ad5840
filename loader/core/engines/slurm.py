"""SLURM engine: the tasks of a stage run in the jobs of a SLURM array.

Tasks and answers are files of a folder that all nodes must see (`task_folder`). Each job runs one
task at a time and stays for all stages. A task whose job is lost goes to another job, and writes
the same bytes. If this process is killed, its jobs wait for ten minutes; the same command, run
again, goes on with them.
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

from climbstream.loader.core.console import duration
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
"""The environment variable of ``--slurm-print``."""
_RETRIES = 5
"""Number of times a task is tried again whose job was lost."""
_BEAT = 10.0
"""Seconds between two signs of life of a job, and of this process."""
_LOST = 120.0
"""Seconds of silence after which a job is lost. A network file system may show times a minute
late."""
_ORPHAN = 600.0
"""Seconds of silence of this process after which its jobs end."""
_LOOK = 5.0
"""Seconds between two looks at jobs."""
_PAUSES = 0.02, 0.5
"""Shortest and longest pause between two looks for answers, in seconds."""


class SlurmEngine:
    """Runs tasks in ``workers`` jobs of SLURM, each of one core.

    Raises:
        UsageError: The number of jobs is not given.
    """

    def __init__(
        self,
        workers: int | None,
        shared: Path,
        *,
        gpus: bool = False,
        preload: Sequence[str] = (),
    ) -> None:
        """Work in a folder in ``shared``; with ``gpus``, tasks are long and handed over singly.

        ``preload`` is that of `LocalEngine`.
        """
        if workers is None:
            raise UsageError(
                "--engine slurm needs --workers N: so many jobs are submitted, each of one core"
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
    ) -> Iterator[tuple[T, R]]:
        """Yield (task, result) for each task, as they end; the first error ends the work.

        ``instead`` makes the result of a task that hung or was killed twice in a job, or whose job
        was lost in every try; without ``instead`` that is an error.

        Raises:
            ClimbError: A task hung or was lost, or no job begins to work.
            UsageError: SLURM takes no jobs, or they have other versions.
        """
        queue = BatchQueue(tasks, BATCH, short=self._short)
        yield from _Stage(self._folder, self._staff, function, queue).run(instead)


class _Staff:
    """The jobs that work in a folder; others are submitted for those that end early."""

    def __init__(self, jobs: Jobs, folder: TaskFolder, workers: int) -> None:
        self._jobs, self._folder, self.workers = jobs, folder, workers
        self._name = ""
        self._submitted: float | None = None
        """When jobs were submitted first."""
        self._patience = Patience()
        self._pulses: dict[str, Pulse] = {}
        self._worked = False
        """Whether a job took a task since jobs were last submitted."""

    def adopt(self, facts: Facts) -> Facts:
        """Go on with the jobs of a command that was killed here; cancel those that do not fit.

        Returns ``facts``, with the name of the jobs.
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
        """Submit the jobs, unless that was done."""
        if self._submitted is None:
            self._submitted = time.monotonic()
            left = self.left() or {}
            if left:
                logger.info(f"SLURM: going on with {len(left)} jobs, called {self._name}")
            self._submit(self.workers - len(left))

    def note_work(self) -> None:
        """Note that a job works."""
        self._worked = True

    def left(self) -> dict[str, str] | None:
        """Return what `Jobs.left` does."""
        return self._jobs.left(self._name)

    def check(self, left: Mapping[str, str] | None, wanted: int) -> None:
        """Submit jobs for those that ended early, if ``wanted`` batches wait for them.

        ``left`` are the jobs at a time before other files were looked at.

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
                f"{missing} jobs of SLURM have ended early, and as many are submitted again; their "
                f"logs lie in {self._folder.logs}"
            )
            self._submit(missing)

    def is_lost(self, job: str, left: Mapping[str, str] | None) -> bool:
        """Whether ``job`` has ended without a word."""
        pulse = self._pulses.setdefault(job, self._folder.pulse(job))
        gone = left is not None and job.rpartition("-")[0] not in left
        return pulse.silent() > (2 * _BEAT if gone else _LOST)

    def describe(self) -> str:
        """Say how many jobs there are, and what SLURM says of them."""
        left = self.left()
        if left is None:
            return f"jobs called {self._name} must be submitted"
        states = Counter(left.values()).most_common(3)
        return f"{len(left)} jobs" + "".join(f", {n} {state}" for state, n in states)

    def end(self) -> None:
        """End all jobs."""
        if self._submitted is not None:
            self._jobs.cancel(self._name)

    def _submit(self, count: int) -> None:
        if count > 0:
            self._worked = False
            self._jobs.submit(self._name, count)

    def _last_words(self) -> str:
        """Return the last line of the latest log of a job, and its place."""
        logs = [path for path in self._folder.logs.iterdir() if path.stat().st_size]
        if not logs:
            return ", nor wrote to its log"
        log = max(logs, key=lambda path: path.stat().st_mtime)
        return f": {log.read_text(errors='replace').splitlines()[-1]!r} ({log})"


@dataclass(slots=True)
class _Batch:
    """Tasks that are handed over together, and how often they were lost."""

    tasks: list[Any]
    losses: int = 0


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
        """Batches by name."""
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
        # A new name each time: a job that was taken for lost may answer late.
        name = secrets.token_hex(8)
        self._waiting[name] = batch
        work = Work.of(task_name(self._function, batch.tasks[0]), self._function, batch.tasks)
        self._folder.add(name, work)

    def _ended(self) -> list[tuple[_Batch, Answer]]:
        """Wait until batches have ended or are lost; return those with answers."""
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
        """Look at the jobs; hand over again what lost ones had, and return what is given up."""
        # First: a job that is not among them has written all that it will.
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
        """Yield the tasks of a batch that are done, with their results; queue the others.

        Raises:
            ClimbError: It was lost, and there is no substitute result.
        """
        if answer.error is not None:
            raise answer.error
        if answer.lost:
            yield from self._queue.give_up(batch.tasks, answer.lost, instead)
            return
        results = unpack(answer.results)
        self._queue.note_end(batch.tasks, len(results), answer.seconds)
        yield from zip(batch.tasks, results, strict=False)
