"""Stages that compute facts about each document: each stage writes arrays to the partitions.

If a stage runs again, it does not compute arrays that exist already.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.clustering.kmeans import nearest
from climbstream.builder.corpus.partition import ArrayName, Partition
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


def tell_languages(engine: Engine, partitions: Sequence[Partition]) -> None:
    """Write ``languages``, str ``[n, 2]``, to each partition: language and script of documents."""
    run_stage(engine, "tell languages", "documents", name_languages, partitions)


def name_languages(partition: Partition) -> int:
    """Write the array of `tell_languages` to one partition; return its number of documents."""
    if not partition.has("languages"):
        groups = [identify(table["text"].to_pylist()) for _, table in partition.row_groups("text")]
        partition.write("languages", np.concatenate(groups))
    return len(partition)


def look_at(
    engine: Engine, partitions: Sequence[Partition], model: Path, settings: BuildSettings
) -> None:
    """Write the arrays of `annotate` to all ``partitions``, in tasks of ``engine``."""
    tasks = (LookTask(partition, model, settings) for partition in partitions)
    run_stage(engine, "embed, score and assign", "documents", annotate, tasks)


@dataclass(frozen=True, slots=True)
class LookTask:
    """Input of `annotate`: a partition, and the file ``model`` of the encoder and centroids."""

    partition: Partition
    model: Path
    settings: BuildSettings


def annotate(task: LookTask) -> int:
    """Score, hash and embed documents, and assign them to micro-clusters; return their number.

    Writes five arrays to the partition:

    - ``scores``, float32 ``[n, 4]``: the quality scores;
    - ``text_hashes``, uint64 ``[n, 2]``: hashes, by which equal texts are found;
    - ``signatures``, uint8 ``[SIGNATURE, n]``: numbers by which near copies are found;
    - ``micro``, int32 ``[n]``: the micro-cluster of each document;
    - ``alike``, float32 ``[n]``: the similarity between each document and its centroid.

    Embeddings are not stored, because after this stage they are not needed.
    """
    partition = task.partition
    if not partition.has("micro"):
        encoder, centroids = read_encoder(task.model)
        means = read_language_means(task.model, centroids.shape[1])
        languages = partition.read("languages")[:, 0].tolist()
        groups: dict[ArrayName, list[NDArray[Any]]] = {}
        for rows, table in partition.row_groups("text"):
            texts = table["text"].to_pylist()
            vectors = read_vectors(partition, rows) if encoder is None else encoder.embed(texts)
            if vectors.shape[1] != centroids.shape[1]:
                raise InvalidDataError(
                    f"{partition.column('origin')[0]} has vectors of {vectors.shape[1]} numbers, "
                    f"the centroids have {centroids.shape[1]}; embed all documents with one model"
                )
            micro, alike = nearest(means.centre(vectors, languages[rows]), centroids)
            arrays: dict[ArrayName, NDArray[Any]] = {
                "scores": _scores(partition, rows, texts, languages[rows], task.settings),
                "text_hashes": hash_texts(texts),
                "signatures": sign_texts(texts),
                "micro": micro,
                "alike": alike,
            }
            for name, array in arrays.items():
                groups.setdefault(name, []).append(array)
        partition.write_arrays(
            {n: np.concatenate(a, -1 if n == "signatures" else 0) for n, a in groups.items()}
        )
    return len(partition)


def _scores(
    partition: Partition,
    rows: slice,
    texts: Sequence[str],
    languages: Sequence[str],
    settings: BuildSettings,
) -> NDArray[np.float32]:
    """Return the scores of ``texts``, which are documents ``rows`` of a partition: ``[m, 4]``.

    ``settings`` decide where each score comes from.
    """
    columns = list(settings.score_columns)
    scores = np.zeros((len(texts), len(SCORES)), np.float32)
    if len(settings.scores) < len(SCORES):
        scores = score_documents(texts, languages)
    for name, place in settings.scores.items():
        scores[:, SCORES.index(name)] = (
            partition.read("given_scores")[rows, columns.index(name)]
            if name in columns
            else classify(place, texts)
        )
    return scores
