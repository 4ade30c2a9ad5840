"""Corpora that are clustered already come from the Hub as from a folder."""

import pytest

from climbstream.loader.formats.manifest import Manifest, load_index
from climbstream.loader.storage.store import Store

REPO = "someone/tables"


def lengths(directory, manifest):
    """Documents and tokens by the length of documents, for each cluster."""
    return {
        cluster.name: sorted(
            length
            for shard in load_index(Store.of(directory), manifest, cluster).shards
            for length in shard.lengths
        )
        for cluster in manifest.clusters
    }


@pytest.mark.slow
def test_published_tables_come_back_as_the_shards_that_they_were(hub, run, directory, tmp_path):
    done = run("publish", directory, REPO, "--what", "parquet")
    assert done.returncode == 0, done.stderr
    done = run("import", f"hub:{REPO}@parquet", "--out", tmp_path / "again", "--workers", 1)
    assert done.returncode == 0, done.stderr
    before, after = Manifest.load(directory), Manifest.load(tmp_path / "again")
    # Names of documents are not in the tables, so their order is another.
    assert lengths(tmp_path / "again", after) == lengths(directory, before)
    assert (after.vocab_size, after.eos_id) == (before.vocab_size, before.eos_id)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["parquet", "all"])
def test_each_document_of_a_publication_is_imported_once(hub, run, directory, tmp_path, what):
    work = tmp_path / "work"
    done = run("publish", directory, REPO, "--what", what, "--work", work)
    assert done.returncode == 0, done.stderr
    before = Manifest.load(directory)
    for number, source in enumerate((f"hub:{REPO}", work)):
        out = tmp_path / f"again{number}"
        options = () if number == 0 else ("--vocab-size", before.vocab_size, "--eos-id", 0)
        done = run("import", source, "--out", out, "--workers", 1, *options)
        assert done.returncode == 0, done.stderr
        assert "left out 1 file: the same documents as in parquet/, shuffled" in done.stderr
        assert lengths(out, Manifest.load(out)) == lengths(directory, before)


@pytest.mark.slow
def test_a_configuration_on_the_card_is_imported_by_its_name(hub, run, directory, tmp_path):
    assert run("publish", directory, REPO, "--what", "parquet").returncode == 0
    done = run("import", f"hub:{REPO}@c01", "--out", tmp_path / "one", "--workers", 1)
    assert done.returncode == 0, done.stderr
    one = lengths(tmp_path / "one", Manifest.load(tmp_path / "one"))
    assert one == {"c01": lengths(directory, Manifest.load(directory))["c01"]}


def test_published_shards_are_pulled_and_not_imported(hub, run, directory, tmp_path):
    assert run("publish", directory, REPO).returncode == 0
    done = run("import", f"hub:{REPO}", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert f"`climb pull {REPO} DIR` copies it" in done.stderr


def test_a_data_set_that_is_not_there_is_named(hub, run, tmp_path):
    done = run("import", "hub:someone/none", "--out", tmp_path / "out")
    assert done.returncode == 5
    assert "error: hf://datasets/someone/none cannot be read: " in done.stderr
