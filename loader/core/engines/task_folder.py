"""Task folder: tasks and answers as files, for processes that share only a file system.

A command gives tasks to SLURM jobs through this folder. A batch of tasks is a file in ``todo``. A
job takes the batch by renaming this file to ``taken/BATCH.JOB``, which only one job can do. The job
runs the tasks, and writes the answer to ``done``. Every few seconds, each job sets the modification
time of its own file in ``alive`` to now, as a sign of life. The command does the same with the file
``driver``. A process that shows no sign of life for a long time counts as lost.
"""

import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from climbstream.loader.core.files import read_json, write_json
from climbstream.loader.core.typed import convert

from .packed import pack, unpack

TASKS = "slurm"
"""Name of the task folder; it is in a folder that all machines can read and write."""
_PRIVATE = 0o700
"""Permissions of the folder. Only this user may write to it, because jobs run every task in it with
the rights of this user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a command tells its jobs, beside the tasks."""

    name: str
    """Name that all jobs of this folder have in SLURM."""
    versions: dict[str, str]
    """Versions of Python and packages, as `versions_here` returns them; jobs must have the same."""
    environment: dict[str, str]
    """Environment variables that jobs set."""
    preload: list[str]
    """Modules that tasks import; see `LocalEngine`."""
    beat: float
    """Seconds between two signs of life."""
    patience: float
    """Seconds without a sign of life of the command, after which a job ends."""


@dataclass(frozen=True, slots=True)
class Work:
    """A batch of tasks as bytes; only the process that runs the tasks imports their modules."""

    name: str
    """Name of the batch in messages."""
    packed: bytes
    """The function and its arguments, by `pack`."""

    @classmethod
    def of(cls, name: str, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Self:
        """Return the batch in which ``function`` is called with each of ``tasks``."""
        return cls(name, pack((function, tasks)))

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Answer:
    """How a batch ended: with results, with the error of a task, or lost with its process."""

    results: bytes = b""
    """Results of the first tasks of the batch, as a list, by `pack`; other tasks have none yet."""
    seconds: float = 0.0
    """Time that the batch took."""
    error: BaseException | None = None
    """The error that the first task of the batch raised, or None."""
    lost: str = ""
    """Why the batch was lost with its process or its job; "" if it was not lost."""


class TaskFolder:
    """A folder to which one command adds tasks, and from which its jobs take the tasks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self.driver = path / "driver"
        """The file whose modification time is that of the command's last sign of life."""
        self._facts = path / "facts.json"
        self._todo, self._taken, self._done, self._alive, self._refused = (
            path / name for name in ("todo", "taken", "done", "alive", "refused")
        )

    # What the command does.

    def create(self, facts: Facts) -> None:
        """Make the folder, or empty it; jobs that a killed command left waiting can go on.

        ``facts`` is what the method `facts` returns to jobs.
        """
        self.path.mkdir(_PRIVATE, exist_ok=True)
        self.path.chmod(_PRIVATE)
        self.logs.mkdir(exist_ok=True)
        for folder in (self._todo, self._taken, self._done, self._alive, self._refused):
            folder.mkdir(exist_ok=True)
        for folder in (self._todo, self._taken, self._done, self._refused):
            for path in folder.iterdir():
                path.unlink(missing_ok=True)
        write_json(self._facts, asdict(facts))
        self.driver.touch()

    def facts(self) -> Facts:
        """Return the facts that the command wrote for its jobs.

        Raises:
            InvalidDataError: The folder does not exist, or its facts cannot be read.
        """
        return convert(read_json(self._facts), Facts, f"list of facts, {self._facts}")

    def add(self, batch: str, work: Work) -> None:
        """Add a batch of tasks with the name ``batch``."""
        _put(self._todo / batch, pack(work))

    def withdraw(self, batch: str) -> None:
        """Remove a batch, unless a job has taken it."""
        (self._todo / batch).unlink(missing_ok=True)

    def answers(self) -> Iterator[tuple[str, Answer]]:
        """Yield (name of the batch, answer) for each new answer; delete its file."""
        for path in _files(self._done):
            answer = unpack(path.read_bytes())
            path.unlink()
            yield path.name, answer

    def taken(self) -> dict[str, str]:
        """Return the job that works on each taken batch, by name of the batch."""
        names = (path.name.partition(".") for path in _files(self._taken))
        return {batch: job for batch, _, job in names}

    def pulse(self, job: str) -> "Pulse":
        """Return a `Pulse` of ``job``, which says how long ago its last sign of life was."""
        return Pulse(self._alive / job)

    def refusals(self) -> list[str]:
        """Return the reasons of jobs that refused to work; [] if none refused."""
        return [path.read_text() for path in _files(self._refused)]

    def remove(self, *, keep_logs: bool) -> None:
        """Remove the folder, so that its jobs end; with ``keep_logs``, all but the logs of jobs."""
        for path in list(self.path.iterdir()):
            if path == self.logs and keep_logs:
                continue
            # Rename it first, because a job may still write to it.
            old = path.rename(path.with_name(f"old-{secrets.token_hex(4)}"))
            shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink()
        if not keep_logs:
            shutil.rmtree(self.path, ignore_errors=True)

    # What jobs do.

    def take(self, job: str) -> tuple[str, Work] | None:
        """Take a batch for ``job``; return its name and its tasks, or None if no batch waits.

        Raises:
            FileNotFoundError: The folder does not exist any more, so the command has ended.
        """
        paths = [*_files(self._todo)]
        # The order is random, so that two jobs seldom try to take the same batch.
        secrets.SystemRandom().shuffle(paths)
        for path in paths:
            mine = self._taken / f"{path.name}.{job}"
            with suppress(FileNotFoundError):
                path.rename(mine)
            # Read the file even if the rename failed: a network file system may have repeated a
            # rename that succeeded, and report the failure of the second.
            with suppress(FileNotFoundError):
                return path.name, unpack(mine.read_bytes())
        return None

    def put_back(self, batch: str, job: str) -> None:
        """Put a batch that ``job`` took, but did not finish, back among the batches that wait."""
        with suppress(FileNotFoundError):
            (self._taken / f"{batch}.{job}").rename(self._todo / batch)

    def answer(self, batch: str, job: str, answer: Answer) -> None:
        """Write the answer of a batch that ``job`` took."""
        _put(self._done / batch, pack(answer))
        (self._taken / f"{batch}.{job}").unlink(missing_ok=True)

    def command(self) -> "Pulse":
        """Return a `Pulse` of the command, which says how long ago its last sign of life was."""
        return Pulse(self.driver)

    def enter(self, job: str, beat: float) -> "Heartbeat":
        """Return a context manager that shows a sign of life of ``job`` every ``beat`` seconds."""
        return Heartbeat(self._alive / job, beat, remove=True)

    def refuse(self, job: str, why: str) -> None:
        """Tell the command why ``job`` does not work."""
        _put(self._refused / job, why.encode())


class Pulse:
    """Says how long ago a process last gave a sign of life, which is a change of a file's time.

    Only changes count, not the value of the time, because the clocks of machines may differ.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last, self._seen = -1, time.monotonic()

    def silent(self) -> float:
        """Return the seconds since the last sign of life was seen."""
        with suppress(FileNotFoundError):
            if (last := self._path.stat().st_mtime_ns) != self._last:
                self._last, self._seen = last, time.monotonic()
        return time.monotonic() - self._seen


class Heartbeat:
    """Shows signs of life: a thread sets the time of the file ``path`` every ``beat`` seconds.

    With ``remove``, the file is removed at the end of the ``with`` block.
    """

    def __init__(self, path: Path, beat: float, *, remove: bool = False) -> None:
        self._path, self._beat, self._remove = path, beat, remove
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="climbstream-alive", daemon=True)

    def __enter__(self) -> Self:
        self._path.touch()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._remove:
            self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._ended.wait(self._beat):
            # An error of the disk may pass. If it does not, the reader of the file notices that the
            # signs of life are missing.
            with suppress(OSError):
                os.utime(self._path)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the complete files in ``folder``, without the temporary ones of `_put`."""
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _put(path: Path, data: bytes) -> None:
    """Write ``data`` to the file ``path``, whole or not at all.

    The file is not flushed to disk (fsync), because a power cut ends all tasks anyway.
    """
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    temporary.write_bytes(data)
    temporary.rename(path)
