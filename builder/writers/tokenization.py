"""The stage that turns the documents that stay into tokens."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.selection.selection import Selection
from climbstream.loader.core.engines.engine import Engine, run_stage

from .tokenizer import token_dtype, tokenize


def tokenize_all(engine: Engine, fates: Selection, tokenizer: Path, end: int | None) -> None:
    """Do `tokenize_unit` with all units; drop what the tokenizer makes nothing of.

    Token ``end`` is put behind each document; None: nothing is.
    """
    tasks = (TokenTask(unit, tokenizer, end) for unit in fates.units)
    run_stage(engine, "tokenise", "tokens", tokenize_unit, tasks)

    def find(_: int, unit: Partition) -> NDArray[np.str_]:
        without = np.ones(len(unit), np.bool_)
        without[unit.read("order")] = False
        return np.where(without, "no token", "")

    fates.drop("tokenise", find)
    tokens = sum(int(unit.read("lengths").sum()) for unit in fates.units)
    fates.stages[-1]["out"]["tokens"] = tokens


@dataclass(frozen=True, slots=True)
class TokenTask:
    """Tokenise the documents of ``unit`` that have a cluster."""

    unit: Partition
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
