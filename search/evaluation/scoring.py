"""Scoring: how well a model predicts a target.

Text, and the right answers of a task, are scored in bits per byte, so that scores do not depend on
the tokenizer. The error of a task is the fraction of its questions for which another answer takes
fewer bits a byte than the right one: 1 minus the accuracy that lm-eval calls ``acc_norm``. On small
models the error moves in steps that are mostly noise, so the bits of the right answers guide a
search better.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Self

import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy

from .questions import Question
from .targets import Target

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROWS = 16
"""Rows that are scored at once: the logits of more do not fit into the cache of a CPU core."""
_LOGITS = 1 << 28
"""Logits that are computed at once, 1 GiB of float32, unless a single row has more."""
_IGNORED = -100


@dataclass(frozen=True, slots=True, eq=False)
class ScoredText:
    """Text in rows, laid out so that each of its tokens is predicted once."""

    inputs: torch.Tensor
    """int64 ``[n, seq_len]``."""
    targets: torch.Tensor
    """The token after each of ``inputs``, int64 ``[n, seq_len]``; -100 where none is scored."""
    bytes: int
    """UTF-8 bytes of the text."""

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Tokenizer, end: int | None, seq_len: int) -> Self:
        """Lay ``texts`` out in rows; ``end`` is the token that ends a document, if there is one."""
        begin = 0 if end is None else end
        inputs: list[int] = []
        targets: list[int] = []
        for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False):
            inputs += [begin, *encoding.ids]
            # The end token stands for no byte of the document.
            targets += [*encoding.ids, _IGNORED]
        missing = -len(inputs) % seq_len
        inputs += [begin] * missing
        targets += [_IGNORED] * missing
        return cls(
            torch.tensor(inputs).view(-1, seq_len),
            torch.tensor(targets).view(-1, seq_len),
            sum(len(text.encode()) for text in texts),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ScoredAnswers:
    """Answers behind their queries, laid out so that each of their tokens is predicted once."""

    rows: ScoredText
    owners: torch.Tensor
    """Number of the answer that each row belongs to, int64 ``[n]``."""
    sizes: tuple[int, ...]
    """UTF-8 bytes of each answer."""

    @classmethod
    def of(
        cls,
        pairs: Sequence[tuple[str, str]],
        tokenizer: Tokenizer,
        end: int | None,
        seq_len: int,
    ) -> Self:
        """Lay out ``pairs`` of query and answer; a query that is too long loses its beginning."""
        begin = 0 if end is None else end
        columns = [
            [e.ids for e in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
            for texts in zip(*pairs, strict=True)
        ]
        inputs, targets, owners = [], [], []
        for number, (query, answer) in enumerate(zip(*columns, strict=True)):
            for tokens, asked in _windows([begin, *query], answer, seq_len):
                inputs.append(tokens + [begin] * (seq_len - len(tokens)))
                targets.append(asked + [_IGNORED] * (seq_len - len(asked)))
                owners.append(number)
        sizes = tuple(len(answer.encode()) for _, answer in pairs)
        rows = ScoredText(torch.tensor(inputs), torch.tensor(targets), sum(sizes))
        return cls(rows, torch.tensor(owners), sizes)


def score(
    model: "PreTrainedModel",
    target: Target,
    half: Literal["validation", "test"],
    tokenizer: Tokenizer,
    end: int | None,
    seq_len: int,
) -> float:
    """Score ``model`` on one half of a target; lower is better. For arguments see `ScoredText`.

    The score is in bits per byte, or the fraction of wrong answers if the target asks for that.
    """
    if target.measure == "error":
        return error(model, getattr(target, half), tokenizer, end, seq_len)
    return bits_per_byte(model, lay_out(target, half, tokenizer, end, seq_len))


def lay_out(
    target: Target,
    half: Literal["validation", "test"],
    tokenizer: Tokenizer,
    end: int | None,
    seq_len: int,
) -> ScoredText:
    """Lay out the text of one half of a target, or the right answers of its questions."""
    items = getattr(target, half)
    if isinstance(items[0], str):
        return ScoredText.of(items, tokenizer, end, seq_len)
    pairs = [(question.query, question.answer(question.gold)) for question in items]
    return ScoredAnswers.of(pairs, tokenizer, end, seq_len).rows


def bits_per_byte(model: "PreTrainedModel", text: ScoredText) -> float:
    """Return the bits that ``model`` needs for a byte of ``text``; lower is better."""
    return float(_nats(model, text).sum()) / math.log(2) / text.bytes


def error(
    model: "PreTrainedModel",
    questions: Sequence[Question],
    tokenizer: Tokenizer,
    end: int | None,
    seq_len: int,
) -> float:
    """Return the fraction of ``questions`` that ``model`` answers wrong.

    Its answer is the one with the fewest bits a byte; of equal ones the first.
    """
    pairs = [(q.query, q.answer(choice)) for q in questions for choice in range(len(q.choices))]
    answers = ScoredAnswers.of(pairs, tokenizer, end, seq_len)
    nats = torch.zeros(len(pairs), dtype=torch.float64)
    nats.index_add_(0, answers.owners, _nats(model, answers.rows))
    costs = nats / torch.tensor(answers.sizes)
    ends = torch.tensor([0, *(len(q.choices) for q in questions)]).cumsum(0).tolist()
    wrong = [
        int(costs[first:last].argmin()) != question.gold
        for question, (first, last) in zip(questions, pairwise(ends), strict=True)
    ]
    return sum(wrong) / len(wrong)


@torch.no_grad()
def _nats(model: "PreTrainedModel", text: ScoredText) -> torch.Tensor:
    """Return the nats that ``model`` needs for each row of ``text``, float64 ``[n]``."""
    found = []
    rows = max(1, min(_ROWS, _LOGITS // (text.inputs.shape[1] * model.config.vocab_size)))
    for inputs, targets in zip(text.inputs.split(rows), text.targets.split(rows), strict=True):
        logits = model(input_ids=inputs.to(model.device)).logits
        loss = cross_entropy(
            logits.flatten(0, 1),
            targets.to(model.device).flatten(),
            ignore_index=_IGNORED,
            reduction="none",
        )
        found.append(loss.view(targets.shape).sum(dim=1, dtype=torch.float64).cpu())
    return torch.cat(found)


def _windows(
    before: list[int], answer: list[int], seq_len: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield rows of at most ``seq_len`` tokens, and the token to predict after each; -100: none.

    The last row ends with the last token of the answer. A long answer takes several rows; each
    begins with as many earlier tokens as fit.
    """
    stream = before + answer
    last = len(stream)
    while last > len(before):
        first = max(0, last - 1 - seq_len)
        asked = [
            token if place >= len(before) else _IGNORED
            for place, token in enumerate(stream[first + 1 : last], first + 1)
        ]
        yield stream[first : last - 1], asked
        last = first + 1
