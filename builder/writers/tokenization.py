"""The stage that tokenises the documents that stay."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.selection.reasons import WITHOUT_TOKENS
from climbstream.builder.selection.selection import Rule, Selection
from climbstream.loader.core.engines.engine import Engine, run_stage
from climbstream.loader.core.errors import ClimbError
from climbstream.loader.core.log import get_logger

from .encoder import SWITCH, Encoder, compare_encoders, installed_version, open_encoder
from .hostile_texts import hostile_texts
from .tokenizer import token_dtype

logger = get_logger(__name__)

_WORTH = 4 << 20
"""In a corpus with fewer bytes of text, `fastokens` saves less time than its comparison with
`tokenizers` takes."""
_COMPARED = 1 << 20
"""Maximum number of characters of the corpus for comparing `fastokens` with `tokenizers`."""
_COMPARED_PARTITIONS = 16
"""Maximum number of partitions from which these characters are taken."""


def tokenize_all(engine: Engine, selection: Selection, tokenizer: Path, end: int | None) -> None:
    """Tokenise all partitions; drop documents that have no token.

    Token ``end`` is added to each document, unless ``end`` is None.
    """
    done, sizes = zip(*selection.each(_state), strict=True)
    fastokens = "" if all(done) else _choose_encoder(engine, selection, tokenizer, sum(sizes))
    tasks = (TokenTask(partition, tokenizer, end, fastokens) for partition in selection.partitions)
    instead = _tokenize_without if fastokens else None
    tokens = run_stage(engine, "tokenise", "tokens", tokenize_partition, tasks, instead)
    selection.drop(Rule("tokenise", (WITHOUT_TOKENS,), _without_tokens))
    selection.stages[-1]["out"]["tokens"] = tokens


def _state(partition: Partition) -> tuple[bool, int]:
    """Return whether a partition is tokenised already, and how many bytes of text it has."""
    return partition.has("tokens"), int(partition.read("sizes").sum())


def _without_tokens(partition: Partition) -> NDArray[np.str_]:
    without = np.ones(len(partition), np.bool_)
    without[partition.read("order")] = False
    return np.where(without, WITHOUT_TOKENS, "")


def count_tokens(partition: Partition) -> int:
    """Return the number of tokens of a partition."""
    return int(partition.read("lengths").sum())


@dataclass(frozen=True, slots=True)
class TokenTask:
    """Input of `tokenize_partition`: a partition, and how its documents are tokenised."""

    partition: Partition
    tokenizer: Path
    end: int | None
    fastokens: str = ""
    """The version of `fastokens` to encode with; "": encode with `tokenizers`."""


def tokenize_partition(task: TokenTask) -> int:
    """Tokenise a partition; return its number of tokens.

    The array ``clusters``, int32 ``[n]``, must be there; it is below 0 for dropped documents. Three
    arrays are written for the m documents that stay and have tokens:

    - ``order``, int64 ``[m]``: the rows of these documents, sorted by cluster.
    - ``lengths``, int64 ``[m]``: the number of tokens of each, in this order.
    - ``tokens``: the tokens of all of them, one document after the other, in this order.
    """
    partition = task.partition
    if not partition.has("tokens"):
        changed = task.tokenizer.stat().st_mtime_ns
        encoder, dtype = _load(str(task.tokenizer), changed, task.fastokens)
        clusters = partition.read("clusters")
        lengths, ids = np.zeros(len(clusters), np.int64), [np.empty(0, dtype)]
        for rows, table in partition.row_groups("text"):
            kept = np.flatnonzero(clusters[rows] >= 0)
            tokens = encoder.encode(table["text"].take(kept).to_pylist())
            if task.end is not None:
                tokens = tokens.end_with(task.end)
            lengths[kept + rows.start] = tokens.lengths
            ids.append(tokens.ids.astype(dtype))
        order = np.argsort(clusters, kind="stable")
        # A document without tokens cannot be stored.
        order = order[(clusters[order] >= 0) & (lengths[order] > 0)]
        partition.write_arrays(
            {
                "order": order,
                "lengths": lengths[order],
                "tokens": _reordered(np.concatenate(ids), lengths, order),
            }
        )
    return int(partition.read("lengths").sum())


def _reordered(
    ids: NDArray[Any], lengths: NDArray[np.int64], order: NDArray[np.int64]
) -> NDArray[Any]:
    """Return the tokens of the documents ``order``, from ``ids``, the tokens of all documents."""
    ends = np.cumsum(lengths)[order]
    parts = zip((ends - lengths[order]).tolist(), ends.tolist(), strict=True)
    return np.concatenate([ids[:0], *(ids[begin:end] for begin, end in parts)])


def _tokenize_without(task: TokenTask, _: ClimbError) -> int:
    """Tokenise a partition in this process, without `fastokens`, because workers failed on it."""
    return tokenize_partition(replace(task, fastokens=""))


@lru_cache(maxsize=1)
def _load(path: str, _changed: int, fastokens: str) -> tuple[Encoder, str]:
    """Return the encoder of a tokenizer, and the type of its tokens; kept in memory."""
    tokenizer = Tokenizer.from_file(path)
    return open_encoder(tokenizer, fastokens), token_dtype(tokenizer.get_vocab_size())


def _choose_encoder(engine: Engine, selection: Selection, tokenizer: Path, size: int) -> str:
    """Return the version of `fastokens` with which tasks must encode; "": with `tokenizers`.

    A process of the engine compares the libraries on texts of the corpus and on hostile texts.
    `fastokens` is used only if it returns the same ids as `tokenizers`. So the tokens are the same
    whichever library encodes. ``size`` is the number of bytes of all texts.
    """
    version = installed_version()
    if os.environ.get(SWITCH) == "0":
        logger.info(f"texts are encoded by tokenizers, because {SWITCH} is 0")
        return ""
    if not version:
        logger.info(
            "texts are encoded by tokenizers; fastokens is many times as fast: pip install "
            "fastokens"
        )
        return ""
    if size < _WORTH:
        logger.info(
            f"texts are encoded by tokenizers; fastokens saves time only with {_WORTH >> 20} MiB "
            "of text or more"
        )
        return ""
    step = -(-len(selection.partitions) // _COMPARED_PARTITIONS)
    task = _CompareTask(selection.partitions[::step], tokenizer)
    [(_, difference)] = engine.run(_compare, [task], lambda _, error: f"ends its process: {error}")
    if difference:
        logger.info(
            f"texts are encoded by tokenizers, not by fastokens {version}, which {difference}"
        )
        return ""
    logger.info(f"texts are encoded by fastokens {version}, which gives the same ids as tokenizers")
    return version


@dataclass(frozen=True, slots=True)
class _CompareTask:
    """Input of `_compare`: partitions from which texts are taken, and the tokenizer."""

    partitions: Sequence[Partition]
    tokenizer: Path


def _compare(task: _CompareTask) -> str:
    """Return the result of `compare_encoders` on a sample of the corpus and on hostile texts."""
    tokenizer = Tokenizer.from_file(str(task.tokenizer))
    sample = [*_sample(task.partitions), *hostile_texts(tokenizer)]
    return compare_encoders(tokenizer, sample)


def _sample(partitions: Sequence[Partition]) -> Iterator[str]:
    """Yield texts from all ``partitions``, with about `_COMPARED` characters in total."""
    for partition in partitions:
        left = _COMPARED // len(partitions)
        _, table = next(partition.row_groups("text"))
        for text in table["text"]:
            yield text.as_py()[:left]
            if (left := left - len(text.as_py())) <= 0:
                break
