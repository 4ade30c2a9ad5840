"""A checkpoint is read with its types: a broken value is named, and no run goes on from it."""

import pytest
import torch

from climbstream.loader import Manifest
from climbstream.loader.core.errors import ClimbError, InvalidDataError
from climbstream.search.training.doremi import DoReMi
from climbstream.search.training.model import make_model
from climbstream.search.training.settings import TrainSettings
from climbstream.search.training.trainer import train_model

SETTINGS = TrainSettings(tokens=128 * 6, seq_len=32, batch_rows=4, average=0.9)


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
    with pytest.raises(InvalidDataError, match=f"{file} is not a valid file of tensors"):
        go_on(file)


def test_a_checkpoint_that_is_whole_goes_on(saved, tmp_path):
    state, go_on = saved
    torch.save(state, tmp_path / "kept.pt")
    assert go_on(tmp_path / "kept.pt").loss > 0
