"""The tokens of the benches are the same for every contender."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from climbstream.loader import Manifest
from climbstream.loader.formats.manifest import cluster_folder, load_index
from climbstream.loader.reading.shard_cache import ShardCache

BENCH = Path(__file__).parent.parent / "bench"
TOKENS = 100_000


@pytest.fixture(scope="module")
def corpus():
    spec = importlib.util.spec_from_file_location("corpus", BENCH / "corpus.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shards(corpus, tmp_path_factory):
    directory = tmp_path_factory.mktemp("shards")
    corpus.make_shards(directory, TOKENS)
    return directory


def test_shards_hold_the_documents_that_the_others_get(corpus, shards, tmp_path):
    manifest, cache = Manifest.load(shards), ShardCache(tmp_path)
    for cluster, (name, documents) in zip(
        manifest.clusters, corpus.make_documents(TOKENS), strict=True
    ):
        assert cluster.name == name
        (entry,) = load_index(shards, manifest, cluster).shards
        view = cache.view(cluster_folder(shards, name), entry, "uint16")
        expected = list(documents)
        assert len(expected) == entry.samples
        for number, document in enumerate(expected):
            assert (view.document(number, "uint16") == document).all()


def test_the_same_seed_makes_the_same_bytes(corpus, shards, tmp_path):
    corpus.make_shards(tmp_path, TOKENS)
    paths = sorted(path.relative_to(shards) for path in shards.rglob("*") if path.is_file())
    assert len(paths) == 2 * corpus.CLUSTERS + 1
    for path in paths:
        assert (tmp_path / path).read_bytes() == (shards / path).read_bytes()


def test_512_tokens_in_a_row_tell_their_cluster(corpus):
    for number, (_, documents) in enumerate(corpus.make_documents(TOKENS)):
        tokens = np.concatenate(list(documents))
        (marks,) = np.nonzero(tokens >= corpus.FIRST_MARK)
        assert set(tokens[marks]) == {corpus.FIRST_MARK + number}
        assert np.diff(np.append(marks, len(tokens))).max() <= 512
