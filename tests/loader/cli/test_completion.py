"""Tab completes paths, names of clusters, and targets, and says nothing where it cannot."""

import click
import pytest
from click.shell_completion import ShellComplete

from climbstream.loader.cli.main import root
from climbstream.loader.weights.log import WeightsLog


@pytest.fixture
def complete(monkeypatch):
    """Return a function that completes the last of some words, as bash would ask for."""

    def ask(*words):
        *before, incomplete = map(str, words)
        shell = ShellComplete(root, {}, "climb", "_CLIMB_COMPLETE")
        return [(item.type, item.value) for item in shell.get_completions(before, incomplete)]

    return ask


def values(found):
    return [value for _, value in found]


def test_commands_are_completed(complete):
    assert values(complete("pub")) == ["publish"]


@pytest.mark.parametrize("command", ["inspect", "verify", "export", "train", "weights", "audit"])
def test_folders_are_completed(complete, command):
    found = complete(command, "sha")
    assert found[0][0] in ("dir", "file")
    assert found[0][1] == "sha"


def test_sources_and_mixtures_are_files(complete):
    assert complete("build", "corp") == [("file", "corp")]
    assert complete("train", "shards", "--mixture", "m") == [("file", "m")]


def test_clusters_of_a_run_are_completed(complete, tmp_path):
    from climbstream.loader import Mixture

    log = WeightsLog.open(tmp_path / "weights.jsonl", write=True)
    log.append(Mixture.of({"c00": 1, "c01": 2, "sea": 3}), 0, "start")
    assert values(complete("weights", tmp_path, "c")) == ["c00=", "c01="]


def test_clusters_and_labels_of_shards_are_completed(complete, built):
    shards = built.directory
    assert values(complete("search", shards, "--min-weight", "c0"))[:2] == ["c00=", "c01="]
    assert "label=sea" in values(complete("search", shards, "--target", "label"))
    assert values(complete("score", "model", shards, "--target", "cluster=c00")) == ["cluster=c00"]
    assert complete("search", shards, "--target", "tasks/pi") == [("file", "tasks/pi")]


def test_nothing_is_said_of_what_is_not_there(complete, tmp_path, capsys):
    assert complete("weights", tmp_path / "nosuch", "c") == []
    assert complete("search", tmp_path / "nosuch", "--pin", "c") == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_is_given_its_script(climb, shell, monkeypatch):
    import os

    done = climb(env={**os.environ, "_CLIMB_COMPLETE": f"{shell}_source"})
    assert done.returncode == 0
    assert "_CLIMB_COMPLETE" in done.stdout


def test_a_parameter_of_every_directory_has_a_completion():
    context = click.Context(root)
    for name in root.list_commands(context):
        for parameter in root.get_command(context, name).params:
            if parameter.name in ("directory", "run", "out", "model", "shards"):
                kind = parameter.type
                assert isinstance(kind, click.Path | click.Choice) or hasattr(kind, "kind"), (
                    name,
                    parameter.name,
                )
