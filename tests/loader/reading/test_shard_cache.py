"""The cache: decompressed once a node, and never served when it has gone bad."""

import linecache
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from climbstream.loader.core.errors import IntegrityError
from climbstream.loader.reading.shard_cache import ShardCache, default_cache

READ = """
import sys
from pathlib import Path
from climbstream.loader.reading.shard_cache import ShardCache
from climbstream.loader.formats.manifest import Manifest, cluster_folder, load_index
directory, root = map(Path, sys.argv[1:])
manifest = Manifest.load(directory)
cache, total = ShardCache(root), 0
input()
for cluster in manifest.clusters:
    for entry in load_index(directory, manifest, cluster).shards:
        view = cache.view(cluster_folder(directory, cluster.name), entry, manifest.dtype)
        total += sum(int(view.document(i, "uint16").sum()) for i in range(entry.samples))
print(total)
"""


@pytest.fixture
def shards(tmp_path, make_shards):
    draw = np.random.default_rng(3)
    documents = {
        name: [draw.integers(0, 60_000, n) for n in draw.integers(1, 400, 20)]
        for name in ("c00", "c01")
    }
    return make_shards(tmp_path / "shards", documents, shard_bytes=2000)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cache"


def view(shards, root, name="c00", shard=0):
    """Ask a cache that has seen nothing yet for a shard."""
    return ShardCache(root).view(shards.folder(name), shards.indexes[name].shards[shard], "uint16")


def files(root):
    return [path for path in root.rglob("*") if path.is_file()]


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_view_holds_the_documents_that_were_written(shards, root):
    number = 0
    for shard, entry in enumerate(shards.indexes["c00"].shards):
        mapped = view(shards, root, shard=shard)
        for sample in range(entry.samples):
            written = shards.documents["c00"][number]
            assert mapped.document(sample, "uint16").tolist() == written.tolist()
            number += 1
    assert number == 20


def test_a_shard_is_decompressed_once_and_then_mapped(shards, root):
    view(shards, root)
    (path,) = files(root)
    before = path.stat()
    shards.packed("c00").unlink()
    assert view(shards, root).tokens == shards.indexes["c00"].shards[0].tokens
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_mapped_shard_cannot_be_written_to(shards, root):
    with pytest.raises(ValueError, match="read-only"):
        view(shards, root).data[0] = 1


def test_the_same_content_is_kept_once(tmp_path, make_shards, root):
    documents = {"c00": [np.arange(9)], "c01": [np.arange(9)]}
    shards = make_shards(tmp_path / "twins", documents)
    view(shards, root, "c00")
    view(shards, root, "c01")
    assert len(files(root)) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: flip(path, 0), id="a bit of the head"),
        pytest.param(lambda path: flip(path, -1), id="the last bit"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1]), id="cut short"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes() + b"x"), id="too long"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
    ],
)
def test_a_bad_file_in_the_cache_is_replaced(shards, root, spoil):
    good = view(shards, root).document(0, "uint16").tolist()
    (path,) = files(root)
    content = path.read_bytes()
    spoil(path)
    assert view(shards, root).document(0, "uint16").tolist() == good
    assert files(root) == [path]
    assert path.read_bytes() == content


def test_a_bad_file_in_the_cache_is_not_served_when_the_shard_is_gone(shards, root):
    view(shards, root)
    (path,) = files(root)
    flip(path, -1)
    shards.packed("c00").unlink()
    with pytest.raises(IntegrityError, match="is missing; build, pull or copy"):
        view(shards, root)
    assert files(root) == []


def test_a_missing_shard_is_named_with_the_remedy(shards, root):
    path = shards.packed("c01", 1)
    path.unlink()
    with pytest.raises(
        IntegrityError, match="is missing; build, pull or copy the directory again"
    ) as error:
        view(shards, root, "c01", 1)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("at", [0, 20, -1])
def test_a_flipped_bit_in_a_shard_is_found_and_nothing_bad_is_cached(shards, root, at):
    path, entry = shards.packed("c00"), shards.indexes["c00"].shards[0]
    flip(path, at)
    with pytest.raises(IntegrityError, match=f"expected {entry.zip_hash}") as error:
        view(shards, root)
    assert str(path.parent) in str(error.value)
    assert entry.zip_basename in str(error.value)
    assert not root.exists() or files(root) == []


def test_a_shard_cut_short_is_found_and_nothing_bad_is_cached(shards, root):
    path, entry = shards.packed("c00"), shards.indexes["c00"].shards[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        IntegrityError, match=f"expected {entry.zip_bytes} bytes, got {entry.zip_bytes - 1}"
    ):
        view(shards, root)
    assert not root.exists() or files(root) == []


def test_two_processes_share_what_one_has_decompressed(shards, root):
    def start():
        command = [sys.executable, "-c", READ, str(shards.directory), str(root)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    both = [start(), start()]
    for process in both:  # They wait for this line, so they begin together.
        process.stdin.write("\n")
        process.stdin.flush()
    totals = {process.communicate(timeout=60)[0] for process in both}
    written = sum(int(d.sum()) for theirs in shards.documents.values() for d in theirs)
    assert totals == {f"{written}\n"}
    assert [process.returncode for process in both] == [0, 0]
    raw_hashes = {e.raw_hash for index in shards.indexes.values() for e in index.shards}
    assert {path.stem for path in files(root)} == raw_hashes
    assert len(files(root)) == len(raw_hashes)


def test_the_cache_lies_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("CLIMBSTREAM_CACHE", "/fast/disk")
    assert default_cache() == Path("/fast/disk")
    assert ShardCache().root == Path("/fast/disk")
    assert ShardCache(Path("/other")).root == Path("/other")


def test_without_a_word_the_cache_lies_in_the_users_cache_folder(monkeypatch):
    monkeypatch.delenv("CLIMBSTREAM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/u/.caches")
    assert default_cache() == Path("/home/u/.caches/climbstream/shards")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/u")
    assert default_cache() == Path("/home/u/.cache/climbstream/shards")


def interrupted_at(number, call):
    """Call ``call``, interrupted at the ``number``-th line of the cache or of a thread's start.

    Return whether there was such a line. Where a lock is let go no signal is handled.
    """
    lines = 0

    def trace(frame, event, _):
        nonlocal lines
        code = frame.f_code
        if not code.co_filename.endswith("shard_cache.py") and code.co_name != "start":
            return None
        line = linecache.getline(code.co_filename, frame.f_lineno)
        if event == "line" and not line.strip().startswith("with "):
            lines += 1
            if lines == number:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def test_a_shard_comes_soon_after_an_interrupt_at_any_line(shards, root):
    entry, other = shards.indexes["c00"].shards[:2]
    folder = shards.folder("c00")
    number, more = 0, True
    while more:
        number += 1
        # One that waits for its turn, and one that is asked for: it changes places with the first.
        cache = ShardCache(root / str(number), threads=1, patience=5)

        def ask(cache=cache):
            cache.want(folder, other)
            cache.get(folder, entry)

        more = interrupted_at(number, ask)
        for each in (entry, other):
            assert len(cache.get(folder, each)) == each.raw_bytes, number
    assert number > 40
