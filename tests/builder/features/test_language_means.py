"""LanguageMeans: what a language has in common is taken off, and topics stay."""

import numpy as np
import pytest

from climbstream.builder.features.language_means import LanguageMeans
from climbstream.builder.features.tfidf import unit_length


@pytest.fixture
def corpus():
    """Two languages of two topics each: vectors, languages, topics."""
    random = np.random.default_rng(0)
    languages, topics = np.repeat(["de", "fr"], 80), np.tile(["law", "sea"], 80)
    axes = np.eye(8, dtype=np.float32)
    vectors = np.stack(
        [
            9 * axes[int(a == "fr")] + axes[2 + int(b == "sea")]
            for a, b in zip(languages, topics, strict=True)
        ]
    )
    noise = random.normal(0, 0.05, vectors.shape).astype(np.float32)
    return unit_length(vectors + noise), languages.tolist(), topics


def test_topics_are_nearer_than_languages_once_means_are_taken_off(corpus):
    vectors, languages, topics = corpus
    centred = LanguageMeans.fit(vectors, languages).centre(vectors, languages)
    same_topic = topics[:, None] == topics[None]
    other_language = np.array(languages)[:, None] != np.array(languages)[None]
    for before, nearer in ((vectors, False), (centred, True)):
        alike = before @ before.T
        assert (
            alike[same_topic & other_language].mean() > alike[~same_topic & ~other_language].mean()
        ) == nearer
    np.testing.assert_allclose(np.linalg.norm(centred, axis=1), 1, rtol=1e-5)


def test_with_one_language_vectors_stay_as_they_are(corpus):
    vectors, languages, _ = corpus
    names = ["de"] * len(languages)
    assert LanguageMeans.fit(vectors, names).centre(vectors, names) is vectors


def test_code_few_documents_and_zeros_stay_as_they_are(corpus):
    vectors, languages, _ = corpus
    languages = ["code"] * 5 + ["pl"] * 5 + languages[10:]
    vectors[20] = 0
    means = LanguageMeans.fit(vectors, languages)
    assert means.languages == ("de", "fr")
    np.testing.assert_array_equal(means.centre(vectors, languages)[:10], unit_length(vectors[:10]))
    assert not means.centre(vectors, languages)[20].any()


def test_what_was_fitted_is_read_again(corpus):
    vectors, languages, _ = corpus
    means = LanguageMeans.fit(vectors, languages)
    again = LanguageMeans.from_arrays(means.to_arrays())
    np.testing.assert_array_equal(
        again.centre(vectors, languages), means.centre(vectors, languages)
    )
    assert LanguageMeans.from_arrays({}).offsets is None
