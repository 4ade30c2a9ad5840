"""Fingerprints: a large file is hashed once, and again when anything of it has changed."""

import json
import os
from pathlib import Path

import pytest

from climbstream.builder.corpus import fingerprints
from climbstream.builder.corpus.fingerprints import FileHashes, remote_fingerprint
from climbstream.builder.corpus.sources import find_sources
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
