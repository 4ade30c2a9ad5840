"""What the tests of the search share: shards, and the real command, killed or left alone."""

import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from climb_command import ClimbProcess
from forkserver_preload import SEARCH, preload

from climbstream.loader import Manifest, Mixture
from climbstream.search.experiments.proxy_search import run_search
from climbstream.search.experiments.settings import SearchSettings
from climbstream.search.optimizer.answer import Answer
from climbstream.search.training.settings import TrainSettings


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory) -> Iterator[None]:
    """Keep the shard cache out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIMBSTREAM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Train on one core: threads that wait for each other are slow where cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shards(built) -> Path:
    """A shard directory with held-out text of six topics, and processes ready to train on it."""
    preload(SEARCH)
    return built.directory


@pytest.fixture(scope="session")
def shares(shards) -> Mixture:
    """Its token-share mixture."""
    return Manifest.load(shards).token_shares


@pytest.fixture(scope="session")
def searched(shards, tmp_path_factory) -> tuple[Path, Answer]:
    """Folder and answer of a finished search: 8 proxies of 2,048 tokens, for label=sea."""
    out = tmp_path_factory.mktemp("search") / "out"
    settings = SearchSettings(budget=8, proxy=TrainSettings(tokens=2048, average=0.2))
    return out, run_search(shards, ["label=sea"], out, settings, workers=1)


@pytest.fixture(scope="session")
def read_page() -> Callable[[bytes], "Page"]:
    """Return a function that takes a page of HTML apart."""
    return Page


@pytest.fixture
def commands() -> "Commands":
    """The real command, in sessions of its own."""
    return Commands()


class Page(HTMLParser):
    """The tags and the text of a page whose tags are balanced."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self._words: list[str] = []
        self._open: list[str] = []
        self.feed(data.decode())
        self.close()
        assert self._open == []

    @property
    def text(self) -> str:
        """What a reader sees."""
        return " ".join(self._words)

    def handle_starttag(self, tag, attrs):
        """Keep a tag."""
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        # A reader sees them when pointing at what has them.
        self._words += [value for name, value in attrs if name == "data-tip"]
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        """See that the last tag is closed first."""
        assert self._open.pop() == tag

    def handle_data(self, data):
        """Keep the text."""
        self._words.append(data)


class Commands:
    """Runs ``climb`` again and again, and knows what it started."""

    def __init__(self) -> None:
        self._sessions: list[int] = []

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Begin a command."""
        process = ClimbProcess(
            *arguments,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._sessions.append(process.pid)
        return process

    def finish(self, *arguments: object) -> str:
        """Run a command to its end; return what was said."""
        with self.start(*arguments) as process:
            _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
        return said

    def killed(self, when: Callable[[], bool], *arguments: object) -> bool:
        """Run a command until ``when``, and kill it alone; False if it was over before."""
        with self.start(*arguments) as process:
            while process.poll() is None and not when():
                time.sleep(0.002)
            process.kill()
            process.wait()
            if process.returncode not in (0, -signal.SIGKILL):
                pytest.fail(process.stderr.read())
        return process.returncode != 0

    def orphans(self) -> list[int]:
        """Processes that still run ten seconds after the last command has ended."""
        deadline = time.monotonic() + 10
        while (left := self._running()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return left

    def _running(self) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
                if int(session) in self._sessions and state not in "ZX":
                    found.append(int(path.parent.name))
        return found


@pytest.fixture
def signal_workers():
    """Return a context in which the first processes of a pool are sent a signal as they work.

    It yields the list of their pids.
    """

    @contextmanager
    def begin(number, times):
        reached, ended = [], threading.Event()

        def watch():
            while len(reached) < times and not ended.wait(0.05):
                for child in multiprocessing.active_children():
                    if child.pid not in reached and len(reached) < times:
                        time.sleep(0.5)  # it takes its task
                        os.kill(child.pid, number)
                        reached.append(child.pid)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield reached
        finally:
            ended.set()
            watcher.join()

    return begin
