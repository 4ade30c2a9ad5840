"""Storage: files are whole or not there, logs survive a crash, locks fall with the process."""

import errno
import subprocess
import sys

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from climbstream.loader.core.errors import InvalidDataError, LockedError, NoSpaceError
from climbstream.loader.core.files import (
    append_line,
    atomic_path,
    hash_bytes,
    hash_file,
    hash_json,
    lock,
    read_json,
    read_lines,
    remove_temporaries,
    write_bytes,
    write_json,
    writing,
)

HOLD = """
import sys, time
from pathlib import Path
from climbstream.loader.core.files import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds ``tmp_path / "run"`` until it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


# Whole or not at all.


def test_a_file_is_there_when_the_block_ends(tmp_path):
    path = tmp_path / "deep" / "down" / "file"
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_nothing_behind(tmp_path, error):
    def fail():
        with atomic_path(tmp_path / "file") as temporary:
            temporary.write_bytes(b"half")
            raise error("in the middle")

    with pytest.raises(error, match="in the middle"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_old_content(tmp_path):
    def fail():
        with atomic_path(tmp_path / "file") as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("in the middle")

    write_bytes(tmp_path / "file", b"old")
    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_the_file_and_the_remedy(tmp_path, number):
    def fail():
        with atomic_path(tmp_path / "file") as temporary:
            temporary.write_bytes(b"half")
            raise OSError(number, "full")

    with pytest.raises(NoSpaceError, match=r"no space left to write .*file; free some"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_only_temporaries_which_can_be_removed(tmp_path):
    kill = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from climbstream.loader.core.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "deep" / "file"
    assert subprocess.run([sys.executable, "-c", kill, str(path)], check=False).returncode == -9
    assert not path.exists()
    assert len(list(path.parent.iterdir())) == 1
    write_bytes(path, b"mine")
    remove_temporaries(tmp_path, "deep")
    assert list(path.parent.iterdir()) == [path]


# JSON.


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_a_value_comes_back_as_it_was(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert read_json(path) == value


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidDataError, match=r"there is no file .*mixture\.json"):
        read_json(tmp_path / "mixture.json")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{"])
def test_a_file_that_is_no_json_is_named(tmp_path, content):
    (tmp_path / "mixture.json").write_bytes(content)
    with pytest.raises(InvalidDataError, match=r"mixture\.json is not JSON"):
        read_json(tmp_path / "mixture.json")


# Hashes.


@given(st.binary(max_size=300))
def test_a_hash_is_xxh3_128_in_hex(data):
    assert hash_bytes(data) == xxhash.xxh3_128(data).hexdigest()


def test_hashes_are_the_same_today_and_tomorrow():
    assert hash_bytes(b"climbstream") == "b4ce32eb780b1c490951b7238cc6528b"
    assert hash_json({"b": [1, None], "a": 0.5}) == "ca6bfedbdd6b91fb168f8394a72638f3"


def test_a_file_has_the_hash_of_its_bytes(tmp_path):
    data = bytes(range(256)) * 10_000
    write_bytes(tmp_path / "file", data)
    assert hash_file(tmp_path / "file") == hash_bytes(data)


def test_the_order_of_keys_does_not_matter_to_a_value():
    assert hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1})
    assert hash_json({"a": 1, "b": 2}) != hash_json({"a": 2, "b": 1})


# Logs of lines.


def test_lines_come_back_in_order(tmp_path):
    path = tmp_path / "run" / "log.jsonl"
    assert read_lines(path) == []
    for number in range(5):
        append_line(path, {"n": number, "text": "line\nend"})
    assert read_lines(path) == [{"n": n, "text": "line\nend"} for n in range(5)]
    assert path.read_bytes().count(b"\n") == 5


@given(st.data())
def test_a_last_line_cut_anywhere_is_ignored_and_then_mended(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    append_line(path, {"n": 0})
    whole = path.stat().st_size
    append_line(path, {"n": 1, "why": "é"})
    kept = data.draw(st.integers(whole, path.stat().st_size - 1))
    path.write_bytes(path.read_bytes()[:kept])
    assert read_lines(path) == [{"n": 0}]
    append_line(path, {"n": 2})
    assert read_lines(path) == [{"n": 0}, {"n": 2}]


def test_a_first_line_cut_short_is_ignored_and_then_mended(tmp_path):
    (tmp_path / "log").write_bytes(b'{"n": ')
    assert read_lines(tmp_path / "log") == []
    append_line(tmp_path / "log", {"n": 0})
    assert read_lines(tmp_path / "log") == [{"n": 0}]


@pytest.mark.parametrize("before", [0, 1, 70_000])
def test_a_last_line_cut_short_is_mended_however_long_it_is(tmp_path, before):
    append_line(tmp_path / "log", "x" * before)
    whole = (tmp_path / "log").read_bytes()
    (tmp_path / "log").write_bytes(whole + b"y" * 200_000)
    append_line(tmp_path / "log", 1)
    assert (tmp_path / "log").read_bytes() == whole + b"1\n"


def test_a_whole_line_that_is_no_json_is_named(tmp_path):
    (tmp_path / "log").write_bytes(b'{"n": 0}\n{"n": \n{"n": 2}\n')
    with pytest.raises(InvalidDataError, match="log, line 2, is not JSON"):
        read_lines(tmp_path / "log")


# Locks.


def test_a_second_process_is_refused(tmp_path, holder):
    with (
        pytest.raises(LockedError, match=r"another process works on .*run; wait for it"),
        lock(tmp_path / "run"),
    ):
        pytest.fail("two processes hold one lock")


def test_the_lock_falls_with_its_process(tmp_path, holder):
    holder.kill()
    holder.wait()
    with lock(tmp_path / "run"):
        pass


def test_the_lock_falls_with_its_block(tmp_path):
    for _ in range(2):
        with lock(tmp_path / "run"):
            pass
    with pytest.raises(RuntimeError, match="in the middle"), lock(tmp_path / "run"):
        raise RuntimeError("in the middle")
    with lock(tmp_path / "run"):
        pass


def test_another_directory_is_free(tmp_path, holder):
    with lock(tmp_path / "other"):
        pass


def test_a_lock_leaves_neither_a_file_nor_an_empty_folder(tmp_path):
    with lock(tmp_path / "run"):
        assert list((tmp_path / "run").iterdir()) == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError), lock(tmp_path / "run"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_lock_leaves_a_folder_that_has_files_or_was_made_before(tmp_path):
    (tmp_path / "before").mkdir()
    for name in ("run", "before"):
        with lock(tmp_path / name):
            (tmp_path / "run" / "file").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before", "run"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def save_torch(path):
    import torch

    with path.open("wb") as file:
        torch.save({"weights": torch.zeros(1 << 20)}, file)


def save_safetensors(path):
    import torch
    from safetensors.torch import save_file

    save_file({"weights": torch.zeros(1 << 20)}, path)


def save_numpy(path):
    import numpy as np

    with path.open("wb") as file:
        np.save(file, np.zeros(1 << 20))


def save_parquet(path):
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"x": np.random.default_rng(0).random(1 << 20)}), path)


@pytest.mark.parametrize("save", [save_torch, save_safetensors, save_numpy, save_parquet])
def test_a_full_disk_is_told_of_whatever_writes_and_the_old_file_stays(small_disk, save):
    path = small_disk / "checkpoint"
    path.write_bytes(b"the last one")
    with (
        pytest.raises(NoSpaceError, match=r"no space left to write .*checkpoint; .*bytes free"),
        atomic_path(path) as temporary,
    ):
        save(temporary)
    assert path.read_bytes() == b"the last one"
    assert [each.name for each in small_disk.iterdir()] == ["checkpoint"]


def test_a_full_disk_is_told_with_what_is_needed_and_what_is_free(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    needs = pytest.raises(NoSpaceError, match=r"it needs 1,234,567 bytes, and [\d,]+ are free$")
    with needs, writing(tmp_path / "checkpoint.pt", size=1_234_567):
        raise full
