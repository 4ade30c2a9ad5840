"""The embedder: the same text gives the same unit vector, and topics lie apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from climbstream.builder.features.tfidf import TfidfEncoder


@pytest.fixture(scope="module")
def texts(make_records):
    return [record["text"] for record in make_records()]


@pytest.fixture(scope="module")
def topics(make_records):
    return np.array([record["label"] for record in make_records()])


@pytest.fixture(scope="module")
def embedder(texts):
    return TfidfEncoder.fit(texts, 16, seed=17)


def test_vectors_have_length_one(embedder, texts):
    vectors = embedder.embed(texts)
    assert (vectors.shape, vectors.dtype) == ((len(texts), 16), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_fitting_again_gives_the_same_vectors(embedder, texts):
    again = TfidfEncoder.fit(texts, 16, seed=17)
    np.testing.assert_array_equal(again.embed(texts), embedder.embed(texts))


def test_a_text_has_the_same_vector_whatever_stands_beside_it(embedder, texts):
    alone = np.concatenate([embedder.embed([text]) for text in texts[:5]])
    np.testing.assert_allclose(embedder.embed(texts)[:5], alone, atol=1e-6)


@pytest.mark.parametrize("text", ["", " \n", "\u2028"])
def test_a_text_without_anything_is_zero(embedder, text):
    np.testing.assert_array_equal(embedder.embed([text]), np.zeros((1, 16)))


@settings(max_examples=30)
@given(st.lists(st.text(max_size=200), min_size=1, max_size=4))
def test_any_text_has_a_vector_of_length_one_or_zero(embedder, some):
    lengths = np.linalg.norm(embedder.embed(some), axis=1)
    assert ((np.abs(lengths - 1) < 1e-4) | (lengths == 0)).all()


def test_texts_of_one_topic_are_nearer_than_those_of_others(embedder, texts, topics):
    vectors = embedder.embed(texts)
    alike = vectors @ vectors.T
    same = topics[:, None] == topics[None]
    assert alike[same].mean() > alike[~same].mean() + 0.2


def test_a_small_corpus_has_fewer_dimensions(texts):
    assert TfidfEncoder.fit(texts[:5], 64, seed=17).embed(texts[:3]).shape == (3, 4)
