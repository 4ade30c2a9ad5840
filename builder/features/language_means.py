"""LanguageMeans: the mean vector of each language, which is subtracted from its documents.

Words tell languages apart before they tell topics apart, so without this the clusters of a corpus
in several languages are its languages.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .languages import CODE, UNDETERMINED
from .tfidf import unit_length

_LEAST = 30
"""Least number of documents of a language in the sample for a mean of it."""


@dataclass(frozen=True, slots=True)
class LanguageMeans:
    """Difference between the mean of each language and the mean of all."""

    languages: tuple[str, ...] = ()
    offsets: NDArray[np.float32] | None = None
    """Differences, ``[len(languages), dims]``; None: nothing is subtracted."""

    @classmethod
    def fit(cls, vectors: NDArray[np.float32], languages: Sequence[str]) -> Self:
        """Find the means of ``vectors``, ``[n, dims]``, in ``languages``, ``[n]``.

        With one language nothing is subtracted. Code and undetermined texts stay as they are.
        """
        counts = Counter(name for name in languages if name not in (CODE, UNDETERMINED))
        names = sorted(name for name, count in counts.items() if count >= _LEAST)
        if len(names) < 2:
            return cls()
        of = np.asarray(languages)
        means = np.stack([vectors[of == name].mean(axis=0) for name in names])
        whole = vectors[np.isin(of, names)].mean(axis=0)
        return cls(tuple(names), (means - whole).astype(np.float32))

    def centre(self, vectors: NDArray[np.float32], languages: Sequence[str]) -> NDArray[np.float32]:
        """Subtract the means from ``vectors``, ``[n, dims]`` of length 1 or 0; lengths stay."""
        if self.offsets is None or not len(vectors):
            return vectors
        nothing = np.zeros_like(self.offsets[:1])
        number = {name: i for i, name in enumerate(self.languages)}
        rows = [number.get(name, -1) for name in languages]
        taken = np.concatenate([self.offsets, nothing])[rows]
        return unit_length(np.where(vectors.any(axis=1, keepdims=True), vectors - taken, 0))

    def to_arrays(self) -> dict[str, Any]:
        """Return what `from_arrays` reads."""
        if self.offsets is None:
            return {}
        return {"languages": np.array(self.languages), "offsets": self.offsets}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Self:
        """Read the arrays of `to_arrays`; a model of an earlier version has none."""
        if "offsets" not in arrays:
            return cls()
        return cls(tuple(map(str, arrays["languages"].tolist())), arrays["offsets"])
