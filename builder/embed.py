"""Embedder: texts to unit vectors, without a model to download.

TF-IDF of hashed words and marks, then a truncated SVD (latent semantic analysis), both fitted on a
sample. Marks count because brackets and colons tell code, tables and prose apart. Words are hashed,
so there is no vocabulary to keep: the embedder is two arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

FEATURES = 1 << 16
HEAD = 4_000
"""Characters of a text that are embedded; the paper embeds 512 tokens."""

_COUNTER = HashingVectorizer(
    n_features=FEATURES,
    alternate_sign=False,
    norm=None,
    dtype=np.float32,
    token_pattern=r"(?u)\b\w\w+\b|[^\w\s]",
)


@dataclass(frozen=True, slots=True)
class Embedder:
    """A fitted embedding."""

    idf: NDArray[np.float32]
    """Weight of each feature, ``[FEATURES]``."""
    components: NDArray[np.float32]
    """Directions of the SVD, ``[FEATURES, dims]``."""

    @classmethod
    def fit(cls, texts: Sequence[str], dims: int, seed: int) -> Self:
        """Fit on ``texts``."""
        counts = _count(texts)
        frequency = np.bincount(counts.indices, minlength=FEATURES)
        idf = (np.log((1 + len(texts)) / (1 + frequency)) + 1).astype(np.float32)
        weighted = _weigh(counts, idf)
        dims = min(dims, min(weighted.shape) - 1)
        # One thread: with another number of them sums are rounded differently.
        with threadpool_limits(1, "blas"):
            _, _, components = randomized_svd(weighted, dims, n_iter=4, random_state=seed)
        return cls(idf, np.ascontiguousarray(components.T, np.float32))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed ``texts``: float32 ``[n, dims]`` of length 1; a text without words gives zeros."""
        vectors = np.asarray(_weigh(_count(texts), self.idf) @ self.components, np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        result: NDArray[np.float32] = vectors / np.maximum(lengths, 1e-9)
        return result


def _count(texts: Sequence[str]) -> Any:
    """Count features: CSR float32 ``[n, FEATURES]``."""
    return _COUNTER.transform([text[:HEAD] for text in texts])


def _weigh(counts: Any, idf: NDArray[np.float32]) -> Any:
    """Damp counts, weigh them by ``idf`` and scale each row to length 1."""
    counts.data = (1 + np.log(counts.data)) * idf[counts.indices]
    lengths = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
    counts.data /= np.repeat(np.maximum(lengths, 1e-9), np.diff(counts.indptr))
    return counts
