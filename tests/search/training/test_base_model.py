"""Models begin with a base that fits the shards, or say why they cannot."""

import json
import shutil

import pytest
import torch
from tokenizers import Tokenizer

from climbstream.loader.cli.main import run
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.search.training.base_model import check_base, hash_model, load_base, load_model
from climbstream.search.training.model import make_model
from climbstream.search.training.run import train_run
from climbstream.search.training.settings import TrainSettings
from climbstream.search.training.trainer import train_model

QUICK = {"seq_len": 32, "batch_rows": 4}


@pytest.fixture(scope="module")
def base(shards, shares, tmp_path_factory):
    """A folder that ``climb train`` left, of a tiny model."""
    out = tmp_path_factory.mktemp("base")
    train_run(shards, shares, TrainSettings(tokens=128 * 40, **QUICK), 7, out)
    return out / "model"


def test_a_run_goes_on_from_its_base(shards, shares, base):
    losses = [
        train_model(shards, shares, TrainSettings(tokens=128, base=given, **QUICK), 0).loss
        for given in (str(base), None)
    ]
    assert losses[0] < losses[1] - 0.5


def test_equal_bases_give_equal_models_and_the_seed_is_that_of_the_order_alone(
    shards, shares, base
):
    settings = TrainSettings(tokens=128 * 4, base=str(base), **QUICK)
    one, same = (train_model(shards, shares, settings, 1).model.state_dict() for _ in range(2))
    other = train_model(shards, shares, settings, 2).model.state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_run_knows_its_base_by_content_and_not_by_place(shards, shares, base, tmp_path):
    twin = shutil.copytree(base, tmp_path / "twin")
    settings = TrainSettings(tokens=128 * 4, base=str(base), **QUICK)
    moved = TrainSettings(tokens=128 * 4, base=str(twin), **QUICK)
    result = train_run(shards, shares, settings, 0, tmp_path / "run")
    assert train_run(shards, shares, moved, 0, tmp_path / "run") == result
    make_model("tiny", 600, 64, 3).save_pretrained(twin)
    with pytest.raises(InvalidDataError, match=r"the contents of --base differ"):
        train_run(shards, shares, moved, 0, tmp_path / "run")


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"has no model: name a folder with config\.json"):
        load_base(tmp_path / "none", 100, 64)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InvalidDataError, match=r"the model in .* cannot be loaded: "):
        load_base(tmp_path, 100, 64)


def test_a_base_behind_a_url_is_refused_with_the_remedy():
    with pytest.raises(UsageError, match=r"s3://bucket/base is a URL, .*; copy it to this machine"):
        load_model("s3://bucket/base")


def test_a_base_that_does_not_fit_is_told_by_how_much(tmp_path):
    make_model("tiny", 500, 64, 0).save_pretrained(tmp_path)
    assert load_base(tmp_path, 500, 64).num_parameters() > 0
    with pytest.raises(UsageError, match="knows 500 tokens, and the shards have 501; train a"):
        load_base(tmp_path, 501, 64)
    with pytest.raises(UsageError, match="reads 64 tokens at most, and a row has 65"):
        load_base(tmp_path, 500, 65)


def test_a_base_of_another_tokenizer_is_refused_before_anything_is_trained(
    shards, base, tmp_path, capsys
):
    check_base(None, shards, 32)
    check_base(base, shards, 32)
    other = shutil.copytree(base, tmp_path / "other")
    tokenizer = Tokenizer.from_file(str(other / "tokenizer.json"))
    tokenizer.add_tokens(["another"])
    tokenizer.save(str(other / "tokenizer.json"))
    words = ["search", shards, "--target", "label=sea", "--out", tmp_path / "out", "--base", other]
    assert run([*map(str, words), "--seq-len", "32"]) == 2
    assert "is not that of the shards" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_hash_is_that_of_weights_and_configuration(base, tmp_path):
    twin = shutil.copytree(base, tmp_path / "twin")
    (twin / "README.md").write_text("a note")
    assert hash_model(twin) == hash_model(base)
    (twin / "config.json").write_text((twin / "config.json").read_text() + " ")
    assert hash_model(twin) != hash_model(base)


@pytest.mark.parametrize(
    "change",
    [
        [],
        {"hidden_size": "x"},
        {"hidden_size": -1},
        {"num_hidden_layers": 10**18},
        {"vocab_size": None},
        {"num_attention_heads": 0},
        {"model_type": 7},
        {"torch_dtype": "nothing"},
        {"rope_theta": []},
        {"architectures": 3},
        {"auto_map": {"AutoModelForCausalLM": "evil.Evil"}, "model_type": "evil"},
    ],
)
def test_a_broken_configuration_of_a_base_is_an_error_that_names_it(
    shards, base, tmp_path, capfd, change
):
    folder = shutil.copytree(base, tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    value = change if isinstance(change, list) else config | change
    (folder / "config.json").write_text(json.dumps(value))
    command = f"train {shards} --tokens 128 --seq-len 32 --batch-rows 4 --out {tmp_path / 'out'}"
    code = run([*command.split(), "--base", str(folder)])
    assert code in (0, 2, 3)
    if code:
        assert str(folder) in capfd.readouterr().err
