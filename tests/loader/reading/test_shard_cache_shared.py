"""The cache between threads and processes: fetched once, killed at will, kept to a limit."""

import dataclasses
import gc
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import fsspec
import numpy as np
import pytest

from climbstream.loader import MixtureLoader
from climbstream.loader.core.errors import IntegrityError, LockedError, RemoteError, UsageError
from climbstream.loader.formats.manifest import cluster_folder
from climbstream.loader.reading.shard_cache import ShardCache
from climbstream.loader.storage.store import Store

READ_ALL = """
import sys
from pathlib import Path
from climbstream.loader.reading.shard_cache import ShardCache
from climbstream.loader.formats.manifest import Manifest, cluster_folder, load_index
from climbstream.loader.storage.store import Store
store, cache = Store.of(sys.argv[1]), ShardCache(Path(sys.argv[2]))
manifest = Manifest.load(store)
wanted = [
    (cluster_folder(store, cluster.name), entry)
    for cluster in manifest.clusters
    for entry in load_index(store, manifest, cluster).shards
]
print("ready", flush=True)
sys.stdin.readline()
for one in wanted:
    cache.want(*one)
print("wanted", flush=True)
print(sum(int(cache.get(*one).sum()) for one in wanted), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def shards(tmp_path, make_shards):
    draw = np.random.default_rng(3)
    documents = {
        name: [draw.integers(0, 60_000, n) for n in draw.integers(1, 400, 20)]
        for name in ("c00", "c01")
    }
    return make_shards(tmp_path / "shards", documents, shard_bytes=700)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def start(root):
    """Return a function that starts a process which reads all shards of a store."""
    processes = []

    def run(store):
        command = [sys.executable, "-c", READ_ALL, str(store), str(root)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def go(process):
    """Wait until a process is ready, and let it read."""
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "wanted\n"


def entries(shards, name="c00"):
    return shards.indexes[name].shards


def everything(shards):
    return [(shards.folder(name), e) for name in shards.indexes for e in entries(shards, name)]


def total(shards, root):
    """Sum of the raw bytes of all shards, read from the local folder into a cache of its own."""
    cache = ShardCache(root.with_name("another"))
    return sum(int(cache.get(*one).sum()) for one in everything(shards))


def packed_bytes(shards):
    return sum(entry.zip_bytes for _, entry in everything(shards))


def files(root):
    return sorted(path for path in root.rglob("*") if path.is_file())


def kept(root):
    """Hashes of the shards in a cache."""
    return {path.stem for path in files(root)}


def busy_threads():
    return [t for t in threading.enumerate() if t.name.startswith("climbstream-fetch")]


def shards_asked(site):
    return sum(path.endswith(".zstd") for path in site.asked)


def wait_until(holds, seconds=20.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


# Wanting, getting, letting go.


def test_what_is_wanted_comes_by_itself(shards, root):
    cache = ShardCache(root)
    for one in everything(shards):
        cache.want(*one)
    wait_until(lambda: kept(root) == {entry.raw_hash for _, entry in everything(shards)})
    for name in shards.indexes:
        for entry in entries(shards, name):
            shards.packed(name, entries(shards, name).index(entry)).unlink()
    for one in everything(shards):
        assert len(cache.get(*one)) == one[1].raw_bytes


def test_to_want_does_not_wait_and_does_not_fail(shards, root, serve):
    site = serve(shards.directory)
    site.misbehave = lambda path, times: "silent"
    cache, folder = ShardCache(root), Store.of(site.url, all_seconds=5) / "clusters/c00"
    begin = time.monotonic()
    for entry in entries(shards):
        cache.want(folder, entry)
    cache.want("gopher://nowhere", entries(shards, "c01")[0])
    assert time.monotonic() - begin < 4
    cache.close()
    cache.want(shards.folder("c00"), entries(shards)[0])


def test_a_shard_that_is_waited_for_goes_before_those_that_are_only_wanted(shards, root, serve):
    site = serve(shards.directory)
    hold = threading.Event()
    site.misbehave = lambda path, times: hold.wait(20) and None
    folder = Store.of(site.url, all_seconds=5) / "clusters/c00"
    first, *middle, last = entries(shards)
    assert len(middle) >= 3
    cache = ShardCache(root, threads=1)
    for entry in entries(shards):
        cache.want(folder, entry)
    wait_until(lambda: site.asked)
    threading.Timer(0.2, hold.set).start()
    cache.get(folder, last)
    assert [path.rpartition("/")[2] for path in site.asked[:2]] == [
        first.zip_basename,
        last.zip_basename,
    ]


def test_at_most_so_many_shards_are_fetched_at_a_time(shards, root, serve):
    site = serve(shards.directory)
    now, most, lock = 0, 0, threading.Lock()

    def slow(path, times):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1

    site.misbehave = slow
    cache = ShardCache(root, threads=3)
    folder = Store.of(site.url, all_seconds=5) / "clusters/c00"
    assert len(entries(shards)) > 3
    for entry in entries(shards):
        cache.want(folder, entry)
    for entry in entries(shards):
        cache.get(folder, entry)
    assert most == 3


def test_an_idle_cache_has_no_threads(shards, root):
    of_others = set(busy_threads())  # a fetch that an earlier test gave up may go on
    cache = ShardCache(root)
    for one in everything(shards):
        cache.get(*one)
    wait_until(lambda: not set(busy_threads()) - of_others)


def test_patience_ends_with_what_was_waited_for(shards, root, serve):
    site = serve(shards.directory)
    site.misbehave = lambda path, times: "silent"
    folder, entry = Store.of(site.url, all_seconds=5) / "clusters/c00", entries(shards)[0]
    cache = ShardCache(root, threads=1, patience=0.5)
    begin = time.monotonic()
    with pytest.raises(
        RemoteError, match=rf"{entry.basename} has not arrived after 0\.5 s: reading"
    ):
        cache.get(folder, entry)
    with pytest.raises(RemoteError, match=r"has not arrived after 0\.5 s: waiting for its turn"):
        cache.get(folder, entries(shards)[1])
    assert time.monotonic() - begin < 4


def test_what_went_wrong_is_raised_and_then_tried_anew(shards, root):
    path, entry = shards.packed("c00"), entries(shards)[0]
    content = path.read_bytes()
    path.unlink()
    cache = ShardCache(root)
    for _ in range(2):
        with pytest.raises(IntegrityError, match="is missing; build, pull or copy"):
            cache.get(shards.folder("c00"), entry)
    path.write_bytes(content)
    assert len(cache.get(shards.folder("c00"), entry)) == entry.raw_bytes


def test_a_map_outlives_its_release_and_its_cache(shards, root):
    cache = ShardCache(root)
    folder, entry = everything(shards)[0]
    data = cache.get(folder, entry)
    before = data.tobytes()
    cache.release(entry)
    cache.close()
    for path in files(root):
        path.unlink()
    assert data.tobytes() == before


def test_what_is_released_is_not_held(shards, root):
    cache = ShardCache(root)
    folder, entry = everything(shards)[0]

    def maps():
        return Path("/proc/self/maps").read_text().count(str(root))

    cache.view(folder, entry, "uint16")
    assert maps() == 1
    cache.release(entry)
    wait_until(lambda: maps() == 0)
    assert len(cache.view(folder, entry, "uint16").lengths) == entry.samples
    assert maps() == 1


def test_what_is_released_in_the_queue_is_not_fetched(shards, root, serve):
    site = serve(shards.directory)
    hold = threading.Event()
    site.misbehave = lambda path, times: hold.wait(20) and None
    folder = Store.of(site.url, all_seconds=5) / "clusters/c00"
    cache = ShardCache(root, threads=1)
    for entry in entries(shards):
        cache.want(folder, entry)
    wait_until(lambda: site.asked)
    for entry in entries(shards)[1:-1]:
        cache.release(entry)
    hold.set()
    cache.get(folder, entries(shards)[-1])
    assert len(site.asked) == 2


def test_a_closed_cache_says_so(shards, root):
    cache = ShardCache(root)
    cache.close()
    with pytest.raises(UsageError, match=r"the cache .* was closed; make another"):
        cache.get(*everything(shards)[0])


# Bytes that are not what they should be.


def test_wrong_bytes_are_fetched_again_once(shards, root, serve):
    site = serve(shards.directory)
    path, entry = shards.packed("c00"), entries(shards)[0]
    spoilt = path.read_bytes()[:-1] + b"?"
    site.misbehave = lambda path, times: spoilt if times == 1 else None
    folder = Store.of(site.url, all_seconds=5) / "clusters/c00"
    assert len(ShardCache(root).get(folder, entry)) == entry.raw_bytes
    assert len(site.asked) == 2


def test_bytes_that_stay_wrong_are_named_with_expected_and_got(shards, root, serve):
    site = serve(shards.directory)
    path, entry = shards.packed("c00"), entries(shards)[0]
    site.misbehave = lambda _, times: path.read_bytes()[:-1] + b"?"
    folder = Store.of(site.url, all_seconds=5) / "clusters/c00"
    with pytest.raises(
        IntegrityError,
        match=rf"{folder}: {entry.zip_basename}: expected {entry.zip_hash} xxh3_128, got \w{{32}}",
    ):
        ShardCache(root).get(folder, entry)
    assert len(site.asked) == 2
    assert files(root) == []


def test_a_remote_shard_that_is_missing_is_named_and_asked_for_once(shards, root, serve):
    site = serve(shards.directory)
    shards.packed("c00").unlink()
    folder = Store.of(site.url, all_seconds=5) / "clusters/c00"
    with pytest.raises(IntegrityError, match=rf"{folder}/shard\.00000\.mds\.zstd is missing; "):
        ShardCache(root).get(folder, entries(shards)[0])
    assert len(site.asked) == 1
    assert files(root) == []


@pytest.fixture
def tiny(tmp_path, make_shards):
    """One shard of a few hundred bytes."""
    return make_shards(tmp_path / "tiny", {"c00": [np.arange(30), np.arange(7)]})


def spoilt(content):
    """Give all ways in which one byte is flipped or the rest is cut off."""
    for at in range(len(content)):
        yield content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]
        yield content[:at]


def test_no_flipped_or_lost_byte_of_a_remote_shard_is_served(tiny, root):
    (entry,) = entries(tiny)
    memory = fsspec.filesystem("memory")
    cache = ShardCache(root)
    for content in spoilt(tiny.packed("c00").read_bytes()):
        memory.pipe(f"/spoilt/{entry.zip_basename}", content)
        with pytest.raises(IntegrityError, match=rf"{entry.zip_basename}: expected .* got "):
            cache.get("memory://spoilt", entry)
    assert files(root) == []


def test_no_flipped_or_lost_byte_in_the_cache_is_served(tiny, root):
    (entry,) = entries(tiny)
    good = ShardCache(root).get(tiny.folder("c00"), entry).tobytes()
    (path,) = files(root)
    for content in spoilt(good):
        path.write_bytes(content)
        assert ShardCache(root).get(tiny.folder("c00"), entry).tobytes() == good
        assert path.read_bytes() == good


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param({"raw_bytes": 1 << 40}, id="a bomb"),
        pytest.param({"raw_bytes": 100}, id="fewer raw bytes"),
        pytest.param({"zip_bytes": 100}, id="fewer bytes"),
        pytest.param({"zip_hash": "0" * 32}, id="another hash"),
        pytest.param({"samples": 1}, id="fewer documents"),
        pytest.param({"samples": 1 << 31}, id="more documents"),
        pytest.param({"lengths": ((0, 0), (1, 3))}, id="fewer tokens"),
    ],
)
def test_an_index_that_lies_is_not_believed(tiny, root, lie):
    (entry,) = entries(tiny)
    entry = dataclasses.replace(entry, **lie)
    with pytest.raises(IntegrityError):
        ShardCache(root).view(tiny.folder("c00"), entry, "uint16")
    if {*lie} & {"raw_bytes", "zip_bytes", "zip_hash"}:
        assert files(root) == []


def test_a_shard_under_the_hash_of_another_is_not_served_for_it(shards, root):
    mine, theirs = entries(shards)[:2]
    liar = dataclasses.replace(mine, raw_hash=theirs.raw_hash)
    good = ShardCache(root.with_name("another")).get(shards.folder("c00"), theirs).tobytes()
    cache = ShardCache(root)
    cache.get(shards.folder("c00"), liar)
    assert cache.get(shards.folder("c00"), theirs).tobytes() == good
    assert ShardCache(root).get(shards.folder("c00"), theirs).tobytes() == good


# Shared by threads and processes.


def test_two_threads_fetch_each_byte_once(shards, root, serve):
    site = serve(shards.directory)
    store = Store.of(site.url, all_seconds=5)
    sums = []

    def read():
        cache, mine = ShardCache(root), 0
        for name in shards.indexes:
            for entry in entries(shards, name):
                mine += int(cache.get(cluster_folder(store, name), entry).sum())
        sums.append(mine)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sums == [total(shards, root)] * 2
    assert sum(site.sent.values()) == packed_bytes(shards)


def test_two_processes_fetch_each_byte_once(shards, root, serve, start):
    site = serve(shards.directory)
    both = [start(site.url), start(site.url)]
    for process in both:
        go(process)
    sums = [int(process.stdout.readline()) for process in both]
    assert sums == [total(shards, root)] * 2
    sent = sum(size for path, size in site.sent.items() if path.endswith(".zstd"))
    assert sent == packed_bytes(shards)
    assert kept(root) == {entry.raw_hash for _, entry in everything(shards)}


def test_a_killed_fetcher_blocks_nobody_and_leaves_nothing(shards, root, serve, start):
    site = serve(shards.directory)
    slow = []

    def trickle(path, times):
        if path.endswith(".zstd") and len(slow) < 4:  # as many as it has threads
            slow.append(path)
            return "trickle"
        return None

    site.misbehave = trickle
    killed, other = start(site.url), start(site.url)
    go(killed)
    wait_until(lambda: len(files(root)) == len(slow) == 4)
    go(other)
    time.sleep(0.3)
    assert all(path.name.startswith(".tmp-") for path in files(root))
    killed.kill()
    killed.wait()
    site.misbehave = lambda path, times: None
    begin = time.monotonic()
    assert int(other.stdout.readline()) == total(shards, root)
    assert time.monotonic() - begin < 10
    assert kept(root) == {entry.raw_hash for _, entry in everything(shards)}


def test_what_a_killed_process_left_is_removed_and_nothing_else(shards, root, serve, start):
    site = serve(shards.directory)
    site.misbehave = lambda path, times: "silent" if path.endswith(".zstd") else None
    killed, living = start(site.url), start(site.url)
    go(killed)
    wait_until(lambda: shards_asked(site) == 4)
    killed.kill()
    killed.wait()
    left = files(root)
    go(living)  # it takes over what the killed one had begun
    wait_until(lambda: shards_asked(site) == 8)
    (root / "ab").mkdir(exist_ok=True)
    foreign = [
        root / "ab" / ".tmp-mine",
        root / "ab" / "note.txt",
        root / ".tmp-0.mds",
        root / "ab" / f".tmp-{'0' * 32}.mds",  # not where its hash belongs
    ]
    orphan = root / "ab" / f".tmp-ab{'0' * 30}.mds"
    for path in (*foreign, orphan):
        path.write_bytes(b"x")
    site.misbehave = lambda path, times: "silent" if path.startswith("clusters/c00") else None
    cache = ShardCache(root)
    cache.get(Store.of(site.url, all_seconds=5) / "clusters/c01", entries(shards, "c01")[0])
    assert not orphan.exists()
    assert all(path.exists() for path in foreign)
    assert all(path.exists() for path in left), "a living process writes these"


def test_a_fetcher_that_stands_still_is_waited_for_so_long_and_named(shards, root, serve, start):
    site = serve(shards.directory)
    site.misbehave = lambda path, times: "silent" if path.endswith(".zstd") else None
    stopped = start(site.url)
    go(stopped)
    wait_until(lambda: shards_asked(site) == 4)
    stopped.send_signal(signal.SIGSTOP)
    first = entries(shards)[0]
    begin = time.monotonic()
    with pytest.raises(
        LockedError,
        match=rf"waited .* s for {first.basename}, but the process that writes .*\.tmp-",
    ):
        ShardCache(root, patience=1.0).get(
            Store.of(site.url, all_seconds=5) / "clusters/c00", first
        )
    assert time.monotonic() - begin < 4


def test_a_process_ends_though_a_fetch_hangs(shards, root, serve):
    site = serve(shards.directory)
    site.misbehave = lambda path, times: "silent" if path.endswith(".zstd") else None
    code = READ_ALL.partition('print("wanted"')[0]
    done = subprocess.run(
        [sys.executable, "-c", code, site.url, str(root)],
        input="\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert done.stderr == ""


# Kept to a limit.


@pytest.fixture
def equal(tmp_path, make_shards):
    """Six shards of about the same size."""
    draw = np.random.default_rng(0)
    return make_shards(
        tmp_path / "equal", {"c00": [draw.integers(0, 60_000, 300) for _ in range(6)]}
    )


def size_of(root):
    return sum(path.stat().st_size for path in files(root))


def test_the_least_recently_used_shards_go_first(equal, root):
    shards, folder = entries(equal), equal.folder("c00")
    size = max(entry.raw_bytes for entry in shards)
    cache = ShardCache(root, limit=3 * size)
    for number in (0, 1, 2, 0, 3):
        cache.get(folder, shards[number])
        cache.release(shards[number])
    assert kept(root) == {shards[number].raw_hash for number in (0, 2, 3)}
    cache.get(folder, shards[4])
    assert kept(root) == {shards[number].raw_hash for number in (0, 3, 4)}
    assert size_of(root) <= 3 * size


def test_what_is_held_or_wanted_is_never_evicted_and_the_limit_is_passed_once(equal, root, capsys):
    shards, folder = entries(equal), equal.folder("c00")
    size = max(entry.raw_bytes for entry in shards)
    cache = ShardCache(root, limit=2 * size)
    for entry in shards[:4]:
        cache.want(folder, entry)
    for entry in shards[:4]:
        cache.get(folder, entry)
    assert kept(root) == {entry.raw_hash for entry in shards[:4]}
    said = capsys.readouterr().err
    assert said.count("passes its limit") == 1
    assert re.search(
        rf"{root} passes its limit of {2 * size:,} bytes by [\d,]+: all .* in use", said
    )
    for entry in shards[:4]:
        cache.release(entry)
    cache.get(folder, shards[4])
    assert size_of(root) <= 2 * size


def test_what_waits_in_the_queue_is_not_evicted_for_what_comes_first(equal, root, serve):
    site = serve(equal.directory)
    hold = threading.Event()
    site.misbehave = lambda path, times: hold.wait(20) and None
    first, second = entries(equal)[:2]
    folder = Store.of(site.url, all_seconds=5) / "clusters/c00"
    ShardCache(root).get(equal.folder("c00"), second)
    wait_until(lambda: str(root) not in Path("/proc/self/maps").read_text())
    cache = ShardCache(root, limit=1, threads=1)
    cache.want(folder, first)
    cache.want(folder, second)
    hold.set()
    cache.get(folder, first)
    assert len(cache.get(folder, second)) == second.raw_bytes
    assert [path.rpartition("/")[2] for path in site.asked] == [first.zip_basename]


def test_what_another_process_holds_is_not_evicted(equal, root, start):
    shards, folder = entries(equal), equal.folder("c00")
    holder = start(equal.directory)
    go(holder)
    assert int(holder.stdout.readline())
    first, second = shards[:2]
    for entry in (first, second):
        (root / entry.raw_hash[:2] / f"{entry.raw_hash}.mds").unlink()
    cache = ShardCache(root, limit=1)
    cache.get(folder, first)
    assert kept(root) == {entry.raw_hash for entry in shards} - {second.raw_hash}
    holder.kill()
    holder.wait()
    cache.get(folder, second)
    assert kept(root) == {first.raw_hash, second.raw_hash}


def test_what_is_not_ours_is_never_evicted(equal, root):
    foreign = [root / "notes.mds", root / "ab" / "notes.mds", root / "ab" / f"{'c' * 32}.mds"]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
    cache = ShardCache(root, limit=1)
    for entry in entries(equal):
        cache.get(equal.folder("c00"), entry)
        cache.release(entry)
    assert [path.read_bytes() for path in foreign] == [b"mine"] * 3
    assert len(files(root)) == 4


def test_where_many_shards_fit_some_more_go_at_once(tmp_path, make_shards, root):
    draw = np.random.default_rng(0)
    many = make_shards(
        tmp_path / "many", {"c00": [draw.integers(0, 60_000, 300) for _ in range(140)]}
    )
    size = max(entry.raw_bytes for entry in entries(many))
    cache, counts = ShardCache(root, limit=96 * size), []
    for entry in entries(many):
        cache.get(many.folder("c00"), entry)
        cache.release(entry)
        counts.append(len(files(root)))
    assert max(counts) == 96
    assert min(counts[96:]) == 93


def test_what_was_evicted_comes_again(equal, root):
    cache = ShardCache(root, limit=1)
    for _ in range(2):
        for entry in entries(equal):
            data = cache.get(equal.folder("c00"), entry)
            assert len(data) == entry.raw_bytes
            cache.release(entry)


def test_threads_keep_to_the_limit_together(equal, root):
    size = max(entry.raw_bytes for entry in entries(equal))
    most, over = 0, threading.Event()

    def watch():
        nonlocal most
        while not over.is_set():
            with suppress(FileNotFoundError):  # one was evicted meanwhile
                most = max(most, size_of(root))

    watcher = threading.Thread(target=watch)
    watcher.start()

    def read():
        cache = ShardCache(root, limit=3 * size)
        for _ in range(5):
            for entry in entries(equal):
                cache.get(equal.folder("c00"), entry)
                cache.release(entry)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    over.set()
    watcher.join(60)
    assert 0 < most <= 3 * size


# A full disk.

FILL = """
import sys
from pathlib import Path
from climbstream.loader.reading.shard_cache import ShardCache
from climbstream.loader.core.errors import NoSpaceError
from climbstream.loader.formats.manifest import Manifest, cluster_folder, load_index
directory, root = map(Path, sys.argv[1:])
manifest = Manifest.load(directory)
cache = ShardCache(root)
try:
    for cluster in manifest.clusters:
        for entry in load_index(directory, manifest, cluster).shards:
            cache.get(cluster_folder(directory, cluster.name), entry)
except NoSpaceError as error:
    print(error)
print([path.name for path in root.rglob(".tmp-*")])
"""


@pytest.fixture
def large(tmp_path, make_shards):
    """Four shards of 64 KiB."""
    draw = np.random.default_rng(0)
    documents = {"c00": [draw.integers(0, 60_000, 32_000) for _ in range(4)]}
    return make_shards(tmp_path / "large", documents)


def test_a_full_disk_is_named_with_the_bytes_and_leaves_nothing_half(large, root):
    root.mkdir()
    mount = 'mount -t tmpfs -o size=160k tmpfs "$2" && exec "$3" -c "$4" "$1" "$2"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    command += [str(large.directory), str(root), sys.executable, FILL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        assert "mount" in done.stderr or "unshare" in done.stderr, done.stderr
        pytest.skip(f"this user may not mount: {done.stderr}")
    said, left = done.stdout.splitlines()
    entry = entries(large)[2]
    assert said == (
        f"no space left in {root} for the {entry.raw_bytes:,} bytes of {entry.basename}; "
        "free some, or name another folder for the cache"
    )
    assert left == "[]"


def test_a_quota_of_the_process_is_a_full_disk_too(large, root):
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(large.directory), str(root)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )
    assert done.stdout.startswith(f"no space left in {root} for the ")
    assert done.stdout.endswith("\n[]\n")
    assert files(root) == []


def test_a_process_that_may_open_no_more_files_is_told_so(shards, root):
    few = (
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))\nfor one in wanted:"
    )
    code = READ_ALL.replace("for one in wanted:", few)
    assert len(everything(shards)) > 12
    done = subprocess.run(
        [sys.executable, "-c", code, str(shards.directory), str(root)],
        input="\n\n",
        capture_output=True,
        text=True,
        check=False,
    )
    # Whether a file of the store or one of the cache is the first too many hangs on the system.
    said = done.stderr.splitlines()[-1]
    assert "this process has reached its limit of 12 open files; raise" in said


def test_a_loader_that_is_dropped_fetches_no_more_shards(
    make_shards, counted_documents, serve, tmp_path
):
    shards = make_shards(tmp_path / "s", counted_documents({"c00": [40] * 200, "c01": [40] * 200}))
    site = serve(shards.directory)
    site.misbehave = lambda path, _: time.sleep(0.3) if path.endswith(".zstd") else None

    def asked():
        return sum(path.endswith(".zstd") for path in site.asked)

    loader = MixtureLoader(
        site.url, seq_len=16, batch_rows=2, lanes=8, cache_dir=tmp_path / "cache"
    )
    next(loader)
    del loader
    gc.collect()
    time.sleep(0.5)  # the requests of its threads end
    dropped = asked()
    time.sleep(0.5)
    # It had asked for a shard of each of its 16 lanes.
    assert asked() == dropped < 16
