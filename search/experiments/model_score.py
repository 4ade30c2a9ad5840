"""Score any model in Hugging Face's format on the targets of a search."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from tokenizers import Tokenizer

from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.local import own_device
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.manifest import TOKENIZER
from climbstream.loader.formats.tokenizer import read_tokenizer
from climbstream.search.evaluation.scoring import Tick, score_items
from climbstream.search.evaluation.targets import Target, load_target, scored_texts
from climbstream.search.training.base_model import load_model

from .items import target_items

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SEQ_LEN = 2048
"""Default limit of the number of tokens per row."""
_OTHER_TOKENIZERS = ("tokenizer_config.json", "vocab.json", "tokenizer.model", "spiece.model")
"""Files which show that a folder without ``tokenizer.json`` still has a tokenizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScore:
    """The score of a model on one target."""

    target: str
    score: float
    """The score, in ``unit``; lower is better."""
    unit: str
    sd: float | None
    """Standard error of ``score`` that is due to the choice of texts or questions; None if there is
    only one."""
    items: int
    """Number of texts or questions that were scored."""
    bytes: int
    """Number of UTF-8 bytes of the texts, or of the right answers."""
    warning: str = ""
    """A warning that the target has too few items, with the remedy; "" if it has enough."""


def score_model(
    folder: Path,
    directory: Path,
    specs: Sequence[str],
    *,
    half: Literal["validation", "test"] = "test",
    seq_len: int | None = None,
) -> list[ModelScore]:
    """Return the scores of the model in ``folder`` on one half of each target.

    The model runs on a GPU if there is one. If ``folder`` has no tokenizer, the tokenizer of the
    shards is used. Scores in bits per byte can be compared between models with different
    tokenizers.

    Args:
        folder: Folder of a causal language model in Hugging Face's format.
        directory: Shards; ``label=NAME`` and ``cluster=NAME`` are found in their held-out text.
        specs: Targets, written as for `climb search`.
        half: Half of each target to score on; a search uses only ``validation``.
        seq_len: Tokens per row. None means as many as the model can read, but at most 2,048.

    Returns:
        One score per target; repeated targets are scored once.

    Raises:
        UsageError: The model or a target does not exist, or the model cannot read rows of
            ``seq_len`` tokens.
        InvalidDataError: The model or a target cannot be read, or a score is not finite.
    """
    targets = [load_target(directory, spec) for spec in dict.fromkeys(specs)]
    model = load_model(folder).eval()
    tokenizer, begin = _tokenizer(model, folder, directory)
    longest = getattr(model.config, "max_position_embeddings", None) or _SEQ_LEN
    seq_len = min(longest, _SEQ_LEN) if seq_len is None else seq_len
    if not 0 < seq_len <= longest:
        raise UsageError(f"seq_len is {seq_len}; the model in {folder} reads 1 to {longest:,}")
    torch.nn.Module.to(model, own_device())
    total = sum(_texts(target, half) for target in targets)
    with Progress("score", total, "texts and answers") as bar:
        return [
            _score(model, target, half, tokenizer, begin, seq_len, bar.add) for target in targets
        ]


def _texts(target: Target, half: Literal["validation", "test"]) -> int:
    """Return the number of documents or answers that a model reads to be scored on ``target``."""
    items = getattr(target, half)
    if target.measure == "bits":
        return len(items)
    return sum(len(question.choices) for question in items)


def _score(
    model: "PreTrainedModel",
    target: Target,
    half: Literal["validation", "test"],
    tokenizer: Tokenizer,
    begin: int | None,
    seq_len: int,
    tick: Tick,
) -> ModelScore:
    scored = score_items(model, target, half, tokenizer, begin, seq_len, tick)
    number = scored.total
    if not math.isfinite(number):
        raise InvalidDataError(
            f"the score on {target.name} is {number}; check whether the model's parameters are "
            "damaged"
        )
    items, about = getattr(target, half), target_items(target, half)
    return ModelScore(
        target=target.name,
        score=number,
        sd=about.score_sd(np.array(scored.costs)) if len(items) > 1 else None,
        unit="bits per byte" if target.measure == "bits" else "part of wrong answers",
        items=len(items),
        bytes=sum(len(text.encode()) for text in scored_texts(items)),
        warning=about.warning(target.name),
    )


def _tokenizer(
    model: "PreTrainedModel", folder: Path, directory: Path
) -> tuple[Tokenizer, int | None]:
    """Return the tokenizer of a model, and the token that begins a document, or None without one.

    Raises:
        UsageError: There is no tokenizer, or the model has a smaller vocabulary than the tokenizer.
        InvalidDataError: The tokenizer cannot be read.
    """
    config = model.config
    begin = config.bos_token_id if config.bos_token_id is not None else config.eos_token_id
    begin = begin[0] if isinstance(begin, list) else begin
    where: Path = folder
    if (folder / TOKENIZER).is_file():
        tokenizer = read_tokenizer(folder)
    elif any((folder / name).is_file() for name in _OTHER_TOKENIZERS):
        tokenizer = _convert_tokenizer(folder)
    else:
        where, shards = directory, ShardDirectory(directory)
        tokenizer, begin = shards.tokenizer(), shards.manifest.eos_id
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise UsageError(
            f"the model in {folder} knows {config.vocab_size:,} tokens, and the tokenizer in "
            f"{where} has {tokenizer.get_vocab_size():,}; put the tokenizer of the model into its "
            "folder"
        )
    return tokenizer, begin


def _convert_tokenizer(folder: Path) -> Tokenizer:
    """Read a tokenizer from a folder that has no ``tokenizer.json``."""
    from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds; few folders need it

    try:
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        tokenizer: Tokenizer = loaded.backend_tokenizer
        if not tokenizer.encode("a b", add_special_tokens=False).ids:
            raise ValueError("it turns text into no tokens")
    except Exception as error:  # many libraries read these files, and each raises its own errors
        reason = str(error).strip().partition("\n")[0]
        raise InvalidDataError(f"the tokenizer in {folder} cannot be loaded: {reason}") from None
    return tokenizer
