"""Clocks that jump: nothing waits by them, and no result depends on them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

LIBRARIES = [*Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1")]

FOLLOW = """
import sys
from pathlib import Path
from climbstream.loader import MixtureLoader
run, shards, asked = sys.argv[1:]
loader = MixtureLoader(shards, seq_len=32, batch_rows=8, weights_log=f"{run}/weights.jsonl",
                       weights_file=f"{run}/weights.request.json")
next(loader)
Path(run, "weights.request.json").write_text(asked)
for _ in range(64):
    next(loader)
print(loader.mixture.weights)
"""
EVICT = """
import sys
from pathlib import Path
from climbstream.loader.formats.manifest import Manifest, cluster_folder, load_index
from climbstream.loader.reading.shard_cache import ShardCache
from climbstream.loader.storage.store import Store
store = Store.of(sys.argv[1])
manifest = Manifest.load(store)
wanted = [
    (cluster_folder(store, cluster.name), entry)
    for cluster in manifest.clusters
    for entry in load_index(store, manifest, cluster).shards
]
sizes = [entry.raw_bytes for _, entry in wanted]
cache = ShardCache(Path(sys.argv[2]), limit=sum(sizes) // 2)
total = 0
for _ in range(3):
    for one in wanted:
        cache.want(*one)
        total += int(cache.get(*one).sum())
        cache.release(one[1])
held = sum(path.stat().st_size for path in Path(sys.argv[2]).rglob("*.mds"))
print(total, held <= sum(sizes) // 2 + max(sizes))
"""
READ = """
import sys, time
from climbstream.loader.storage.store import Store
began = time.monotonic()
try:
    Store.of(sys.argv[1], try_seconds=0.4, all_seconds=2).read("x")
except Exception as error:
    print(type(error).__name__, time.monotonic() - began)
"""


def at(when: str) -> dict[str, str]:
    """Environment of a process whose clock, but not the monotonic one, says otherwise."""
    if not LIBRARIES:
        pytest.skip("libfaketime is not installed")
    fake = {"LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME": when, "DONT_FAKE_MONOTONIC": "1"}
    return {**os.environ, **fake}


def python(code, *arguments, env):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=True)


def test_a_build_that_goes_on_years_before_it_began_ends_with_the_same_bytes(
    climb, make_records, write_jsonl, tmp_path
):
    source = write_jsonl(tmp_path / "topics.jsonl", make_records(each=8))
    settings = {"clusters": 2, "micro_clusters": 6, "dims": 8, "vocab_size": 400}
    settings |= {"min_cluster_score": {}, "min_document_score": {}}
    (tmp_path / "settings.json").write_text(json.dumps(settings))

    def command(out):
        return [
            "build",
            source,
            "--out",
            out,
            "--config",
            tmp_path / "settings.json",
            "--workers=1",
        ]

    assert climb(*command(tmp_path / "whole")).returncode == 0
    out = tmp_path / "resumed"
    program = Path(sys.executable).with_name("climb")
    with subprocess.Popen([program, *map(str, command(out))], env=at("+3000d")) as process:
        while process.poll() is None and not (out / "model.npz").exists():
            time.sleep(0.002)
        process.kill()
    assert not (out / "manifest.json").exists()
    done = climb(*command(out), env=at("-3000d"))
    assert done.returncode == 0, done.stderr
    whole = tmp_path / "whole"
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    for name in names:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("when", ["-3000d", "+3000d"])
def test_a_request_is_followed_whatever_the_clock_says(built, tmp_path, when):
    asked = {"c00": 1.0}
    request = json.dumps({"weights": asked})
    done = python(FOLLOW, tmp_path, built.directory, request, env=at(when))
    assert done.stdout.strip() == str(asked)


@pytest.mark.parametrize("when", ["-3000d", "+3000d"])
def test_the_deadline_of_a_store_is_not_of_the_wall_clock(when):
    # Nothing answers on port 9. With the monotonic clock left alone, sleep fails in that library.
    env = {name: value for name, value in at(when).items() if name != "DONT_FAKE_MONOTONIC"}
    done = python(READ, "http://127.0.0.1:9/shards", env=env)
    name, seconds = done.stdout.split()
    assert name == "RemoteError"
    assert 0.5 < float(seconds) < 10


def test_the_cache_keeps_to_its_limit_and_its_bytes_whatever_the_clock_says(built, tmp_path):
    answers = set()
    for when in ("+3000d", "-3000d", "+0d", "-1d"):
        # One cache for all: what was used last then, was used years ago now, or will be.
        done = python(EVICT, built.directory, tmp_path / "cache", env=at(when))
        answers.add(done.stdout)
    (answer,) = answers
    assert answer.endswith(" True\n")
