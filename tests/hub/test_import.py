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


def test_a_data_set_that_is_not_there_is_named(hub, run, tmp_path):
    done = run("import", "hub:someone/none", "--out", tmp_path / "out")
    assert done.returncode != 0
    assert "someone/none" in done.stderr
    assert "Traceback" not in done.stderr
