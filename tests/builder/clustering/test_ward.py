"""Merging: few clusters out of many micro-clusters, the largest first, and never a collapse."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

from climbstream.builder.clustering import ward as merge
from climbstream.builder.clustering.cluster_map import PRUNED, ClusterMap
from climbstream.builder.clustering.ward import Micros, count_by_height
from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.errors import InvalidDataError


def merge_clusters(clusters, documents, count, tightness=None, **options):
    """Merge to ``count``; documents lie close to their centroids unless ``tightness`` says."""
    documents = np.asarray(documents)
    tightness = np.full(len(documents), 0.9) if tightness is None else np.array(tightness)
    settings = BuildSettings(clusters=count, **options)
    micros = Micros(documents=documents, tightness=tightness)
    return merge.merge_clusters(clusters, micros, settings)


def groups_of(sizes, dims=8, seed=0):
    """Return unit centroids in groups of ``sizes`` that lie apart."""
    rng = np.random.default_rng(seed)
    vectors = np.concatenate([np.tile(np.eye(dims)[i], (n, 1)) for i, n in enumerate(sizes)])
    vectors = vectors + 0.02 * rng.normal(size=vectors.shape)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_micro_clusters_that_lie_together_become_one_cluster_the_largest_first():
    clusters = ClusterMap.of(groups_of([2, 3, 1]))
    documents = np.array([5, 5, 20, 20, 20, 30])
    merged = merge_clusters(clusters, documents, 3)
    assert merged.cluster.tolist() == [2, 2, 0, 0, 0, 1]


def test_what_was_pruned_stays_pruned():
    clusters = ClusterMap.of(groups_of([2, 3])).without({0: "low", 3: "low"})
    merged = merge_clusters(clusters, np.array([9, 10, 10, 9, 10]), 2)
    assert merged.cluster.tolist() == [PRUNED, 1, 0, PRUNED, 0]


def test_a_micro_cluster_without_documents_goes_with_its_neighbours():
    clusters = ClusterMap.of(groups_of([3, 3, 1]))
    merged = merge_clusters(clusters, np.array([9, 9, 0, 0, 8, 8, 0]), 2)
    assert merged.cluster[:6].tolist() == [0, 0, 0, 1, 1, 1]
    assert merged.count == 2


def test_a_single_micro_cluster_is_the_cluster():
    clusters = ClusterMap.of(groups_of([1, 1])).without({0: "low"})
    assert merge_clusters(clusters, np.array([5, 5]), 20).cluster.tolist() == [PRUNED, 0]


def test_one_cluster_may_be_asked_for():
    merged = merge_clusters(ClusterMap.of(groups_of([2, 2])), np.array([1, 1, 1, 1]), 1)
    assert merged.cluster.tolist() == [0, 0, 0, 0]


def test_a_collapse_is_refused_with_its_size_and_a_remedy():
    clusters = ClusterMap.of(groups_of([5, 1]))
    documents = np.array([100, 100, 100, 100, 100, 1])
    with pytest.raises(
        InvalidDataError, match=r"99\.8% of the documents into one of 2 clusters; ask for more"
    ):
        merge_clusters(clusters, documents, 2)


@pytest.mark.parametrize("gone", [{}, {0: "low", 1: "low"}])
def test_nothing_left_is_refused_with_what_to_lower(gone):
    clusters = ClusterMap.of(groups_of([1, 1])).without(gone)
    documents = np.array([5, 5]) if gone else np.array([0, 0])
    with pytest.raises(InvalidDataError, match="left no document; lower --min-cluster-score"):
        merge_clusters(clusters, documents, 2)


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=30),
    st.integers(1, 12),
    st.sets(st.integers(0, 29)),
    st.integers(0, 1 << 30),
)
def test_every_cluster_has_documents_and_none_is_larger_than_the_one_before(
    documents, count, gone, seed
):
    vectors = np.random.default_rng(seed).normal(size=(len(documents), 6)).astype(np.float32)
    clusters = ClusterMap.of(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    clusters = clusters.without({m: "low" for m in gone if m < len(documents)})
    assume(np.array(documents)[clusters.kept].sum())
    try:
        merged = merge_clusters(clusters, np.array(documents), count)
    except InvalidDataError:
        return  # a collapse
    np.testing.assert_array_equal(merged.kept, clusters.kept)
    sizes = np.bincount(merged.cluster[merged.kept], weights=np.array(documents)[merged.kept])
    assert len(sizes) == merged.count <= count
    assert sizes.min() > 0
    assert (np.diff(sizes) <= 0).all()


@settings(max_examples=30)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 1 << 30))
def test_weights_that_are_equal_give_the_tree_of_scipy(n, dims, seed):
    points = np.random.default_rng(seed).normal(size=(n, dims))
    pairs, heights = merge._ward(points.copy(), np.ones(n))
    order = np.argsort(heights, kind="stable")
    tree = merge._labelled(pairs[order], heights[order])
    theirs = linkage(points, "ward")
    np.testing.assert_allclose(tree[:, 2], theirs[:, 2])
    for height in theirs[:, 2] + 1e-9:
        ours = fcluster(tree, height, "distance")
        assert groups(ours) == groups(fcluster(theirs, height, "distance"))


def groups(numbers):
    """Return the sets of what has the same number."""
    return {frozenset(np.flatnonzero(numbers == k).tolist()) for k in set(numbers.tolist())}


@given(st.lists(st.integers(1, 4), min_size=2, max_size=8), st.integers(0, 1 << 30))
def test_a_weight_counts_as_so_many_of_the_same(weights, seed):
    points = np.random.default_rng(seed).normal(size=(len(weights), 3))
    one = merge._ward(points.copy(), np.array(weights, np.float64))[1]
    many = merge._ward(np.repeat(points, weights, axis=0), np.ones(sum(weights)))[1]
    np.testing.assert_allclose(np.sort(one), np.sort(many)[-len(one) :], atol=1e-6)


def test_a_height_merges_what_lies_below_it():
    clusters = ClusterMap.of(groups_of([2, 3, 1]))
    documents = np.array([5, 5, 20, 20, 20, 30])
    merged = merge_clusters(clusters, documents, 1, merge_height=0.5)
    assert merged.cluster.tolist() == [2, 2, 0, 0, 0, 1]
    micros = Micros(documents=documents, tightness=np.ones(6))
    assert count_by_height(clusters, micros, (0.0, 0.5, 5.0)) == [
        (0.0, 6, 0.3),
        (0.5, 3, 0.6),
        (5.0, 1, 1.0),
    ]


def test_a_height_that_collapses_is_refused_with_the_remedy():
    clusters = ClusterMap.of(groups_of([2, 2]))
    with pytest.raises(InvalidDataError, match=r"100\.0% .* 1 clusters; lower merge_height, 9"):
        merge_clusters(clusters, np.array([1, 1, 1, 1]), 20, merge_height=9.0)


def test_balanced_clusters_are_split_where_most_documents_are():
    # Two kinds, far apart: one of 4 micro-clusters with most documents, one of 2 with few.
    clusters = ClusterMap.of(groups_of([4, 1, 1]))
    documents = np.array([50, 50, 50, 50, 20, 20])
    plain = merge_clusters(clusters, documents, 3)
    balanced = merge_clusters(clusters, documents, 3, balanced=True)
    assert np.bincount(plain.cluster, documents).max() == 200
    assert np.bincount(balanced.cluster, documents).max() < 200
    assert balanced.count == 3
