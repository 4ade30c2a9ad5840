"""Task folder: tasks and answers as files, for processes that share no more than a file system.

A batch of tasks is a file in ``todo``. A job takes it by renaming it to ``taken/BATCH.JOB``, which
only one can do, and writes its answer to ``done``. Each job sets the time of its file in ``alive``
every few seconds, and the command that of ``driver``. Who is silent for long is taken for lost.
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
"""Name of the folder, in one that all machines see."""
_PRIVATE = 0o700
"""Nobody else may write here: who writes a task runs code as this user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a command tells its jobs."""

    name: str
    """Name of all jobs of this folder."""
    versions: dict[str, str]
    """Versions of Python and of packages that decide the result."""
    environment: dict[str, str]
    preload: list[str]
    """Modules that tasks import."""
    beat: float
    """Seconds between two signs of life."""
    patience: float
    """Seconds without a sign of life of the command after which a job ends."""


@dataclass(frozen=True, slots=True)
class Work:
    """A batch of tasks, packed: only the process that runs them imports what they need."""

    name: str
    """What it is called in messages."""
    packed: bytes

    @classmethod
    def of(cls, name: str, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Self:
        """Pack ``tasks`` of ``function``."""
        return cls(name, pack((function, tasks)))

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Answer:
    """How a batch ended."""

    results: bytes = b""
    """Results of its first tasks, a packed list; the others were not begun."""
    seconds: float = 0.0
    error: BaseException | None = None
    """The error of its first task."""
    lost: str = ""
    """Why its process ended twice before it did."""


class TaskFolder:
    """A folder of tasks; one command fills it, and its jobs work on it."""

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
        """Make the folder ready for tasks; jobs that wait in it go on."""
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
            InvalidDataError: The folder is not there.
        """
        return convert(read_json(self._facts), Facts, f"list of facts, {self._facts}")

    def add(self, batch: str, work: Work) -> None:
        """Add a batch of tasks."""
        _put(self._todo / batch, pack(work))

    def withdraw(self, batch: str) -> None:
        """Take back a batch, if no job has taken it."""
        (self._todo / batch).unlink(missing_ok=True)

    def answers(self) -> Iterator[tuple[str, Answer]]:
        """Take out the answers that are there, with the names of their batches."""
        for path in _files(self._done):
            answer = unpack(path.read_bytes())
            path.unlink()
            yield path.name, answer

    def taken(self) -> dict[str, str]:
        """Return the job of each batch that is being worked on."""
        names = (path.name.partition(".") for path in _files(self._taken))
        return {batch: job for batch, _, job in names}

    def pulse(self, job: str) -> "Pulse":
        """Return the signs of life of ``job``."""
        return Pulse(self._alive / job)

    def refusals(self) -> list[str]:
        """Return what jobs said that refused to work."""
        return [path.read_text() for path in _files(self._refused)]

    def remove(self, *, keep_logs: bool) -> None:
        """Remove the folder, which ends its jobs; keep the logs of jobs if asked to."""
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
        """Take a batch; None if there is none now.

        Raises:
            FileNotFoundError: The folder is not there any more: the command has ended.
        """
        paths = [*_files(self._todo)]
        # In any order, so that jobs seldom want the same one.
        secrets.SystemRandom().shuffle(paths)
        for path in paths:
            mine = self._taken / f"{path.name}.{job}"
            with suppress(FileNotFoundError):
                path.rename(mine)
            # A network file system may say that a rename failed which it repeated.
            with suppress(FileNotFoundError):
                return path.name, unpack(mine.read_bytes())
        return None

    def put_back(self, batch: str, job: str) -> None:
        """Give back a batch that has not ended."""
        with suppress(FileNotFoundError):
            (self._taken / f"{batch}.{job}").rename(self._todo / batch)

    def answer(self, batch: str, job: str, answer: Answer) -> None:
        """Write the answer of a batch."""
        _put(self._done / batch, pack(answer))
        (self._taken / f"{batch}.{job}").unlink(missing_ok=True)

    def command(self) -> "Pulse":
        """Return the signs of life of the command."""
        return Pulse(self.driver)

    def enter(self, job: str, beat: float) -> "Heartbeat":
        """Give signs of life of ``job`` in the ``with`` block."""
        return Heartbeat(self._alive / job, beat, remove=True)

    def refuse(self, job: str, why: str) -> None:
        """Tell the command why ``job`` does not work."""
        _put(self._refused / job, why.encode())


class Pulse:
    """The signs of life in a file: changes of its time, by the clock of this process."""

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
    """Gives signs of life in its ``with`` block, from a thread of its own."""

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
            # A disk that does not answer now may answer later; silence is noticed elsewhere.
            with suppress(OSError):
                os.utime(self._path)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the whole files of ``folder``."""
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _put(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; it need not survive a power cut, as no task does."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    temporary.write_bytes(data)
    temporary.rename(path)
