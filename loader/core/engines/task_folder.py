"""Task folder: tasks and answers as files, for processes that share only a file system.

A batch of tasks is a file in ``todo``. A job takes the batch by renaming this file to
``taken/BATCH.JOB``. Only one job can rename the file. That job runs the tasks, and writes the
answer to ``done``. Every few seconds, each job sets the modification time of its own file in
``alive`` to now, as a sign of life. The command does the same with the file ``driver``. A process
that shows no sign of life for long counts as lost.
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
"""Name of the task folder, in a folder that all machines see."""
_PRIVATE = 0o700
"""Mode of the folder: only this user may write to it, because a task runs as this user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a command tells its jobs."""

    name: str
    """Name that all jobs of this folder have in SLURM."""
    versions: dict[str, str]
    """Versions of Python and of the packages that affect results."""
    environment: dict[str, str]
    preload: list[str]
    """Modules that tasks import; see `LocalEngine`."""
    beat: float
    """Seconds between two signs of life."""
    patience: float
    """Seconds without a sign of life of the command after which a job ends."""


@dataclass(frozen=True, slots=True)
class Work:
    """A batch of tasks in pickled form; only the process that runs them imports their modules."""

    name: str
    """Name of the batch in messages."""
    packed: bytes

    @classmethod
    def of(cls, name: str, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Self:
        """Pickle ``function`` with ``tasks``, its arguments."""
        return cls(name, pack((function, tasks)))

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Answer:
    """How a batch ended: with results, with an error, or lost."""

    results: bytes = b""
    """Pickled list of the results of the first tasks of the batch; further tasks were not begun."""
    seconds: float = 0.0
    error: BaseException | None = None
    """The error that the first task of the batch raised, or None."""
    lost: str = ""
    """Why the process of the batch ended twice before the batch did; "" if it did not."""


class TaskFolder:
    """A folder to which one command adds tasks, and from which its jobs take the tasks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self.driver = path / "driver"
        """The file whose time is the last sign of life of the command."""
        self._facts = path / "facts.json"
        self._todo, self._taken, self._done, self._alive, self._refused = (
            path / name for name in ("todo", "taken", "done", "alive", "refused")
        )

    # What the command does.

    def create(self, facts: Facts) -> None:
        """Create or empty the folder; jobs that already wait for tasks in it go on waiting."""
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
        """Read what the command tells its jobs.

        Raises:
            InvalidDataError: The folder does not exist, or its facts cannot be read.
        """
        return convert(read_json(self._facts), Facts, f"list of facts, {self._facts}")

    def add(self, batch: str, work: Work) -> None:
        """Add a batch of tasks."""
        _put(self._todo / batch, pack(work))

    def withdraw(self, batch: str) -> None:
        """Remove a batch, if no job has taken it."""
        (self._todo / batch).unlink(missing_ok=True)

    def answers(self) -> Iterator[tuple[str, Answer]]:
        """Yield (name of the batch, answer) for each answer in the folder, and delete its file."""
        for path in _files(self._done):
            answer = unpack(path.read_bytes())
            path.unlink()
            yield path.name, answer

    def taken(self) -> dict[str, str]:
        """Return the job that works on each taken batch, by name of the batch."""
        names = (path.name.partition(".") for path in _files(self._taken))
        return {batch: job for batch, _, job in names}

    def pulse(self, job: str) -> "Pulse":
        """Return a `Pulse` that detects the signs of life of ``job``."""
        return Pulse(self._alive / job)

    def refusals(self) -> list[str]:
        """Return the reasons of the jobs that refused to work; empty if none refused."""
        return [path.read_text() for path in _files(self._refused)]

    def remove(self, *, keep_logs: bool) -> None:
        """Remove the folder, so that its jobs end; with ``keep_logs``, keep their logs."""
        for path in list(self.path.iterdir()):
            if path == self.logs and keep_logs:
                continue
            # A job may be writing here still.
            old = path.rename(path.with_name(f"old-{secrets.token_hex(4)}"))
            shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink()
        if not keep_logs:
            shutil.rmtree(self.path, ignore_errors=True)

    # What jobs do.

    def take(self, job: str) -> tuple[str, Work] | None:
        """Take a batch for ``job``; return its name and its tasks, or None if no batch waits.

        Raises:
            FileNotFoundError: The folder does not exist any more: the command has ended.
        """
        paths = [*_files(self._todo)]
        # In random order, so that two jobs seldom try to take the same batch.
        secrets.SystemRandom().shuffle(paths)
        for path in paths:
            mine = self._taken / f"{path.name}.{job}"
            with suppress(FileNotFoundError):
                path.rename(mine)
            # A network file system may repeat a rename that succeeded, and then report a failure.
            with suppress(FileNotFoundError):
                return path.name, unpack(mine.read_bytes())
        return None

    def put_back(self, batch: str, job: str) -> None:
        """Return a batch that ``job`` took but did not finish to the batches that wait."""
        with suppress(FileNotFoundError):
            (self._taken / f"{batch}.{job}").rename(self._todo / batch)

    def answer(self, batch: str, job: str, answer: Answer) -> None:
        """Write the answer of a batch."""
        _put(self._done / batch, pack(answer))
        (self._taken / f"{batch}.{job}").unlink(missing_ok=True)

    def command(self) -> "Pulse":
        """Return a `Pulse` that detects the signs of life of the command."""
        return Pulse(self.driver)

    def enter(self, job: str, beat: float) -> "Heartbeat":
        """Return a context manager that gives a sign of life of ``job`` every ``beat`` seconds."""
        return Heartbeat(self._alive / job, beat, remove=True)

    def refuse(self, job: str, why: str) -> None:
        """Tell the command why ``job`` does not work."""
        _put(self._refused / job, why.encode())


class Pulse:
    """Detects signs of life: changes of a file's time, even if the clocks of machines differ."""

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
    """Gives signs of life from a thread: sets the time of a file every ``beat`` seconds."""

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
            # A disk that fails now may work later; the reader of the file detects a long silence.
            with suppress(OSError):
                os.utime(self._path)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of ``folder`` that are complete, not the temporary ones of `_put`."""
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _put(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. No fsync is made, because no task survives a power cut."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    temporary.write_bytes(data)
    temporary.rename(path)
