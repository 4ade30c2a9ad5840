"""The stage that turns the documents that stay into tokens."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.selection.selection import Selection
from climbstream.loader.core.engines.engine import Engine, run_stage
from climbstream.loader.core.errors import ClimbError
from climbstream.loader.core.log import get_logger

from .encoder import SWITCH, Encoder, compare_encoders, installed_version, open_encoder
from .hostile_texts import hostile_texts
from .tokenizer import token_dtype

logger = get_logger(__name__)

_WORTH = 4 << 20
"""Bytes of text from which on `fastokens` saves more time than it takes to compare it."""
_COMPARED = 1 << 20
"""Characters of the corpus, at most, that both encoders encode before one is relied on."""
_COMPARED_UNITS = 16
"""Units that they are taken from."""


def tokenize_all(engine: Engine, fates: Selection, tokenizer: Path, end: int | None) -> None:
    """Do `tokenize_unit` with all units; drop what the tokenizer makes nothing of.

    Token ``end`` is put behind each document; None: nothing is.
    """
    waiting = [unit for unit in fates.units if not unit.has("tokens")]
    fastokens = _choose_encoder(engine, waiting, tokenizer) if waiting else ""
    tasks = (TokenTask(unit, tokenizer, end, fastokens) for unit in fates.units)
    instead = _tokenize_without if fastokens else None
    run_stage(engine, "tokenise", "tokens", tokenize_unit, tasks, instead)

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
    fastokens: str = ""
    """The version of `fastokens` that encodes; empty: `tokenizers` does."""


def tokenize_unit(task: TokenTask) -> int:
    """Tokenise a unit; return the number of tokens.

    Reads ``clusters`` int32 ``[n]``, below 0 for documents that were dropped. Writes ``order``
    int64 ``[m]``, the others that have tokens, by cluster; their ``lengths`` int64 ``[m]``; and
    ``tokens``, flat.
    """
    unit = task.unit
    # `tokens` is written last.
    if not unit.has("tokens"):
        changed = task.tokenizer.stat().st_mtime_ns
        encoder, dtype = _load(str(task.tokenizer), changed, task.fastokens)
        clusters = unit.read("clusters")
        order = np.argsort(clusters, kind="stable")
        order = order[clusters[order] >= 0]
        tokens = encoder.encode(unit.columns("text")["text"].take(order).to_pylist())
        if task.end is not None:
            tokens = tokens.end_with(task.end)
        # A document of no token cannot be stored.
        unit.write("order", order[tokens.lengths > 0])
        unit.write("lengths", tokens.lengths[tokens.lengths > 0])
        unit.write("tokens", tokens.ids.astype(dtype))
    return int(unit.read("lengths").sum())


def _tokenize_without(task: TokenTask, _: ClimbError) -> int:
    """Tokenise a unit on which processes hung or ended: here, and without `fastokens`."""
    return tokenize_unit(replace(task, fastokens=""))


@lru_cache(maxsize=1)
def _load(path: str, _changed: int, fastokens: str) -> tuple[Encoder, str]:
    """Load a tokenizer, once a process: it takes a tenth of the time of a unit."""
    tokenizer = Tokenizer.from_file(path)
    return open_encoder(tokenizer, fastokens), token_dtype(tokenizer.get_vocab_size())


def _choose_encoder(engine: Engine, units: Sequence[Partition], tokenizer: Path) -> str:
    """Return the version of `fastokens` if it gives the same ids as `tokenizers`, else nothing.

    Both encode texts of ``units`` and hostile ones, in a process of the engine: the answer stands
    for all processes, and whatever it is, the tokens are the same.
    """
    version = installed_version()
    if os.environ.get(SWITCH) == "0":
        logger.info(f"tokenizers encodes: {SWITCH} is 0")
        return ""
    if not version:
        logger.info("tokenizers encodes; pip install fastokens makes that many times as fast")
        return ""
    if sum(int(unit.read("sizes").sum()) for unit in units) < _WORTH:
        logger.info(f"tokenizers encodes: fastokens pays from {_WORTH >> 20} MiB of text on")
        return ""
    task = _CompareTask(units[:: -(-len(units) // _COMPARED_UNITS)], tokenizer)
    [(_, difference)] = engine.run(_compare, [task], lambda _, error: f"ends its process: {error}")
    if difference:
        logger.info(f"tokenizers encodes, and not fastokens {version}, which {difference}")
        return ""
    logger.info(f"fastokens {version} encodes: it gives the ids of tokenizers")
    return version


@dataclass(frozen=True, slots=True)
class _CompareTask:
    """Compare the encoders on texts of ``units``."""

    units: Sequence[Partition]
    tokenizer: Path


def _compare(task: _CompareTask) -> str:
    """Do `compare_encoders` with a sample of the corpus, and hostile texts."""
    tokenizer = Tokenizer.from_file(str(task.tokenizer))
    sample = [*_sample(task.units), *hostile_texts(tokenizer)]
    return compare_encoders(tokenizer, sample)


def _sample(units: Sequence[Partition]) -> Iterator[str]:
    """Give texts of all ``units``, `_COMPARED` characters together."""
    for unit in units:
        left = _COMPARED // len(units)
        for text in unit.columns("text")["text"]:
            yield text.as_py()[:left]
            if (left := left - len(text.as_py())) <= 0:
                break
