"""Stages: what is done to each unit, one function a stage, each leaving arrays beside its text.

All are safe to run again: what exists is left as it is.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from .duplicates import hash_texts
from .embed import Embedder
from .kmeans import nearest
from .quality import score_documents
from .tokens import token_dtype, tokenize
from .unit import Unit


@dataclass(frozen=True, slots=True)
class LookTask:
    """Look at ``unit`` with the embedder and centroids that lie in ``model``."""

    unit: Unit
    model: Path


def look(task: LookTask) -> int:
    """Score, hash, embed and assign the documents of a unit; return how many there are.

    Writes ``scores`` float32 ``[n, 4]``, ``text_hashes`` and ``id_hashes`` uint64 ``[n, 2]``,
    ``sizes`` int64 ``[n]`` in bytes, ``vectors`` float16 ``[n, dims]``, ``micro`` int32 ``[n]``.
    """
    unit = task.unit
    # `micro` is written last.
    if not unit.has("micro"):
        with np.load(task.model, allow_pickle=False) as model:
            embedder = Embedder(model["idf"], model["components"])
            centroids = model["centroids"]
        texts = unit.column("text")
        unit.write("scores", score_documents(texts))
        unit.write("text_hashes", hash_texts(texts))
        unit.write("id_hashes", hash_texts(unit.column("id")))
        unit.write("sizes", np.array([len(text.encode()) for text in texts], np.int64))
        vectors = embedder.embed(texts)
        unit.write("vectors", vectors.astype(np.float16))
        unit.write("micro", nearest(vectors, centroids))
    return len(unit)


@dataclass(frozen=True, slots=True)
class TokenTask:
    """Tokenise the documents of ``unit`` that have a cluster."""

    unit: Unit
    tokenizer: Path


def tokenize_unit(task: TokenTask) -> int:
    """Tokenise a unit; return the number of tokens.

    Reads ``clusters`` int32 ``[n]``, below 0 for documents that were dropped. Writes ``order``
    int64 ``[m]``, the others that have tokens, by cluster; their ``lengths`` int64 ``[m]``; and
    ``tokens``, flat.
    """
    unit = task.unit
    # `tokens` is written last.
    if not unit.has("tokens"):
        tokenizer = Tokenizer.from_file(str(task.tokenizer))
        dtype = token_dtype(tokenizer.get_vocab_size())
        clusters = unit.read("clusters")
        order = np.argsort(clusters, kind="stable")
        order = order[clusters[order] >= 0]
        texts = unit.columns("text")["text"].take(order).to_pylist()
        documents = tokenize(tokenizer, texts, dtype)
        lengths = np.array([len(document) for document in documents], np.int64)
        # A document of no token cannot be stored.
        unit.write("order", order[lengths > 0])
        unit.write("lengths", lengths[lengths > 0])
        unit.write("tokens", np.concatenate([np.empty(0, dtype), *documents]))
    return int(unit.read("lengths").sum())
