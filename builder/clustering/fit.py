"""Fit: learn the embedding (vectors of documents) and the centroids from a sample of the corpus.

Neither the size of the sample nor the memory for fitting grows with the corpus.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.sample import Sample, draw_sample
from climbstream.builder.features.encoder import FITTED, load_model
from climbstream.builder.features.language_means import LanguageMeans
from climbstream.builder.features.tfidf import TfidfEncoder, unit_length
from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.files import atomic_path, reading
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.typed import Count, Finite, convert, parse_json

from .kmeans import automatic_count, fit_centroids

logger = get_logger(__name__)

MODEL = "model.npz"


@dataclass(frozen=True, slots=True)
class _Quality:
    """The JSON form of what `Centroids.to_json` returns."""

    centroids: Count
    objective: Finite
    tried: list[Finite]
    empty: Count


def fit_model(
    engine: Engine,
    partitions: Sequence[Partition],
    path: Path,
    folder: Path,
    settings: BuildSettings,
) -> None:
    """Fit the encoder and the centroids, and write both to ``path``, unless the file exists.

    First, tasks write the sample to ``folder``. Then one task fits the encoder and the centroids to
    the sample.
    """
    if path.exists():
        return
    sample = draw_sample(engine, partitions, folder, settings)
    what = "centroids" if settings.vector_column is not None else "embedding and the centroids"
    unit = "vectors" if settings.vector_column is not None else "documents"
    logger.info(f"fit the {what} on {sample.documents:,} {unit}")
    for _, line in engine.run(fit_sample, [FitTask(sample, path, settings)]):
        logger.info(line)


@dataclass(frozen=True, slots=True)
class FitTask:
    """Input of `fit_sample`: the sample, the settings, and the ``path`` of the file to write."""

    sample: Sample
    path: Path
    settings: BuildSettings


def fit_sample(task: FitTask) -> str:
    """Fit the encoder and the centroids; return a line about the quality of the centroids."""
    settings, sample = task.settings, task.sample
    parts: dict[str, Any] = {}
    if settings.vector_column is not None:
        vectors = unit_length(sample.vectors())
    else:
        vectors, parts = _embed(sample.texts(), sample.languages(), settings)
    count = settings.micro_clusters or automatic_count(len(vectors), settings.clusters)
    solution = fit_centroids(vectors, count, settings.seed, settings.restarts)
    with atomic_path(task.path) as temporary, temporary.open("wb") as file:
        quality = np.array(json.dumps(solution.to_json()))
        np.savez(
            file,
            embed=np.array(settings.embed),
            centroids=solution.vectors,
            kmeans=quality,
            **parts,
        )
    return (
        f"  {len(solution.vectors):,} micro-clusters, {solution.empty} of them empty; "
        f"mean similarity {solution.objective:.4f}, starts from {min(solution.tried):.4f}"
    )


def _embed(
    texts: Sequence[str], languages: Sequence[str], settings: BuildSettings
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Embed ``texts`` with a named model, or with a model that is fitted to them.

    Returns the vectors, ``[n, dims]``, and the arrays of the fitted model; for a named model, {}.
    """
    if settings.embed == FITTED:
        embedder = TfidfEncoder.fit(texts, settings.dims, settings.seed)
        vectors = embedder.embed(texts)
        means = LanguageMeans.fit(vectors, languages)
        fitted = {"idf": embedder.idf, "components": embedder.components}
        return means.centre(vectors, languages), fitted | means.to_arrays()
    return load_model(settings.embed).embed(texts), {}


def read_fit(path: Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Read the centroids, and the measures of quality that k-means stored, from ``path``."""
    with reading(path, "model of a build"), np.load(path, allow_pickle=False) as model:
        centroids = model["centroids"]
        if centroids.dtype != np.float32 or centroids.ndim != 2 or not np.isfinite(centroids).all():
            raise ValueError(f"its centroids are {centroids.dtype} {centroids.shape}")
        quality = parse_json(str(model["kmeans"]).encode(), str(path))
        return centroids, asdict(convert(quality, _Quality, "measure of k-means"))
