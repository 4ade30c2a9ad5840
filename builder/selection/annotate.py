"""Stages: what is done to each unit, one function a stage, each leaving arrays beside its text.

All are safe to run again: what exists is left as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.clustering.kmeans import nearest
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.text_hashes import hash_texts
from climbstream.builder.features.encoder import (
    read_encoder,
    read_language_means,
    read_vectors,
)
from climbstream.builder.features.fasttext_scorer import classify
from climbstream.builder.features.languages import identify
from climbstream.builder.features.quality import score_documents
from climbstream.builder.settings import SCORES, BuildSettings
from climbstream.loader.core.engines.engine import Engine, run_stage
from climbstream.loader.core.errors import InvalidDataError

from .dedup import sign_texts


def tell_languages(engine: Engine, units: Sequence[Partition]) -> None:
    """Write ``languages`` ``[n, 2]`` to each unit: language and script of its documents."""
    run_stage(engine, "tell languages", "documents", name_languages, units)


def name_languages(unit: Partition) -> int:
    """Do `tell_languages` with one unit; return its documents."""
    if not unit.has("languages"):
        unit.write("languages", identify(unit.column("text")))
    return len(unit)


def look_at(
    engine: Engine, units: Sequence[Partition], model: Path, settings: BuildSettings
) -> None:
    """Do `annotate` with all ``units``."""
    tasks = (LookTask(unit, model, settings) for unit in units)
    run_stage(engine, "embed, score and assign", "documents", annotate, tasks)


@dataclass(frozen=True, slots=True)
class LookTask:
    """Look at ``unit`` with the embedder and centroids that lie in ``model``."""

    unit: Partition
    model: Path
    settings: BuildSettings


def annotate(task: LookTask) -> int:
    """Score, hash, embed and assign the documents of a unit; return how many there are.

    Writes ``scores`` float32 ``[n, 4]``, ``text_hashes`` uint64 ``[n, 2]``, ``signatures`` uint8
    ``[SIGNATURE, n]``, ``alike`` float32 ``[n]``, ``micro`` int32 ``[n]``. Vectors are not kept:
    `nearest` alone needs them.
    """
    unit = task.unit
    # `micro` is written last.
    if not unit.has("micro"):
        encoder, centroids = read_encoder(task.model)
        texts = unit.column("text")
        unit.write("scores", _scores(unit, texts, task.settings))
        unit.write("text_hashes", hash_texts(texts))
        unit.write("signatures", sign_texts(texts))
        vectors = read_vectors(unit, slice(None)) if encoder is None else encoder.embed(texts)
        means = read_language_means(task.model, centroids.shape[1])
        if vectors.shape[1] != centroids.shape[1]:
            raise InvalidDataError(
                f"{unit.column('origin')[0]} has vectors of {vectors.shape[1]} numbers, the "
                f"centroids have {centroids.shape[1]}; embed all documents with one model"
            )
        vectors = means.centre(vectors, unit.read("languages")[:, 0].tolist())
        micro, alike = nearest(vectors, centroids)
        unit.write("alike", alike)
        unit.write("micro", micro)
    return len(unit)


def _scores(unit: Partition, texts: Sequence[str], settings: BuildSettings) -> NDArray[np.float32]:
    """Score ``texts``, ``[n, 4]``, by what the settings name for each score."""
    columns = list(settings.score_columns)
    scores = np.zeros((len(texts), len(SCORES)), np.float32)
    if len(settings.scores) < len(SCORES):
        scores = score_documents(texts, unit.read("languages")[:, 0].tolist())
    for name, place in settings.scores.items():
        scores[:, SCORES.index(name)] = (
            unit.read("given_scores")[:, columns.index(name)]
            if name in columns
            else classify(place, texts)
        )
    return scores
