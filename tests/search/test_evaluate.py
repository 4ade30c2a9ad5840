"""Bits per byte: each token is predicted once, and nothing else costs anything."""

import math

import pytest
import torch
from tokenizers import Tokenizer

from climbstream.search.evaluate import ScoredText, bits_per_byte
from climbstream.search.model import make_model

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
        bits_per_byte(model, ScoredText(text.inputs[[i]], text.targets[[i]], text.bytes))
        for i in range(len(text.inputs))
        if (text.targets[i] >= 0).any()
    ]
    assert bits_per_byte(model, text) == pytest.approx(sum(ones), rel=1e-5)


def test_scoring_leaves_no_gradients(tokenizer, model):
    bits_per_byte(model, ScoredText.of(TEXTS, tokenizer, 0, 16))
    assert all(parameter.grad is None for parameter in model.parameters())
