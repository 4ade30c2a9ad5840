"""The whole loader on stores: the same batches from everywhere, each byte fetched once a node."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections import Counter, deque
from itertools import islice

import boto3
import fsspec
import numpy as np
import pytest

from climbstream.loader import MixtureLoader
from climbstream.loader.core.errors import IntegrityError, InvalidDataError, RemoteError
from climbstream.loader.core.files import hash_bytes
from climbstream.loader.formats.manifest import MANIFEST, Manifest, load_index
from climbstream.loader.storage.store import Store
from climbstream.loader.tools.verify import verify_directory

TRAIN = """
import sys
from climbstream.loader import MixtureLoader
url, cache, rank, world_size = sys.argv[1:]
loader = MixtureLoader(
    url, seq_len=16, batch_rows=8, seed=5, cache_dir=cache, rank=int(rank),
    world_size=int(world_size)
)
print("ready", flush=True)
sys.stdin.readline()
print(sum(int(next(loader)["input_ids"].sum()) for _ in range(40)), flush=True)
sys.stdin.readline()  # a rank that ends drops what it is fetching ahead, and the other begins anew
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory, make_shards, counted_documents):
    lengths = {"c00": [50, 70, 90] * 20, "my c1": [200] * 30, "c02": [30] * 90}
    return make_shards(tmp_path_factory.mktemp("shards"), counted_documents(lengths))


def files(shards):
    """Files of a shard directory by their names in it."""
    paths = [path for path in shards.directory.rglob("*") if path.is_file()]
    return {path.relative_to(shards.directory).as_posix(): path for path in paths}


@pytest.fixture
def upload(s3_server, request):
    """Return a function that puts a shard directory into a bucket, and gives its URL."""

    def put(shards, acl="private"):
        folder = f"s3://bucket/{request.node.name.replace('[', '/').rstrip(']')}"
        for name, path in files(shards).items():
            key = f"{folder.removeprefix('s3://bucket/')}/{name}"
            boto3.client("s3").put_object(Bucket="bucket", Key=key, Body=path.read_bytes(), ACL=acl)
        return folder

    return put


@pytest.fixture(params=["s3", "http", "memory", "file"])
def url(request, shards, serve):
    """The shards of `shards` behind a URL of each kind."""
    if request.param == "s3":
        return request.getfixturevalue("upload")(shards)
    if request.param == "http":
        return serve(shards.directory).url
    if request.param == "file":
        return f"file://{shards.directory}"
    for name, path in files(shards).items():
        fsspec.filesystem("memory").pipe(f"/remote/{name}", path.read_bytes())
    return "memory://remote"


def open_loader(directory, cache, **more):
    return MixtureLoader(directory, seq_len=16, batch_rows=8, seed=5, cache_dir=cache, **more)


# The same from everywhere.


def test_a_loader_serves_the_same_batches_from_a_url(tmp_path, shards, url, batch_digest):
    local = open_loader(shards.directory, tmp_path / "local")
    remote = open_loader(url, tmp_path / "remote")
    assert remote.manifest == shards.manifest
    for _ in range(60):
        assert batch_digest(next(remote)) == batch_digest(next(local))
    assert remote.state_dict() == local.state_dict()


def test_a_state_goes_on_at_another_place(tmp_path, shards, url, batch_digest):
    local = open_loader(shards.directory, tmp_path / "local")
    for _ in range(7):
        next(local)
    remote = open_loader(url, tmp_path / "remote").load_state_dict(local.state_dict())
    assert batch_digest(next(remote)) == batch_digest(next(local))


def test_manifest_and_indexes_are_read_from_a_url(shards, url):
    manifest = Manifest.load(url)
    for cluster in manifest.clusters:
        assert load_index(Store.of(url), manifest, cluster) == shards.indexes[cluster.name]


def test_a_url_without_a_manifest_is_no_shard_directory(url):
    with pytest.raises(InvalidDataError, match=rf"{url}/none is not a shard directory: "):
        Manifest.load(f"{url}/none")


# A shared node.


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["s3", "http"])
def test_two_ranks_fetch_each_byte_about_once(tmp_path, shards, serve, request, kind):
    if kind == "s3":
        sent = request.getfixturevalue("s3_server").sent
        url = request.getfixturevalue("upload")(shards)
        before = sent.copy()
    else:
        site = serve(shards.directory)
        url, sent, before = site.url, site.sent, Counter()
    both = []
    for rank in range(2):
        command = [sys.executable, "-c", TRAIN, url, str(tmp_path / "cache"), str(rank), "2"]
        both.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    total = sum(int(process.stdout.readline()) for process in both)
    for process in both:
        process.communicate(timeout=60)
    local = open_loader(shards.directory, tmp_path / "local")
    assert total == sum(int(next(local)["input_ids"].sum()) for _ in range(40))
    fetched = sum(size for path, size in (sent - before).items() if path.endswith(".zstd"))
    packed = sum(entry.zip_bytes for index in shards.indexes.values() for entry in index.shards)
    assert 0.5 * packed < fetched <= packed


# What a store may do wrong.


def test_an_object_of_s3_that_is_missing_is_named(tmp_path, shards, upload):
    url = upload(shards)
    entry = shards.indexes["c00"].shards[0]
    key = f"{url.removeprefix('s3://bucket/')}/clusters/c00/{entry.zip_basename}"
    boto3.client("s3").delete_object(Bucket="bucket", Key=key)
    loader = open_loader(url, tmp_path / "cache")
    with pytest.raises(IntegrityError, match=rf"s3://bucket/{key} is missing; build, pull or copy"):
        deque(islice(loader, 60), maxlen=0)


def test_a_bucket_that_is_missing_holds_no_shards(s3_server):
    with pytest.raises(InvalidDataError, match="s3://nowhere/web is not a shard directory"):
        Manifest.load("s3://nowhere/web")


@pytest.mark.parametrize("acl", ["public-read", "private"])
def test_without_credentials_only_what_is_public_is_read(shards, upload, monkeypatch, acl):
    url = upload(shards, acl)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    if acl == "private":
        with pytest.raises(RemoteError, match=rf"{url}/{MANIFEST} was refused at try 1, .*403"):
            Manifest.load(url)
    else:
        assert Manifest.load(url) == shards.manifest


def test_s3_that_nobody_runs_is_named_without_the_keys(monkeypatch, s3_server):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    store = Store.of("s3://bucket/web", all_seconds=1)
    with pytest.raises(
        RemoteError, match=r"s3://bucket/web/x could not be read in .*: try \d"
    ) as error:
        store.read("x")
    assert "secret" not in str(error.value)


def test_an_index_that_is_not_the_manifests_is_refused(tmp_path, shards, serve):
    site, path = serve(shards.directory), "clusters/c00/index.json"
    value = json.loads((shards.directory / path).read_bytes())
    value["shards"].pop()
    site.misbehave = lambda asked, times: json.dumps(value).encode() if asked == path else None
    with pytest.raises(IntegrityError, match=r"clusters/c00/index\.json: expected hash .*, got "):
        open_loader(site.url, tmp_path / "cache")


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        pytest.param(
            lambda shard: shard["raw_data"].update(basename="../../x"), "plain file name", id="name"
        ),
        pytest.param(
            lambda shard: shard["raw_data"]["hashes"].update(xxh3_128="../../../x"),
            "each must be 32 hex digits",
            id="hash",
        ),
        pytest.param(
            lambda shard: shard.update(samples=10**6), "but lists the lengths of", id="documents"
        ),
        pytest.param(
            lambda shard: shard["raw_data"].update(bytes=-1), "bytes: expected int >= 0", id="bytes"
        ),
        pytest.param(lambda shard: shard["raw_data"].update(bytes=1 << 40), "at most", id="bomb"),
    ],
)
def test_a_store_whose_index_lies_with_the_manifest_is_refused(tmp_path, shards, lie, message):
    copy = tmp_path / "copy"
    shutil.copytree(shards.directory, copy)
    path = copy / "clusters/c00/index.json"
    index = json.loads(path.read_bytes())
    lie(index["shards"][0])
    path.write_text(json.dumps(index))
    first, *others = shards.manifest.clusters
    liar = dataclasses.replace(first, index_hash=hash_bytes(path.read_bytes()))
    dataclasses.replace(shards.manifest, clusters=(liar, *others)).save(copy)
    with pytest.raises((InvalidDataError, IntegrityError), match=message):
        open_loader(f"file://{copy}", tmp_path / "cache")


def test_a_manifest_cut_anywhere_is_refused(shards):
    memory = fsspec.filesystem("memory")
    content = (shards.directory / MANIFEST).read_bytes()
    for at in range(0, len(content) - 2, 7):
        memory.pipe(f"/cut/{MANIFEST}", content[:at])
        with pytest.raises(InvalidDataError, match=r"memory://cut/manifest\.json is not JSON"):
            Manifest.load("memory://cut")


def test_rows_are_those_of_the_documents(tmp_path, shards, url):
    tokens = {name: np.concatenate(shards.documents[name]) for name in shards.manifest.names}
    batch = next(open_loader(url, tmp_path / "cache"))
    for cluster, row in zip(batch["cluster_ids"].tolist(), batch["input_ids"].numpy(), strict=True):
        assert np.isin(row, tokens[shards.manifest.names[cluster]]).all()


def test_the_command_says_what_a_url_holds(built, serve, climb):
    there = climb("inspect", serve(built.directory).url, "--json")
    here = climb("inspect", built.directory, "--json")
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout) == json.loads(here.stdout)
    assert json.loads(here.stdout)["about"]


# Verified from afar.


@pytest.mark.parametrize("kind", ["s3", "http"])
def test_what_lies_behind_a_url_is_verified_as_if_it_were_here(built, serve, climb, request, kind):
    put = request.getfixturevalue("upload") if kind == "s3" else None
    there = climb("verify", put(built) if put else serve(built.directory).url, "--json")
    here = climb("verify", built.directory, "--json")
    assert there.returncode == here.returncode == 0, there.stderr
    assert json.loads(there.stdout) == json.loads(here.stdout)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], r"expected (\d+) bytes, got (\d+)"),
        (lambda data: data[:-1] + b"?", r"expected \w{32} xxh3_128, got \w{32}"),
    ],
)
def test_a_shard_that_a_store_has_damaged_is_named(built, serve, damage, message):
    path = "clusters/c01/shard.00000.mds.zstd"
    data = damage((built.directory / path).read_bytes())
    site = serve(built.directory)
    site.misbehave = lambda asked, times: data if asked == path else None
    verdict = verify_directory(site.url)
    # Its documents stand in the catalogue, but are not looked for in a shard that is broken.
    (fault,) = verdict.faults
    assert re.fullmatch(rf"cluster c01: shard\.00000\.mds\.zstd: {message}", fault)
    assert verdict.shards == verify_directory(built.directory).shards - 1


def test_verifying_reads_each_file_once_and_keeps_none(built, serve, monkeypatch, tmp_path):
    monkeypatch.setenv("CLIMBSTREAM_CACHE", str(tmp_path / "cache"))
    site = serve(built.directory)
    assert verify_directory(site.url).faults == []
    assert {path for path in site.sent if path.endswith(".zstd")}
    assert all(
        size == (built.directory / path).stat().st_size for path, size in dict(site.sent).items()
    )
    assert not (tmp_path / "cache").exists()


def test_a_store_that_refuses_a_shard_is_no_verdict_on_its_bytes(built, serve, climb):
    site = serve(built.directory)
    site.misbehave = lambda asked, times: 403 if asked.endswith(".zstd") else None
    done = climb("verify", site.url)
    assert done.returncode == RemoteError.exit_code
    assert re.search(r"error: \S+shard\.00000\.mds\.zstd was refused at try 1", done.stderr)
    assert done.stdout == ""
