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

from climbstream.builder.corpus.array_file import read_array, write_arrays
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.sample import Sample, draw_sample
from climbstream.builder.features.encoder import HEAD, load_model
from climbstream.builder.features.language_means import LanguageMeans
from climbstream.builder.features.tfidf import TfidfEncoder, unit_length
from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.files import atomic_path, reading
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.typed import Count, Finite, convert, parse_json

from .kmeans import automatic_count, fit_centroids

logger = get_logger(__name__)

MODEL = "model.npz"
_SLICE = 1024
"""Number of documents of the sample that a task embeds."""
_EMBEDDED = "embedded"
"""Ending of the file of a slice's vectors."""


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

    First, tasks write the sample to ``folder``. If the encoder is a named model, tasks embed the
    sample. Then one task fits the encoder, if it is not a named model, and the centroids.
    """
    if path.exists():
        return
    sample = draw_sample(engine, partitions, folder, settings)
    what = "centroids" if settings.vector_column is not None else "embedding and the centroids"
    unit = "vectors" if settings.vector_column is not None else "documents"
    logger.info(f"fit the {what} on {sample.documents:,} {unit}")
    if settings.names_model:
        embed_sample(engine, sample, settings)
    for _, line in engine.run(fit_sample, [FitTask(sample, path, settings)]):
        logger.info(line)


def embed_sample(engine: Engine, sample: Sample, settings: BuildSettings) -> None:
    """Embed the sample with the named model, in tasks, and log how many documents the model cuts.

    Documents are embedded in slices of a fixed size, so that partitions of every size give the same
    bytes.
    """
    run = engine.run(embed_slice, _slices(sample, settings), gpu=settings.uses_gpus)
    cut, limits = 0, set()
    with Progress("embed the sample", sample.documents, "documents") as progress:
        for task, (count, limit) in run:
            cut += count
            limits.add(limit)
            progress.add(min(_SLICE, sample.documents - task.begin))
    used = f"{HEAD:,} characters" + "".join(f" and {n:,} tokens" for n in limits if n is not None)
    logger.info(
        f"  the model uses only the beginning of a document, at most {used}; {cut:,} of "
        f"{sample.documents:,} documents are longer"
    )


@dataclass(frozen=True, slots=True)
class SliceTask:
    """Input of `embed_slice`: documents of the sample, from number ``begin``."""

    sample: Sample
    begin: int
    settings: BuildSettings

    @property
    def path(self) -> Path:
        """File of the vectors."""
        return self.sample.folder / f"{self.begin}.{_EMBEDDED}"


def _slices(sample: Sample, settings: BuildSettings) -> list[SliceTask]:
    return [SliceTask(sample, n, settings) for n in range(0, sample.documents, _SLICE)]


def embed_slice(task: SliceTask) -> tuple[int, int | None]:
    """Embed a slice of the sample; write the vectors to its folder, float32 ``[n, dims]``.

    Returns how many of the documents the model cuts, and how many tokens of a document it uses at
    most; None: all.
    """
    texts = task.sample.texts_of(task.begin, task.begin + _SLICE)
    settings = task.settings
    model = load_model(settings.embed, trust_remote_code=settings.trust_remote_code)
    write_arrays(task.path, {"vectors": model.embed(texts)})
    return model.count_cut(texts), model.limit


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
    elif settings.names_model:
        slices = _slices(sample, settings)
        vectors = np.concatenate([read_array(each.path, "vectors") for each in slices])
    else:
        vectors, parts = _fit_tfidf(sample.texts(), sample.languages(), settings)
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
        f"  {len(solution.vectors):,} micro-clusters, {solution.empty} of them empty; mean "
        f"similarity of a document to its micro-cluster: {solution.objective:.4f} (worst start of "
        f"k-means: {min(solution.tried):.4f})"
    )


def _fit_tfidf(
    texts: Sequence[str], languages: Sequence[str], settings: BuildSettings
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Fit a model to ``texts``; return their vectors, ``[n, dims]``, and the model's arrays."""
    embedder = TfidfEncoder.fit(texts, settings.dims, settings.seed)
    vectors = embedder.embed(texts)
    means = LanguageMeans.fit(vectors, languages)
    fitted = {"idf": embedder.idf, "components": embedder.components}
    return means.centre(vectors, languages), fitted | means.to_arrays()


def read_fit(path: Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Read the centroids, and the measures of quality that k-means stored, from ``path``."""
    with reading(path, "model of a build"), np.load(path, allow_pickle=False) as model:
        centroids = model["centroids"]
        if centroids.dtype != np.float32 or centroids.ndim != 2 or not np.isfinite(centroids).all():
            raise ValueError(f"its centroids are {centroids.dtype} {centroids.shape}")
        quality = parse_json(str(model["kmeans"]).encode(), str(path))
        return centroids, asdict(convert(quality, _Quality, "measure of k-means"))
