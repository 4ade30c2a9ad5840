"""What a search or a run has written is read with its types: a broken value is named, exit 3."""

import json
import shutil

import pytest
import torch

from climbstream.loader import Manifest
from climbstream.loader.cli.main import run
from climbstream.loader.core.errors import ClimbError, InvalidDataError
from climbstream.search.evaluation.lm_eval_tasks import _read_kept
from climbstream.search.experiments.compare import _read_runs
from climbstream.search.experiments.doremi_search import _read_result as read_doremi
from climbstream.search.training.doremi import DoReMi
from climbstream.search.training.model import make_model
from climbstream.search.training.settings import TrainSettings
from climbstream.search.training.trainer import train_model

SETTINGS = TrainSettings(tokens=128 * 6, seq_len=32, batch_rows=4, average=0.9)


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    command = f"train {shards} --tokens 768 --seq-len 32 --batch-rows 4 --out {out}"
    assert run(command.split()) == 0
    return out, command


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("[]", "this is no result of a run: expected object, got array"),
        ('{"loss": "x"}', "loss: expected float, got str"),
        ("{", "is not JSON"),
        (None, "served[...]: expected int"),
    ],
)
def test_a_broken_result_of_a_run_is_named(trained, tmp_path, capfd, broken, words):
    out, command = trained
    copy = shutil.copytree(out, tmp_path / "out")
    if broken is None:
        value = json.loads((out / "result.json").read_text())
        broken = json.dumps(value | {"served": {"c00": "many"}})
    (copy / "result.json").write_text(broken)
    assert run(command.replace(str(out), str(copy)).split()) == 3
    said = capfd.readouterr().err
    assert f"{copy / 'result.json'}" in said
    assert words in said


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[]", "line 2: this is no run of a comparison"),
        ('{"mixture": 1, "seed": 1, "scores": {}}', "line 2: .*mixture: expected str, got int"),
        ('{"mixture": "a", "seed": 1, "scores": {"t": null}}', "line 2: .*scores"),
        ('{"mixture": "a", "seed": 1, "scores": {"u": 1}}', "line 2: there are scores of u"),
    ],
)
def test_a_broken_line_of_a_comparison_is_named(tmp_path, line, words):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"mixture": "a", "seed": 1, "scores": {"t": 1.5}}\n' + line + "\n")
    with pytest.raises(InvalidDataError, match=f"{path}, {words}"):
        _read_runs(path, ["t"])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "expected object"),
        ({"mixture": {}, "scores": {"mixture": 3}}, r"scores\[...\]: expected object"),
        ({"mixture": {"weights": {"c00": "x"}}, "scores": {}}, "mixture: "),
    ],
)
def test_a_broken_result_of_doremi_is_named(tmp_path, value, words):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(value))
    with pytest.raises(InvalidDataError, match=f"{path}.*{words}"):
        read_doremi(path)


@pytest.mark.parametrize("value", [{}, [1], [[]], [["q", ["a"], 7, "", " "]], [["q", "a", 0]]])
def test_broken_questions_in_the_cache_are_named_with_the_remedy(tmp_path, value):
    path = tmp_path / "task.json"
    path.write_text(json.dumps(value))
    with pytest.raises(InvalidDataError, match=f"{path}.*remove"):
        _read_kept(path)


@pytest.fixture(scope="module")
def base(trained):
    return trained[0] / "model"


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


@pytest.fixture(scope="module")
def saved(shards, shares, tmp_path_factory):
    """A checkpoint of a run that changes weights by a rule, and what to go on with."""
    path = tmp_path_factory.mktemp("saved") / "kept.pt"
    model = make_model("tiny", Manifest.load(shards).vocab_size, 32, 0)
    goes_on = {"checkpoint": path, "every": 3}

    def go_on(path):
        rule = DoReMi(model, shares, every=2)
        return train_model(shards, shares, SETTINGS, 0, **goes_on | {"checkpoint": path}, rule=rule)

    go_on(path)
    return torch.load(path, weights_only=True), go_on


def change(state, path, value):
    """Return ``state`` with another value at ``path``; a callable makes it of the old one."""
    if not path:
        return value(state) if callable(value) else value
    copy = list(state) if isinstance(state, list) else dict(state)
    if value is KeyError and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = change(state[path[0]], path[1:], value)
    return copy


def shorter(tensor):
    return tensor[:3]


BROKEN = [
    (["losses"], "x"),
    (["losses"], []),
    (["losses", 0], "x"),
    (["losses"], KeyError),
    (["model"], []),
    (["model"], {}),
    (["model", "model.norm.weight"], shorter),
    (["model", "model.norm.weight"], "x"),
    (["tail"], {}),
    (["tail", "count"], -1),
    (["tail", "means"], []),
    (["tail", "means", 0], shorter),
    (["optimizer"], {}),
    (["optimizer", "state", 0, "exp_avg"], shorter),
    (["optimizer", "state", 0, "exp_avg"], KeyError),
    (["optimizer", "state", 0, "step"], "x"),
    (["optimizer", "param_groups", 0, "lr"], "x"),
    (["optimizer", "param_groups", 0, "lr"], 7.0),
    (["optimizer", "param_groups", 0, "betas"], 7.0),
    (["schedule"], {}),
    (["schedule", "last_epoch"], 1),
    (["schedule", "base_lrs"], [3.0]),
    (["loader"], {}),
    (["loader", "step"], "x"),
    (["loader", "step"], 10**30),
    (["rule"], KeyError),
    (["rule", "weights"], {}),
    (["rule", "weights", "c00"], "x"),
    (["rule", "choices"], -1),
    (["heard"], {"sums": [[1.0]]}),
    (["heard"], 3),
    (["run"], 3),
    (["more"], 3),
]


@pytest.mark.parametrize(
    ("path", "value"), BROKEN, ids=lambda part: getattr(part, "__name__", str(part))
)
def test_a_broken_value_of_a_checkpoint_is_named_and_no_run_goes_on(saved, tmp_path, path, value):
    state, go_on = saved
    file = tmp_path / "kept.pt"
    state = {**state, "more": 0} if path == ["more"] else state
    torch.save(change(state, path, value), file)
    with pytest.raises(ClimbError, match=str(file)) as broken:
        go_on(file)
    assert broken.value.exit_code == 3


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no archive", b"no pickle", None])
def test_a_file_that_is_no_checkpoint_is_named(saved, tmp_path, content):
    _, go_on = saved
    file = tmp_path / "kept.pt"
    torch.save([1], file) if content is None else file.write_bytes(content)
    with pytest.raises(InvalidDataError, match=f"{file} is no file of tensors"):
        go_on(file)


def test_a_checkpoint_that_is_whole_goes_on(saved, tmp_path):
    state, go_on = saved
    torch.save(state, tmp_path / "kept.pt")
    assert go_on(tmp_path / "kept.pt").loss > 0
