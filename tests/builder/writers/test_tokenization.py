"""The stage of tokens: the same bytes, whoever encodes, and word of who does."""

import sys

import pytest
from tokenizers import Tokenizer, models, normalizers, trainers

from climbstream.builder.pipeline import build
from climbstream.builder.settings import BuildSettings
from climbstream.builder.writers import tokenization
from climbstream.builder.writers.encoder import SWITCH, installed_version


@pytest.fixture
def build_with(tmp_path, make_records, write_jsonl, monkeypatch, all_bytes, capfd):
    """Return a function that builds with a switch; it returns all bytes and what was said."""
    records = [*make_records(each=8), {"id": "tags", "text": "He <s> wrote </s> of harbours. " * 9}]
    source = write_jsonl(tmp_path / "topics.jsonl", records)

    def build_with(switch, worth=0, **settings):
        monkeypatch.setattr(tokenization, "_WORTH", worth)
        given = {"clusters": 2, "micro_clusters": 4, "vocab_size": 400, "min_cluster_score": {}}
        monkeypatch.setenv(SWITCH, switch)
        out = tmp_path / f"shards-{switch}-{worth}"
        build([str(source)], out, BuildSettings(**given | settings), workers=1)
        return all_bytes(out), capfd.readouterr().err

    return build_with


def test_fastokens_writes_the_bytes_that_tokenizers_writes_and_is_named(build_with):
    fast, said = build_with("1")
    slow, said_of_slow = build_with("0")
    assert f"texts are encoded by fastokens {installed_version()}, which gives the same ids" in said
    assert f"texts are encoded by tokenizers, because {SWITCH} is 0" in said_of_slow
    assert fast == slow


def test_a_tokenizer_that_fastokens_reads_otherwise_is_left_to_tokenizers(
    build_with, tmp_path, make_records
):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=names, show_progress=False)
    texts = [word for record in make_records(each=8) for word in record["text"].split()]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer": str(tmp_path / "tokenizer.json"), "eos_token": "</s>"}
    fast, said = build_with("1", **settings)
    slow, _ = build_with("0", **settings)
    assert f"not by fastokens {installed_version()}, which gives other ids for " in said
    assert fast == slow


def test_without_fastokens_tokenizers_encodes(build_with, monkeypatch):
    monkeypatch.setattr(tokenization, "installed_version", lambda: "")
    _, said = build_with("1")
    assert (
        "texts are encoded by tokenizers; fastokens is many times as fast: pip install fastokens"
        in said
    )


def test_for_a_small_corpus_fastokens_is_not_even_compared(build_with):
    _, said = build_with("1", worth=4 << 20)
    assert (
        "texts are encoded by tokenizers; fastokens saves time only with 4 MiB of text or more"
        in said
    )


ABORTS = """
import os


class Tokenizer:
    @staticmethod
    def from_json_str(_):
        return Tokenizer()

    def encode_batch_flat(self, texts, split_special_tokens):
        os.abort()
"""


@pytest.fixture
def aborting_fastokens(tmp_path, monkeypatch):
    """In place of fastokens, one that ends every process that encodes with it."""
    (tmp_path / "stand_in").mkdir()
    (tmp_path / "stand_in" / "fastokens.py").write_text(ABORTS)
    monkeypatch.syspath_prepend(tmp_path / "stand_in")
    monkeypatch.delitem(sys.modules, "fastokens", raising=False)


@pytest.mark.slow
def test_a_fastokens_that_ends_its_process_in_the_comparison_ends_no_build(
    build_with, aborting_fastokens
):
    fast, said = build_with("1")
    slow, _ = build_with("0")
    assert "which ends its process: " in said
    assert fast == slow


@pytest.mark.slow
def test_a_fastokens_that_ends_its_process_in_a_unit_ends_no_build(
    build_with, aborting_fastokens, monkeypatch
):
    monkeypatch.setattr(tokenization, "_choose_encoder", lambda *_: installed_version())
    fast, said = build_with("1")
    monkeypatch.setattr(tokenization, "_choose_encoder", lambda *_: "")
    slow, _ = build_with("0")
    assert "was killed" in said
    assert fast == slow
