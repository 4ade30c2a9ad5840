"""Publications of many shards: divided among folders and data sets, and read as one directory."""

import json
import shutil
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hub_double import File, Repo
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder import append
from climbstream.builder.publisher import division, repo_files
from climbstream.builder.publisher.division import DATA_SET_FILES, FOLDER_FILES, assign_folders
from climbstream.builder.publisher.repo_files import check_limits, collect, plan_of
from climbstream.builder.publisher.upload import Publisher
from climbstream.loader import MixtureLoader
from climbstream.loader.cli.main import root
from climbstream.loader.core.errors import IntegrityError, InvalidDataError, UsageError
from climbstream.loader.core.files import hash_bytes, hash_file
from climbstream.loader.formats.manifest import (
    COLUMNS,
    ClusterEntry,
    Manifest,
    cluster_folder,
    part_name,
)
from climbstream.loader.formats.mds.compression import compress
from climbstream.loader.formats.mds.entry import ShardEntry, shard_name
from climbstream.loader.formats.mds.index import Index
from climbstream.loader.formats.mds.writer import describe_shard, encode_document, encode_shard
from climbstream.loader.formats.shard_columns import save_columns
from climbstream.loader.mosaic import stream_arguments
from climbstream.loader.storage import retry
from climbstream.loader.tools.pull import pull
from climbstream.loader.tools.verify import verify_directory

REPO = "someone/web"
DTYPE = "uint16"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(retry, "LONGEST_PAUSE", 0.01)


@pytest.fixture
def small_limits(monkeypatch):
    """Folders of 4 files, and data sets of 16."""
    monkeypatch.setattr(division, "FOLDER_FILES", 4)
    monkeypatch.setattr(division, "DATA_SET_FILES", 16)


def write_directory(out, counts, write_shard):
    """Write a shard directory whose clusters have so many shards; return its manifest."""
    entries, columns, number = [], {}, 0
    for name, count in counts.items():
        folder = cluster_folder(out, name)
        folder.mkdir(parents=True)
        shards = [write_shard(folder, i, number + i) for i in range(count)]
        number += count
        index = Index.of(DTYPE, shards)
        data = index.to_bytes()
        (folder / "index.json").write_bytes(data)
        columns[name] = index.parts[0]
        entries.append(
            ClusterEntry(
                name=name, tokens=index.tokens, documents=index.samples, index_hash=hash_bytes(data)
            )
        )
    save_columns(out, columns)
    manifest = Manifest(
        clusters=tuple(entries),
        dtype=DTYPE,
        vocab_size=50_000,
        eos_id=0,
        tokenizer_hash="",
        build="made up",
        license="MIT",
        files={COLUMNS: hash_file(out / COLUMNS)},
    )
    manifest.save(out)
    return manifest


def tiny_shard(folder, number, seed):
    """Write a shard of one document that no other shard has; return its entry."""
    tokens = np.random.default_rng(seed).integers(1, 50_000, 48).astype(np.uint16)
    raw = encode_shard([encode_document(tokens)], DTYPE)
    packed = compress(raw)
    entry = describe_shard(shard_name(number), [len(tokens)], raw, packed)
    (folder / entry.zip_basename).write_bytes(packed)
    return entry


def sparse_shard(folder, number, seed):
    """Write a file of 16 MB that takes no room on the disk; return its entry."""
    size = 16_000_000
    name = shard_name(number)
    with (folder / f"{name}.zstd").open("wb") as file:
        file.truncate(size)
    digest = f"{seed:032x}"
    return ShardEntry(name, 4_000, ((4_000, 8_000_000),), size, digest, size, digest)


def rows_of(place, cache, steps=4):
    """Return the first batches of a loader, as bytes."""
    loader = MixtureLoader(place, seq_len=16, batch_rows=8, seed=3, cache_dir=cache)
    return [next(loader)["input_ids"].numpy().tobytes() for _ in range(steps)]


COUNTS = {"a": 2, "b": 9, "c": 0, "d": 3, "e": 7, "f": 12}
"""Shards of each cluster; with `small_limits`, some clusters are divided and some are not."""


@pytest.fixture
def many(tmp_path):
    """A directory of small shards."""
    write_directory(tmp_path / "many", COUNTS, tiny_shard)
    return tmp_path / "many"


# The division.


@given(st.lists(st.integers(0, 60_000), min_size=1, max_size=40), st.integers(0, 60_000))
def test_no_folder_and_no_data_set_has_more_files_than_it_takes(counts, others):
    clusters = {f"c{k}": count for k, count in enumerate(counts)}
    assigned = assign_folders(clusters, others)
    files = Counter({0: others + len(counts)})
    for name, count in clusters.items():
        folders = assigned.get(name)
        if folders is None:
            assert count < FOLDER_FILES
            files[0] += count
            continue
        assert sum(folder.shards for folder in folders) == count
        for folder in folders:
            assert 0 < folder.shards < FOLDER_FILES
            files[folder.data_set] += folder.shards + 1
    assert max(files.values()) <= DATA_SET_FILES
    assert sorted(files) == [*range(len(files))]


def test_a_directory_with_few_shards_is_published_as_it_is(many, tmp_path):
    publication = collect(many, REPO, tmp_path / "work")
    assert publication.further == ()
    assert publication.files["manifest.json"] == many / "manifest.json"
    assert {f"clusters/b/{shard_name(i)}.zstd" for i in range(9)} <= publication.files.keys()


def test_each_folder_of_a_division_is_a_stream_of_its_own(many, tmp_path, small_limits):
    publication = collect(many, REPO, tmp_path / "work")
    assert len(publication.further) > 1
    folders = 0
    for files in publication.each:
        shards = {path for path in files if path.endswith(".zstd")}
        for folder in {path.rpartition("/")[0] for path in shards}:
            data = files[f"{folder}/index.json"]
            index = json.loads(data if isinstance(data, bytes) else data.read_bytes())
            listed = {f"{folder}/{shard['zip_data']['basename']}" for shard in index["shards"]}
            assert listed == {path for path in shards if path.rpartition("/")[0] == folder}
            folders += 1
    assert folders > 10


# Published and read again.


def test_a_divided_publication_is_read_pulled_and_verified_as_one_directory(
    client, many, tmp_path, small_limits
):
    published = Publisher(REPO).publish(collect(many, REPO, tmp_path / "work"))
    assert published.data_sets[:2] == (REPO, f"{REPO}-2")
    assert len(published.data_sets) > 2
    for name in published.data_sets:
        paths = client.repos[name].files().keys()
        assert len(paths) <= 16
        assert max(Counter(path.rpartition("/")[0] for path in paths).values()) <= 8
    expected = rows_of(many, tmp_path / "a")
    assert rows_of(f"hf://datasets/{REPO}", tmp_path / "b") == expected
    assert verify_directory(f"hf://datasets/{REPO}").faults == []
    pull(REPO, tmp_path / "pulled")
    assert verify_directory(tmp_path / "pulled").faults == []
    assert rows_of(tmp_path / "pulled", tmp_path / "c") == expected
    pulled, here = Manifest.load(tmp_path / "pulled"), Manifest.load(many)
    assert (pulled.shard_folders, pulled.data_sets) == ({}, ())
    assert pulled.fingerprint == here.fingerprint
    again = collect(tmp_path / "pulled", REPO, tmp_path / "work").files.keys()
    assert again == collect(many, REPO, tmp_path / "work").files.keys()


def test_a_commit_of_the_first_data_set_keeps_the_shards_that_its_manifest_names(
    client, many, tmp_path, small_limits
):
    first = Publisher(REPO).publish(collect(many, REPO, tmp_path / "work"), tag="v1")
    expected = rows_of(many, tmp_path / "a")
    write_directory(tmp_path / "other", {**COUNTS, "f": 11}, tiny_shard)
    Publisher(REPO).publish(collect(tmp_path / "other", REPO, tmp_path / "work"))
    assert rows_of(f"hf://datasets/{REPO}@v1", tmp_path / "b") == expected
    assert rows_of(f"hf://datasets/{REPO}@{first.commit}", tmp_path / "b") == expected


def test_the_data_set_with_the_manifest_changes_last(client, many, tmp_path, small_limits):
    publication = collect(many, REPO, tmp_path / "work")
    client.fail(1, 403, "POST", f"{REPO}-3/commit/main")
    with pytest.raises(Exception, match="refused to make the commit of someone/web-3"):
        Publisher(REPO).publish(publication)
    assert "manifest.json" not in client.repos[REPO].files()
    assert "part_of.json" in client.repos[f"{REPO}-2"].files()
    put = client.put.copy()
    Publisher(REPO).publish(publication)
    assert {*client.put.values()} == {1}
    assert client.put.keys() > put.keys()
    assert rows_of(f"hf://datasets/{REPO}", tmp_path / "b") == rows_of(many, tmp_path / "a")
    asked = client.put.total()
    assert Publisher(REPO).publish(publication).sent == 0
    assert client.put.total() == asked


def test_further_data_sets_of_a_private_data_set_are_private(client, many, tmp_path, small_limits):
    repo = client.repos[REPO] = Repo(private=True)
    repo.commit("main", {".gitattributes": File(3, b"*\n\n")})
    published = Publisher(REPO).publish(collect(many, REPO, tmp_path / "work"))
    assert all(client.repos[name].private for name in published.data_sets)


def test_a_data_set_of_that_name_with_other_files_is_not_touched(
    client, many, tmp_path, small_limits
):
    theirs = client.repos[f"{REPO}-2"] = Repo()
    theirs.commit("main", {"clusters/x": File(3, b"old"), ".gitattributes": File(3, b"*\n\n")})
    with pytest.raises(UsageError, match=r"a further data set someone/web-2, .* other files"):
        Publisher(REPO).publish(collect(many, REPO, tmp_path / "work"))
    assert theirs.files().keys() == {"clusters/x", ".gitattributes"}
    assert client.repos[REPO].files().keys() == {".gitattributes"}


def test_streams_of_mosaicml_are_the_folders_and_have_the_weight_of_the_cluster(
    client, many, tmp_path, small_limits
):
    Publisher(REPO).publish(collect(many, REPO, tmp_path / "work"))
    shares = Manifest.load(many).token_shares
    place = f"hf://datasets/{REPO}"
    streams = stream_arguments(place, shares, tmp_path / "local")
    whole = stream_arguments(many, shares, tmp_path / "local")
    assert len(whole) < len(streams)
    assert sum(s["proportion"] for s in streams) == pytest.approx(
        sum(s["proportion"] for s in whole)
    )
    assert len({stream["local"] for stream in streams}) == len(streams)
    for stream in streams:
        repo, _, folder = stream["remote"].removeprefix("hf://datasets/").partition("/clusters/")
        assert f"clusters/{folder}/index.json" in client.repos[repo].files()


# Manifests that are wrong.


def divided(many, tmp_path):
    """Return the manifest of a divided publication, as JSON values."""
    return json.loads(collect(many, REPO, tmp_path / "work").files["manifest.json"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data_sets": ["s3://bucket/web"]}, r"'s3://bucket/web' is not the URL of a data set"),
        ({"data_sets": ["hf://datasets/someone/web-2@main"]}, "is not the URL of a data set"),
        ({"data_sets": []}, r"are said to be in data set \d of 0"),
        ({"shard_folders": {"z": [{"shards": 1, "data_set": 0}]}}, "folders of a cluster 'z'"),
        ({"shard_folders": {"b": []}}, "0 folders of a cluster 'b'"),
        ({"shard_folders": {"b": [{"shards": -1, "data_set": 0}]}}, "shards"),
    ],
)
def test_a_wrong_division_is_refused(many, tmp_path, small_limits, change, said):
    with pytest.raises(InvalidDataError, match=said):
        Manifest.from_json({**divided(many, tmp_path), **change})


def test_a_division_with_too_few_shards_is_named(many, tmp_path, small_limits):
    folders = {"shard_folders": {"b": [{"shards": 4, "data_set": 0}]}}
    manifest = Manifest.from_json({**divided(many, tmp_path), **folders})
    with pytest.raises(IntegrityError, match="cluster b with 4 shards, and shard 6 is asked for"):
        manifest.place_of("b", 6)


def test_a_copy_of_a_divided_data_set_is_read_and_neither_grown_nor_published(
    client, many, tmp_path, small_limits
):
    Publisher(REPO).publish(collect(many, REPO, tmp_path / "work"))
    copy = tmp_path / "copy"
    for path, file in client.repos[REPO].files().items():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes(client.content(file))
    assert rows_of(copy, tmp_path / "a") == rows_of(many, tmp_path / "b")
    assert verify_directory(copy).faults == []
    with pytest.raises(UsageError, match="climb pull OWNER/NAME DIR, and publish DIR"):
        collect(copy, REPO, tmp_path / "work")
    (tmp_path / "more.jsonl").write_text('{"text": "more"}\n')
    with pytest.raises(UsageError, match="climb pull OWNER/NAME DIR, and append to DIR"):
        append([str(tmp_path / "more.jsonl")], copy, workers=1)


# Many files.


def test_a_catalogue_of_many_parts_is_joined_when_it_is_published(
    directory, tmp_path, monkeypatch, client
):
    """Earlier versions wrote a part per source file."""
    manifest = Manifest.load(directory)
    table = pq.read_table(directory / part_name(0))
    old = shutil.copytree(directory, tmp_path / "old")
    for number in range(7):
        rows = table.slice(number * 50, 50 if number < 6 else None)
        pq.write_table(rows, old / part_name(number))
    parts = {part_name(i): hash_file(old / part_name(i)) for i in range(7)}
    Manifest.from_json(
        {**manifest.to_json(), "files": {**manifest.files, **parts}, "parts": 7}
    ).save(old)
    assert verify_directory(old).faults == []
    monkeypatch.setattr(repo_files, "FOLDER_FILES", 5)
    publication = collect(old, REPO, tmp_path / "work")
    assert [p for p in publication.files if p.startswith("documents/")] == [part_name(0)]
    Publisher(REPO).publish(publication)
    pull(REPO, tmp_path / "pulled")
    assert verify_directory(tmp_path / "pulled").faults == []
    assert pq.read_table(tmp_path / "pulled" / part_name(0)).equals(table)


def test_a_dry_run_shows_what_each_data_set_gets(many, small_limits):
    shown = CliRunner().invoke(root, ["publish", str(many), REPO, "--dry-run", "--json"])
    assert shown.exit_code == 0, shown.output
    value = json.loads(shown.stdout)
    assert [one["repo"] for one in value["data_sets"]][:2] == [REPO, f"{REPO}-2"]
    assert all(len(one["files"]) <= 16 for one in value["data_sets"])
    assert value["limits"].keys() == {"files", "files_in_folder"}
    shown = CliRunner().invoke(root, ["publish", str(many), REPO, "--dry-run"])
    assert "files in the largest folder (limit " in shown.stdout
    assert "nothing was sent" in shown.stdout


def test_a_dry_run_finds_a_shard_that_is_cut_short(many):
    path = many / "clusters" / "a" / f"{shard_name(1)}.zstd"
    path.write_bytes(path.read_bytes()[:-1])
    shown = CliRunner().invoke(root, ["publish", str(many), REPO, "--dry-run"])
    assert isinstance(shown.exception, IntegrityError)
    assert "shard.00001.mds.zstd: expected 284 bytes, got 283" in str(shown.exception)


def test_a_dry_run_names_a_shard_that_is_missing(many):
    (many / "clusters" / "a" / f"{shard_name(1)}.zstd").unlink()
    shown = CliRunner().invoke(root, ["publish", str(many), REPO, "--dry-run"])
    assert shown.exit_code != 0
    assert "shard.00001.mds.zstd" in str(shown.exception)


@pytest.mark.slow
def test_a_dry_run_of_1_6_tb_keeps_the_limits(tmp_path):
    counts = {f"c{k:02d}": 300 for k in range(19)} | {"c19": 50_000, "c20": 45_300}
    write_directory(tmp_path / "web", counts, sparse_shard)
    shown = CliRunner().invoke(root, ["publish", str(tmp_path / "web"), REPO, "--dry-run"])
    assert shown.exit_code == 0, shown.output
    publication = collect(tmp_path / "web", REPO, tmp_path / "work")
    assert publication.bytes > 1_600_000_000_000
    plans = plan_of(REPO, publication)
    assert [plan.repo for plan in plans] == [REPO, f"{REPO}-2"]
    for plan, files in zip(plans, publication.each, strict=True):
        check_limits(files)
        assert plan.repo in shown.stdout
        assert f"{plan.files:,}" in shown.stdout


@pytest.mark.slow
def test_more_shards_of_a_cluster_than_a_folder_may_have_are_published_pulled_and_read(
    client, tmp_path, monkeypatch
):
    """There are also more of them than a page of the Hub's listings has."""
    monkeypatch.setattr(division, "FOLDER_FILES", 1_100)
    write_directory(tmp_path / "web", {"a": 1_300, "b": 100}, tiny_shard)
    published = Publisher(REPO).publish(collect(tmp_path / "web", REPO, tmp_path / "work"))
    assert published.data_sets == (REPO,)
    files = client.repos[REPO].files()
    folders = Counter(path.rpartition("/")[0] for path in files)
    assert (max(folders.values()), folders["clusters/b"]) == (1_100, 101)
    pull(REPO, tmp_path / "pulled")
    verdict = verify_directory(tmp_path / "pulled")
    assert (verdict.faults, verdict.shards) == ([], 1_400)
    expected = rows_of(tmp_path / "web", tmp_path / "a")
    assert rows_of(f"hf://datasets/{REPO}", tmp_path / "b") == expected
