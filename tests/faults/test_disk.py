"""A disk that fails, that is full or may not be written, and too few open files."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FEW = {
    "clusters": 2,
    "micro_clusters": 6,
    "dims": 8,
    "vocab_size": 400,
    "min_cluster_score": {},
    "min_document_score": {},
}


@pytest.fixture
def shim(fault_shim):
    """The library that fails the nth call."""
    return fault_shim


@pytest.fixture(scope="module")
def source(tmp_path_factory, make_records, write_jsonl) -> Path:
    """A small corpus, and settings for it beside it."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "settings.json").write_text(json.dumps(FEW))
    return write_jsonl(folder / "topics.jsonl", make_records(each=8))


def build_of(source, out):
    return [
        "build",
        source,
        "--out",
        out,
        "--config",
        source.parent / "settings.json",
        "--workers=1",
    ]


def train_of(shards, out):
    return ["train", shards, "--out", out, *"--tokens 1024 --seq-len 32 --batch-rows 4".split()]


def search_of(shards, out):
    options = "--budget 1 --proxy-tokens 512 --confirm 0 --workers 1 --target label=sea"
    return ["search", shards, "--out", out, *options.split(), "--preset", "random"]


def failing(shim, call, nth, below, error=errno.EIO):
    return {
        **os.environ,
        "LD_PRELOAD": str(shim),
        "FAULT_CALL": call,
        "FAULT_NTH": str(nth),
        "FAULT_BELOW": str(below),
        "FAULT_ERRNO": str(error),
    }


def assert_plain(done):
    """It is an error of one line, with a code that is not that of a fault of ours."""
    assert done.returncode in (2, 3, 4, 5, 7), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename", "read"])
def test_a_disk_that_fails_in_a_build_is_named_and_the_same_command_goes_on(
    climb, shim, source, tmp_path, call
):
    out = tmp_path / "shards"
    done = climb(*build_of(source, out), env=failing(shim, call, 2, out))
    assert_plain(done)
    assert str(out) in done.stderr.splitlines()[-1]
    assert os.strerror(errno.EIO) in done.stderr
    assert not (out / "manifest.json").exists()
    assert climb(*build_of(source, out)).returncode == 0
    assert climb("verify", out).returncode == 0
    assert not list(out.rglob(".tmp-*"))


@pytest.fixture(scope="module")
def whole_run(climb, built, tmp_path_factory):
    """Return the folder of a command that no fault has met; the command runs once."""
    folders = {}

    def whole(begin):
        if begin not in folders:
            folders[begin] = tmp_path_factory.mktemp("whole") / "out"
            done = climb(*begin(built.directory, folders[begin]))
            assert done.returncode == 0, done.stderr
        return folders[begin]

    return whole


@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename"])
@pytest.mark.parametrize("begin", [train_of, search_of])
def test_a_disk_that_fails_in_a_run_is_named_and_the_same_command_goes_on(
    climb, shim, built, whole_run, tmp_path, call, begin
):
    command = begin(built.directory, tmp_path / "out")
    whole = whole_run(begin)
    for nth in (1, 2, 4):
        done = climb(*command, env=failing(shim, call, nth, tmp_path / "out"))
        if done.returncode:
            assert_plain(done)
            assert str(tmp_path / "out") in done.stderr.splitlines()[-1]
            assert os.strerror(errno.EIO) in done.stderr
    done = climb(*command)
    assert done.returncode == 0, done.stderr
    for name in ("mixture.json", "answer.json", "result.json", "model/model.safetensors"):
        if (whole / name).exists():
            assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes(), name
    assert not list((tmp_path / "out").rglob(".tmp-*"))


@pytest.mark.parametrize("name", ["manifest.json", "clusters"])
@pytest.mark.parametrize("command", ["inspect", "verify", "pull"])
def test_a_file_that_cannot_be_read_is_named(climb, shim, built, tmp_path, command, name):
    place = built.directory / name
    more = [tmp_path / "out"] if command == "pull" else []
    done = climb(command, built.directory, *more, env=failing(shim, "read", 1, place))
    assert_plain(done)
    assert str(place) in done.stdout + done.stderr


@pytest.mark.parametrize("most", [8, 16])
@pytest.mark.parametrize("command", ["build", "pull", "verify", "train", "search"])
def test_too_few_open_files_are_an_error_that_says_so(
    climb, source, built, tmp_path, command, most
):
    out = tmp_path / "out"
    arguments = {
        "build": build_of(source, out),
        "pull": ["pull", built.directory, out],
        "verify": ["verify", built.directory],
        "train": train_of(built.directory, out),
        "search": search_of(built.directory, out),
    }[command]

    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    done = climb(*arguments, preexec_fn=limit)
    if done.returncode:
        assert "Traceback" not in done.stderr
        assert done.returncode in (2, 3, 4, 5), done.stderr
        assert "has reached its limit" in done.stderr
    assert climb(*arguments).returncode == 0


def mounted(folder, mount, *command):
    """Run ``command`` where ``folder`` is mounted by the shell line ``mount``, or skip."""
    line = f'{mount} || exit 99; shift; exec "$@"'
    whole = ["unshare", "--map-root-user", "--mount", "sh", "-c", line, "sh", folder, *command]
    done = subprocess.run([str(w) for w in whole], capture_output=True, text=True, check=False)
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip(f"this user may not mount: {done.stderr}")
    return done


@pytest.mark.parametrize("command", ["build", "pull", "export", "train", "append"])
def test_a_folder_that_may_not_be_written_is_named_with_2(built, source, tmp_path, command):
    folder = tmp_path / "read-only"
    folder.mkdir()
    shards = built.directory
    if command == "append":
        shards = shutil.copytree(built.directory, folder / "shards")
    out = folder / "out"
    arguments = {
        "build": build_of(source, out),
        "pull": ["pull", shards, out],
        "export": ["export", shards, "--to", "jsonl", "--out", out],
        "train": ["train", shards, "--tokens", "4096", "--out", out],
        "append": ["build", source, "--append", "--out", shards],
    }[command]
    climb = Path(sys.executable).with_name("climb")
    mount = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"'
    done = mounted(folder, mount, climb, *arguments)
    assert done.returncode == 2, done.stderr
    assert str(folder) in done.stderr.splitlines()[-1]
    assert os.strerror(errno.EROFS) in done.stderr


@pytest.mark.parametrize("limit", ["nr_inodes=12", "size=60k"])
@pytest.mark.parametrize("command", ["build", "pull"])
def test_a_disk_without_room_or_inodes_is_exit_7(built, source, tmp_path, command, limit):
    folder = tmp_path / "small"
    folder.mkdir()
    out = folder / "out"
    arguments = {"build": build_of(source, out), "pull": ["pull", built.directory, out]}[command]
    climb = Path(sys.executable).with_name("climb")
    done = mounted(folder, f'mount -t tmpfs -o {limit} tmpfs "$1"', climb, *arguments)
    assert done.returncode == 7, done.stderr
    assert "Traceback" not in done.stderr


SERVE = """
import os, resource, sys
from climbstream.loader import MixtureLoader
from climbstream.loader.core.errors import ClimbError
shards, cache, spare = sys.argv[1], sys.argv[2], int(sys.argv[3])
next(MixtureLoader(shards, seq_len=16, batch_rows=8, cache_dir=cache))  # imports and compiles
open_files = max(map(int, os.listdir("/proc/self/fd")))
while os.open("/dev/null", os.O_RDONLY) < open_files:
    pass
resource.setrlimit(resource.RLIMIT_NOFILE, (open_files + 1 + spare,) * 2)
try:
    next(MixtureLoader(shards, seq_len=16, batch_rows=8, cache_dir=f"{cache}/other"))
except ClimbError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("spare", [0, 1, 2])
def test_a_loader_that_may_open_no_more_files_says_so_at_its_start(built, tmp_path, spare):
    command = [sys.executable, "-c", SERVE, str(built.directory), str(tmp_path), str(spare)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    if spare == 0:
        assert "manifest.json: this process has reached its limit of" in done.stdout
    if done.stdout:
        assert done.stdout.startswith("OpenFilesError ")
        assert "raise the limit (ulimit -n)" in done.stdout
