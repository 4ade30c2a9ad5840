"""The result of a run is read with its types: a broken value is named, exit 3."""

import json
import shutil

import pytest

from climbstream.loader.cli.main import run


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    command = f"train {shards} --tokens 768 --seq-len 32 --batch-rows 4 --out {out}"
    assert run(command.split()) == 0
    return out, command


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("[]", "this is not a valid result of a run: expected object, got array"),
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
