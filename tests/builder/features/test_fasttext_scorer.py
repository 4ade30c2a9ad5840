"""Classifiers: fastText models that score, read in their own format."""

import struct

import numpy as np
import pytest

from climbstream.builder.features.fasttext_scorer import classify, prepared
from climbstream.loader.core.errors import InvalidDataError


def write_model(path, words, labels):
    """Write a fastText model (``.bin``, version 12) that gives each word a label of its own.

    ``words`` says for each word the number of its label.
    """
    dims = len(labels)
    entries = [(word, 0) for word in words] + [(f"__label__{label}", 1) for label in labels]
    data = struct.pack("<ii", 793712314, 12)
    # dims, window, epochs, least count, negatives, n-grams, softmax, supervised, buckets, letters
    data += struct.pack("<12id", dims, 5, 5, 1, 5, 1, 3, 3, 0, 0, 0, 100, 1e-4)
    data += struct.pack("<iiiqq", len(entries), len(words), len(labels), len(words), -1)
    for name, kind in entries:
        data += name.encode() + b"\0" + struct.pack("<qb", 1, kind)
    inputs = np.zeros((len(words), dims), np.float32)
    inputs[np.arange(len(words)), list(words.values())] = 1
    for matrix in (inputs, 10 * np.eye(dims, dtype=np.float32)):
        data += struct.pack("<?qq", False, *matrix.shape) + matrix.tobytes()
    path.write_bytes(data)
    return str(path)


@pytest.fixture
def model(tmp_path):
    return write_model(
        tmp_path / "quality.bin", {"proof": 2, "buy": 0, "!": 1, "<newline>": 1}, [-1, 1, 4]
    )


def test_the_likeliest_label_is_the_score(model):
    texts = ["Proof proof buy", "BUY buy", "buy! now!!", "no word that is known", "\n \n"]
    assert classify(model, texts).tolist() == [4.0, -1.0, 1.0, 0.0, 1.0]


def test_lines_become_words():
    assert prepared("One,\n two\n") == "one , <newline> two<newline>"


def test_a_model_whose_labels_are_no_numbers_is_refused(tmp_path):
    place = write_model(tmp_path / "language.bin", {"the": 0}, ["en", "de"])
    with pytest.raises(InvalidDataError, match=r"has the label __label__en; .* must be numbers"):
        classify(place, ["the"])


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(InvalidDataError, match=r"there is no file .*; name a fastText model"):
        classify(str(tmp_path / "none.bin"), ["the"])
    (tmp_path / "text.bin").write_text("no model")
    with pytest.raises(InvalidDataError, match=r"text.bin is not a fastText model"):
        classify(str(tmp_path / "text.bin"), ["the"])
