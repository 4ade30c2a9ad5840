"""Any model of Hugging Face is scored on the targets of a search, with its own tokenizer."""

import json
import re
import shutil

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

from climbstream.loader.cli.main import run
from climbstream.loader.core.console import with_error
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.search.evaluation.scoring import score
from climbstream.search.evaluation.targets import load_target
from climbstream.search.experiments.items import target_items
from climbstream.search.experiments.model_score import score_model
from climbstream.search.training.run import train_run
from climbstream.search.training.settings import TrainSettings


@pytest.fixture(scope="module")
def trained(shards, shares, tmp_path_factory):
    """Folder of a small model of ours."""
    out = tmp_path_factory.mktemp("run") / "run"
    train_run(shards, shares, TrainSettings(tokens=128 * 40, seq_len=32, batch_rows=4), 0, out)
    return out / "model"


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """Folder of a model of others: another architecture, and a tokenizer of bytes."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=257, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([""], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = GPT2Config(
        vocab_size=300, n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=0
    )
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_a_model_of_a_run_scores_as_a_proxy_does(shards, trained):
    (result,) = score_model(trained, shards, ["label=sea"])
    from climbstream.search.training.base_model import load_model

    target, place = load_target(shards, "label=sea"), ShardDirectory(shards)
    expected = score(
        load_model(trained).eval(), target, "test", place.tokenizer(), place.manifest.eos_id, 32
    )
    assert result.score == expected
    assert result.unit == "bits per byte"
    assert (result.items, result.bytes) == (
        len(target.test),
        sum(len(text.encode()) for text in target.test),
    )


def test_a_model_of_others_is_scored_with_its_own_tokenizer(shards, gpt2):
    (result,) = score_model(gpt2, shards, ["cluster=c00"])
    # Untrained, on bytes: about as many bits as choose one of its 300 tokens.
    assert result.score == pytest.approx(8.2, abs=0.3)


def test_halves_differ_and_rows_may_be_shorter(shards, trained):
    (one,) = score_model(trained, shards, ["label=sea"], half="validation")
    (other,) = score_model(trained, shards, ["label=sea"], half="test")
    (short,) = score_model(trained, shards, ["label=sea"], half="test", seq_len=8)
    assert len({one.score, other.score, short.score}) == 3
    with pytest.raises(UsageError, match=r"seq_len is 33; the model in .* reads 1 to 32"):
        score_model(trained, shards, ["label=sea"], seq_len=33)


def test_a_task_is_scored_by_bits_and_by_errors(shards, trained, tmp_path, capsys):
    task = tmp_path / "task.jsonl"
    questions = [{"query": f"the {n}", "choices": ["sail", "oven"], "gold": 0} for n in range(6)]
    task.write_text("\n".join(map(json.dumps, questions)))
    bits, wrong = score_model(trained, shards, [str(task), f"error={task}"])
    assert (bits.unit, wrong.unit) == ("bits per byte", "part of wrong answers")
    assert bits.items == 3
    assert bits.bytes == 3 * len(" sail")
    # The error over questions is that of a proportion, from its own sample.
    assert wrong.sd == pytest.approx((wrong.score * (1 - wrong.score) / 2) ** 0.5, abs=0.03)
    assert "score: 9/9 texts and answers" in capsys.readouterr().err


def test_the_command_shows_scores_with_their_unit(shards, trained, capsys):
    assert run(["score", str(trained), str(shards), "--target", "label=sea", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["scores"][0]["target"] == "label=sea"
    assert run(["score", str(trained), str(shards), "--target", "label=sea"]) == 0
    shown = capsys.readouterr()
    (score_,) = value["scores"]
    assert f"{with_error(score_['score'], score_['sd'], 4)}  bits per byte" in shown.out
    assert re.search(rf"^score: {score_['items']}/{score_['items']} texts and answers", shown.err)


def test_few_items_that_score_a_model_are_a_warning_as_in_a_search(
    shards, trained, tmp_path, capsys
):
    text = tmp_path / "text.jsonl"
    text.write_text("\n".join(json.dumps({"text": f"the sea {n}"}) for n in range(140)))
    few, enough = score_model(trained, shards, ["label=sea", str(text)])
    assert few.warning == target_items(load_target(shards, "label=sea"), "test").warning(few.target)
    assert few.warning.startswith(f"only {few.items} documents, ")
    assert few.warning.endswith(
        "so errors and intervals are uncertain themselves; have 30 documents or more: build with a "
        "larger --holdout, or give a file with more text of that kind"
    )
    assert enough.warning == ""
    command = ["score", str(trained), str(shards), "--target", "label=sea", "--target", str(text)]
    assert run(command) == 0
    shown = capsys.readouterr().out
    assert f"\nwarning: {few.warning}\n" in shown
    assert shown.count("warning") == 1


def test_what_is_no_model_or_does_not_fit_is_said(shards, gpt2, trained, tmp_path):
    with pytest.raises(UsageError, match=r"has no model: name a folder with config\.json"):
        score_model(tmp_path, shards, ["label=sea"])
    with pytest.raises(
        UsageError, match="no held-out document has label 'beach'; the held-out text has"
    ):
        score_model(trained, shards, ["label=beach"])
    alone = tmp_path / "alone"
    shutil.copytree(gpt2, alone, ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(UsageError, match=r"knows 300 tokens, and the tokenizer in .* has 600"):
        score_model(alone, shards, ["label=sea"])
    (alone / "tokenizer_config.json").write_text("{}")
    with pytest.raises(InvalidDataError, match=r"the tokenizer in .* cannot be loaded"):
        score_model(alone, shards, ["label=sea"])
