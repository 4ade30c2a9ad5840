"""Tokens: any text comes back from its ids, and every document ends."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder.writers.encoder import ReferenceEncoder
from climbstream.builder.writers.tokenizer import (
    EOS,
    load_tokenizer,
    token_dtype,
    train_tokenizer,
)
from climbstream.loader.core.errors import InvalidDataError, UsageError

any_text = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def tokenizer(make_records):
    return train_tokenizer([record["text"] for record in make_records()], 600)


def encode(tokenizer, texts):
    return ReferenceEncoder(tokenizer).encode(texts).end_with(0).split()


@given(st.lists(any_text | any_text.map(lambda text: f"{text}{EOS}{text}"), max_size=5))
def test_any_text_comes_back_from_its_tokens(tokenizer, texts):
    documents = encode(tokenizer, texts)
    back = [tokenizer.decode(d[:-1].tolist(), skip_special_tokens=False) for d in documents]
    assert back == texts


@given(st.lists(any_text | st.just(f"it says {EOS} here"), max_size=5))
def test_the_end_of_a_document_stands_at_its_end_and_nowhere_else(tokenizer, texts):
    for document in encode(tokenizer, texts):
        assert np.flatnonzero(document == 0).tolist() == [len(document) - 1]


def test_training_again_gives_the_same_tokenizer(tokenizer, make_records):
    texts = [record["text"] for record in make_records()]
    assert train_tokenizer(texts, 600).to_str() == tokenizer.to_str()


def test_a_trained_tokenizer_has_the_size_that_was_asked_for(tokenizer):
    assert tokenizer.get_vocab_size() == 600
    assert tokenizer.token_to_id(EOS) == 0


def test_words_of_the_corpus_take_few_tokens(tokenizer):
    (document,) = encode(tokenizer, ["the lighthouse and the harbour"])
    assert len(document) < 20


@pytest.mark.parametrize(
    ("size", "dtype"), [(2, "uint16"), (65_536, "uint16"), (65_537, "uint32"), (1 << 31, "uint32")]
)
def test_ids_take_two_bytes_up_to_65536_of_them(size, dtype):
    assert token_dtype(size) == dtype
    assert np.array([size - 1]).astype(dtype)[0] == size - 1


def test_a_tokenizer_is_loaded_from_its_file_or_folder(tokenizer, tmp_path):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for name in (tmp_path, tmp_path / "tokenizer.json"):
        assert load_tokenizer(str(name)).get_vocab() == tokenizer.get_vocab()


def test_a_tokenizer_behind_a_url_is_refused_with_the_remedy():
    with pytest.raises(UsageError, match=r"s3://bucket/t is a URL, .*; copy it to this machine"):
        load_tokenizer("s3://bucket/t")


def test_what_is_no_tokenizer_is_refused_with_what_could_be_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"no": "tokenizer"}))
    with pytest.raises(InvalidDataError, match=r"is not a tokenizer: .*; name a tokenizer\.json"):
        load_tokenizer(str(tmp_path))
