"""Fingerprints: a large file is hashed once, and again when anything of it has changed."""

import json
import os
from pathlib import Path

import pytest

from climbstream.builder.corpus import fingerprints, sources
from climbstream.builder.corpus.fingerprints import FileHashes, remote_fingerprint
from climbstream.builder.corpus.sources import find_sources, hash_sources, survey
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import hash_file


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A file that is large and old enough to be remembered."""
    monkeypatch.setenv("CLIMBSTREAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprints, "_REMEMBERED", 10)
    monkeypatch.setattr(fingerprints, "_SETTLED", -1.0)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"0123456789")
    return path


def record_of(path: Path) -> Path:
    return fingerprints._record(path.parent)


def mark(path: Path) -> None:
    """Make what is remembered of ``path`` something that no hash is."""
    record = record_of(path)
    line = json.loads(record.read_text().splitlines()[-1])
    record.write_text(json.dumps(line | {"hash": "remembered"}) + "\n")


def test_a_file_that_has_not_changed_is_not_read_again(path):
    assert FileHashes().of(path) == hash_file(path)
    mark(path)
    assert FileHashes().of(path) == "remembered"
    assert find_sources([str(path)])[0].fingerprint == "remembered"


def rewrite(path):
    path.write_bytes(b"9876543210")


def rewrite_and_turn_the_clock_back(path):
    times = path.stat()
    rewrite(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def replace_by_another(path):
    times = path.stat()
    path.with_suffix(".new").write_bytes(b"9876543210")
    os.utime(path.with_suffix(".new"), ns=(times.st_atime_ns, times.st_mtime_ns))
    path.with_suffix(".new").replace(path)


def grow(path):
    path.write_bytes(path.read_bytes() + b"!")


@pytest.mark.parametrize(
    "change", [rewrite, rewrite_and_turn_the_clock_back, replace_by_another, grow]
)
def test_a_file_that_has_changed_is_hashed_again(path, change):
    FileHashes().of(path)
    mark(path)
    change(path)
    assert FileHashes().of(path) == hash_file(path)


def test_a_file_that_was_just_changed_is_not_remembered(path, monkeypatch):
    monkeypatch.setattr(fingerprints, "_SETTLED", 60.0)
    FileHashes().of(path)
    assert not record_of(path).exists()


def test_a_small_file_is_not_remembered(path):
    path.write_bytes(b"012345678")
    FileHashes().of(path)
    assert not record_of(path).exists()


@pytest.mark.parametrize("content", [b"{", b"[1]\n", b'{"name": "a.jsonl"}\n', b"\xff\n"])
def test_a_record_that_makes_no_sense_is_not_believed(path, content):
    FileHashes().of(path)
    record_of(path).write_bytes(content)
    assert FileHashes().of(path) == hash_file(path)


def test_files_that_are_hashed_at_a_time_are_all_remembered(path):
    names = [str(path.with_name(f"{n}.jsonl")) for n in range(40)]
    for name in names:
        Path(name).write_bytes(name.encode())
    find_sources(names)
    assert len(record_of(path).read_text().splitlines()) == len(names)


def test_a_cache_that_cannot_be_written_costs_nothing(path, monkeypatch):
    monkeypatch.setenv("CLIMBSTREAM_CACHE", "/proc/nowhere")
    assert FileHashes().of(path) == hash_file(path)


def test_a_remote_file_is_known_by_version_and_size_or_else_by_address_size_and_time():
    def of(name, **info):
        return remote_fingerprint(name, info)

    assert of("a", ETag='"1"', size=3) == of("b", ETag='"1"', size=3)
    known = [
        of("a", ETag='"1"', size=3),
        of("a", ETag='"2"', size=3),
        of("a", ETag='"1"', size=4),
        of("a", size=3),
        of("b", size=3),
        of("a", size=3, mtime=1),
    ]
    assert len(set(known)) == len(known)


@pytest.fixture
def files(path, monkeypatch):
    """Forty files, too large together to be hashed by the process of the command."""
    monkeypatch.setattr(sources, "_FEW_BYTES", 100)
    paths = [path.with_name(f"{n:02d}.jsonl") for n in range(40)]
    for n, each in enumerate(paths):
        each.write_bytes(b"x" * (n + 3))
    return paths


class Reader:
    """An engine elsewhere: what its tasks return is all that is known of the bytes."""

    def __init__(self):
        self.tasks = []

    def run(self, _, tasks, *__):
        """Yield what the tasks said."""
        for task in tasks:
            self.tasks.append(task)
            yield task, [f"hash of {name}" for name in task]


def test_tasks_alone_read_files_that_are_large_together(files):
    found, _ = survey([str(path) for path in files])
    assert {source.fingerprint for source in found} == {""}
    engine = Reader()
    hashed = hash_sources(found, engine)
    assert [source.fingerprint for source in hashed] == [f"hash of {path}" for path in files]
    # The second time, what is remembered is not read again: files of 10 bytes and more.
    found, _ = survey([str(path) for path in files])
    assert [source.fingerprint for source in found] == [
        f"hash of {path}" if path.stat().st_size >= 10 else hash_file(path) for path in files
    ]


def test_files_that_are_small_together_start_no_worker(files, monkeypatch):
    monkeypatch.setattr(sources, "_FEW_BYTES", 10_000)
    found, _ = survey([str(path) for path in files])
    assert [source.fingerprint for source in found] == [hash_file(path) for path in files]


def test_tasks_give_the_hashes_that_this_process_gives(files, serial):
    names = [str(path) for path in files]
    assert hash_sources(survey(names)[0], serial) == find_sources(names)


def test_the_largest_files_are_hashed_first_and_many_small_ones_by_one_task(files, monkeypatch):
    monkeypatch.setattr(fingerprints, "_TASK", 40)
    monkeypatch.setattr(fingerprints, "_MOST", 5)
    engine = Reader()
    hash_sources(survey([str(path) for path in files])[0], engine)
    assert engine.tasks[0] == (str(files[-1]),)
    assert 4 < len(engine.tasks[-2]) <= 5
    names = [name for task in engine.tasks for name in task]
    assert names == [str(path) for path in reversed(files)]


def test_a_file_that_is_gone_when_it_is_hashed_is_named(files, serial):
    found, _ = survey([str(path) for path in files])
    files[3].unlink()
    with pytest.raises(InvalidDataError, match=r"03\.jsonl cannot be opened: No such file"):
        hash_sources(found, serial)
