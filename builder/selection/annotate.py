"""Stages: what is done to each unit, one function a stage, each leaving arrays beside its text.

All are safe to run again: what exists is left as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from climbstream.builder.clustering.kmeans import nearest
from climbstream.builder.corpus.partition import Unit
from climbstream.builder.features.encoder import read_encoder, read_vectors
from climbstream.builder.features.fasttext_scorer import classify
from climbstream.builder.features.quality import score_documents
from climbstream.builder.settings import SCORES, BuildSettings
from climbstream.builder.writers.tokenizer import token_dtype, tokenize
from climbstream.loader.core.engines.engine import Engine, run_stage
from climbstream.loader.core.errors import InvalidDataError

from .dedup import hash_texts, sign_texts
from .selection import Fates


def look_at(engine: Engine, units: Sequence[Unit], model: Path, settings: BuildSettings) -> None:
    """Do `look` with all ``units``."""
    tasks = (LookTask(unit, model, settings) for unit in units)
    run_stage(engine, "embed, score and assign", "documents", look, tasks)


def tokenize_all(engine: Engine, fates: Fates, tokenizer: Path, end: int | None) -> None:
    """Do `tokenize_unit` with all units; drop what the tokenizer makes nothing of.

    Token ``end`` is put behind each document; None: nothing is.
    """
    tasks = (TokenTask(unit, tokenizer, end) for unit in fates.units)
    run_stage(engine, "tokenise", "tokens", tokenize_unit, tasks)

    def find(_: int, unit: Unit) -> NDArray[np.str_]:
        without = np.ones(len(unit), np.bool_)
        without[unit.read("order")] = False
        return np.where(without, "no token", "")

    fates.drop("tokenise", find)
    tokens = sum(int(unit.read("lengths").sum()) for unit in fates.units)
    fates.stages[-1]["out"]["tokens"] = tokens


@dataclass(frozen=True, slots=True)
class LookTask:
    """Look at ``unit`` with the embedder and centroids that lie in ``model``."""

    unit: Unit
    model: Path
    settings: BuildSettings


def look(task: LookTask) -> int:
    """Score, hash, embed and assign the documents of a unit; return how many there are.

    Writes ``scores`` float32 ``[n, 4]``, ``text_hashes`` uint64 ``[n, 2]``, ``signatures`` uint8
    ``[SIGNATURE, n]``, ``vectors`` float16 ``[n, dims]``, ``alike`` float32 ``[n]``, ``micro``
    int32 ``[n]``.
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
        if vectors.shape[1] != centroids.shape[1]:
            raise InvalidDataError(
                f"{unit.column('origin')[0]} has vectors of {vectors.shape[1]} numbers, the "
                f"centroids have {centroids.shape[1]}; embed all documents with one model"
            )
        unit.write("vectors", vectors.astype(np.float16))
        micro, alike = nearest(vectors, centroids)
        unit.write("alike", alike)
        unit.write("micro", micro)
    return len(unit)


def _scores(unit: Unit, texts: Sequence[str], settings: BuildSettings) -> NDArray[np.float32]:
    """Score ``texts``, ``[n, 4]``, by what the settings name for each score."""
    columns = list(settings.score_columns)
    scores = np.zeros((len(texts), len(SCORES)), np.float32)
    if len(settings.scores) < len(SCORES):
        scores = score_documents(texts)
    for name, place in settings.scores.items():
        scores[:, SCORES.index(name)] = (
            unit.read("given_scores")[:, columns.index(name)]
            if name in columns
            else classify(place, texts)
        )
    return scores


@dataclass(frozen=True, slots=True)
class TokenTask:
    """Tokenise the documents of ``unit`` that have a cluster."""

    unit: Unit
    tokenizer: Path
    end: int | None


def tokenize_unit(task: TokenTask) -> int:
    """Tokenise a unit; return the number of tokens.

    Reads ``clusters`` int32 ``[n]``, below 0 for documents that were dropped. Writes ``order``
    int64 ``[m]``, the others that have tokens, by cluster; their ``lengths`` int64 ``[m]``; and
    ``tokens``, flat.
    """
    unit = task.unit
    # `tokens` is written last.
    if not unit.has("tokens"):
        tokenizer = _load(str(task.tokenizer), task.tokenizer.stat().st_mtime_ns)
        dtype = token_dtype(tokenizer.get_vocab_size())
        clusters = unit.read("clusters")
        order = np.argsort(clusters, kind="stable")
        order = order[clusters[order] >= 0]
        texts = unit.columns("text")["text"].take(order).to_pylist()
        documents = tokenize(tokenizer, texts, dtype, task.end)
        lengths = np.array([len(document) for document in documents], np.int64)
        # A document of no token cannot be stored.
        unit.write("order", order[lengths > 0])
        unit.write("lengths", lengths[lengths > 0])
        unit.write("tokens", np.concatenate([np.empty(0, dtype), *documents]))
    return int(unit.read("lengths").sum())


@lru_cache(maxsize=1)
def _load(path: str, _changed: int) -> Tokenizer:
    """Load a tokenizer, once a process: it takes a tenth of the time of a unit."""
    return Tokenizer.from_file(path)
