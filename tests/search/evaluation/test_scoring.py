"""Bits per byte: each token is predicted once, and nothing else costs anything."""

import math

import pytest
import torch
from tokenizers import Tokenizer

from climbstream.search.evaluation.questions import Question
from climbstream.search.evaluation.scoring import (
    ScoredAnswers,
    ScoredText,
    bits_per_byte,
    errors,
    score,
    score_items,
)
from climbstream.search.evaluation.targets import Target
from climbstream.search.training.model import make_model

TEXTS = ["The harbour was there.", "Ünïcode — too.", "x", "And so it was by the sea, they said."]


@pytest.fixture(scope="module")
def tokenizer(shards):
    return Tokenizer.from_file(str(shards / "tokenizer.json"))


@pytest.fixture(scope="module")
def model(tokenizer):
    return make_model("tiny", tokenizer.get_vocab_size(), 16, 0).eval()


def ids_of(tokenizer, texts):
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


@torch.no_grad()
def by_hand(model, tokenizer, texts, end, seq_len):
    """Bits per byte, one token at a time: the row up to it is all that the model sees."""
    stream, bits = [], 0.0
    for ids in ids_of(tokenizer, texts):
        for token in ids:
            if not stream or stream[-1] is None:
                stream.append(end)
            stream[-1:] = [stream[-1], token]
        stream.append(None)
    before = []
    for place, token in enumerate(stream[:-1]):
        following = stream[place + 1]
        before.append(end if token is None else token)
        # A document's end is the token that begins the next one.
        context = before[len(before) - 1 - (len(before) - 1) % seq_len :]
        if following is not None and token is not None:
            logits = model(input_ids=torch.tensor([context])).logits[0, -1].double()
            bits -= logits.log_softmax(0)[following].item() / math.log(2)
        if token is None:
            before.pop()
    return bits / sum(len(text.encode()) for text in texts)


@pytest.mark.parametrize("seq_len", [5, 16, 64])
def test_bits_per_byte_are_those_of_a_computation_by_hand(tokenizer, model, seq_len):
    expected = by_hand(model, tokenizer, TEXTS, 0, seq_len)
    text = ScoredText.of(TEXTS, tokenizer, 0, seq_len)
    assert bits_per_byte(model, text) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seq_len", [1, 7, 16, 1000])
def test_each_token_is_predicted_once(tokenizer, seq_len):
    text = ScoredText.of(TEXTS, tokenizer, 0, seq_len)
    asked = text.targets[text.targets >= 0].tolist()
    assert asked == [token for ids in ids_of(tokenizer, TEXTS) for token in ids]
    assert text.inputs.shape == text.targets.shape
    assert text.inputs.shape[1] == seq_len


def test_a_document_begins_after_the_token_that_parts_documents(tokenizer):
    text = ScoredText.of(["x", "x"], tokenizer, 9, 8)
    (x,) = ids_of(tokenizer, ["x"])[0]
    assert text.inputs.tolist() == [[9, x, 9, x, 9, 9, 9, 9]]
    assert text.targets.tolist() == [[x, -100, x, -100, -100, -100, -100, -100]]


@pytest.mark.parametrize("seq_len", [7, 16, 40])
def test_padding_and_ends_of_documents_cost_nothing(tokenizer, model, seq_len):
    uniform = make_model("tiny", tokenizer.get_vocab_size(), 16, 0)
    torch.nn.init.zeros_(uniform.lm_head.weight)
    tokens = sum(map(len, ids_of(tokenizer, TEXTS)))
    size = sum(len(text.encode()) for text in TEXTS)
    found = bits_per_byte(uniform, ScoredText.of(TEXTS, tokenizer, 0, seq_len))
    # A model that knows nothing pays log2(V) for every token.
    assert found == pytest.approx(math.log2(tokenizer.get_vocab_size()) * tokens / size, rel=1e-6)


def test_many_rows_cost_what_they_cost_one_by_one(tokenizer, model):
    text = ScoredText.of(TEXTS * 30, tokenizer, None, 16)
    assert len(text.inputs) > 50
    ones = [
        bits_per_byte(
            model, ScoredText(text.inputs[[i]], text.targets[[i]], text.bytes, text.owners[[i]])
        )
        for i in range(len(text.inputs))
        if (text.targets[i] >= 0).any()
    ]
    assert bits_per_byte(model, text) == pytest.approx(sum(ones), rel=1e-5)


def test_scoring_leaves_no_gradients(tokenizer, model):
    bits_per_byte(model, ScoredText.of(TEXTS, tokenizer, 0, 16))
    assert all(parameter.grad is None for parameter in model.parameters())


# Tasks.

QUESTIONS = [
    Question("What is by the sea?", ("The harbour.", "Ünïcode", "And so it was, they said."), 0),
    Question("", ("The sea was there.", "x"), 1),
    Question("x " * 40, ("and so", "it was"), 1),
]


@torch.no_grad()
def cost_by_hand(model, tokenizer, question, choice, end):
    """Nats of an answer, one token at a time, with all of the query before it."""
    before, answer = ids_of(tokenizer, [question.query, question.answer(choice)])
    nats = 0.0
    for place, token in enumerate(answer):
        stream = torch.tensor([[end, *before, *answer[:place]]])
        nats -= model(input_ids=stream).logits[0, -1].double().log_softmax(0)[token].item()
    return nats


def as_target(questions, measure="bits"):
    return Target(name="task", validation=tuple(questions), test=(), measure=measure)


def test_right_answers_have_the_bits_of_a_computation_by_hand(tokenizer, model):
    nats = sum(cost_by_hand(model, tokenizer, q, q.gold, 0) for q in QUESTIONS)
    size = sum(len(q.answer(q.gold).encode()) for q in QUESTIONS)
    found = score(model, as_target(QUESTIONS), "validation", tokenizer, 0, 200)
    assert found == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def test_errors_are_those_of_a_computation_by_hand(tokenizer, model):
    questions = [
        Question(q.query, q.choices, gold) for q in QUESTIONS for gold in range(len(q.choices))
    ]
    wrong = 0
    for q in questions:
        costs = [
            cost_by_hand(model, tokenizer, q, choice, 0) / len(q.answer(choice).encode())
            for choice in range(len(q.choices))
        ]
        wrong += costs.index(min(costs)) != q.gold
    # Whichever is right, one of the choices is given.
    assert wrong == len(questions) - len(QUESTIONS)
    assert sum(errors(model, questions, tokenizer, 0, 200)) == wrong
    found = score(model, as_target(questions, "error"), "validation", tokenizer, 0, 200)
    assert found == pytest.approx(wrong / len(questions))


@pytest.mark.parametrize("seq_len", [1, 3, 8, 200])
def test_every_token_of_an_answer_is_asked_for_once_however_long_it_is(tokenizer, seq_len):
    pairs = [(q.query, q.answer(choice)) for q in QUESTIONS for choice in range(len(q.choices))]
    answers = ScoredAnswers.of(pairs, tokenizer, 0, seq_len)
    assert answers.rows.inputs.shape[1] == seq_len
    for number, (query, answer) in enumerate(pairs):
        before, expected = ids_of(tokenizer, [query, answer])
        rows = answers.owners == number
        asked = answers.rows.targets[rows].flip(0).flatten()
        assert asked[asked >= 0].tolist() == expected
        # As many tokens as fit stand before what is asked for.
        last = [0, *before, *expected][-1 - seq_len : -1]
        assert answers.rows.inputs[rows][0][: len(last)].tolist() == last


def test_the_task_that_a_model_has_learned_by_heart_is_without_errors(tokenizer):
    questions = [Question(f"Is it {n}?", ("certainly", "never"), n % 2) for n in range(6)]
    model = make_model("tiny", tokenizer.get_vocab_size(), 32, 0)
    pairs = [(q.query, q.answer(q.gold)) for q in questions]
    rows = ScoredAnswers.of(pairs, tokenizer, 0, 32).rows
    before = bits_per_byte(model, rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        logits = model(input_ids=rows.inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows.targets.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not any(errors(model, questions, tokenizer, 0, 32))
    assert bits_per_byte(model, rows) < before / 4


def test_the_bits_of_items_are_those_of_each_alone_and_sum_to_the_score(tokenizer, model):
    target = Target(name="text", validation=tuple(TEXTS), test=())
    scored = score_items(model, target, "validation", tokenizer, 0, 16)
    assert len(scored.costs) == len(TEXTS)
    size = sum(len(text.encode()) for text in TEXTS)
    assert sum(scored.costs) / size == pytest.approx(scored.total)
    rows = ScoredText.of(TEXTS, tokenizer, 0, 16)
    first = by_hand(model, tokenizer, TEXTS[:1], 0, 16) * len(TEXTS[0].encode())
    assert scored.costs[0] == pytest.approx(first, rel=1e-4)
    assert sorted(set(rows.owners.flatten().tolist())) == list(range(len(TEXTS)))


def test_the_costs_of_questions_are_bits_of_answers_or_errors(tokenizer, model):
    scored = score_items(model, as_target(QUESTIONS), "validation", tokenizer, 0, 200)
    for question, cost in zip(QUESTIONS, scored.costs, strict=True):
        nats = cost_by_hand(model, tokenizer, question, question.gold, 0)
        assert cost == pytest.approx(nats / math.log(2), rel=1e-4)
    scored = score_items(model, as_target(QUESTIONS, "error"), "validation", tokenizer, 0, 200)
    assert set(scored.costs) <= {0.0, 1.0}
    assert scored.total == sum(scored.costs) / len(QUESTIONS)
