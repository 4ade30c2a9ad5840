"""Encoders: models of other libraries embed as the fitted one does, and say why they cannot."""

import json
import re
import shutil

import numpy as np
import pytest

from climbstream.builder import appender, pipeline
from climbstream.builder.appender import append
from climbstream.builder.clustering import fit
from climbstream.builder.corpus import ingest
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


SMALL = {
    "clusters": 2,
    "micro_clusters": 4,
    "vocab_size": 300,
    "min_cluster_score": {},
    "min_document_score": {},
    "near_duplicates": None,
}


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
    with pytest.raises(InvalidDataError, match=r"is not a model .*; name a folder that holds one"):
        load_model(f"{kind}:{tmp_path}")


@pytest.mark.slow
def test_of_a_long_text_a_model_uses_the_beginning_and_counts_it_as_cut(sentence_model):
    encoder = load_model(f"st:{sentence_model}")
    assert (encoder.limit, encoder.device) == (32, "cpu")
    fits, cut = " ".join(["the sea"] * 16), " ".join(["the sea"] * 16 + ["oven"] * 9)
    np.testing.assert_array_equal(encoder.embed([cut]), encoder.embed([fits]))
    assert encoder.count_cut([fits, cut, "captain", " " * 9_000]) == 2


def test_a_static_model_uses_512_tokens_of_a_text(static_model):
    encoder = load_model(f"m2v:{static_model}")
    assert encoder.limit == 512
    assert encoder.count_cut(["sea " * 500, "sea " * 513, "", "x" * 7_000]) == 2


@pytest.fixture
def model_with_code(sentence_model, tmp_path):
    """A model with a module of its own, which leaves a file where it is imported."""
    folder = shutil.copytree(sentence_model, tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_text())
    modules[-1]["type"] = "own.Own"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "own.py").write_text(
        "from pathlib import Path\n"
        "from sentence_transformers.sentence_transformer.modules import Pooling\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class Own(Pooling):\n    pass\n"
    )
    return folder


@pytest.mark.slow
def test_code_of_a_model_runs_only_if_it_is_trusted(model_with_code, tmp_path, monkeypatch):
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "cache"))
    name = f"st:{model_with_code}"
    with pytest.raises(InvalidDataError, match=r"code of its own.*add --trust-remote-code$"):
        load_model(name)
    assert not (tmp_path / "ran").exists()
    assert load_model(name, trust_remote_code=True).embed(["the sea"]).shape == (1, 16)
    assert (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_corpus_is_built_with_a_model(static_model, tmp_path, make_records, write_jsonl):
    source = write_jsonl(tmp_path / "topics.jsonl", make_records(each=10))
    settings = BuildSettings(embed=f"m2v:{static_model}", **SMALL)
    manifest = build([str(source)], tmp_path / "out", settings, workers=1)
    assert np.load(tmp_path / "out" / "centroids.npy").shape[1] == 12
    assert sum(cluster.documents for cluster in manifest.clusters) == 60


@pytest.fixture
def sea_and_oven(tmp_path, write_jsonl):
    """Documents of the words that the models know; some are longer than a model's limit."""
    texts = [" ".join(WORDS[2 + i % 4 : 4 + i % 7] * (1 + i % 23)) + f" {i}" for i in range(200)]
    return str(write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in texts]))


@pytest.mark.slow
def test_partitions_of_any_size_embed_alike_and_the_manifest_says_where(
    sentence_model, sea_and_oven, tmp_path, monkeypatch, serial, all_bytes, caplog
):
    monkeypatch.setattr(pipeline, "open_engine", lambda *_, **__: serial)
    monkeypatch.setattr(ingest, "UNIT_BYTES", 2_000)
    monkeypatch.setattr(pipeline, "usual_groups", lambda _: 3)
    monkeypatch.setattr(ingest, "usual_groups", lambda _: 3)
    monkeypatch.setattr(fit, "_SLICE", 30)
    settings = BuildSettings(embed=f"st:{sentence_model}", sample=100, **SMALL)
    built = []
    for groups in (1, 5):
        monkeypatch.setattr(ingest, "_fixed_groups", lambda *_, n=groups: n)
        built.append(tmp_path / str(groups))
        manifest = pipeline.build([sea_and_oven], built[-1], settings)
    assert manifest.provenance["embedded_on"] == {"cpu": 200}
    first, second = map(all_bytes, built)
    assert [name for name in first if first[name] != second.get(name)] == []
    assert "embedding on the CPU, as there is no GPU" in caplog.text
    assert re.search(
        r"beginning of a document, at most 8,000 characters and 32 tokens; \d+ of 100", caplog.text
    )
    # What is appended says where as well.
    more = tmp_path / "more.jsonl"
    more.write_text('{"text": "the captain and the anchor"}\n')
    monkeypatch.setattr(appender, "open_engine", lambda *_, **__: serial)
    grown = append([str(more)], built[-1])
    assert grown.provenance["appended"][0]["embedded_on"] == {"cpu": 1}
    assert grown.provenance["embedded_on"] == {"cpu": 200}


@pytest.mark.slow
def test_an_append_trusts_no_code_because_the_build_did(
    model_with_code, sea_and_oven, tmp_path, monkeypatch, serial
):
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "cache"))
    for module in (pipeline, appender):
        monkeypatch.setattr(module, "open_engine", lambda *_, **__: serial)
    settings = BuildSettings(embed=f"st:{model_with_code}", trust_remote_code=True, **SMALL)
    manifest = pipeline.build([sea_and_oven], tmp_path / "out", settings)
    assert manifest.provenance["settings"]["trust_remote_code"] is True
    more = tmp_path / "more.jsonl"
    more.write_text('{"text": "the captain and the anchor"}\n')
    load_model.cache_clear()
    with pytest.raises(InvalidDataError, match=r"add --trust-remote-code$"):
        append([str(more)], tmp_path / "out")
    assert append([str(more)], tmp_path / "out", trust_remote_code=True).provenance["appended"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray has warnings of its own
def test_a_build_on_ray_embeds_as_a_local_one(
    cluster, sentence_model, sea_and_oven, tmp_path, monkeypatch, serial, all_bytes
):
    settings = BuildSettings(embed=f"st:{sentence_model}", **SMALL)
    pipeline.build([sea_and_oven], tmp_path / "ray", settings, engine="ray", workers=2)
    monkeypatch.setattr(pipeline, "open_engine", lambda *_, **__: serial)
    pipeline.build([sea_and_oven], tmp_path / "local", settings)
    local, ray = all_bytes(tmp_path / "local"), all_bytes(tmp_path / "ray")
    assert [name for name in local if local[name] != ray.get(name)] == []
