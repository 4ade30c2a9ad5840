"""Encoder: turns texts into unit vectors. It is fitted on the corpus, or is a pretrained model.

There are two kinds of pretrained models. ``st:NAME`` is a model of sentence-transformers, which
runs on the GPU of the process, if it has one. (CLIMB uses such a model,
NovaSearch/stella_en_400M_v5.) ``m2v:NAME`` is a model of model2vec. NAME is a folder or a name on
the Hub.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from math import ceil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.loader.core.engines.local import own_device
from climbstream.loader.core.errors import ClimbError, InvalidDataError
from climbstream.loader.core.files import reading

from .language_means import LanguageMeans
from .tfidf import FEATURES, TfidfEncoder, unit_length

FITTED = "tfidf"
_LIBRARIES = {"st": "sentence_transformers", "m2v": "model2vec"}
BATCH = 64
"""Number of documents that a model embeds together."""
_LARGE = 1e9
"""Largest number that the file of a fitted encoder may contain. The numbers of a fit are far
smaller."""
HEAD = 8_000
"""A model gets at most this number of characters of a text. It may use only the first part of them,
up to its own limit of tokens."""


class Encoder(Protocol):
    """Turns texts into vectors."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed ``texts``: float32 ``[n, dims]``. Each vector has length 1, or is all zeros."""


class PretrainedEncoder:
    """A model of sentence-transformers or model2vec."""

    def __init__(
        self,
        encode: Callable[[list[str]], Any],
        lengths: Callable[[list[str]], list[int]],
        limit: int | None,
        device: str = "cpu",
    ) -> None:
        self._encode, self._lengths = encode, lengths
        self.limit = limit
        """Number of tokens of a text that the model uses; None: all of them."""
        self.device = device
        """Where the model computes: the name of a GPU, as ``NVIDIA H200``, or ``cpu``."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed ``texts``: float32 ``[n, dims]``, length 1. Vectors with NaN become zeros."""
        vectors = np.asarray(self._encode([text[:HEAD] for text in texts]), np.float32)
        usable = np.isfinite(vectors).all(axis=1, keepdims=True)
        return unit_length(np.where(usable, vectors, np.float32(0)))

    def count_cut(self, texts: Sequence[str]) -> int:
        """Return how many of ``texts`` are longer than the part that the model uses."""
        lengths = self._lengths([text[:HEAD] for text in texts])
        most = np.inf if self.limit is None else self.limit
        return sum(
            len(text) > HEAD or length > most for text, length in zip(texts, lengths, strict=True)
        )


@lru_cache(maxsize=1)
def load_model(name: str, *, trust_remote_code: bool = False) -> PretrainedEncoder:
    """Return the model ``name``, ``st:…`` or ``m2v:…``. The last model is kept in memory.

    A model of sentence-transformers may come with code. This code is run only if
    ``trust_remote_code`` is set.

    Raises:
        InvalidDataError: There is no such model, it cannot be loaded, or it comes with code that
            may not be run.
        ClimbError: The library of the model is not installed.
    """
    kind, _, place = name.partition(":")
    try:
        if kind == "st":
            return _load_sentence_model(place, trust_remote_code=trust_remote_code)
        return _load_static_model(place)
    except ModuleNotFoundError:
        raise ClimbError(
            f"{name} needs {_LIBRARIES[kind]}; run pip install 'climbstream[embed]'"
        ) from None
    except Exception as error:  # each library raises errors of its own
        if "trust_remote_code" in str(error):
            raise InvalidDataError(
                f"{place} comes with code of its own, which would run on this machine; read the "
                "code, and if you trust it, add --trust-remote-code"
            ) from None
        raise InvalidDataError(
            f"{place} is not a model that {_LIBRARIES[kind]} can load: {error}; name a folder that "
            "holds one, or a name on the Hub"
        ) from None


def _load_sentence_model(place: str, *, trust_remote_code: bool) -> PretrainedEncoder:
    import torch  # noqa: PLC0415 - takes seconds
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - takes seconds

    device = own_device()
    if device == "cpu":
        torch.set_num_threads(1)  # there is one process per core
    model = SentenceTransformer(place, device=device, trust_remote_code=trust_remote_code)
    lengths = partial(_count_tokens, model.tokenizer)
    limit = model.max_seq_length if isinstance(model.max_seq_length, int) else None

    def encode(texts: list[str]) -> NDArray[np.float32]:
        # The library sorts texts by characters, which leaves much more padding.
        tokens = np.minimum(lengths(texts), limit or np.inf)
        order = np.argsort(-tokens, kind="stable")
        vectors: list[Any] = [None] * len(texts)
        for begin in range(0, len(texts), BATCH):
            rows = order[begin : begin + BATCH].tolist()
            batch = model.encode(
                [texts[row] for row in rows], batch_size=BATCH, show_progress_bar=False
            )
            for row, vector in zip(rows, batch, strict=True):
                vectors[row] = vector
        return np.stack(vectors)

    name = "cpu" if device == "cpu" else torch.cuda.get_device_name(device)
    return PretrainedEncoder(encode, lengths, limit, name)


def _load_static_model(place: str) -> PretrainedEncoder:
    from model2vec import StaticModel  # noqa: PLC0415 - an optional library

    model = StaticModel.from_pretrained(place)

    def lengths(texts: list[str]) -> list[int]:
        # Before a text is tokenized, the library cuts it after so many tokens of median length.
        by_characters = (ceil(len(text) / model.median_token_length) for text in texts)
        return [*map(max, _count_tokens(model.tokenizer, texts), by_characters)]

    # Earlier versions of the library have no such attribute, and use 512 tokens.
    return PretrainedEncoder(model.encode, lengths, getattr(model, "max_length", 512))


def _count_tokens(tokenizer: Any, texts: list[str]) -> list[int]:
    """Return the number of tokens of each text, with those that the tokenizer would cut off."""
    fast = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(fast, "encode_batch"):  # a tokenizer in Python
        return [len(tokenizer.tokenize(text)) for text in texts]
    # Calls of the library may have switched padding and truncation on.
    return [
        sum(sum(part.attention_mask) for part in (encoding, *encoding.overflowing))
        for encoding in fast.encode_batch(texts)
    ]


def read_vectors(partition: Partition, rows: Any) -> NDArray[np.float32]:
    """Return the corpus's own vectors of ``rows``, scaled to length 1: float32 ``[m, dims]``."""
    return unit_length(partition.read("given_vectors", mapped=True)[rows])


def read_encoder(
    path: Path, *, trust_remote_code: bool
) -> tuple[Encoder | None, NDArray[np.float32]]:
    """Read the encoder and the centroids from ``path``.

    If the vectors are in a column of the corpus, the encoder is None. For ``trust_remote_code``,
    see `load_model`.
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
        encoder = None if brought else load_model(name, trust_remote_code=trust_remote_code)
        return encoder, model["centroids"]


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
