"""Fit: what is learned from a sample of the corpus: embedding, centroids, tokenizer.

The sample is as large for a large corpus as for a small one, and so is the memory that fits take.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.sample import draw_places, sample_languages, sample_texts
from climbstream.builder.features.encoder import FITTED, load_model, read_vectors
from climbstream.builder.features.language_means import LanguageMeans
from climbstream.builder.features.tfidf import TfidfEncoder
from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import atomic_path, reading
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.typed import Count, Finite, convert, parse_json

from .kmeans import automatic_count, fit_centroids

logger = get_logger(__name__)

MODEL = "model.npz"


@dataclass(frozen=True, slots=True)
class _Quality:
    """What `Centroids.to_json` gave."""

    centroids: Count
    objective: Finite
    tried: list[Finite]
    empty: Count


def sample_vectors(units: Sequence[Partition], settings: BuildSettings) -> NDArray[np.float32]:
    """Return the corpus's own vectors of the sampled documents, ``[n, dims]``.

    Raises:
        InvalidDataError: They are not of one length.
    """
    parts = {unit: read_vectors(unit, rows) for unit, rows in draw_places(units, settings)}
    first = next(iter(parts))
    for unit, vectors in parts.items():
        if vectors.shape[1] != parts[first].shape[1]:
            raise InvalidDataError(
                f"{unit.column('origin')[0]} has vectors of {vectors.shape[1]} numbers, "
                f"{first.column('origin')[0]} of {parts[first].shape[1]}; "
                "embed all documents with one model"
            )
    return np.concatenate(list(parts.values()))


def fit_model(units: Sequence[Partition], path: Path, settings: BuildSettings) -> None:
    """Fit the embedder and the centroids, and write both to ``path``, unless that is there."""
    if path.exists():
        return
    parts: dict[str, Any] = {}
    if settings.vector_column is not None:
        vectors = sample_vectors(units, settings)
        logger.info(f"fit the centroids on {len(vectors):,} vectors")
    else:
        texts = sample_texts(units, settings)
        logger.info(f"fit the embedding and the centroids on {len(texts):,} documents")
        vectors, parts = _embed(texts, sample_languages(units, settings), settings)
    count = settings.micro_clusters or automatic_count(len(vectors), settings.clusters)
    solution = fit_centroids(vectors, count, settings.seed, settings.restarts)
    logger.info(
        f"  {len(solution.vectors):,} micro-clusters, {solution.empty} of them empty; "
        f"mean similarity {solution.objective:.4f}, starts from {min(solution.tried):.4f}"
    )
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        quality = np.array(json.dumps(solution.to_json()))
        np.savez(
            file,
            embed=np.array(settings.embed),
            centroids=solution.vectors,
            kmeans=quality,
            **parts,
        )


def _embed(
    texts: Sequence[str], languages: Sequence[str], settings: BuildSettings
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Embed ``texts`` by a named model, or by one fitted on them, whose arrays come second."""
    if settings.embed == FITTED:
        embedder = TfidfEncoder.fit(texts, settings.dims, settings.seed)
        vectors = embedder.embed(texts)
        means = LanguageMeans.fit(vectors, languages)
        fitted = {"idf": embedder.idf, "components": embedder.components}
        return means.centre(vectors, languages), fitted | means.to_arrays()
    return load_model(settings.embed).embed(texts), {}


def read_fit(path: Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Read the centroids from ``path``, and the quality that k-means measured."""
    with reading(path, "model of a build"), np.load(path, allow_pickle=False) as model:
        centroids = model["centroids"]
        if centroids.dtype != np.float32 or centroids.ndim != 2 or not np.isfinite(centroids).all():
            raise ValueError(f"its centroids are {centroids.dtype} {centroids.shape}")
        quality = parse_json(str(model["kmeans"]).encode(), str(path))
        return centroids, asdict(convert(quality, _Quality, "measure of k-means"))
