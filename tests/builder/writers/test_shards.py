"""Shards: documents of a cluster, out of all partitions, in files of bounded size."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.writers import shards
from climbstream.builder.writers.shards import write_clusters
from climbstream.loader.formats.manifest import Manifest, load_index
from climbstream.loader.formats.mds.index import Index
from climbstream.loader.formats.mds.writer import sample_bytes
from climbstream.loader.tools.verify import verify_directory


@pytest.fixture(scope="module")
def indexes(cut_finely):
    manifest = Manifest.load(cut_finely)
    return {entry.name: load_index(cut_finely, manifest, entry) for entry in manifest.clusters}


def test_a_small_corpus_of_many_units_has_one_part_of_the_catalogue(cut_finely):
    assert [path.name for path in (cut_finely / "documents").iterdir()] == ["part-00000.parquet"]


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


def unit_of(folder, number, documents):
    """Make a partition of (cluster, length), whose tokens are 1, 2, 3..."""
    partition = Partition(folder / "units" / f"00000-{number:05d}")
    partition.write("clusters", np.array([cluster for cluster, _ in documents], np.int32))
    order = np.array(sorted(range(len(documents)), key=lambda i: documents[i][0]), np.int64)
    order = order[[documents[i][0] >= 0 for i in order]]
    lengths = np.array([documents[i][1] for i in order], np.int64)
    tokens = np.arange(1, lengths.sum() + 1, dtype=np.uint16)
    partition.write_arrays({"order": order, "lengths": lengths, "tokens": tokens})
    return partition


@pytest.fixture(scope="session")
def write(serial):
    """Return a function that writes partitions of (cluster, length)."""

    def run(folder, parts, count):
        partitions = [unit_of(folder, number, part) for number, part in enumerate(parts)]
        return write_clusters(
            serial, partitions, folder, [f"c{k:02d}" for k in range(count)], "uint16"
        )

    return run


def test_each_document_is_written_to_its_cluster(tmp_path, write):
    written = write(tmp_path, [[(1, 5), (0, 3), (-1, 4), (0, 2), (1, 1)]], count=2)
    assert [(w.entry.documents, w.entry.tokens) for w in written] == [(2, 5), (2, 6)]
    assert [w.shard_samples for w in written] == [(2,), (2,)]


documents = st.tuples(st.integers(-1, 2), st.integers(1, 900) | st.integers(250, 260))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(documents, min_size=1, max_size=12), min_size=1, max_size=6))
def test_shards_are_full_and_none_is_too_large(write, parts):
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 2_000)
        write(Path(folder), parts, count=3)
        for k in range(3):
            data = (Path(folder) / "clusters" / f"c{k:02d}" / "index.json").read_bytes()
            index = Index.from_bytes(data, "uint16")
            expected = [n for part in parts for c, n in part if c == k]
            assert (index.samples, index.tokens) == (len(expected), sum(expected))
            for shard, after in zip(index.shards, [*index.shards[1:], None], strict=False):
                assert shard.raw_bytes <= 2_000 or shard.samples == 1
                # The next document would not have fitted: none has more than 1,811 bytes.
                assert after is None or shard.raw_bytes + 1_811 + 512 > 2_000


def filled_one_by_one(lengths, most):
    """Documents of each shard, if each goes to the last shard when it fits there."""
    counts, size = [], most
    for n in lengths:
        more = int(sample_bytes(np.array([n]), 2)[0]) + 4
        if not counts or size + more > most:
            counts.append(0)
            size = 512
        counts[-1] += 1
        size += more
    return tuple(counts)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(documents, max_size=12), min_size=1, max_size=6))
def test_runs_of_documents_are_cut_where_single_documents_would_be(write, parts):
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 2_000)
        for k, written in enumerate(write(Path(folder), parts, count=3)):
            lengths = [n for part in parts for c, n in part if c == k]
            assert written.shard_samples == filled_one_by_one(lengths, 2_000)


def test_what_was_written_is_not_written_again(tmp_path, write):
    parts = [[(0, 3), (0, 2)], [(0, 4)]]
    first = write(tmp_path, parts, count=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("shard.*")}
    assert len(before) == 1
    assert write(tmp_path, parts, count=1) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("shard.*")} == before


def test_what_was_half_written_is_written_to_the_same_bytes(tmp_path, write, all_bytes):
    parts = [[(0, 3), (0, 2)], [(0, 4)]]
    write(tmp_path, parts, count=1)
    before = all_bytes(tmp_path)
    (tmp_path / ".build" / "shards" / "c00-00000.json").unlink()
    (tmp_path / "clusters" / "c00" / "index.json").unlink()
    write(tmp_path, parts, count=1)
    assert all_bytes(tmp_path) == before
