"""Stages that compute facts about each document: each stage writes arrays to the partitions.

If a stage runs again, it does not compute arrays that exist already.
"""

from collections.abc import Sequence
from functools import partial
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
    """Do `tell_languages` for one partition; return the number of its documents."""
    if not partition.has("languages"):
        groups = [identify(table["text"].to_pylist()) for _, table in partition.row_groups("text")]
        partition.write("languages", np.concatenate(groups))
    return len(partition)


def look_at(
    engine: Engine, partitions: Sequence[Partition], model: Path, settings: BuildSettings
) -> None:
    """Do `annotate` for all ``partitions``."""
    # Settings take longer to send than a partition. In the function, they are sent once.
    function = partial(annotate, model=model, settings=settings)
    run_stage(engine, "embed, score and assign", "documents", function, partitions)


def annotate(partition: Partition, model: Path, settings: BuildSettings) -> int:
    """Score, hash and embed documents; assign them to micro-clusters; return how many they are.

    The file ``model`` has the encoder and the centroids. Writes five arrays to the partition:

    - ``scores``, float32 ``[n, 4]``;
    - ``text_hashes``, uint64 ``[n, 2]``;
    - ``signatures``, uint8 ``[SIGNATURE, n]``;
    - ``micro``, int32 ``[n]``: the micro-cluster of each document;
    - ``alike``, float32 ``[n]``: the similarity between each document and its centroid.

    Embeddings are not stored, because after this stage they are not needed.
    """
    if not partition.has("micro"):
        encoder, centroids = read_encoder(model)
        means = read_language_means(model, centroids.shape[1])
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
                "scores": _scores(partition, rows, texts, languages[rows], settings),
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
