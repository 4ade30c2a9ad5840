"""Searches, runs and shard directories are shown side by side: as text, as JSON, as a page."""

import json
import shutil

import pytest

from climbstream.loader import Manifest, Mixture
from climbstream.loader.cli.main import run
from climbstream.loader.core.files import append_line
from climbstream.loader.formats.clusters import load_clusters
from climbstream.loader.weights.log import WeightsLog
from climbstream.search.optimizer.answer import BASE


@pytest.fixture
def compare(capsys):
    """Return a function that runs the command; it returns exit code, stdout and stderr."""

    def command(*arguments):
        code = run(["compare", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.fixture
def other_search(searched, tmp_path):
    """A search beside `searched` that found other weights with another budget."""
    out = shutil.copytree(searched[0], tmp_path / "other" / "out")
    answer = json.loads((out / "answer.json").read_text())
    answer["mixture"]["weights"] = dict.fromkeys(answer["mixture"]["weights"], 1 / 6)
    (out / "answer.json").write_text(json.dumps(answer))
    plan = json.loads((out / "search.json").read_text())
    plan["settings"]["budget"] = 99
    (out / "search.json").write_text(json.dumps(plan))
    return out


def make_run(folder, weights, loss):
    WeightsLog.open(folder / "weights.jsonl", write=True).append(Mixture.of(weights), 0, "")
    for step in (100, 200):
        line = {"step": step, "tokens": 512 * step, "served": weights, "loss": loss - step / 1e3}
        append_line(folder / "metrics.jsonl", line | {"cluster_loss": {"a": loss}})
    plan = {"train": 1, "shards": "x", "settings": {"learning_rate": loss}}
    (folder / "run.json").write_text(json.dumps(plan))
    return folder


def test_searches_are_compared_by_result_mixture_and_settings(
    searched, other_search, shards, shares, compare, tmp_path, read_page
):
    out, answer = searched
    page = tmp_path / "compare.html"
    code, text, _ = compare(out, other_search, "--out", page)
    assert code == 0
    (outcome,) = answer.outcomes
    assert text.count(f"label=sea  bits per byte  {outcome.best:.3f}"[:26]) == 2
    assert "--budget" in text
    assert "16.67%" in text
    shown = read_page(page.read_bytes()).text
    for name in shares.weights:
        assert name in shown
    assert "Settings that differ" in shown
    code, said, _ = compare(out, other_search, "--json")
    tables = json.loads(said)["tables"]
    assert [row["confirmed"] for row in tables["Results"]] == ["no", "no"]
    words = {info.name: info.words for info in load_clusters(shards)}
    assert {row["cluster"]: row["words"] for row in tables["Mixtures"]} == words
    apart = [float(row["points apart"]) for row in tables["Mixtures"]]
    assert apart == sorted(apart, reverse=True)
    assert {"--budget"} <= {row["setting"] for row in tables["Settings that differ"]}


def test_warnings_of_too_few_items_are_compared_too(searched, other_search, compare, tmp_path):
    out, answer = searched
    (warning,) = answer.warnings
    assert warning.startswith("only ")
    tables = json.loads(compare(out, other_search, "--json")[1])["tables"]
    assert [row["warning"] for row in tables["Warnings"]] == [warning, warning]
    assert compare(out, other_search)[1].count(warning) == 2


def test_searches_over_other_groups_say_that_their_weights_cannot_be_compared(
    searched, other_search, compare
):
    path = other_search / "answer.json"
    answer = json.loads(path.read_text())
    answer["mixture"]["weights"] = {"sea": 0.5, "food": 0.5}
    answer["choice"] = BASE
    path.write_text(json.dumps(answer))
    plan = json.loads((other_search / "search.json").read_text())
    plan["targets"]["label=sea"] = "0123456789abcdef" * 2
    (other_search / "search.json").write_text(json.dumps(plan))
    text = compare(searched[0], other_search)[1]
    assert "They have no cluster in common, so their shares cannot be compared." in text
    assert "would be of another cluster" not in text
    assert "token shares" in text
    assert "out, best other" in text
    assert "best is the score of the best other mixture" in text
    assert "hash 01234567\n" in text


def test_runs_are_compared_by_loss_and_by_what_they_served(tmp_path, compare):
    runs = []
    for name, weights, loss in (("one", {"a": 0.75, "b": 0.25}, 3), ("two", {"a": 1.0}, 2)):
        (tmp_path / name).mkdir()
        runs.append(make_run(tmp_path / name, weights, loss))
    code, said, _ = compare(*runs, "--json")
    assert code == 0
    value = json.loads(said)
    assert (value["kind"], value["names"]) == ("runs", ["one", "two"])
    assert [row["loss of the last step, nats per token"] for row in value["tables"]["Results"]] == [
        "2.8000",
        "1.8000",
    ]
    assert value["tables"]["Shares of tokens served"][0] == {
        "cluster": "a",
        "one": "75.00%",
        "two": "100.00%",
        "points apart": "25.00",
    }
    assert compare(*runs, "--out", tmp_path / "page.html")[0] == 0
    assert (tmp_path / "page.html").read_text().count("<circle") == 4


def test_runs_are_compared_with_the_words_of_clusters_and_losses_on_held_out_text(
    shards, tmp_path, compare
):
    first, *others = Manifest.load(shards).names
    weights = {first: 0.75, **dict.fromkeys(others, 0.25 / len(others))}
    runs = [make_run(tmp_path / name, weights, loss) for name, loss in (("one", 3), ("two", 2))]
    for run_ in runs:
        append_line(run_ / "served.jsonl", {"shards": str(shards)})
        line = {"step": 300, "tokens": 1, "served": weights, "heldout_loss": {first: 2.5}}
        append_line(run_ / "metrics.jsonl", line)
    tables = json.loads(compare(*runs, "--json")[1])["tables"]
    assert tables["Loss on held-out text by cluster"][0]["one"] == "2.5000"
    words = {info.name: info.words for info in load_clusters(shards)}
    for row in tables["Shares of tokens served"]:
        assert row["words"] == words[row["cluster"]]
    text = compare(*runs)[1]
    assert "Share of tokens that would be of another cluster than with one: 0.0% with two." in text
    assert "Nats per token, at the last measurement." in text


def test_weights_that_changed_in_one_run_are_told_with_the_step_of_the_numbers(tmp_path, compare):
    runs = [make_run(tmp_path / name, {"a": 0.5, "b": 0.5}, 2) for name in ("one", "two")]
    log = WeightsLog.open(runs[1] / "weights.jsonl", write=True)
    log.append(Mixture.of({"a": 0.25, "b": 0.75}), 150, "more b")
    tables = json.loads(compare(*runs, "--json")[1])["tables"]
    (row,) = tables["Settings that differ"]
    assert row == {"setting": "changes of weights", "one": "none", "two": "at step 150"}
    assert [row["at step"] for row in tables["Results"]] == ["200", "200"]


def test_runs_without_notes_of_their_settings_are_named(tmp_path, compare):
    runs = [make_run(tmp_path / name, {"a": 1.0}, 2) for name in ("one", "two")]
    assert "Settings that differ\nNo setting differs.\n" in compare(*runs)[1]
    (runs[1] / "run.json").unlink()
    assert "There is no record of the settings of two." in compare(*runs)[1]


def test_shards_are_compared_by_what_they_hold_and_left_out(shards, compare):
    code, said, _ = compare(shards, shards, "--json")
    assert code == 0
    value = json.loads(said)
    tables, manifest = value["tables"], Manifest.load(shards)
    assert value["names"] == ["shards (1)", "shards (2)"]
    assert {row["tokens"] for row in tables["Results"]} == {f"{manifest.tokens:,}"}
    assert tables["Settings that differ"] == []
    reasons = {reason for stage in manifest.conservation for reason in stage["dropped"]}
    assert {row["documents, by reason"] for row in tables["Left out"]} == reasons
    for row in tables["Clusters"]:
        assert row["most like it in shards (2)"].startswith(row["cluster"])
        assert row["most like it in shards (2)"].endswith("(100%)")


def test_shards_are_compared_with_groups_of_their_own_clusters(shards, tmp_path, compare):
    shards = shutil.copytree(shards, tmp_path / "shards")
    names = Manifest.load(shards).names
    groups = tmp_path / "halves.json"
    groups.write_text(json.dumps({"a": names[:3], "b": names[3:]}))
    assert run(["regroup", str(shards), "--by", str(groups)]) == 0
    _, said, _ = compare(shards, shards / "groupings" / "halves", "--json")
    tables = json.loads(said[said.index("{") :])["tables"]
    domains = tables["Known domains"]
    assert domains
    assert {row["points apart"] for row in domains} == {"0.00"}
    for row in tables["Clusters"]:
        group = "a" if row["cluster"] in names[:3] else "b"
        assert row["most like it in halves"].startswith(f"{group} ")
    listed = f"a: {', '.join(names[:3])}; b: {', '.join(names[3:])}"
    assert tables["Settings that differ"] == [
        {"setting": "groups of clusters", "shards": "", "halves": listed}
    ]
    assert "no record" not in said


@pytest.mark.parametrize("others", ["none", "nowhere", "kinds", "empty"])
def test_what_cannot_be_compared_is_refused_by_name(searched, shards, tmp_path, compare, others):
    (tmp_path / "empty").mkdir()
    folders, words = {
        "none": ([shards], "name two or more"),
        "nowhere": ([shards, tmp_path / "nowhere"], "there is no folder"),
        "kinds": ([shards, searched[0]], "only folders of one kind are compared"),
        "empty": ([shards, tmp_path / "empty"], "no search, run or shards in"),
    }[others]
    code, out, err = compare(*folders)
    assert (code, out) == (2, "")
    assert words in err


def test_a_search_that_has_not_ended_is_refused(searched, other_search, compare):
    (other_search / "answer.json").unlink()
    code, _, err = compare(searched[0], other_search)
    assert code == 2
    assert f"the search in {other_search} has not ended" in err


def test_a_file_of_others_is_not_overwritten_by_a_page(shards, tmp_path, compare):
    (tmp_path / "notes.txt").write_text("mine")
    code, _, err = compare(shards, shards, "--out", tmp_path / "notes.txt")
    assert code == 2
    assert "climb did not write it" in err
    assert (tmp_path / "notes.txt").read_text() == "mine"
    for _ in range(2):  # a page of ours gives way
        assert compare(shards, shards, "--out", tmp_path / "page.html")[0] == 0
