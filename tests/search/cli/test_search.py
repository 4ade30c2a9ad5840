"""The commands of the search: data alone on stdout, one line and a code for an error."""

import inspect
import json
import shutil
from dataclasses import fields

import click
import pytest

from climbstream.loader import Manifest
from climbstream.loader.cli.main import run
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.search.cli.search import mixture_text, search
from climbstream.search.experiments.settings import SearchSettings
from climbstream.search.optimizer.search import Search


def arguments_for(shards, out):
    arguments = (
        f"search {shards} --target label=sea --budget 8 --confirm 0 --proxy-tokens 2048 --out {out}"
    )
    return arguments.split()


@pytest.mark.slow
def test_the_result_of_a_search_is_json_and_alone_on_stdout(searched, shards, tmp_path, climb):
    done = climb(*arguments_for(shards, tmp_path), "--json", "--skip-check")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((searched[0] / "answer.json").read_text())
    assert "search: 8/8 proxies" in done.stderr


def test_the_result_of_a_finished_search_is_json_and_alone_on_stdout(searched, shards, capfd):
    out, _ = searched
    assert run([*arguments_for(shards, out), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == json.loads((out / "answer.json").read_text())


def test_a_finished_search_is_shown_beside_the_token_shares(searched, shards, capsys):
    out, answer = searched
    assert run(arguments_for(shards, out)) == 0
    said = capsys.readouterr()
    assert said.out.startswith(answer.reason)
    for name, share in Manifest.load(shards).token_shares.weights.items():
        assert name in said.out
        assert f"{share:.1%}" in said.out
    end = said.out.splitlines()[-1]
    assert end.startswith(f"{out}/mixture.json")
    assert end.endswith(f" · report: {out}/report.html")
    assert ("best_other.json" in end) == (answer.choice == "baseline")
    assert f"the search in {out} has already ended" in said.err


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (
            "--target label=poems",
            2,
            "error: no held-out document has label 'poems'; the held-out text has ",
        ),
        (
            "--target nowhere.txt",
            2,
            "error: target nowhere.txt: there is no file nowhere.txt; give label=NAME",
        ),
        ("--target label=sea --proxy-tokens 100", 2, "error: 100 tokens are less than one step"),
        ("--target label=sea --budget 0", 2, "error: budget is 1 or more"),
        ("--target label=sea --seed -1", 2, "error: budget is 1 or more and seed 0 or more"),
        ("--target label=sea --seq-len 0", 2, "error: seq_len is 0; it must be more than 0"),
        ("--target label=sea --learning-rate nan", 2, "error: learning_rate is nan; it must"),
        ("--target label=sea --final-tokens 999999999", 2, "error: "),
    ],
)
def test_what_cannot_be_is_one_line_and_its_code(shards, tmp_path, capsys, more, code, said):
    assert run(["search", str(shards), "--out", str(tmp_path / "out"), *more.split()]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(said)
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("preset", ["robust", "doremi"])
@pytest.mark.parametrize("target", ["label=poems", "nowhere.txt", "faulty.jsonl"])
def test_a_dry_run_refuses_a_target_before_it_measures_a_step(
    shards, tmp_path, monkeypatch, capsys, preset, target
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faulty.jsonl").write_text('{"query": "a", "choices": ["b"], "gold": 1}\n')
    asked = f"search {shards} --target {target} --preset {preset} --out x --dry-run"
    assert run(asked.split()) in (2, 3)
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("more", ["", "--target label=sea --workers 0", "--target a --model huge"])
def test_options_that_cannot_be_are_refused_with_2(shards, tmp_path, capsys, more):
    assert run(["search", str(shards), "--out", str(tmp_path / "out"), *more.split()]) == 2
    assert capsys.readouterr().out == ""


def test_other_settings_are_refused_with_3(searched, shards, capsys):
    assert run([*arguments_for(shards, searched[0]), "--proxy-tokens", "4096"]) == 3
    assert "--proxy-tokens was 2048 and is 4096" in capsys.readouterr().err


def test_a_mixture_is_laid_out_with_the_words_of_its_clusters(shards, shares):
    lines = mixture_text(shards, shares).splitlines()
    assert lines[0].split() == ["cluster", "words", "token", "share", "weight"]
    assert len(lines) == 1 + len(shares.weights)
    for line, (name, share) in zip(lines[1:], shares.weights.items(), strict=True):
        assert line.startswith(name)
        assert line.split()[-2:] == [f"{share:.1%}"] * 2


def test_a_mixture_of_groups_is_laid_out_with_the_clusters_of_each_group(shards, tmp_path):
    directory = shutil.copytree(shards, tmp_path / "shards")
    names = Manifest.load(directory).names
    groups = tmp_path / "halves.json"
    groups.write_text(json.dumps({"a": names[:3], "b": names[3:]}))
    assert run(["regroup", str(directory), "--by", str(groups)]) == 0
    grouped = ShardDirectory(directory / "groupings" / "halves")
    text = mixture_text(directory / "groupings" / "halves", grouped.manifest.token_shares)
    assert f"a        {', '.join(names[:3])}" in text
    assert {row["words"] for row in grouped.to_rows()} == {*grouped.words().values()}


def test_each_setting_of_a_search_has_an_option_of_its_name_and_default():
    options = {parameter.name: parameter for parameter in search.params}
    ours = {field.name: field.default for field in fields(SearchSettings)}
    assert {*ours} - {*options} == {"proxy"}
    plain = ("preset", "budget", "max_epochs", "seed")
    assert {name: options[name].get_default(click.Context(search)) for name in plain} == {
        name: ours[name] for name in plain
    }


def test_each_setting_of_a_search_but_those_of_its_proxies_is_an_argument_of_it():
    ours = {field.name for field in fields(SearchSettings)} - {
        "proxy",
        "final_tokens",
        "max_epochs",
    }
    assert ours <= {*inspect.signature(Search).parameters}
