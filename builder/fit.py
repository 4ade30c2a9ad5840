"""Fit: what is learned from a sample of the corpus: embedding, centroids, tokenizer.

The sample is as large for a large corpus as for a small one, and so is the memory that fits take.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from tokenizers import Tokenizer

from climbstream.loader.order import drawn
from climbstream.loader.progress import say
from climbstream.loader.storage import atomic_path, write_bytes

from .embed import Embedder
from .encoder import FITTED, Encoder, load_model
from .kmeans import automatic_count, fit_centroids
from .settings import BuildSettings
from .tokens import load_tokenizer, train_tokenizer
from .unit import Unit

MODEL = "model.npz"
_CHARS = 20_000
"""Of each document of the sample, what is looked at."""


def sample_texts(units: Sequence[Unit], settings: BuildSettings) -> list[str]:
    """Draw ``settings.sample`` documents; return how their texts begin, in corpus order."""
    ends = np.cumsum([len(unit) for unit in units])
    chosen = np.sort(drawn(int(ends[-1]), settings.sample, settings.seed, "sample"))
    texts: list[str] = []
    for unit, end in zip(units, ends.tolist(), strict=True):
        rows = chosen[np.searchsorted(chosen, end - len(unit)) : np.searchsorted(chosen, end)]
        if len(rows):
            column = unit.columns("text")["text"].take(rows - (end - len(unit)))
            texts += pc.utf8_slice_codeunits(column, 0, _CHARS).to_pylist()
    return texts


def fit_model(units: Sequence[Unit], path: Path, settings: BuildSettings) -> None:
    """Fit the embedder and the centroids, and write both to ``path``, unless that is there."""
    if path.exists():
        return
    texts = sample_texts(units, settings)
    say(f"fit the embedding and the centroids on {len(texts):,} documents")
    parts: dict[str, Any] = {}
    encoder: Encoder
    if settings.embed == FITTED:
        encoder = embedder = Embedder.fit(texts, settings.dims, settings.seed)
        parts = {"idf": embedder.idf, "components": embedder.components}
    else:
        encoder = load_model(settings.embed)
    count = settings.micro_clusters or automatic_count(len(texts), settings.clusters)
    found = fit_centroids(encoder.embed(texts), count, settings.seed, settings.restarts)
    say(
        f"  {len(found.vectors):,} micro-clusters, {found.empty} of them empty; mean similarity "
        f"{found.objective:.4f}, starts from {min(found.tried):.4f}"
    )
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        quality = np.array(json.dumps(found.to_json()))
        np.savez(
            file, embed=np.array(settings.embed), centroids=found.vectors, kmeans=quality, **parts
        )


def read_fit(path: Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Read the centroids that lie in ``path``, and how good k-means found them to be."""
    with np.load(path, allow_pickle=False) as model:
        return model["centroids"], json.loads(str(model["kmeans"]))


def fit_tokenizer(units: Sequence[Unit], path: Path, settings: BuildSettings) -> Tokenizer:
    """Load or train the tokenizer, and write it to ``path``, unless that is there."""
    if not path.exists():
        if settings.tokenizer:
            tokenizer = load_tokenizer(settings.tokenizer)
        else:
            say(f"train a tokenizer of {settings.vocab_size:,} tokens")
            tokenizer = train_tokenizer(sample_texts(units, settings), settings.vocab_size)
        write_bytes(path, tokenizer.to_str(pretty=True).encode())
    return Tokenizer.from_file(str(path))
