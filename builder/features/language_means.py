"""LanguageMeans: removes the mean vector of each language from the vectors of its documents.

Words differ more between languages than between topics. So without the subtraction, a corpus in
several languages would be clustered by language, not by topic.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.language_codes import CODE, UNDETERMINED

from .tfidf import unit_length

_LEAST = 30
"""A language has a mean only if the sample contains at least this number of its documents."""


@dataclass(frozen=True, slots=True)
class LanguageMeans:
    """For each language, the difference between its mean vector and the mean of all languages."""

    languages: tuple[str, ...] = ()
    offsets: NDArray[np.float32] | None = None
    """The difference (offset) for each language, ``[len(languages), dims]``; None: nothing is
    subtracted."""

    @classmethod
    def fit(cls, vectors: NDArray[np.float32], languages: Sequence[str]) -> Self:
        """Return the means of ``vectors``, ``[n, dims]``, by the ``languages`` of documents.

        If fewer than two languages have a mean, nothing is subtracted. Code and texts of an
        undetermined language have no mean, so their vectors do not change.
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
        """Return ``vectors``, ``[n, dims]``, each minus the offset of its language.

        The vectors must have length 1 or be zeros. After the subtraction, they are scaled to length
        1 again. A vector of zeros does not change.
        """
        if self.offsets is None or not len(vectors):
            return vectors
        nothing = np.zeros_like(self.offsets[:1])
        number = {name: i for i, name in enumerate(self.languages)}
        rows = [number.get(name, -1) for name in languages]
        taken = np.concatenate([self.offsets, nothing])[rows]
        return unit_length(np.where(vectors.any(axis=1, keepdims=True), vectors - taken, 0))

    def to_arrays(self) -> dict[str, Any]:
        """Return the arrays that `from_arrays` reads; {} if nothing is subtracted."""
        if self.offsets is None:
            return {}
        return {"languages": np.array(self.languages), "offsets": self.offsets}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Self:
        """Return the means from the arrays of `to_arrays`; {} means that nothing is subtracted."""
        if "offsets" not in arrays:
            return cls()
        return cls(tuple(map(str, arrays["languages"].tolist())), arrays["offsets"])
