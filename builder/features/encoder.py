"""Encoder: turns texts into unit vectors. It is fitted on the corpus, or is a pretrained model.

There are two kinds of pretrained models. ``st:NAME`` is a model of sentence-transformers, which
runs on a GPU if there is one. (CLIMB uses such a model, NovaSearch/stella_en_400M_v5.) ``m2v:NAME``
is a model of model2vec. NAME is a folder or a name on the Hub.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.loader.core.errors import ClimbError, InvalidDataError
from climbstream.loader.core.files import reading

from .language_means import LanguageMeans
from .tfidf import FEATURES, TfidfEncoder, unit_length

FITTED = "tfidf"
_LIBRARIES = {"st": "sentence_transformers", "m2v": "model2vec"}
_BATCH = 64
_LARGE = 1e9
"""Largest number that the file of a fitted encoder may contain. The numbers of a fit are far
smaller."""
_HEAD = 8_000
"""A model gets at most this number of characters of a text. It may use only the first part of them,
up to its own limit of tokens."""


class Encoder(Protocol):
    """Turns texts into vectors."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed ``texts``: float32 ``[n, dims]``. Each vector has length 1, or is all zeros."""


class _Model:
    """A pretrained model of sentence-transformers or model2vec."""

    def __init__(self, encode: Any) -> None:
        self._encode = encode

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed ``texts``: float32 ``[n, dims]``, length 1. Vectors with NaN become zeros."""
        vectors = np.asarray(self._encode([text[:_HEAD] for text in texts]), np.float32)
        usable = np.isfinite(vectors).all(axis=1, keepdims=True)
        return unit_length(np.where(usable, vectors, np.float32(0)))


@lru_cache(maxsize=1)
def load_model(name: str) -> Encoder:
    """Return the model ``name``, ``st:…`` or ``m2v:…``. The last model is kept in memory.

    Raises:
        InvalidDataError: There is no such model, or it cannot be loaded.
        ClimbError: The library of the model is not installed.
    """
    kind, _, place = name.partition(":")
    try:
        if kind == "st":
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - takes seconds

            model = SentenceTransformer(place, trust_remote_code=False)
            return _Model(
                lambda texts: model.encode(texts, batch_size=_BATCH, show_progress_bar=False)
            )
        from model2vec import StaticModel  # noqa: PLC0415 - an optional library

        return _Model(StaticModel.from_pretrained(place).encode)
    except ModuleNotFoundError:
        raise ClimbError(f"{name} needs {_LIBRARIES[kind]}; install climbstream[embed]") from None
    except Exception as error:  # each library raises errors of its own
        raise InvalidDataError(
            f"{place} is no model that {_LIBRARIES[kind]} can load: {error}; "
            "name a folder that holds one, or a name on the Hub"
        ) from None


def read_vectors(partition: Partition, rows: Any) -> NDArray[np.float32]:
    """Return the corpus's own vectors of ``rows``, scaled to length 1: float32 ``[m, dims]``."""
    return unit_length(partition.read("given_vectors", mapped=True)[rows])


def read_encoder(path: Path) -> tuple[Encoder | None, NDArray[np.float32]]:
    """Read the encoder and the centroids from ``path``.

    If the vectors are in a column of the corpus, the encoder is None.
    """
    with reading(path, "model of a build"), np.load(path, allow_pickle=False) as model:
        name = str(model["embed"])
        if name == FITTED:
            idf, components, centroids = (model[n] for n in ("idf", "components", "centroids"))
            check_shape(path, "idf", idf, FEATURES)
            check_shape(path, "components", components, FEATURES, None)
            check_shape(path, "centroids", centroids, None, components.shape[1])
            return TfidfEncoder(idf, components), centroids
        brought = name.startswith("column:")
        return None if brought else load_model(name), model["centroids"]


def read_language_means(path: Path, dims: int) -> LanguageMeans:
    """Read from ``path`` the means to subtract from the encoder's vectors of ``dims`` numbers."""
    with reading(path, "model of a build"), np.load(path, allow_pickle=False) as model:
        means = LanguageMeans.from_arrays(model)
        if means.offsets is not None:
            check_shape(path, "offsets", means.offsets, len(means.languages), dims)
        return means


def check_shape(path: Path, name: str, array: NDArray[Any], *shape: int | None) -> None:
    """Raise `InvalidDataError` unless ``array`` is float32 of ``shape`` (None: any size above 0).

    Compiled code uses the array without checks, and would read beyond the end of a smaller array.
    The error is also raised for numbers above `_LARGE`, because a build never writes such numbers.
    """
    sizes = zip(array.shape, shape, strict=False)
    fits = array.ndim == len(shape) and all(size == (wanted or size) > 0 for size, wanted in sizes)
    if not fits or array.dtype != np.float32:
        raise InvalidDataError(
            f"{path}: {name} is {array.dtype} of shape {array.shape}, which does not fit the rest; "
            "build the directory again"
        )
    if not (np.abs(array) < _LARGE).all():
        raise InvalidDataError(
            f"{path}: {name} holds numbers that are not finite, or above {_LARGE:,.0e}; build the "
            "directory again"
        )
