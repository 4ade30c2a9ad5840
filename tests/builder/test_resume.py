"""A build that is killed goes on, ends with the same bytes, and leaves nothing running."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from climb_command import ClimbProcess

from climbstream.loader.formats.manifest import MANIFEST
from climbstream.loader.tools.verify import verify_directory

pytestmark = pytest.mark.slow

SETTINGS = {
    "clusters": 6,
    "micro_clusters": 30,
    "dims": 16,
    "vocab_size": 2000,
    "holdout": 0.05,
    "min_cluster_score": {},
    "min_document_score": {},
}
STAGES = (
    ".build/plan.json",
    ".build/units/00001-*/text.parquet",
    "model.npz",
    ".build/units/*/documents",
    ".build/units/*/decisions",
    "tokenizer.json",
    ".build/units/*/tokens",
    "clusters/*/shard.*",
    ".build/shards/*",
    ".build/catalogue/*",
    "documents/*",
    "centroids.npy",
    "heldout.jsonl.zst",
    MANIFEST,
)
"""What a build writes, stage by stage."""


class Builder:
    """Runs the real command on one corpus, each time in a session of its own."""

    def __init__(self, folder: Path, sources: list[Path]) -> None:
        self._sessions: list[int] = []
        (folder / "settings.json").write_text(json.dumps(SETTINGS))
        self._command = [
            "build",
            *map(str, sources),
            f"--config={folder / 'settings.json'}",
            "--workers=2",
        ]

    def start(self, out: Path) -> subprocess.Popen[str]:
        """Begin a build, or go on with it."""
        process = ClimbProcess(
            *self._command,
            f"--out={out}",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._sessions.append(process.pid)
        return process

    def finish(self, out: Path) -> str:
        """Build to the end; return what was said."""
        with self.start(out) as process:
            _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return said

    def killed(self, out: Path, when: Callable[[float], bool]) -> bool:
        """Build until ``when``, called with the seconds since, and kill; False if it was over.

        The command alone is killed: what it started has to see that for itself, and may still be
        at it when the next one begins.
        """
        start = time.monotonic()
        with self.start(out) as process:
            while process.poll() is None and not when(time.monotonic() - start):
                time.sleep(0.002)
            process.kill()
            process.wait()
            if process.returncode not in (0, -signal.SIGKILL):
                pytest.fail(process.stderr.read())
        return process.returncode != 0

    def orphans(self) -> list[int]:
        """Processes that still run ten seconds after the last command has ended."""
        deadline = time.monotonic() + 10
        while (left := running(self._sessions)) and time.monotonic() < deadline:
            time.sleep(0.01)
        return left


def running(sessions: list[int]) -> list[int]:
    """Processes of ``sessions`` that are not dead."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
            if int(its_session) in sessions and state not in "ZX":
                found.append(int(path.parent.name))
    return found


@pytest.fixture(scope="module")
def builder(tmp_path_factory, make_records, write_jsonl):
    folder = tmp_path_factory.mktemp("corpus")
    records = make_records(each=300)
    sources = [write_jsonl(folder / f"{i}.jsonl.zst", records[i::6]) for i in range(6)]
    return Builder(folder, sources)


@pytest.fixture(scope="module")
def uninterrupted(builder, tmp_path_factory, all_bytes):
    """The bytes of a build that was left alone, and the seconds that it took."""
    out = tmp_path_factory.mktemp("uninterrupted") / "shards"
    start = time.monotonic()
    builder.finish(out)
    return all_bytes(out), time.monotonic() - start


def assert_same_bytes(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


def assert_nothing_left(builder: Builder, out: Path) -> None:
    assert [path for path in out.rglob("*") if path.name.startswith(".")] == []
    assert builder.orphans() == []


def test_a_build_that_is_killed_in_every_stage_ends_with_the_same_bytes(
    builder, uninterrupted, tmp_path, all_bytes
):
    out = tmp_path / "shards"
    kills = 0
    for stage in STAGES:
        kills += builder.killed(out, lambda _, stage=stage: any(out.glob(stage)))
        if (out / MANIFEST).exists():
            assert verify_directory(out).faults == []
    assert kills >= len(STAGES) / 2
    builder.finish(out)
    assert_same_bytes(all_bytes(out), uninterrupted[0])
    assert_nothing_left(builder, out)


def test_a_build_that_is_killed_at_random_ends_with_the_same_bytes(
    builder, uninterrupted, tmp_path, all_bytes
):
    out = tmp_path / "shards"
    drawn = random.Random(0)
    expected, seconds = uninterrupted
    for _ in range(4):
        moment = seconds * drawn.uniform(0.3, 0.95)
        builder.killed(out, lambda now, moment=moment: now > moment)
        # Committed or invisible.
        assert not (out / MANIFEST).exists() or verify_directory(out).faults == []
    builder.finish(out)
    assert_same_bytes(all_bytes(out), expected)
    assert_nothing_left(builder, out)


@pytest.mark.parametrize("send", [os.killpg, os.kill])  # to all processes, as a terminal does it
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_build_that_is_stopped_by_a_signal_says_so_and_goes_on(
    builder, uninterrupted, tmp_path, all_bytes, send, number
):
    out = tmp_path / "shards"
    with builder.start(out) as process:
        while not any(out.glob(".build/units/*/text.parquet")):
            time.sleep(0.002)
        send(process.pid, number)
        _, said = process.communicate(timeout=60)
    assert builder.orphans() == []
    assert process.returncode == 128 + number, said
    assert said.splitlines()[-1] == "stopped; run the same command again to continue"
    assert "Traceback" not in said
    assert "continuing the build" in builder.finish(out)
    assert_same_bytes(all_bytes(out), uninterrupted[0])


def test_a_worker_that_is_killed_is_an_error_that_says_to_go_on(
    builder, uninterrupted, tmp_path, all_bytes
):
    out = tmp_path / "shards"
    with builder.start(out) as process:
        while not any(out.glob(".build/units/*/text.parquet")):
            time.sleep(0.002)
        worker = max(running([process.pid]))
        os.kill(worker, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert builder.orphans() == []
    assert process.returncode == 1
    assert "was killed, most likely because memory ran out; run the same command again" in said
    assert "Traceback" not in said
    builder.finish(out)
    assert_same_bytes(all_bytes(out), uninterrupted[0])


def test_a_second_command_on_the_same_directory_is_refused_with_6(builder, tmp_path):
    out = tmp_path / "shards"
    with builder.start(out) as process:
        while not (out / ".build" / "plan.json").exists():
            time.sleep(0.002)
        with builder.start(out) as second:
            _, said = second.communicate(timeout=60)
        assert second.returncode == 6
        assert said.startswith("error: another process works on")
        process.kill()
    assert builder.orphans() == []
