"""Verifying a shard directory: whatever was changed is found and named, and nothing else breaks."""

import json
import os
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from climbstream.loader.core.errors import ClimbError, InvalidDataError
from climbstream.loader.core.files import hash_file, read_json, write_json
from climbstream.loader.formats.manifest import INDEX, MANIFEST, Manifest
from climbstream.loader.tools.verify import verify_directory


@pytest.fixture
def directory(built, tmp_path):
    """A copy of a finished build, to be damaged."""
    return shutil.copytree(built.directory, tmp_path / "shards")


@pytest.fixture(scope="module")
def victim(built, tmp_path_factory):
    """Another copy, where each damage is mended before the next."""
    return shutil.copytree(built.directory, tmp_path_factory.mktemp("victim") / "shards")


def shard(directory, name="c01"):
    return directory / "clusters" / name / "shard.00000.mds.zstd"


def flip(path, place=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 1
    path.write_bytes(bytes(data))


def faults(directory):
    return "\n".join(verify_directory(directory).faults)


def edit_rows(directory, change):
    """Let ``change`` alter the first row of the catalogue that is in a cluster."""
    path = directory / "documents" / "part-00000.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(next(row for row in rows if row["cluster"] is not None))
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)


def rehash(directory):
    """Note the hashes of the files as they are, so that only what they say can be wrong."""
    value = read_json(directory / MANIFEST)
    parts = sorted((directory / "documents").glob("part-*.parquet"))
    value["files"] |= {f"documents/{part.name}": hash_file(part) for part in parts}
    write_json(directory / MANIFEST, value)


def test_what_was_not_changed_has_no_faults(directory, built):
    verdict = verify_directory(directory)
    assert verdict.faults == []
    assert verdict.shards == 6


# Shards.


def test_a_changed_byte_in_a_shard_is_found(directory):
    flip(shard(directory))
    assert "cluster c01: shard.00000.mds.zstd: expected" in faults(directory)
    assert "xxh3_128, got" in faults(directory)


def test_a_shard_that_was_cut_is_found(directory):
    path = shard(directory)
    path.write_bytes(path.read_bytes()[:-1])
    assert "cluster c01: shard.00000.mds.zstd: expected" in faults(directory)


def test_a_missing_shard_is_found(directory):
    shard(directory).unlink()
    assert "cluster c01" in faults(directory)
    assert "shard.00000.mds.zstd is missing" in faults(directory)


def test_shards_that_changed_places_are_found(directory):
    one, other = shard(directory, "c00"), shard(directory, "c01")
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    assert {"cluster c00", "cluster c01"} <= {line[:11] for line in faults(directory).split("\n")}


def test_a_fault_does_not_hide_the_next(directory):
    flip(shard(directory, "c00"))
    shard(directory, "c02").unlink()
    (directory / "tokenizer.json").unlink()
    found = faults(directory)
    assert "cluster c00" in found
    assert "cluster c02" in found
    assert "tokenizer.json" in found
    assert "cluster c01" not in found


# Indexes.


def test_a_changed_index_is_found(directory):
    path = directory / "clusters" / "c01" / "index.json"
    path.write_bytes(path.read_bytes().replace(b'"samples": ', b'"samples":  '))
    assert "c01/index.json: expected hash" in faults(directory)


def test_a_missing_index_is_found(directory):
    (directory / "clusters" / "c01" / "index.json").unlink()
    assert "c01/index.json is missing" in faults(directory)


def test_a_missing_cluster_is_found(directory):
    shutil.rmtree(directory / "clusters" / "c01")
    assert "c01/index.json is missing" in faults(directory)


# What stands beside the shards.


def test_another_tokenizer_is_found(directory):
    flip(directory / "tokenizer.json")
    assert "tokenizer.json: expected hash" in faults(directory)


def test_a_missing_tokenizer_is_found(directory):
    (directory / "tokenizer.json").unlink()
    assert "tokenizer.json is missing" in faults(directory)


def test_a_missing_part_of_the_catalogue_is_found(directory):
    (directory / "documents" / "part-00000.parquet").unlink()
    assert "documents" in faults(directory)


def test_a_missing_catalogue_is_found(directory):
    shutil.rmtree(directory / "documents")
    assert "documents" in faults(directory)


@pytest.mark.parametrize("gone", [0, 1])
def test_one_of_several_missing_parts_is_found(directory, gone):
    part = directory / "documents" / "part-00000.parquet"
    table = pq.read_table(part)
    pq.write_table(table.slice(0, 200), part)
    pq.write_table(table.slice(200), part.with_name("part-00001.parquet"))
    # A part that the manifest does not count is of an append that has not ended.
    assert "the catalogue lists" in faults(directory)
    write_json(directory / MANIFEST, {**read_json(directory / MANIFEST), "parts": 2})
    rehash(directory)
    assert faults(directory) == ""
    part.with_name(f"part-0000{gone}.parquet").unlink()
    said = faults(directory)
    assert "1 of 2 parts are in" in said
    assert "the catalogue lists" in said
    assert "dropped documents: the manifest counts" in said


def test_a_part_that_is_no_table_is_found(directory):
    (directory / "documents" / "part-00000.parquet").write_bytes(b"PAR1 and no more")
    assert "part-00000.parquet cannot be read" in faults(directory)


def test_a_part_without_a_column_is_found(directory):
    path = directory / "documents" / "part-00000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["why"]), path)
    assert "part-00000.parquet cannot be read" in faults(directory)


@pytest.mark.parametrize(("column", "to"), [("tokens", 7), ("row", 10**6), ("row", -1)])
def test_a_document_that_is_not_where_the_catalogue_says_is_found(directory, column, to):
    edit_rows(directory, lambda row: row.update({column: to}))
    assert "is not row" in faults(directory)


def test_a_row_that_is_counted_from_the_end_is_found(directory):
    manifest = read_json(directory / MANIFEST)
    held = {cluster["name"]: cluster["documents"] for cluster in manifest["clusters"]}
    edit_rows(directory, lambda row: row.update(row=row["row"] - held[row["cluster"]]))
    assert "is not row -" in faults(directory)


def test_a_document_of_another_cluster_than_the_catalogue_says_is_found(directory):
    edit_rows(directory, lambda row: row.update(cluster="c09"))
    assert "documents, the catalogue lists" in faults(directory)


def test_every_faulty_shard_of_a_cluster_is_named(cut_finely, tmp_path):
    directory = shutil.copytree(cut_finely, tmp_path / "shards")
    shard(directory, "c00").unlink()
    flip(directory / "clusters" / "c00" / "shard.00002.mds.zstd")
    found = faults(directory)
    assert "shard.00000.mds.zstd is missing" in found
    assert "shard.00002.mds.zstd: expected" in found
    assert "shard.00001" not in found


def test_two_documents_in_one_place_are_found(directory):
    path = directory / "documents" / "part-00000.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    first, second = [row for row in rows if row["cluster"] == "c00"][:2]
    second.update(row=first["row"], tokens=first["tokens"])
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)
    rehash(directory)
    held = sum(row["cluster"] == "c00" for row in rows)
    assert faults(directory) == (
        f"shard 0 of cluster c00 holds {held} documents, the catalogue lists {held - 1}"
    )


def test_a_dropped_document_of_another_reason_is_found(directory):
    manifest = read_json(directory / MANIFEST)
    stage = next(s for s in manifest["conservation"] if s["stage"] == "deduplicate")
    stage["dropped"] = {"lost": stage["dropped"]["text seen before"]}
    write_json(directory / MANIFEST, manifest)
    assert "dropped documents: the manifest counts" in faults(directory)


# The manifest.


def test_a_manifest_that_counts_otherwise_is_found(directory):
    manifest = read_json(directory / MANIFEST)
    manifest["clusters"][1]["tokens"] += 1
    write_json(directory / MANIFEST, manifest)
    assert "tokens in" in faults(directory)


def test_documents_that_were_lost_between_stages_are_found(directory):
    manifest = read_json(directory / MANIFEST)
    manifest["conservation"][1]["out"]["documents"] -= 1
    write_json(directory / MANIFEST, manifest)
    found = faults(directory)
    assert "stage identify: 372 documents in, 371 accounted for" in found
    assert "stage deduplicate begins with other documents than the one before ended" in found


def test_stages_that_cannot_be_read_are_found(directory):
    manifest = read_json(directory / MANIFEST)
    manifest["conservation"][1] = {"stage": "identify", "in": 5}
    write_json(directory / MANIFEST, manifest)
    assert "stages of the manifest" in faults(directory)


def test_a_directory_without_manifest_is_no_shard_directory(directory):
    (directory / MANIFEST).unlink()
    with pytest.raises(InvalidDataError, match=r"it has no manifest\.json"):
        verify_directory(directory)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.data())
def test_a_changed_byte_anywhere_raises_nothing_that_is_not_ours(victim, data):
    names = sorted(str(path.relative_to(victim)) for path in victim.rglob("*") if path.is_file())
    path = victim / data.draw(st.sampled_from(names))
    before = path.read_bytes()
    place = data.draw(st.integers(0, len(before) - 1))
    bits = data.draw(st.integers(1, 255))
    try:
        path.write_bytes(before[:place] + bytes([before[place] ^ bits]) + before[place + 1 :])
        try:
            found = verify_directory(victim).faults
        except ClimbError:
            found = ["refused"]
        if path.suffix == ".zstd" or path.name in ("index.json", "tokenizer.json"):
            assert found
    finally:
        path.write_bytes(before)


# The command.


def test_the_command_names_faults_and_ends_with_4(directory, climb):
    flip(shard(directory))
    done = climb("verify", directory, "--json")
    assert done.returncode == 4
    found = json.loads(done.stdout)["faults"]
    assert [fault for fault in found if "cluster c01: shard.00000.mds.zstd" in fault]
    assert done.stderr.splitlines()[-1] == f"error: 1 fault in {directory}"
    assert "Traceback" not in done.stderr


def test_the_command_says_that_all_is_well(built, climb):
    done = climb("verify", built.directory)
    assert done.returncode == 0
    assert "6 shards" in done.stdout
    assert "everything is as it was written" in done.stdout


def test_verifying_changes_nothing(built, all_bytes):
    before = all_bytes(built.directory)
    verify_directory(built.directory)
    assert all_bytes(built.directory) == before


def test_tokens_are_counted_as_they_are_served(built, read_documents):
    tokens = sum(map(len, read_documents(built.directory).values()))
    assert verify_directory(built.directory).tokens == tokens == np.int64(tokens)


def test_a_document_of_other_bytes_is_found(directory):
    edit_rows(directory, lambda row: row.update(bytes=row["bytes"] + 1))
    assert "bytes left the last stage, the catalogue lists" in faults(directory)


# Files beside the shards.

BESIDE = [
    "bad_records.json",
    "centroids.npy",
    "clusters.json",
    "documents/part-00000.parquet",
    "heldout.jsonl.zst",
    "model.npz",
    "report.html",
    "shards.columns",
    "tokenizer.json",
]


def test_the_manifest_has_the_hash_of_each_file_beside_the_shards(directory):
    files = Manifest.load(directory).files
    assert sorted(files) == BESIDE
    assert all(hash_file(directory / name) == expected for name, expected in files.items())


@pytest.mark.parametrize("name", BESIDE)
def test_a_changed_byte_in_a_file_beside_the_shards_is_found(directory, name):
    flip(directory / name)
    assert f"{name}: expected hash" in faults(directory)


@pytest.mark.parametrize("name", BESIDE)
def test_a_missing_file_is_found_unless_publishers_may_keep_it_back(directory, name):
    (directory / name).unlink()
    kept_back = name in ("bad_records.json", "heldout.jsonl.zst")
    assert bool(faults(directory)) != kept_back


@pytest.mark.parametrize("name", [*BESIDE, "clusters/c01/index.json", "clusters/c01", "documents"])
def test_a_link_is_a_fault_though_it_leads_to_the_same_bytes(directory, tmp_path, name):
    place = directory / name
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert f"{place} is a link to {tmp_path / 'elsewhere'}" in faults(directory)


def test_a_pipe_in_place_of_a_file_is_a_fault_and_not_waited_for(directory):
    (directory / "report.html").unlink()
    os.mkfifo(directory / "report.html")
    assert "report.html is not a regular file" in faults(directory)


def test_a_directory_of_before_hashes_were_noted_is_verified_without(directory):
    value = read_json(directory / MANIFEST)
    del value["files"]
    write_json(directory / MANIFEST, value)
    flip(directory / "report.html")
    assert not faults(directory)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "documents/../x", "report.html/"])
def test_a_manifest_names_no_file_elsewhere(directory, name):
    value = read_json(directory / MANIFEST)
    value["files"][name] = "0" * 32
    write_json(directory / MANIFEST, value)
    with pytest.raises(InvalidDataError, match="is not a file of a shard directory"):
        verify_directory(directory)


@pytest.mark.parametrize("name", ["report.html", "model.npz", "mixture.json", "heldout.jsonl.zst"])
def test_a_link_is_a_fault_in_a_directory_of_before_hashes_were_noted_too(
    directory, tmp_path, name
):
    value = read_json(directory / MANIFEST)
    del value["files"]
    write_json(directory / MANIFEST, value)
    (tmp_path / "secret").write_text("mine")
    (directory / name).unlink(missing_ok=True)
    (directory / name).symlink_to(tmp_path / "secret")
    assert f"{directory / name} is a link to" in faults(directory)


def test_shards_whose_index_is_damaged_are_not_called_unlisted(directory):
    (directory / "clusters" / "c00" / INDEX).write_text("{}")
    verdict = verify_directory(directory)
    assert "index.json: expected hash" in verdict.faults[0]
    assert "else the file is damaged: build, pull or copy the directory again" in verdict.faults[0]
    assert verdict.unexpected == []


def test_a_check_of_sizes_does_not_say_that_it_reads_tokens(directory, capsys):
    verify_directory(directory, content=False)
    said = capsys.readouterr().err
    assert re.match(r"check sizes: \d+ shards", said)
    assert "tokens" not in said


def test_what_the_manifest_does_not_know_is_named_and_no_fault(directory):
    assert verify_directory(directory).unexpected == []
    (directory / "notes.txt").write_text("mine")
    (directory / "clusters" / "c00" / "shard.99999.mds.zstd").write_text("more")
    (directory / "mine" / "deep").mkdir(parents=True)
    verdict = verify_directory(directory)
    assert verdict.unexpected == ["mine/", "notes.txt", "clusters/c00/shard.99999.mds.zstd"]
    assert verdict.faults == []
