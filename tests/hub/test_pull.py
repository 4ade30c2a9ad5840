"""Shards that lie on the Hub: streamed, pulled, and by hostile owners; with the real client."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import zstandard
from climb_command import ClimbProcess, run_climb
from hub_double import File

from climbstream.builder.contamination.shards import check_shards
from climbstream.builder.contamination.tasks import Item, Task
from climbstream.builder.exporter.job import ExportJob
from climbstream.builder.exporter.mixture import export_mixture
from climbstream.builder.exporter.shards import export_shards
from climbstream.loader import Mixture, MixtureLoader
from climbstream.loader.core.errors import (
    ClimbError,
    IntegrityError,
    InvalidDataError,
    NoSpaceError,
    RemoteError,
    UsageError,
)
from climbstream.loader.core.files import hash_bytes
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.manifest import COLUMNS, Manifest, hash_files
from climbstream.loader.formats.mds.entry import ShardColumns
from climbstream.loader.formats.shard_columns import parse_columns, save_columns
from climbstream.loader.storage import retry, store
from climbstream.loader.tools.pull import pull
from climbstream.loader.tools.verify import verify_directory

REPO = "someone/web"
URL = f"hf://{REPO}"
STEPS = 30


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(retry, "LONGEST_PAUSE", 0.01)


@pytest.fixture
def web(client, directory):
    """The double, with the shards as a data set."""
    client.upload(REPO, directory)
    return client


@pytest.fixture
def names(directory):
    """Names of the clusters."""
    return Manifest.load(directory).names


def digest(loader, steps=STEPS):
    """Hash of the next batches."""
    hashed = hashlib.sha256()
    for _ in range(steps):
        batch = next(loader)
        hashed.update(batch["input_ids"].numpy().tobytes())
        hashed.update(batch["cluster_ids"].numpy().tobytes())
    return hashed.hexdigest()


def opened(place, cache, mixture=None, **more):
    """Return a loader of small rows."""
    return MixtureLoader(place, mixture, seq_len=32, batch_rows=8, seed=5, cache_dir=cache, **more)


def files(folder):
    """Content of files by path, without what pull notes for itself."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {n: p.read_bytes() for n, p in found.items() if n not in (".lock", "pull.json")}


def shards_of(sent, name=None):
    """Bytes of shards that were sent, by path; of one cluster, or of all."""
    below = f"clusters/{name}/" if name else "clusters/"
    return {p: n for p, n in sent.items() if p.endswith(".zstd") and p.startswith(below)}


# The same as from the local shards.


def test_batches_are_the_same_local_pulled_and_streamed(web, directory, tmp_path):
    expected = digest(opened(directory, tmp_path / "a"))
    assert digest(opened(URL, tmp_path / "b")) == expected
    pull(REPO, tmp_path / "pulled")
    assert digest(opened(tmp_path / "pulled", tmp_path / "c")) == expected
    assert verify_directory(tmp_path / "pulled").faults == []


def test_what_is_pulled_are_the_files_as_they_are(web, directory, tmp_path):
    pulled = pull(REPO, tmp_path / "pulled")
    assert files(tmp_path / "pulled").items() <= files(directory).items()
    theirs = {p for p in files(directory) if p.startswith(("clusters/", "documents/"))}
    assert theirs <= files(tmp_path / "pulled").keys()
    sizes = shards_of(web.sent)
    assert pulled.fetched == pulled.bytes == sum(sizes.values())
    assert sizes == {p: len(d) for p, d in files(directory).items() if p in sizes}


def test_a_run_streams_each_byte_once_and_another_run_none(web, tmp_path):
    first = digest(opened(URL, tmp_path / "cache"))
    sent = shards_of(web.sent)
    assert {p: len(web.content(web.repos[REPO].files()[p])) for p in sent} == sent
    assert digest(opened(URL, tmp_path / "cache")) == first
    assert shards_of(web.sent) == sent


def test_what_has_no_weight_is_not_fetched_and_comes_with_another_mixture(
    web, directory, names, tmp_path
):
    some = Mixture.uniform(names[:2])
    pulled = pull(REPO, tmp_path / "pulled", some)
    assert pulled.clusters == tuple(names[:2])
    assert not shards_of(web.sent, names[2])
    expected = digest(opened(directory, tmp_path / "a", some))
    assert digest(opened(tmp_path / "pulled", tmp_path / "b", some)) == expected
    with pytest.raises(InvalidDataError, match=r"not have the shards of c02, c03, c04, c05, bec"):
        digest(opened(tmp_path / "pulled", tmp_path / "b", Mixture.uniform(names[2:])))
    sent = web.sent.copy()
    again = pull(REPO, tmp_path / "pulled", Mixture.uniform(names))
    assert 0 < again.fetched < again.bytes
    assert shards_of(web.sent - sent).keys().isdisjoint(shards_of(sent))
    whole = digest(opened(tmp_path / "pulled", tmp_path / "c"))
    assert whole == digest(opened(directory, tmp_path / "a"))


def test_what_a_mixture_did_not_fetch_is_no_fault_and_is_named(web, directory, names, tmp_path):
    out = tmp_path / "pulled"
    pull(REPO, out, Mixture.uniform(names[:2]))
    verdict = verify_directory(out)
    assert verdict.faults == []
    assert verdict.not_pulled == ["documents/", *(f"clusters/{name}/" for name in names[2:])]
    assert verdict.shards == 2
    shown = run_climb("verify", out)
    assert shown.returncode == 0
    assert (
        "not checked, because climb pull --mixture did not fetch these: documents/, clusters/c02/"
        in (shown.stdout)
    )
    shard = next((out / "clusters" / names[0]).glob("*.zstd"))
    shard.write_bytes(b"damaged")
    assert "cluster c00: shard.00000.mds.zstd: expected" in verify_directory(out).faults[0]
    pull(REPO, out, Mixture.uniform(names[:2]))
    assert verify_directory(out).faults == []


def test_a_command_that_needs_clusters_that_were_not_fetched_says_so_at_once(
    web, directory, names, tmp_path
):
    out, some = tmp_path / "pulled", Mixture.uniform(names[:2])
    pull(REPO, out, some)
    why = r"not have the shards of c02, c03, c04, c05, because climb pull --mixture did not"
    with pytest.raises(InvalidDataError, match=why):
        check_shards(out, [Task("t", (Item("q", "a question of several words"),))])
    for to in ("jsonl", "megatron", "mosaic"):
        with pytest.raises(InvalidDataError, match=why):
            export_shards(out, tmp_path / to, to)
        assert not (tmp_path / to).exists()
    job = ExportJob(shards=ShardDirectory(out), out=tmp_path / "drawn", to="jsonl", workers=1)
    with pytest.raises(InvalidDataError, match=why):
        export_mixture(job, None, 2_000)
    assert export_mixture(job, some, 2_000)[names[0]] > 0
    assert (
        "not fetched (climb pull --mixture): c02, c03, c04, c05" in run_climb("inspect", out).stdout
    )
    assert "not fetched" not in run_climb("inspect", directory).stdout


def test_a_loader_needs_no_shards_that_its_cache_has(web, directory, names, tmp_path):
    whole = digest(opened(directory, tmp_path / "cache"))
    pull(REPO, tmp_path / "pulled", Mixture.uniform(names[:2]))
    with pytest.raises(InvalidDataError, match="because climb pull --mixture did not fetch them"):
        digest(opened(tmp_path / "pulled", tmp_path / "other"))
    assert digest(opened(tmp_path / "pulled", tmp_path / "cache")) == whole


@pytest.mark.parametrize("name", ["", "sub", "sub/deep"])
def test_a_copy_inside_its_source_is_refused(directory, tmp_path, name):
    source = tmp_path / "source"
    shutil.copytree(directory, source)
    with pytest.raises(UsageError, match="which is copied; name a folder outside of it"):
        pull(str(source), source / name)
    assert not (source / "sub").exists()


def test_a_whole_pull_that_lost_a_cluster_has_a_fault(web, directory, names, tmp_path):
    out = tmp_path / "pulled"
    pull(REPO, out)
    for shard in (out / "clusters" / names[0]).glob("*.zstd"):
        shard.unlink()
    verdict = verify_directory(out)
    assert "shard.00000.mds.zstd is missing" in verdict.faults[0]
    assert verdict.not_pulled == []
    told = run_climb("verify", out)
    assert "the same climb pull again fetches what is missing or damaged" in told.stderr
    pull(REPO, out)
    assert verify_directory(out).faults == []


def test_what_was_pulled_with_a_mixture_is_not_published(web, directory, names, tmp_path):
    pull(REPO, tmp_path / "pulled", Mixture.uniform(names[:2]))
    refused = run_climb("publish", tmp_path / "pulled", REPO, "--dry-run")
    assert refused.returncode == 3
    assert "was pulled with a mixture, and lacks documents/, clusters/c02/" in refused.stderr


def test_streaming_fetches_nothing_of_what_has_no_weight(web, names, tmp_path):
    digest(opened(URL, tmp_path / "cache", Mixture.uniform(names[:2])))
    assert shards_of(web.sent, names[0])
    assert not [name for name in names[2:] if shards_of(web.sent, name)]


def test_a_pull_of_what_is_here_fetches_nothing(web, tmp_path):
    pull(REPO, tmp_path / "pulled")
    sent = web.sent.copy()
    assert pull(REPO, tmp_path / "pulled").fetched == 0
    assert not shards_of(web.sent - sent)


def test_a_dry_run_says_what_would_be_fetched_and_writes_nothing(web, names, tmp_path):
    said = pull(REPO, tmp_path / "pulled", Mixture.of({names[0]: 1}), dry_run=True)
    assert not (tmp_path / "pulled").exists()
    assert not shards_of(web.sent)
    assert pull(REPO, tmp_path / "pulled", Mixture.of({names[0]: 1})) == said


# Revisions.


def other_shards(web):
    """Let ``main`` be something else; return the commit it was."""
    repo = web.repos[REPO]
    old = repo.refs["main"]
    changed = {p: File(1, b"x") for p in repo.files()}
    repo.commit("main", changed)
    return old


def test_a_revision_is_what_it_was(web, directory, tmp_path):
    web.repos[REPO].refs["v1"] = web.repos[REPO].refs["main"]
    old = other_shards(web)
    expected = digest(opened(directory, tmp_path / "a"))
    for place in (f"{URL}@v1", f"{URL}@{old}", f"hf://datasets/{REPO}@v1"):
        assert digest(opened(place, tmp_path / "b")) == expected
    assert pull(f"{REPO}@v1", tmp_path / "pulled").source == f"hf://datasets/{REPO}@{old}"
    with pytest.raises(InvalidDataError, match=r"manifest\.json is not JSON"):
        opened(URL, tmp_path / "b")


def test_a_copy_of_another_version_is_named_with_the_remedy(web, directory, tmp_path):
    pull(REPO, tmp_path / "pulled")
    plan = json.dumps({"pull": 1, "shards": "an older version"})
    (tmp_path / "pulled" / "pull.json").write_text(plan)
    fingerprint = Manifest.load(directory).fingerprint
    with pytest.raises(
        InvalidDataError,
        match=rf"a copy of the shards an older version, and hf://\S+ has the shards {fingerprint}: "
        r"another version, .* pull this version into a new folder",
    ):
        pull(REPO, tmp_path / "pulled")


def test_a_running_job_keeps_to_the_commit_that_it_began_with(web, directory, tmp_path):
    loader = opened(URL, tmp_path / "cache")
    other_shards(web)
    assert digest(loader) == digest(opened(directory, tmp_path / "a"))


def test_a_revision_that_is_not_there_is_named(web, tmp_path):
    with pytest.raises(RemoteError, match=r"v9 of someone/web: it has no such branch, tag"):
        pull(f"{REPO}@v9", tmp_path / "pulled")
    with pytest.raises(RemoteError, match=r"v9 of someone/web: it has no such branch, tag"):
        Manifest.load(f"hf://{REPO}@v9")
    with pytest.raises(RemoteError, match=r"main of someone/else: it has no such data set,"):
        opened("hf://someone/else", tmp_path / "cache")
    with pytest.raises(UsageError, match="ends where a revision should be named"):
        pull(f"{REPO}@", tmp_path / "pulled")


def test_a_private_data_set_needs_the_token(web, tmp_path, monkeypatch):
    web.repos[REPO].private = True
    pull(REPO, tmp_path / "pulled")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(RemoteError, match=r"refused to find main of someone/web.*HF_TOKEN"):
        pull(REPO, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(RemoteError, match=r"or it is private; .*HF_TOKEN"):
        Mixture.from_hub(REPO)


# Faults.


@pytest.mark.parametrize("what", [503, 429, "lost", "cut"])
@pytest.mark.parametrize("part", ["manifest.json", "index.json", "shards.columns", ".zstd"])
def test_a_pull_and_a_run_go_through_what_passes(web, directory, tmp_path, what, part):
    web.fail(2, what, "GET", part)
    pull(REPO, tmp_path / "pulled")
    assert web.failed
    assert files(tmp_path / "pulled").items() <= files(directory).items()
    web.fail(2, what, "GET", part)
    assert digest(opened(URL, tmp_path / "b")) == digest(opened(directory, tmp_path / "a"))
    assert web.failed or part == "index.json"  # a loader reads shards.columns in its place


def test_a_hub_that_asks_for_a_pause_gets_it(web, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(store.time, "sleep", pauses.append)
    web.fail(1, 429, "GET", ".zstd")
    pull(REPO, tmp_path / "pulled")
    assert max(pauses) >= 1


@pytest.mark.slow
def test_a_pull_from_a_hub_that_falls_silent_ends_by_its_deadline_and_goes_on(
    hub, run, silence, directory, tmp_path
):
    hub.upload(REPO, directory)
    hub.fail(10**6, silence, "GET", ".zstd")
    begin = time.monotonic()
    done = run("pull", REPO, tmp_path / "pulled", "--task-timeout", "3")
    assert time.monotonic() - begin < 60
    assert done.returncode == 5
    assert ".zstd could not be read in" in done.stderr.splitlines()[-1]
    hub.faults.clear()
    assert run("pull", REPO, tmp_path / "pulled").returncode == 0
    assert run("verify", tmp_path / "pulled").returncode == 0


@pytest.mark.slow
def test_a_pull_that_is_killed_goes_on(hub, run, environment, directory, tmp_path):
    hub.upload(REPO, directory)
    process = ClimbProcess(
        "pull", REPO, tmp_path / "pulled", env=environment, stderr=subprocess.DEVNULL
    )
    seen = []

    def kill():
        seen.append(1)
        if len(seen) == 4:
            os.kill(process.pid, signal.SIGKILL)

    hub.fail(10**6, kill, "GET", ".zstd")
    assert process.wait(60) == -signal.SIGKILL
    assert not (tmp_path / "pulled" / "manifest.json").exists()
    hub.faults.clear()
    done = run("pull", REPO, tmp_path / "pulled")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "pulled").items() <= files(directory).items()
    assert verify_directory(tmp_path / "pulled").faults == []


def test_a_disk_without_room_is_named_before_anything_is_fetched(web, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=(64 << 20) + 1000))
    with pytest.raises(NoSpaceError, match=r"shards must be fetched, .* room for 1,000"):
        pull(REPO, tmp_path / "pulled")
    assert not shards_of(web.sent)


def test_a_folder_that_holds_something_else_is_not_touched(web, directory, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InvalidDataError, match=r"is not empty: it holds notes\.txt"):
        pull(REPO, tmp_path / "mine")
    assert files(tmp_path / "mine") == {"notes.txt": b"mine"}


def test_a_mixture_of_other_clusters_is_named(web, names, tmp_path):
    with pytest.raises(
        InvalidDataError, match=r"the mixture gives weight to c98, but the clusters are"
    ):
        pull(REPO, tmp_path / "pulled", Mixture.of({"c98": 1}))


# Hostile owners. What they publish is in itself consistent: they can compute hashes too.


def resign(folder, *, index=None, shard=None, name=None):
    """Change the index, a shard, or the name of the first cluster, and make all hashes fit.

    The file shards.columns is left out, so that the index is read.
    """
    manifest = Manifest.load(folder)
    manifest.files.pop(COLUMNS)
    (folder / COLUMNS).unlink()
    first, *others = manifest.clusters
    at = folder / "clusters" / first.name
    value = json.loads((at / "index.json").read_bytes())
    entry = value["shards"][0]
    if shard is not None:
        (at / entry["zip_data"]["basename"]).write_bytes(shard)
        entry["zip_data"] |= {"bytes": len(shard), "hashes": {"xxh3_128": hash_bytes(shard)}}
    if index is not None:
        index(value, entry)
    data = json.dumps(value).encode()
    (at / "index.json").write_bytes(data)
    liar = dataclasses.replace(first, index_hash=hash_bytes(data))
    said = dataclasses.replace(manifest, clusters=(liar, *others)).to_json()
    if name is not None:
        said["clusters"] = [{**dataclasses.asdict(liar), "name": name}]
    (folder / "manifest.json").write_text(json.dumps(said))


def bomb():
    """A frame of 200 kB that is 3 GB of zeros."""
    packer = zstandard.ZstdCompressor(level=3).compressobj(size=3 << 30)
    block = bytes(1 << 24)
    return b"".join(packer.compress(block) for _ in range(192)) + packer.flush()


def header(count):
    """A shard whose header says that it holds so many documents."""
    return zstandard.compress(np.uint32(count).tobytes() + bytes(10_000))


def swelled(value, entry):
    """Let the index promise what the bomb holds."""
    entry["raw_data"]["bytes"] = 3 << 30


HOSTILE = {
    "a base name that leads out": {
        "index": lambda v, e: e["raw_data"].update(basename="../../../evil")
    },
    "an absolute base name": {"index": lambda v, e: e["raw_data"].update(basename="/tmp/evil")},
    "a packed name that leads out": {"index": lambda v, e: e["zip_data"].update(basename="../x")},
    "a cluster that leads out": {"name": "../../evil"},
    "an index of no shards": {"index": lambda v, e: v["shards"].clear()},
    "an index that counts too much": {"index": lambda v, e: e.update(samples=1 << 40)},
    "a bomb": {"shard": bomb},
    "a bomb that is announced": {"shard": bomb, "index": swelled},
    "a huge header": {"shard": lambda: header(0xFFFFFFFF)},
    "a header of nothing": {"shard": lambda: header(0)},
    "no frame": {"shard": lambda: b"../../../etc/passwd"},
}


@pytest.fixture
def hostile(client, directory, tmp_path):
    """Return a function that publishes a spoilt copy."""

    def publish(shard=None, **lies):
        copy = tmp_path / "hostile"
        shutil.copytree(directory, copy)
        resign(copy, shard=shard() if shard else None, **lies)
        client.upload(REPO, copy)
        shutil.rmtree(copy)
        return client

    return publish


def everything(folder):
    """Paths of all that lies in a folder."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


@pytest.mark.parametrize("lie", HOSTILE)
def test_a_hostile_data_set_ends_in_an_error_and_writes_nothing_outside(
    hostile, names, tmp_path, lie
):
    hostile(**HOSTILE[lie])
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(ClimbError) as error:
        digest(opened(URL, tmp_path / "a" / "b" / "cache", Mixture.of({names[0]: 1})))
    assert len(str(error.value)) < 1000
    assert all(p.startswith("b/cache") or p == "b" for p in everything(tmp_path / "a"))
    cached = [p for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in cached) < 1 << 20
    try:
        pull(REPO, tmp_path / "a" / "b" / "pulled")
    except ClimbError:
        assert not (tmp_path / "a" / "b" / "pulled" / "manifest.json").exists()
    else:  # a shard is not opened by a pull: who reads it is warned, as above
        assert "shard" in HOSTILE[lie]
    inside = ("b/cache", "b/pulled")
    assert all(p.startswith(inside) or p == "b" for p in everything(tmp_path / "a"))


def test_columns_that_list_other_shards_than_an_index_are_not_pulled(
    client, directory, names, tmp_path
):
    copy = shutil.copytree(directory, tmp_path / "changed")
    manifest = Manifest.load(copy)
    columns = parse_columns(memoryview((copy / COLUMNS).read_bytes()), COLUMNS)
    lie = [dataclasses.replace(entry, zip_hash="0" * 32) for entry in columns[names[0]]]
    save_columns(copy, {**columns, names[0]: ShardColumns.of(lie)})
    dataclasses.replace(manifest, files=manifest.files | hash_files(copy)).save(copy)
    assert f"{COLUMNS}: it lists other shards of cluster {names[0]}" in str(
        verify_directory(copy).faults
    )
    client.upload(REPO, copy)
    with pytest.raises(IntegrityError, match=rf"lists other shards of cluster {names[0]} than"):
        pull(REPO, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()
    pull(REPO, tmp_path / "others", Mixture.of({names[1]: 1}))


def test_another_shard_in_the_place_of_one_is_refused_and_what_was_right_stays(
    web, directory, names, tmp_path
):
    repo = web.repos[REPO]
    spoilt = f"clusters/{names[1]}/shard.00000.mds.zstd"
    size = repo.files()[spoilt].size
    repo.commit("main", {**repo.files(), spoilt: web.keep(b"x" * size)})
    with pytest.raises(IntegrityError, match=r"shard\.00000\.mds\.zstd: expected \w+ xxh3_128"):
        pull(REPO, tmp_path / "pulled")
    assert not (tmp_path / "pulled" / "manifest.json").exists()
    assert not (tmp_path / "pulled" / spoilt).exists()
    repo.commit("main", {**repo.files(), spoilt: web.keep((directory / spoilt).read_bytes())})
    pull(REPO, tmp_path / "pulled")
    assert files(tmp_path / "pulled").items() <= files(directory).items()


@pytest.mark.parametrize("path", ["index.json", "shard.00000.mds.zstd"])
def test_a_link_in_a_data_set_is_no_way_out(web, names, tmp_path, path):
    # Git keeps a symbolic link as a file that holds its target, and so the Hub sends it.
    repo = web.repos[REPO]
    link = f"clusters/{names[0]}/{path}"
    repo.commit("main", {**repo.files(), link: File(11, b"/etc/passwd")})
    with pytest.raises(IntegrityError, match="expected"):
        pull(REPO, tmp_path / "pulled")
    assert not (tmp_path / "pulled" / link).exists()
    assert not [p for p in (tmp_path / "pulled").rglob("*") if p.is_symlink()]


@pytest.mark.slow
@pytest.mark.parametrize("lie", ["a bomb", "a bomb that is announced", "a huge header"])
def test_memory_is_bounded_whatever_a_data_set_says(hub, hostile, environment, tmp_path, lie):
    hostile(**HOSTILE[lie])
    train = f"""
from pathlib import Path
from climbstream.loader import MixtureLoader
try:
    for _ in zip(range(99), MixtureLoader("{URL}", seq_len=32, batch_rows=8)): pass
except Exception as error:
    print(type(error).__name__)
# Not the peak of getrusage: that is at least what the process that began this one had.
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")))
"""
    done = subprocess.run(
        [sys.executable, "-c", train], env=environment, capture_output=True, text=True, check=True
    )
    said, megabytes = done.stdout.split()
    assert said in ("IntegrityError", "InvalidDataError")
    assert int(megabytes) < 600


def test_a_file_larger_than_its_index_says_is_not_read_to_the_end(web, directory, names, tmp_path):
    repo = web.repos[REPO]
    path = f"clusters/{names[0]}/shard.00000.mds.zstd"
    repo.commit("main", {**repo.files(), path: web.keep(bytes(50 << 20))})
    with pytest.raises(IntegrityError, match=r"has 52,428,800 bytes, .* at most"):
        pull(REPO, tmp_path / "pulled")
    deadline = time.monotonic() + 10
    while web.sent[path] and time.monotonic() < deadline:
        time.sleep(0.01)  # the server learns a moment later that nobody reads
    assert not web.sent[path]


# The real readers of others.

STREAM = """
import sys
from datasets import load_dataset
rows = load_dataset(sys.argv[1], *sys.argv[2:], split="train", streaming=True)
rows = list(rows)
print(len(rows), sum(row["token_count"] for row in rows), *{row["cluster_id"] for row in rows})
"""


@pytest.mark.slow
def test_load_dataset_streams_one_cluster_and_all_of_it(hub, run, environment, directory):
    done = run("publish", directory, REPO, "--what", "all")
    assert done.returncode == 0, done.stderr
    manifest = Manifest.load(directory)
    for name, some in ((manifest.names[1], manifest.clusters[1:2]), (None, manifest.clusters)):
        before = hub.sent.copy()
        said = subprocess.run(
            [sys.executable, "-c", STREAM, REPO, *([name] if name else [])],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.returncode == 0, said.stderr
        documents, tokens, *labels = map(int, said.stdout.split())
        assert documents == sum(cluster.documents for cluster in some)
        # Rows leave out the token that ends a document.
        assert tokens == sum(cluster.tokens - cluster.documents for cluster in some)
        assert len(labels) == len(some)
        sent = {p for p in hub.sent - before if p.endswith(".parquet")}
        where = "parquet/cluster_1/" if name else "shuffled/"
        assert sent
        assert all(path.startswith(where) for path in sent)


@pytest.mark.slow
def test_the_command_trains_on_the_hub(hub, run, directory, tmp_path):
    hub.upload(REPO, directory)
    Mixture.of({"c00": 1, "c01": 1}).save(tmp_path / "mixture.json")
    done = run("pull", REPO, tmp_path / "pulled", "--mixture", tmp_path / "mixture.json", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["clusters"] == ["c00", "c01"]
    verified = run("verify", tmp_path / "pulled")
    assert verified.returncode == 0, verified.stderr
    assert "climb pull --mixture did not fetch" in verified.stdout
    train = f"train hf://{REPO} --tokens 4096 --seq-len 32 --batch-rows 4 --json --out"
    trained = run(*train.split(), tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "run" / "model" / "tokenizer.json").exists()
    shown = run("inspect", f"hf://{REPO}", "--json")
    assert shown.returncode == 0, shown.stderr
    wrong = run("pull", "someone/none", tmp_path / "none")
    assert wrong.returncode != 0
    assert "Traceback" not in wrong.stderr
    assert "HF_TOKEN" in wrong.stderr


# Files beside the shards.

BESIDE = (
    "centroids.npy",
    "clusters.json",
    "documents/part-00000.parquet",
    "heldout.jsonl.zst",
    "model.npz",
    "report.html",
    "shards.columns",
    "tokenizer.json",
)


@pytest.mark.parametrize("name", BESIDE)
def test_a_file_beside_the_shards_with_other_bytes_is_refused(client, directory, tmp_path, name):
    copy = shutil.copytree(directory, tmp_path / "changed")
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    client.upload(REPO, copy)
    with pytest.raises(IntegrityError, match=rf"{name}: expected hash"):
        pull(REPO, tmp_path / "out")
    assert not (tmp_path / "out" / name).exists()
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_mixture_of_other_clusters_beside_the_shards_is_refused(client, directory, tmp_path):
    copy = shutil.copytree(directory, tmp_path / "changed")
    Mixture.of({"elsewhere": 1}).save(copy / "mixture.json")
    client.upload(REPO, copy)
    with pytest.raises(
        InvalidDataError, match=r"mixture\.json: the mixture gives weight to elsewhere"
    ):
        pull(REPO, tmp_path / "out")


def test_a_pull_says_that_the_mixture_it_fetched_is_not_the_one_it_was_given(
    client, directory, names, tmp_path, capsys
):
    copy = shutil.copytree(directory, tmp_path / "copy")
    some = Mixture.uniform(names[:2])
    some.save(copy / "mixture.json")
    client.upload(REPO, copy)
    said = "is the mixture that was published with the shards, and not the one that chose"
    pull(REPO, tmp_path / "out", some)
    assert said not in capsys.readouterr().err
    pull(REPO, tmp_path / "out", Mixture.uniform(names[1:3]))
    assert f"{tmp_path / 'out' / 'mixture.json'} {said}" in capsys.readouterr().err


def test_files_without_a_hash_are_brought_and_named(client, directory, tmp_path, capsys):
    copy = shutil.copytree(directory, tmp_path / "old")
    value = json.loads((copy / "manifest.json").read_text())
    del value["files"]
    (copy / "manifest.json").write_text(json.dumps(value))
    client.upload(REPO, copy)
    pull(REPO, tmp_path / "out")
    said = capsys.readouterr().err
    assert "not compared, as the manifest has no hash of it: shards.columns, clusters.json" in said
    assert "tokenizer.json" not in said  # the manifest has always had its hash


@pytest.mark.parametrize(
    "name", [*BESIDE, "manifest.json", "clusters/c01", "clusters/c01/index.json"]
)
def test_a_folder_is_pulled_without_what_links_lead_to(directory, tmp_path, name):
    copy = shutil.copytree(directory, tmp_path / "linked")
    (copy / name).rename(tmp_path / "elsewhere")
    (copy / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidDataError, match=rf"{name} is a link to"):
        pull(str(copy), tmp_path / "out")


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_link_or_pipe_where_a_pull_goes_on_is_refused_and_not_followed(directory, tmp_path, kind):
    out = tmp_path / "out"
    pull(str(directory), out)
    report = out / "report.html"
    report.unlink()
    if kind == "link":
        report.symlink_to(directory / "report.html")
    else:
        os.mkfifo(report)
    with pytest.raises(InvalidDataError, match=r"report\.html is (a link|not a regular file)"):
        pull(str(directory), out)


def test_a_tokenizer_with_other_bytes_is_not_exported(directory, tmp_path):
    copy = shutil.copytree(directory, tmp_path / "shards")
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"tokenizer\.json: expected hash"):
        export_shards(str(copy), tmp_path / "out", "jsonl")
