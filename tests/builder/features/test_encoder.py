"""Encoders: models of other libraries embed as the fitted one does, and say why they cannot."""

import numpy as np
import pytest

from climbstream.builder.features.encoder import load_model
from climbstream.builder.pipeline import build
from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.errors import InvalidDataError

WORDS = ["[PAD]", "[UNK]", "the", "sea", "oven", "captain", "flour", "anchor", "dough", "and"]


def tokenizer_of_words():
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


@pytest.fixture(scope="module")
def static_model(tmp_path_factory):
    from model2vec import StaticModel

    vectors = np.random.default_rng(0).normal(size=(len(WORDS), 12)).astype(np.float32)
    folder = tmp_path_factory.mktemp("static")
    StaticModel(vectors, tokenizer_of_words()).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory):
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_of_words(), pad_token="[PAD]", unk_token="[UNK]"
    )
    tokenizer.save_pretrained(folder / "bert")
    words = Transformer(str(folder / "bert"), max_seq_length=32)
    pooling = Pooling(words.get_embedding_dimension())
    SentenceTransformer(modules=[words, pooling], device="cpu").save(str(folder / "model"))
    return folder / "model"


def check(name, dims):
    encoder = load_model(name)
    texts = ["the sea and the anchor", "flour and dough " * 500, "captain"]
    vectors = encoder.embed(texts)
    assert (vectors.shape, vectors.dtype) == ((3, dims), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-4)
    np.testing.assert_allclose(encoder.embed(texts[2:])[0], vectors[2], atol=1e-5)


def test_a_model_of_model2vec_embeds(static_model):
    check(f"m2v:{static_model}", 12)


@pytest.mark.slow
def test_a_model_of_sentence_transformers_embeds(sentence_model):
    check(f"st:{sentence_model}", 16)


@pytest.mark.parametrize("kind", ["m2v", pytest.param("st", marks=pytest.mark.slow)])
def test_what_is_no_model_is_refused_with_what_can_be_named(kind, tmp_path):
    with pytest.raises(InvalidDataError, match=r"is no model .*; name a folder that holds one"):
        load_model(f"{kind}:{tmp_path}")


@pytest.mark.slow
def test_a_corpus_is_built_with_a_model(static_model, tmp_path, make_records, write_jsonl):
    source = write_jsonl(tmp_path / "topics.jsonl", make_records(each=10))
    settings = BuildSettings(
        embed=f"m2v:{static_model}",
        clusters=2,
        micro_clusters=4,
        vocab_size=300,
        min_cluster_score={},
        min_document_score={},
        near_duplicates=None,
    )
    manifest = build([str(source)], tmp_path / "out", settings, workers=1)
    assert np.load(tmp_path / "out" / "centroids.npy").shape[1] == 12
    assert sum(cluster.documents for cluster in manifest.clusters) == 60
