"""All contenders get the same tokens; a difference is sure only if a t-test shows it."""

import numpy as np
import pytest
from bench_module import load_bench

from climbstream.loader import Manifest
from climbstream.loader.formats.manifest import cluster_folder, load_index
from climbstream.loader.reading.shard_cache import ShardCache

TOKENS = 100_000


@pytest.fixture(scope="module")
def corpus():
    return load_bench("corpus")


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


def test_a_mean_difference_has_the_interval_of_a_t_test():
    found = load_bench("differences").mean_difference([1.0, 2.0, 3.0])
    half = 4.302653 / 3**0.5  # Student's t for 95 % with two degrees of freedom, from a table
    assert (found.mean, found.error) == pytest.approx((2.0, 1 / 3**0.5))
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), abs=1e-5)


@pytest.mark.parametrize(
    ("differences", "sign"),
    [
        ([2.0, 3.0, 4.0, 3.0], 1),
        ([-2.0, -3.0, -4.0, -3.0], -1),
        ([1.0, 2.0, 3.0], 0),
        ([5.0], 0),
        ([0.0, 0.0, 0.0], 0),
    ],
)
def test_the_sign_of_a_difference_is_told_only_with_95_percent(differences, sign):
    assert load_bench("differences").mean_difference(differences).sign == sign
