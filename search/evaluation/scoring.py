"""Scoring: measures how well a model predicts a target.

Texts and the right answers of a task are scored in bits per byte, so that scores do not depend on
the tokenizer. The error of a task is the fraction of its questions that the model answers wrongly.
The model's answer to a question is the choice for which it needs the fewest bits per byte. The
error is 1 minus the accuracy that lm-eval calls ``acc_norm``.

The error can change only in steps of one question. If the errors of small models differ by a few
steps, most of the difference is noise. So the bits of the right answers guide a search better.
"""

import math
from collections.abc import Callable, Iterator, Sequence
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
"""Largest number of rows that are scored at once. The logits of more rows exceed the cache of a CPU
core."""
_LOGITS = 1 << 28
"""Largest number of logits that are computed at once: 1 GiB of float32. A single row may have more
logits."""
_IGNORED = -100
Tick = Callable[[int], object]
"""Function that is called with the number of documents or answers that a model has just read."""


def _say_nothing(_texts: int) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredText:
    """Texts as rows of tokens; a model that reads all rows predicts each token of a text once."""

    inputs: torch.Tensor
    """Tokens that the model reads, int64 ``[n, seq_len]``."""
    targets: torch.Tensor
    """The token after each of ``inputs``, int64 ``[n, seq_len]``; -100 for a token that is not
    scored."""
    bytes: int
    """Number of UTF-8 bytes of all texts together."""
    owners: torch.Tensor
    """Index of the document or answer to which each of ``targets`` belongs, int64
    ``[n, seq_len]``."""

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Tokenizer, end: int | None, seq_len: int) -> Self:
        """Tokenise ``texts``, join them, and cut them into rows of ``seq_len`` tokens.

        ``end`` is the token that ends a document; None if the tokenizer has no such token.
        """
        begin = 0 if end is None else end
        inputs: list[int] = []
        targets: list[int] = []
        owners: list[int] = []
        encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        for number, encoding in enumerate(encodings):
            inputs += [begin, *encoding.ids]
            # The end token stands for no byte of the document, so it is not scored.
            targets += [*encoding.ids, _IGNORED]
            owners += [number] * (len(encoding.ids) + 1)
        missing = -len(inputs) % seq_len
        inputs += [begin] * missing
        targets += [_IGNORED] * missing
        owners += [0] * missing
        return cls(
            torch.tensor(inputs).view(-1, seq_len),
            torch.tensor(targets).view(-1, seq_len),
            sum(len(text.encode()) for text in texts),
            torch.tensor(owners).view(-1, seq_len),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ScoredAnswers:
    """Queries and answers as rows of tokens; each token of an answer is predicted once."""

    rows: ScoredText
    owners: torch.Tensor
    """Index of the answer to which each row belongs, int64 ``[n]``."""
    sizes: tuple[int, ...]
    """Number of UTF-8 bytes of each answer."""

    @classmethod
    def of(
        cls,
        pairs: Sequence[tuple[str, str]],
        tokenizer: Tokenizer,
        end: int | None,
        seq_len: int,
    ) -> Self:
        """Tokenise ``pairs`` of query and answer, and cut them into rows of ``seq_len`` tokens.

        If a query is too long for the row, its beginning is cut off. ``end`` is the token that ends
        a document; None if the tokenizer has no such token.
        """
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
        of_tokens = torch.tensor(owners).unsqueeze(1).expand(-1, seq_len)
        rows = ScoredText(torch.tensor(inputs), torch.tensor(targets), sum(sizes), of_tokens)
        return cls(rows, torch.tensor(owners), sizes)


@dataclass(frozen=True, slots=True)
class Score:
    """The score of a model on one half of a target; lower is better."""

    total: float
    """Bits per byte, or the fraction of questions that the model answers wrongly."""
    costs: tuple[float, ...]
    """Cost of each item. If the score is in bits per byte, the cost is the bits of the document or
    of the right answer. If the score is a fraction of wrong answers, the cost is 1 for a wrong
    answer of the model and 0 for a right one."""


def score(
    model: "PreTrainedModel",
    target: Target,
    half: Literal["validation", "test"],
    tokenizer: Tokenizer,
    end: int | None,
    seq_len: int,
) -> float:
    """Return the score of ``model`` on one half of a target; lower is better.

    The score is in bits per byte. If the target's ``measure`` is ``error``, it is the fraction of
    questions that the model answers wrongly. For ``end`` see `ScoredText.of`.
    """
    return score_items(model, target, half, tokenizer, end, seq_len).total


def score_items(
    model: "PreTrainedModel",
    target: Target,
    half: Literal["validation", "test"],
    tokenizer: Tokenizer,
    end: int | None,
    seq_len: int,
    tick: Tick = _say_nothing,
) -> Score:
    """Return the score of ``model``, as `score` does, and the cost of each document or question.

    The cost of a document or question is its bits, or 1 for a wrong answer and 0 for a right one.
    ``tick`` is called after each batch.
    """
    items = getattr(target, half)
    if target.measure == "error":
        wrong = errors(model, items, tokenizer, end, seq_len, tick)
        return Score(sum(wrong) / len(wrong), tuple(map(float, wrong)))
    text = lay_out(target, half, tokenizer, end, seq_len)
    of_rows, of_items = _nats(model, text, len(items), tick)
    total = float(of_rows.sum()) / math.log(2) / text.bytes
    return Score(total, tuple((of_items / math.log(2)).tolist()))


def lay_out(
    target: Target,
    half: Literal["validation", "test"],
    tokenizer: Tokenizer,
    end: int | None,
    seq_len: int,
) -> ScoredText:
    """Return one half of a target as rows of tokens: texts, or queries with their right answers."""
    items = getattr(target, half)
    if isinstance(items[0], str):
        return ScoredText.of(items, tokenizer, end, seq_len)
    pairs = [(question.query, question.answer(question.gold)) for question in items]
    return ScoredAnswers.of(pairs, tokenizer, end, seq_len).rows


def bits_per_byte(model: "PreTrainedModel", text: ScoredText) -> float:
    """Return the bits per byte that ``model`` needs for ``text``; lower is better."""
    return float(_nats(model, text)[0].sum()) / math.log(2) / text.bytes


def errors(
    model: "PreTrainedModel",
    questions: Sequence[Question],
    tokenizer: Tokenizer,
    end: int | None,
    seq_len: int,
    tick: Tick = _say_nothing,
) -> list[bool]:
    """Return, for each of ``questions``, whether the model answers it wrongly.

    The model's answer is the choice with the fewest bits per byte. If several choices have equally
    few, the first of these choices counts as the answer. ``tick`` is called after each batch.
    """
    pairs = [(q.query, q.answer(choice)) for q in questions for choice in range(len(q.choices))]
    answers = ScoredAnswers.of(pairs, tokenizer, end, seq_len)
    nats = torch.zeros(len(pairs), dtype=torch.float64)
    nats.index_add_(0, answers.owners, _nats(model, answers.rows, tick=tick)[0])
    costs = nats / torch.tensor(answers.sizes)
    ends = torch.tensor([0, *(len(q.choices) for q in questions)]).cumsum(0).tolist()
    return [
        int(costs[first:last].argmin()) != question.gold
        for question, (first, last) in zip(questions, pairwise(ends), strict=True)
    ]


@torch.no_grad()
def _nats(
    model: "PreTrainedModel", text: ScoredText, items: int = 0, tick: Tick = _say_nothing
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cost in nats of each row, float64 ``[n]``, and of each item, float64 ``[items]``.

    ``items`` is the number of documents or answers in ``text``; with 0, only rows are summed.
    """
    done = 0
    of_rows, of_items = [], torch.zeros(items, dtype=torch.float64)
    rows = max(1, min(_ROWS, _LOGITS // (text.inputs.shape[1] * model.config.vocab_size)))
    batches = (part.split(rows) for part in (text.inputs, text.targets, text.owners))
    for inputs, targets, owners in zip(*batches, strict=True):
        logits = model(input_ids=inputs.to(model.device)).logits
        loss = cross_entropy(
            logits.flatten(0, 1),
            targets.to(model.device).flatten(),
            ignore_index=_IGNORED,
            reduction="none",
        ).view(targets.shape)
        of_rows.append(loss.sum(dim=1, dtype=torch.float64).cpu())
        if items:
            of_items.index_add_(0, owners.flatten(), loss.flatten().double().cpu())
        last = max(done, int(owners.max()))  # the rest of this text may be in the next batch
        tick(last - done)
        done = last
    tick(1)
    return torch.cat(of_rows), of_items


def _windows(
    before: list[int], answer: list[int], seq_len: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield rows of at most ``seq_len`` tokens, each with the tokens that follow its tokens.

    Tokens that are not scored are replaced by -100. Rows are yielded from the end of the answer to
    its beginning. A long answer takes several rows; each row begins with as many earlier tokens as
    fit.
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
