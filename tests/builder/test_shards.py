"""Shards: documents of a cluster, out of all units, in files of bounded size."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from climbstream.builder.shards import ClusterTask, write_cluster
from climbstream.builder.unit import Unit
from climbstream.loader.manifest import Manifest, load_index
from climbstream.loader.verify import verify_directory


@pytest.fixture(scope="module")
def indexes(cut_finely):
    manifest = Manifest.load(cut_finely)
    return {entry.name: load_index(cut_finely, manifest, entry) for entry in manifest.clusters}


def test_a_corpus_of_many_units_has_a_part_of_the_catalogue_for_each(cut_finely):
    parts = sorted(path.name for path in (cut_finely / "documents").iterdir())
    assert len(parts) > 5
    assert parts == [f"part-{i:05d}.parquet" for i in range(len(parts))]


def test_a_shard_is_closed_before_it_is_too_large(indexes):
    for index in indexes.values():
        assert len(index.shards) >= 3
        assert all(shard.raw_bytes <= 4_000 for shard in index.shards)
        assert all(shard.raw_bytes > 2_000 for shard in index.shards[:-1])


def test_shards_are_numbered_in_order(indexes):
    for index in indexes.values():
        names = [shard.basename for shard in index.shards]
        assert names == [f"shard.{i:05d}.mds" for i in range(len(names))]


def test_every_document_is_in_the_place_that_the_catalogue_names(
    cut_finely, catalogue, read_documents, make_records
):
    texts = {record["id"]: record["text"] for record in make_records(each=20)}
    tokenizer = Tokenizer.from_file(str(cut_finely / "tokenizer.json"))
    documents = read_documents(cut_finely)
    rows = [row for row in catalogue(cut_finely) if row["why"] is None]
    assert len(rows) == len(documents) == 120
    for row in rows:
        tokens = documents[row["cluster"], row["shard"], row["row"]]
        assert tokenizer.decode(tokens.tolist()) == texts[row["id"]]


def test_documents_of_a_cluster_stand_in_the_order_of_the_corpus(cut_finely, catalogue):
    for name in Manifest.load(cut_finely).names:
        rows = [row for row in catalogue(cut_finely) if row["cluster"] == name]
        places = [(row["shard"], row["row"]) for row in rows]
        assert places == sorted(places)


def test_a_build_of_many_shards_is_whole(cut_finely, indexes):
    verdict = verify_directory(cut_finely)
    assert verdict.faults == []
    assert verdict.shards == sum(len(index.shards) for index in indexes.values())


def task_of(folder, documents):
    """Return the task of writing cluster 0 of a unit whose tokens are 1, 2, 3..."""
    unit = Unit(folder / "units" / "00000-00000")
    unit.write("clusters", np.array([cluster for cluster, _ in documents], np.int32))
    order = np.array(sorted(range(len(documents)), key=lambda i: documents[i][0]))
    order = order[[documents[i][0] >= 0 for i in order]]
    lengths = np.array([documents[i][1] for i in order])
    unit.write("order", order)
    unit.write("lengths", lengths)
    unit.write("tokens", np.arange(1, lengths.sum() + 1, dtype=np.uint16))
    return ClusterTask(
        cluster=0,
        name="c00",
        folder=folder / "clusters" / "c00",
        dtype="uint16",
        units=(unit.folder,),
        done=folder / "done" / "c00.json",
    )


def test_only_the_documents_of_the_cluster_are_written(tmp_path):
    written = write_cluster(task_of(tmp_path, [(1, 5), (0, 3), (-1, 4), (0, 2), (1, 1)]))
    assert (written.entry.documents, written.entry.tokens) == (2, 5)
    assert written.shard_samples == (2,)


def test_a_cluster_that_was_written_is_not_written_again(tmp_path):
    task = task_of(tmp_path, [(0, 3), (0, 2)])
    first = write_cluster(task)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert write_cluster(task) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_cluster_that_was_half_written_is_written_to_the_same_bytes(tmp_path, all_bytes):
    task = task_of(tmp_path, [(0, 3), (0, 2)])
    write_cluster(task)
    before = all_bytes(tmp_path)
    task.done.unlink()
    (task.folder / "index.json").unlink()
    write_cluster(task)
    assert all_bytes(tmp_path) == before
    assert json.loads(before["clusters/c00/index.json"])["version"] == 2
