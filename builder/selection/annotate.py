"""Stages that compute facts about each document: each stage writes arrays to the partitions.

If a stage runs again, it does not compute arrays that exist already.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.clustering.kmeans import nearest
from climbstream.builder.corpus.partition import ArrayName, Partition
from climbstream.builder.corpus.passes import each
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
from climbstream.loader.core.console import counted
from climbstream.loader.core.engines.engine import Engine, run_stage
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.log import get_logger

from .dedup import sign_texts

logger = get_logger(__name__)


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
    """Do `annotate` for all ``partitions``; if GPUs may be used, do `assign` first, as a stage."""
    # Settings take longer to send than a partition. In the function, they are sent once.
    embed = partial(assign, model=model, settings=settings)
    look = partial(annotate, model=model, settings=settings)
    what = "embed, score and assign"
    if settings.uses_gpus:
        logger.info(f"embedding on {_devices(engine.gpus())}")
        run_stage(engine, "embed and assign", "documents", embed, partitions, gpu=True)
        what = "score"
    run_stage(engine, what, "documents", look, partitions)


def _devices(gpus: int | None) -> str:
    """Return the devices of `Engine.gpus` as text."""
    if gpus is None:
        return "the GPU of each job, or on its CPU if it has no GPU"
    return counted(gpus, "GPU") if gpus else "the CPU, as there is no GPU"


def count_devices(
    engine: Engine, partitions: Sequence[Partition], settings: BuildSettings
) -> dict[str, Any]:
    """Return how many documents were embedded on each device, for the manifest's provenance.

    The result has the one key ``embedded_on``; it is {} if the embedding cannot use GPUs.
    """
    if not settings.uses_gpus:
        return {}
    counts: Counter[str] = Counter()
    for device, documents in each(engine, partitions, _device):
        counts[device] += documents
    return {"embedded_on": dict(sorted(counts.items()))}


def _device(partition: Partition) -> tuple[str, int]:
    return str(partition.read("device")[0]), len(partition)


def annotate(partition: Partition, model: Path, settings: BuildSettings) -> int:
    """Score and hash documents, and do `assign` if it is not done; return their number.

    The file ``model`` has the encoder and the centroids. Writes three arrays to the partition:

    - ``scores``, float32 ``[n, 4]``: the quality scores;
    - ``text_hashes``, uint64 ``[n, 2]``: hashes, by which equal texts are found;
    - ``signatures``, uint8 ``[SIGNATURE, n]``: numbers by which near copies are found.
    """
    if not partition.has("scores"):
        assigner = None if partition.has("micro") else _Assigner(partition, model, settings)
        languages = partition.read("languages")[:, 0].tolist()

        def look(rows: slice, texts: Sequence[str]) -> dict[ArrayName, NDArray[Any]]:
            return {
                "scores": _scores(partition, rows, texts, languages[rows], settings),
                "text_hashes": hash_texts(texts),
                "signatures": sign_texts(texts),
                **(assigner.assign(rows, texts) if assigner else {}),
            }

        partition.write_arrays(_joined(partition, look))
    return len(partition)


def assign(partition: Partition, model: Path, settings: BuildSettings) -> int:
    """Embed documents, and assign them to micro-clusters; return their number.

    Writes three arrays to the partition:

    - ``micro``, int32 ``[n]``: the micro-cluster of each document;
    - ``alike``, float32 ``[n]``: the similarity between each document and its centroid;
    - ``device``, str ``[1]``: where the documents were embedded.

    Embeddings are not stored, because after this stage they are not needed.
    """
    if not partition.has("device"):
        assigner = _Assigner(partition, model, settings)
        arrays = _joined(partition, assigner.assign)
        partition.write_arrays({**arrays, "device": np.array([assigner.device])})
    return len(partition)


class _Assigner:
    """Embeds the documents of a partition, and assigns them to micro-clusters."""

    def __init__(self, partition: Partition, model: Path, settings: BuildSettings) -> None:
        trusted = settings.trust_remote_code
        self._partition = partition
        self._encoder, self._centroids = read_encoder(model, trust_remote_code=trusted)
        self._means = read_language_means(model, self._centroids.shape[1])
        self._languages = partition.read("languages")[:, 0].tolist()
        self.device: str = getattr(self._encoder, "device", "cpu")

    def assign(self, rows: slice, texts: Sequence[str]) -> dict[ArrayName, NDArray[Any]]:
        """Return ``micro`` and ``alike`` of ``texts``, which are documents ``rows``."""
        partition, centroids = self._partition, self._centroids
        vectors = (
            read_vectors(partition, rows) if self._encoder is None else self._encoder.embed(texts)
        )
        if vectors.shape[1] != centroids.shape[1]:
            raise InvalidDataError(
                f"{partition.column('origin')[0]} has vectors of {vectors.shape[1]} numbers, and "
                f"the centroids have {centroids.shape[1]}; embed all documents with one model"
            )
        micro, alike = nearest(self._means.centre(vectors, self._languages[rows]), centroids)
        return {"micro": micro, "alike": alike}


def _joined(
    partition: Partition,
    look: Callable[[slice, Sequence[str]], Mapping[ArrayName, NDArray[Any]]],
) -> dict[ArrayName, NDArray[Any]]:
    """Call ``look`` with the rows and texts of each row group; return its arrays, joined."""
    groups: dict[ArrayName, list[NDArray[Any]]] = {}
    for rows, table in partition.row_groups("text"):
        for name, array in look(rows, table["text"].to_pylist()).items():
            groups.setdefault(name, []).append(array)
    return {n: np.concatenate(a, -1 if n == "signatures" else 0) for n, a in groups.items()}


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
