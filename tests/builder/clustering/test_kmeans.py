"""k-means: unit centroids, the nearest one for each vector, and the same ones every time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from climbstream.builder.clustering.kmeans import automatic_count, fit_centroids, nearest


def unit_vectors(n, dims, seed):
    vectors = np.random.default_rng(seed).normal(size=(n, dims)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_same_vectors_give_the_same_centroids():
    vectors = unit_vectors(500, 8, 0)
    first = fit_centroids(vectors, 12, seed=17).vectors
    np.testing.assert_array_equal(fit_centroids(vectors, 12, seed=17).vectors, first)
    assert (fit_centroids(vectors, 12, seed=18).vectors != first).any()


@settings(max_examples=20)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 1 << 30))
def test_centroids_have_length_one_and_are_at_most_as_many_as_asked_or_as_vectors(n, count, seed):
    centroids = fit_centroids(unit_vectors(n, 4, seed), count, seed=17).vectors
    assert centroids.shape == (min(n, count), 4)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, rtol=1e-4)


def test_vectors_that_are_all_the_same_are_no_trouble():
    vectors = np.repeat(unit_vectors(1, 4, 0), 50, axis=0)
    assert np.isfinite(fit_centroids(vectors, 5, seed=17).vectors).all()


@settings(max_examples=30)
@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 1 << 30))
def test_the_nearest_centroid_is_the_most_similar(n, count, seed):
    vectors, centroids = unit_vectors(n, 5, seed), unit_vectors(count, 5, seed + 1)
    found, similar = nearest(vectors, centroids)
    assert (found.dtype, found.shape) == (np.int32, (n,))
    alike = vectors @ centroids.T
    np.testing.assert_allclose(alike[np.arange(n), found], alike.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(similar, alike.max(axis=1), atol=1e-6)


def test_groups_that_lie_apart_are_found():
    centres = unit_vectors(6, 16, 3)
    truth = np.arange(300) % 6
    noise = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    vectors = centres[truth] + 0.05 * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = nearest(vectors, fit_centroids(vectors, 12, seed=17).vectors)[0].tolist()
    assert len({*zip(truth.tolist(), found, strict=True)}) == len({*found}) == 12


@given(st.integers(0, 10**10), st.integers(1, 1000))
def test_more_documents_never_have_fewer_micro_clusters(documents, least):
    count = automatic_count(documents, least)
    assert least <= count <= 1000
    assert count <= automatic_count(documents + 32, least)


@pytest.mark.parametrize(("documents", "count"), [(10, 20), (6_400, 200), (10**9, 1000)])
def test_micro_clusters_grow_with_the_corpus_up_to_those_of_the_paper(documents, count):
    assert automatic_count(documents, 20) == count


def test_the_best_of_restarts_is_taken_and_all_are_told():
    vectors = unit_vectors(400, 6, 1)
    found = fit_centroids(vectors, 30, seed=17, restarts=4)
    assert len({*found.tried}) > 1
    assert found.objective == max(found.tried)
    _, alike = nearest(vectors, found.vectors)
    assert found.objective == pytest.approx(alike.mean())


def test_empty_centroids_are_counted():
    vectors = np.repeat(unit_vectors(3, 4, 0), 20, axis=0)
    assert fit_centroids(vectors, 10, seed=17).empty == 7


def test_vectors_of_zeros_draw_no_centroid():
    vectors = np.concatenate([np.zeros((50, 4), np.float32), unit_vectors(50, 4, 0)])
    lengths = np.linalg.norm(fit_centroids(vectors, 5, seed=17).vectors, axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-4)
