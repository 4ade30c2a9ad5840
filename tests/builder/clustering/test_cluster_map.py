"""ClusterMap: pruning and merging give a new map, which comes back from JSON as it was."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder.clustering.cluster_map import PRUNED, ClusterMap
from climbstream.loader.core.errors import InvalidDataError


def centroids(count):
    return np.eye(count, 8, dtype=np.float32)


@st.composite
def maps(draw):
    """Maps that were pruned and merged in some way."""
    clusters = ClusterMap.of(centroids(draw(st.integers(0, 8))))
    gone = draw(st.sets(st.integers(0, max(0, len(clusters.cluster) - 1))))
    clusters = clusters.without({m: f"why {m}" for m in gone if m < len(clusters.cluster)})
    kept = len(clusters.kept)
    groups = draw(st.lists(st.integers(0, 3), min_size=kept, max_size=kept))
    return clusters.regrouped(np.array(groups, np.int32))


def test_at_first_each_micro_cluster_is_a_cluster():
    clusters = ClusterMap.of(centroids(3))
    assert clusters.cluster.tolist() == [0, 1, 2]
    assert clusters.count == 3
    assert clusters.why == {}


def test_pruned_micro_clusters_have_no_cluster_and_a_reason():
    clusters = ClusterMap.of(centroids(4)).without({1: "low"}).without({3: "sells"})
    assert clusters.cluster.tolist() == [0, PRUNED, 2, PRUNED]
    assert clusters.kept.tolist() == [0, 2]
    assert clusters.why == {1: "low", 3: "sells"}


def test_the_map_that_was_pruned_or_merged_is_as_before():
    old = ClusterMap.of(centroids(4))
    old.without({1: "low"}).regrouped(np.array([0, 0, 1], np.int32))
    assert old.cluster.tolist() == [0, 1, 2, 3]
    assert old.why == {}


def test_merging_leaves_out_what_was_pruned():
    clusters = ClusterMap.of(centroids(4)).without({1: "low"})
    merged = clusters.regrouped(np.array([1, 0, 1], np.int32))
    assert merged.cluster.tolist() == [1, PRUNED, 0, 1]
    assert merged.count == 2
    assert merged.why == {1: "low"}


def test_a_map_of_nothing_but_pruned_has_no_clusters():
    assert ClusterMap.of(centroids(1)).without({0: "low"}).count == 0
    assert ClusterMap.of(centroids(0)).count == 0


@given(maps())
def test_a_map_comes_back_as_it_was(clusters):
    value = json.loads(json.dumps(clusters.to_json()))
    back = ClusterMap.from_json(value, clusters.centroids)
    np.testing.assert_array_equal(back.cluster, clusters.cluster)
    assert (back.why, back.count) == (clusters.why, clusters.count)
    assert back.cluster.dtype == np.int32


def test_centroids_of_another_map_are_refused():
    value = ClusterMap.of(centroids(3)).to_json()
    with pytest.raises(InvalidDataError, match="2 centroids do not fit 3 micro-clusters"):
        ClusterMap.from_json(value, centroids(2))


def test_a_map_of_another_version_is_refused():
    value = {**ClusterMap.of(centroids(3)).to_json(), "version": 9}
    with pytest.raises(InvalidDataError, match="has version 9; this climbstream reads 1"):
        ClusterMap.from_json(value, centroids(3))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"version": 1},
        {"version": 1, "cluster": ["a"], "why": {}},
        {"version": 1, "cluster": [0], "why": []},
        {"version": 1, "cluster": 5, "why": {}},
    ],
    ids=repr,
)
def test_what_is_no_map_is_refused(value):
    with pytest.raises(InvalidDataError, match="this is not a valid cluster map"):
        ClusterMap.from_json(value, centroids(1))
