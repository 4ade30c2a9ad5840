"""Pruning: a micro-cluster or document below a threshold is left out, with the reason."""

import numpy as np
import pytest

from climbstream.builder.clustering.cluster_map import ClusterMap
from climbstream.builder.selection.stages import poor_documents, prune_clusters

# Columns: overall, educational, informational, advertisement.
SCORES = np.array([[4, 1, 2, 5], [1, 5, 5, 5], [4, 1, 1, 1], [1, 1, 1, 1]], np.float32)


def test_a_micro_cluster_below_a_threshold_is_left_out_with_its_score():
    clusters = ClusterMap.of(np.eye(4, dtype=np.float32))
    pruned = prune_clusters(clusters, SCORES, {"overall": 1.5, "advertisement": 2})
    assert pruned.cluster.tolist() == [0, -1, -1, -1]
    assert pruned.why == {
        1: "cluster scores 1.0 in overall, below 1.5",
        2: "cluster scores 1.0 in ad-free, below 2",
        3: "cluster scores 1.0 in overall, below 1.5",
    }


def test_a_document_below_a_threshold_is_left_out_for_the_first_reason():
    why = poor_documents(SCORES, {"overall": 1.5, "advertisement": 2})
    assert why.tolist() == ["", "low overall score", "low advertisement score", "low overall score"]


def test_a_score_on_the_threshold_stays():
    assert poor_documents(SCORES, {"overall": 1}).tolist() == ["", "", "", ""]
    clusters = prune_clusters(ClusterMap.of(np.eye(4, dtype=np.float32)), SCORES, {"overall": 1})
    assert clusters.why == {}


@pytest.mark.parametrize("scores", [SCORES, SCORES[:0]])
def test_without_thresholds_all_stay(scores):
    assert poor_documents(scores, {}).tolist() == [""] * len(scores)


def test_a_micro_cluster_without_documents_stays():
    means = np.full((2, 4), np.inf, np.float32)
    clusters = prune_clusters(ClusterMap.of(np.eye(2, dtype=np.float32)), means, {"overall": 1})
    assert clusters.why == {}
