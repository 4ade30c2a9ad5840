"""TfidfEncoder: turns texts into unit vectors, without a model to download.

The encoder computes the TF-IDF of words and punctuation marks, and reduces its dimensions by a
truncated SVD (latent semantic analysis). Both are fitted on a sample. Punctuation marks count,
because brackets and colons distinguish code, tables and prose. All numbers of the same length count
as the same word. Words are hashed, so there is no vocabulary to store: the encoder is two arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from .characters import is_digit, is_letter
from .words import LETTERS, UNSPACED, code_points, find_words, join_characters

FEATURES = 1 << 16
HEAD = 4_000
"""Number of characters that are embedded, from the beginning of a text. CLIMB embeds 512 tokens."""


@dataclass(frozen=True, slots=True)
class TfidfEncoder:
    """An encoder that was fitted to a sample of texts."""

    idf: NDArray[np.float32]
    """Weight of each feature (hashed word or punctuation mark), ``[FEATURES]``."""
    components: NDArray[np.float32]
    """Directions of the SVD, ``[FEATURES, dims]``."""

    @classmethod
    def fit(cls, texts: Sequence[str], dims: int, seed: int) -> Self:
        """Fit an encoder of at most ``dims`` dimensions on ``texts``."""
        from sklearn.utils.extmath import randomized_svd  # noqa: PLC0415 - a second, for one use

        counts = _count(texts)
        frequency = np.bincount(counts.indices, minlength=FEATURES)
        idf = (np.log((1 + len(texts)) / (1 + frequency)) + 1).astype(np.float32)
        weighted = _weigh(counts, idf)
        dims = min(dims, min(weighted.shape) - 1)
        # Use one thread, because sums are rounded differently with another number of threads.
        with threadpool_limits(1, "blas"):
            _, _, components = randomized_svd(weighted, dims, n_iter=4, random_state=seed)
        return cls(idf, np.ascontiguousarray(components.T, np.float32))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors of ``texts``, float32 ``[n, dims]``; zeros if a text has no word."""
        vectors = np.asarray(_weigh(_count(texts), self.idf) @ self.components, np.float32)
        return unit_length(vectors)


def unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``vectors``, ``[n, dims]``, each scaled to length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: NDArray[np.float32] = vectors / np.maximum(lengths, 1e-9)
    return result


def _count(texts: Sequence[str]) -> Any:
    """Return the count of each feature in each text: CSR float32 ``[n, FEATURES]``."""
    features, counts = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for text in texts:
        points = code_points(text[:HEAD])
        ids, times = _count_features(points, *find_words(points))
        features.append(ids)
        counts.append(times)
    ends = np.cumsum([len(ids) for ids in features])
    parts = (np.concatenate(counts), np.concatenate(features), ends)
    return csr_array(parts, shape=(len(texts), FEATURES))


@njit(cache=True, nogil=True)
def _count_features(points: Any, hashes: Any, begins: Any, ends: Any, shapes: Any) -> Any:
    """Return the features of a text, int32 ``[m]``, and the count of each, float32 ``[m]``.

    A feature is a hashed punctuation mark, or a hashed word of two or more characters. In a script
    without spaces, each pair of characters counts as a word.
    """
    joined = join_characters(hashes, begins, ends, shapes)
    ids = np.empty(len(hashes) + len(points), np.int32)
    n = 0
    for i in range(len(hashes)):
        size = ends[i] - begins[i]
        if size > 1 or shapes[i] & UNSPACED:
            number = not shapes[i] & LETTERS
            ids[n] = size % FEATURES if number else joined[i] >> np.uint64(48)
            n += 1
    for point in points:
        if point > 0x20 and not is_letter(point) and not is_digit(point):
            ids[n] = (np.uint64(point) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(48)
            n += 1
    ordered = np.sort(ids[:n])
    features, counts = np.empty(n, np.int32), np.empty(n, np.float32)
    different = 0
    for i in range(n):
        if i and ordered[i] == ordered[i - 1]:
            counts[different - 1] += 1
        else:
            features[different], counts[different] = ordered[i], 1
            different += 1
    return features[:different], counts[:different]


def _weigh(counts: Any, idf: NDArray[np.float32]) -> Any:
    """Return ``counts`` on a logarithmic scale, times ``idf``; each row is scaled to length 1."""
    counts.data = (1 + np.log(counts.data)) * idf[counts.indices]
    lengths = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
    counts.data /= np.repeat(np.maximum(lengths, 1e-9), np.diff(counts.indptr))
    return counts
