"""How good a model is at a text: bits per byte, which no tokenizer can flatter."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

_ROWS = 16
"""Rows that are scored at once: the logits of more leave the cache of a CPU core."""
_IGNORED = -100


@dataclass(frozen=True, slots=True, eq=False)
class ScoredText:
    """Text laid out so that each of its tokens is predicted once."""

    inputs: torch.Tensor
    """int64 ``[n, seq_len]``."""
    targets: torch.Tensor
    """The token after each of ``inputs``, int64 ``[n, seq_len]``; -100 where none is asked for."""
    bytes: int
    """UTF-8 bytes of the text."""

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Tokenizer, end: int | None, seq_len: int) -> Self:
        """Lay ``texts`` out; ``end`` is the token that parts documents, if there is one."""
        begin = 0 if end is None else end
        inputs: list[int] = []
        targets: list[int] = []
        for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False):
            inputs += [begin, *encoding.ids]
            # The end of a document is no byte of it.
            targets += [*encoding.ids, _IGNORED]
        missing = -len(inputs) % seq_len
        inputs += [begin] * missing
        targets += [_IGNORED] * missing
        return cls(
            torch.tensor(inputs).view(-1, seq_len),
            torch.tensor(targets).view(-1, seq_len),
            sum(len(text.encode()) for text in texts),
        )


@torch.no_grad()
def bits_per_byte(model: LlamaForCausalLM, text: ScoredText) -> float:
    """Return the bits that ``model`` needs for a byte of ``text``; lower is better."""
    nats = 0.0
    for inputs, targets in zip(text.inputs.split(_ROWS), text.targets.split(_ROWS), strict=True):
        logits = model(input_ids=inputs).logits
        loss = cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=_IGNORED, reduction="sum"
        )
        nats += float(loss)
    return nats / math.log(2) / text.bytes
