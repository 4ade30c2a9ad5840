"""A build in SLURM jobs ends with the bytes of a local one, whatever is killed meanwhile."""

import os
import signal
import threading
import time

import pytest
from climb_command import ClimbProcess
from fake_slurm import FakeSlurm
from small_build import ON_A_CLUSTER

from climbstream.builder.corpus import fingerprints
from climbstream.builder.corpus import sources as sources_module
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.pipeline import build
from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.engines import slurm
from climbstream.loader.core.files import write_json

pytestmark = pytest.mark.slow

SETTINGS = BuildSettings(**ON_A_CLUSTER)


@pytest.fixture(scope="module")
def sources(tmp_path_factory, make_records, write_jsonl):
    folder = tmp_path_factory.mktemp("in")
    records = make_records(each=150)
    return [str(write_jsonl(folder / f"{i}.jsonl", records[i::8])) for i in range(8)]


@pytest.fixture(scope="module")
def local(tmp_path_factory, sources, all_bytes):
    """The bytes of a build in processes of this machine."""
    out = tmp_path_factory.mktemp("local") / "shards"
    build(sources, out, SETTINGS, workers=2)
    return all_bytes(out)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    fake = FakeSlurm(tmp_path / "cluster")
    for name, value in fake.environment().items():
        monkeypatch.setenv(name, value)
    yield fake
    fake.end()


def annotated(out):
    units = out.glob(".build/units/*-*/")
    return sum(Partition(unit).has("micro") for unit in units)


def when_annotated(out, act):
    """Call ``act`` once a partition of ``out`` is annotated."""
    last = time.monotonic() + 200
    while not annotated(out):
        assert time.monotonic() < last, "nothing was annotated"
        time.sleep(0.01)
    act()


def test_a_build_whose_jobs_are_killed_ends_with_the_bytes_of_a_local_build(
    cluster, tmp_path, sources, local, all_bytes, monkeypatch
):
    for name, value in (("_BEAT", 0.2), ("_LOST", 5.0), ("_LOOK", 0.2)):
        monkeypatch.setattr(slurm, name, value)
    lost = []

    def kill_jobs():
        lost.append(annotated(tmp_path / "shards"))
        cluster.end()

    watcher = threading.Thread(
        target=when_annotated, args=(tmp_path / "shards", kill_jobs), daemon=True
    )
    watcher.start()
    build(sources, tmp_path / "shards", SETTINGS, engine="slurm", workers=2)
    watcher.join()
    assert lost[0] < 8, "the jobs were killed too late to matter"
    assert cluster.submitted() > 2
    assert cluster.running() == {}
    assert all_bytes(tmp_path / "shards") == local


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_is_ended_goes_on_when_it_is_run_again(
    cluster, tmp_path, sources, local, all_bytes, number
):
    write_json(tmp_path / "settings.json", SETTINGS.to_json())
    out = tmp_path / "shards"
    command = ("build", *sources, f"--out={out}", f"--config={tmp_path / 'settings.json'}")
    how = ("--engine=slurm", "--workers=2")
    with ClimbProcess(*command, *how, env={**os.environ}) as process:
        when_annotated(out, lambda: process.send_signal(number))
        process.wait()
    assert annotated(out) < 8, "the command was ended too late to matter"
    assert len(cluster.running()) == (2 if number == signal.SIGKILL else 0)
    with ClimbProcess(*command, *how, env={**os.environ}) as process:
        assert process.wait() == 0
    assert cluster.submitted() == (2 if number == signal.SIGKILL else 4)
    assert cluster.running() == {}
    assert all_bytes(out) == local


def test_jobs_hash_the_sources_and_a_finished_build_is_left_as_it_is(
    cluster, tmp_path, sources, local, all_bytes, monkeypatch, capsys
):
    def fail(_):
        raise AssertionError("the process of the command read a source")

    monkeypatch.setattr(sources_module, "_FEW_BYTES", 0)
    monkeypatch.setattr(fingerprints, "hash_file", fail)  # jobs import a module of their own
    out = tmp_path / "shards"
    build(sources, out, SETTINGS, engine="slurm", workers=2)
    assert cluster.submitted() == 2
    assert all_bytes(out) == local
    build(sources, out, SETTINGS, engine="slurm", workers=2)
    assert cluster.submitted() == 4
    assert cluster.running() == {}
    assert all_bytes(out) == local
    assert not (out / ".build").exists()
