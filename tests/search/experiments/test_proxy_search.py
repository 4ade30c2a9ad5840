"""A search over real proxies continues where it stopped, and ends with the same bytes."""

import json
import os
import shutil
import signal
import threading
import time
from dataclasses import replace

import pytest

from climbstream.loader import Manifest, Mixture
from climbstream.loader.cli.main import run
from climbstream.loader.core.engines.task_timeout import TIMEOUT
from climbstream.loader.core.errors import InvalidDataError, LockedError, UsageError
from climbstream.loader.core.files import lock
from climbstream.search.experiments.proxy_search import dry_search, run_search
from climbstream.search.experiments.settings import SearchSettings
from climbstream.search.optimizer.trials import TrialLog
from climbstream.search.training.settings import TrainSettings
from climbstream.search.training.trainer import train_model

SETTINGS = SearchSettings(budget=8, proxy=TrainSettings(tokens=2048, average=0.2))
TARGETS = ["label=sea"]
RESULTS = ("answer.json", "mixture.json")


# What it leaves.


def test_a_search_leaves_trials_answer_mixture_and_report(searched, shards):
    out, answer = searched
    names = {"search.json", "trials.jsonl", "items.jsonl", "cells.json"}
    names |= {"best_other.json"} if answer.choice == "baseline" else set()
    assert {path.name for path in out.iterdir()} == {*names, *RESULTS, "report.html"}
    assert json.loads((out / "answer.json").read_text()) == json.loads(json.dumps(answer.to_json()))
    mixture = Mixture.load(out / "mixture.json")
    assert mixture == answer.mixture
    assert mixture.about["targets"] == TARGETS
    assert mixture.about["shards"] == Manifest.load(shards).fingerprint
    trials = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()[1:]]
    assert sorted(trial["number"] for trial in trials) == list(range(1, 9))
    assert all(trial["status"] == "ok" for trial in trials)


def test_the_report_shows_the_reason_and_every_cluster(searched, shards, read_page):
    out, answer = searched
    page = read_page((out / "report.html").read_bytes())
    assert answer.reason.partition(". ")[0] in page.text
    for name in Manifest.load(shards).names:
        assert name in page.text
        assert f"{answer.mixture.weights[name]:.1%}" in page.text
    assert page.tags.count("circle") >= SETTINGS.budget


# Once more.


def test_a_finished_search_gives_its_answer_and_trains_nothing(searched, shards):
    out, answer = searched
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run_search(shards, TARGETS, out, SETTINGS) == answer
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_finished_search_proposes_nothing_anew(searched, shards, monkeypatch):
    out, answer = searched
    monkeypatch.delattr("climbstream.search.optimizer.search.Search.ask")
    assert run_search(shards, TARGETS, out, SETTINGS) == answer


@pytest.mark.parametrize("text", ["{}", '{"version": 1, "mixture": 3}', '{"version": 2}', "["])
def test_an_answer_that_is_none_is_refused(searched, shards, tmp_path, text):
    out = shutil.copytree(searched[0], tmp_path / "out")
    (out / "answer.json").write_text(text)
    with pytest.raises(InvalidDataError, match=r"no answer|has version 2|answer\.json"):
        run_search(shards, TARGETS, out, SETTINGS)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"seed": 1}, "--seed was 0 and is 1"),
        ({"final_tokens": 10**6}, "--final-tokens was not given and is 1000000"),
        ({"proxy": TrainSettings(tokens=4096)}, "--proxy-tokens was 2048 and is 4096"),
    ],
)
def test_what_decides_a_proxy_is_refused_by_name_in_a_dry_run_too(searched, shards, other, named):
    for search in (run_search, dry_search):
        with pytest.raises(InvalidDataError, match=f"begun differently: {named}"):
            search(shards, TARGETS, searched[0], replace(SETTINGS, **other))


def test_a_finished_search_goes_on_with_a_larger_budget_and_other_limits(
    searched, shards, tmp_path
):
    out = shutil.copytree(searched[0], tmp_path / "out")
    before = (out / "trials.jsonl").read_bytes()
    settings = replace(SETTINGS, budget=11, max_weight={"c00": 0.2}, confirm=1)
    answer = run_search(shards, TARGETS, out, settings, workers=1)
    assert (out / "trials.jsonl").read_bytes().startswith(before)
    trials = TrialLog.open(out / "trials.jsonl").trials
    assert len(answer.out_of_fold) == 11
    assert [t.number for t in trials] == list(range(1, len(trials) + 1))
    assert max(t.mixture.weights["c00"] for t in trials[8:]) <= 0.2
    assert {t.seed for t in trials[11:]} <= {11}
    assert answer.mixture == Mixture.load(out / "mixture.json")
    assert json.loads((out / "search.json").read_text())["settings"]["budget"] == 11
    # It has ended: the same command again gives the same.
    bytes_of = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run_search(shards, TARGETS, out, settings) == answer
    assert {path.name: path.read_bytes() for path in out.iterdir()} == bytes_of


def test_until_a_longer_search_has_ended_the_answer_of_the_shorter_one_stays(
    searched, shards, tmp_path, monkeypatch
):
    out = shutil.copytree(searched[0], tmp_path / "out")
    longer = replace(SETTINGS, budget=9)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("climbstream.search.experiments.proxy_search._run_round", killed)
        with pytest.raises(KeyboardInterrupt):
            run_search(shards, TARGETS, out, longer)
    assert Mixture.load(out / "mixture.json") == searched[1].mixture
    assert len(run_search(shards, TARGETS, out, longer, workers=1).out_of_fold) == 9


def test_a_setting_that_cannot_be_leaves_a_finished_search_as_it_is(searched, shards, tmp_path):
    out = shutil.copytree(searched[0], tmp_path / "out")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UsageError, match="max_weight"):
        run_search(shards, TARGETS, out, replace(SETTINGS, max_weight={"c99": 0.1}))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_the_cost_of_a_longer_search_counts_what_is_trained_already(searched, shards, tmp_path):
    out = shutil.copytree(searched[0], tmp_path / "out")
    plan = dry_search(shards, TARGETS, out, replace(SETTINGS, budget=20, confirm=2))
    assert (plan.models, plan.done, plan.confirm) == (26, 8, 6)


def test_other_targets_are_refused_by_name(searched, shards):
    with pytest.raises(InvalidDataError, match="--target label=law was not given") as error:
        run_search(shards, ["label=sea", "label=law"], searched[0], SETTINGS)
    assert "A search with --keep-proxies keeps its proxies" in str(error.value)


def test_a_target_whose_text_has_changed_is_refused(shards, tmp_path, write_jsonl):
    file = write_jsonl(tmp_path / "texts.jsonl", [{"text": "a"}, {"text": "b"}])

    def stop():
        raise UsageError("no further")

    with pytest.raises(UsageError, match="no further"):
        run_search(shards, [str(file)], tmp_path / "out", SETTINGS, check=stop)
    write_jsonl(file, [{"text": "a"}, {"text": "c"}])
    with pytest.raises(InvalidDataError, match=r"the contents of --target .*texts\.jsonl differ"):
        run_search(shards, [str(file)], tmp_path / "out", SETTINGS)


def test_a_setting_that_cannot_be_leaves_the_folder_to_be_begun_with_another(shards, tmp_path):
    with pytest.raises(UsageError, match="max_weight names c99"):
        run_search(shards, TARGETS, tmp_path / "out", replace(SETTINGS, max_weight={"c99": 0.2}))
    assert not list(tmp_path.glob("out/*.json*"))


def test_a_search_that_was_begun_differently_is_said_before_its_new_settings_are_judged(
    searched, shards
):
    settings = replace(SETTINGS, seed=5, max_weight={"c99": 0.2})
    with pytest.raises(InvalidDataError, match="begun differently: --seed was"):
        run_search(shards, TARGETS, searched[0], settings)


def test_a_budget_without_predictions_is_warned_of_in_a_dry_run_too(shards, tmp_path, caplog):
    dry_search(shards, TARGETS, tmp_path, replace(SETTINGS, budget=2), workers=1)
    assert "--budget 2 is too small for a search: scores are predicted" in caplog.text
    caplog.clear()
    dry_search(shards, TARGETS, tmp_path, SETTINGS, workers=1)
    assert "too small" not in caplog.text


def test_an_enqueued_mixture_is_trained_within_the_budget_and_marked(
    shards, tmp_path, capfd, read_page
):
    out, own = tmp_path / "out", tmp_path / "own.json"
    mixture = Mixture.uniform(Manifest.load(shards).names[:2])
    mixture.save(own)
    command = f"search {shards} --target label=sea --budget 4 --confirm 0 --proxy-tokens 2048"
    command += f" --workers 1 --skip-check --enqueue {own} --out {out}"
    assert run([*command.split(), "--dry-run"]) == 0
    assert "4; 1 of the budget for mixtures of --enqueue" in capfd.readouterr().out
    assert not out.exists()
    assert run(command.split()) == 0
    log = TrialLog.open(out / "trials.jsonl")
    (trial,) = (trial for trial in log.trials if log.is_enqueued(trial))
    assert {n: w for n, w in trial.mixture.weights.items() if w} == mixture.weights
    assert len(log.trials) == 4
    assert f"proxy {trial.number}, enqueued" in read_page((out / "report.html").read_bytes()).text
    capfd.readouterr()
    other = tmp_path / "other.json"
    Mixture.uniform(Manifest.load(shards).names[:3]).save(other)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run([*command.split(), "--enqueue", str(other)]) == 2
    assert "open the search with a larger budget" in capfd.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_two_searches_at_once_are_refused(shards, tmp_path):
    with lock(tmp_path / "out"), pytest.raises(LockedError, match="another process works on"):
        run_search(shards, TARGETS, tmp_path / "out", SETTINGS)


def test_an_unknown_target_leaves_nothing_behind(shards, tmp_path):
    with pytest.raises(UsageError, match="no held-out document has label 'poems'"):
        run_search(shards, ["label=poems"], tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


# Caps.


@pytest.mark.parametrize(("preset", "knows"), [("robust", True), ("climb", False)])
def test_only_our_preset_is_told_what_n_grams_say(shards, tmp_path, preset, knows):
    settings = replace(SETTINGS, preset=preset, proxy=TrainSettings(tokens=512))
    answer = run_search(shards, TARGETS, tmp_path, settings, workers=1)
    assert ("gaussian process on prior" in {skill.predictor for skill in answer.table}) == knows


def test_caps_follow_from_the_tokens_of_the_final_run(shards):
    manifest = Manifest.load(shards)
    caps = replace(SETTINGS, final_tokens=manifest.tokens, max_epochs=2.0).caps(manifest)
    shares = manifest.token_shares.weights
    assert caps == pytest.approx({name: min(1, 2 * share) for name, share in shares.items()})
    assert set(SETTINGS.caps(manifest).values()) == {1.0}


def test_proxies_repeat_clusters_as_often_as_the_final_run_will():
    assert SETTINGS.rehearsal() == SETTINGS.proxy
    final = replace(SETTINGS, final_tokens=2048 * 50).rehearsal()
    assert final == replace(SETTINGS.proxy, part=1 / 50)
    assert replace(SETTINGS, final_tokens=1000).rehearsal() == SETTINGS.proxy


def test_a_proxy_in_a_search_for_a_final_run_sees_a_part_of_the_shards(shards, shares):
    epochs = []
    for part in (1.0, 0.1):
        settings = TrainSettings(tokens=4096, part=part)
        epochs.append(train_model(shards, shares, settings, 0).epochs)
    for name, whole in epochs[0].items():
        assert epochs[1][name] == pytest.approx(10 * whole, rel=0.2)


def test_a_final_run_that_cannot_be_filled_is_refused_with_numbers(shards, tmp_path):
    with pytest.raises(UsageError, match=r"\d"):
        run_search(shards, TARGETS, tmp_path, replace(SETTINGS, final_tokens=10**9))


# Failures and kills.


@pytest.mark.slow
def test_a_search_in_which_no_proxy_can_be_trained_says_why(shards, tmp_path):
    failing = SearchSettings(budget=4, proxy=TrainSettings(tokens=4096, learning_rate=1e9))
    with pytest.raises(
        InvalidDataError, match=r"none of 4 proxies could be trained; the first: .*not finite"
    ):
        run_search(shards, TARGETS, tmp_path, failing)


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(searched, shards, tmp_path):
    assert run_search(shards, TARGETS, tmp_path, SETTINGS, workers=2) == searched[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray has warnings of its own
def test_a_search_on_a_cluster_that_loses_a_node_ends_with_the_same_answer(
    searched, shards, tmp_path, cluster
):
    log, lost = tmp_path / "trials.jsonl", []

    def lose_a_node():
        while not (log.exists() and log.read_bytes().count(b"\n") > 2):
            time.sleep(0.01)
        cluster.remove_node(cluster.second, allow_graceful=False)
        lost.append(log.read_bytes().count(b"\n") - 1)

    watcher = threading.Thread(target=lose_a_node, daemon=True)
    watcher.start()
    answer = run_search(shards, TARGETS, tmp_path, SETTINGS, engine="ray")
    watcher.join()
    assert lost[0] < 8, "the node was lost too late to matter"
    assert answer == searched[1]
    trials = [json.loads(line) for line in log.read_text().splitlines()[1:]]
    assert sorted(trial["number"] for trial in trials) == list(range(1, 9))


@pytest.mark.slow
def test_a_search_that_is_killed_ends_with_the_same_bytes(searched, shards, tmp_path, commands):
    out = tmp_path / "out"
    arguments = ["search", shards, "--target=label=sea", "--budget=8", "--proxy-tokens=2048"]
    arguments += ["--confirm=0", "--workers=2", "--skip-check", "--out", out]

    def trials(number):
        log = out / "trials.jsonl"
        return lambda: log.exists() and log.read_bytes().count(b"\n") > number

    moments = [(out / "search.json").exists, trials(4), trials(7)]
    kills = sum(commands.killed(moment, *arguments) for moment in moments)
    assert kills >= 2
    assert "continuing the search" in commands.finish(*arguments)
    for name in RESULTS:
        assert (out / name).read_bytes() == (searched[0] / name).read_bytes()
    assert {path.name for path in out.iterdir()} == {path.name for path in searched[0].iterdir()}
    assert commands.orphans() == []


@pytest.mark.slow
def test_a_search_that_is_stopped_by_sigterm_ends_with_the_same_bytes(
    searched, shards, tmp_path, commands
):
    out, log = tmp_path / "out", tmp_path / "out" / "trials.jsonl"
    arguments = ["search", shards, "--target=label=sea", "--budget=8", "--proxy-tokens=2048"]
    arguments += ["--confirm=0", "--workers=2", "--skip-check", "--out", out]
    with commands.start(*arguments) as process:
        while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") > 3):
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert said.splitlines()[-1] == "stopped; run the same command again to continue"
    done = log.read_bytes().count(b"\n") - 1
    assert 0 < done < 8
    said = commands.finish(*arguments)
    assert f"continuing the search in {out}" in said
    for name in RESULTS:
        assert (out / name).read_bytes() == (searched[0] / name).read_bytes()
    assert commands.orphans() == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--min-weight c00", "--min-weight c00: write NAME=NUMBER"),
        ("--pin =0.5", "--pin =0.5: write NAME=NUMBER"),
        ("--group c00,c01=0.5", "--group c00,c01=0.5: write CLUSTER,CLUSTER=LEAST:MOST"),
        ("--max-weight c99=0.5", "max_weight names c99"),
        ("--importance arc=2", "importance names arc; the possible names are label=sea"),
    ],
)
def test_limits_that_cannot_be_are_one_line(shards, tmp_path, capsys, more, said):
    asked = f"search {shards} --target label=sea --out {tmp_path / 'out'} {more}"
    assert run(asked.split()) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_limits_of_the_command_hold_in_every_proxy_and_the_best_are_run_again(
    shards, tmp_path, capsys, scalars
):
    asked = (
        f"search {shards} --target label=sea --budget 8 --proxy-tokens 2048 --out {tmp_path / 'o'} "
        "--min-weight c00=0.3 --pin c01=0.1 --group c02,c03=0:0.2 --confirm 2 --json --workers 1 "
        "--tensorboard"
    )
    assert run(asked.split()) == 0, capsys.readouterr().err
    lines = (tmp_path / "o" / "trials.jsonl").read_text().splitlines()[1:]
    mixtures = [json.loads(line)["mixture"]["weights"] for line in lines]
    for weights in mixtures:
        assert weights["c00"] >= 0.3
        assert weights["c01"] == pytest.approx(0.1)
        assert weights["c02"] + weights["c03"] <= 0.2 + 1e-9
    assert len(mixtures) > 8
    # TensorBoard shows each of them, and what predictors were worth once there were some.
    shown = scalars(tmp_path / "o" / "events")
    scores = [json.loads(line)["scores"]["label=sea"] for line in lines]
    assert shown["score/label=sea"] == pytest.approx(dict(enumerate(scores, start=1)))
    assert [*shown["weight/c01"]] == [*range(1, len(mixtures) + 1)]
    assert [*shown["nmse/label=sea/stack"]][-1] == len(mixtures)


@pytest.fixture
def bare(shards, tmp_path):
    """Shards without a tokenizer."""
    shutil.copytree(shards, tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").unlink()
    return tmp_path / "bare"


def test_shards_without_a_tokenizer_are_named_before_anything_is_trained(bare, tmp_path, capsys):
    asked = f"search {bare} --target label=sea --out {tmp_path / 'out'}"
    assert run(asked.split()) == 2
    assert "has no tokenizer.json, so no text can be turned into" in capsys.readouterr().err
    (bare / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidDataError, match=r"tokenizer\.json is not a tokenizer"):
        run_search(bare, ["label=sea"], tmp_path / "out", SETTINGS)


def test_shards_without_a_tokenizer_can_be_trained_on(bare, tmp_path, capsys):
    asked = f"train {bare} --tokens 2048 --seq-len 32 --batch-rows 4 --out {tmp_path / 'run'}"
    assert run(asked.split()) == 0
    assert "the model has no tokenizer beside it" in capsys.readouterr().err
    assert (tmp_path / "run" / "model" / "config.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "why"),
    [(signal.SIGSTOP, "stopped or waited for a disk"), (signal.SIGKILL, "was killed")],
)
def test_a_proxy_that_is_stopped_or_killed_fails_with_its_reason_and_the_search_goes_on(
    shards, tmp_path, monkeypatch, capsys, signal_workers, number, why
):
    monkeypatch.setenv(TIMEOUT, "3")
    longer = SearchSettings(budget=4, confirm=0, proxy=TrainSettings(tokens=1 << 16))
    with signal_workers(number, 2) as stopped:  # a task is tried twice
        run_search(shards, TARGETS, tmp_path, longer, workers=1)
    trials = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()[1:]]
    failed = [trial for trial in trials if trial["status"] != "ok"]
    assert len(trials) == 4
    assert len(failed) == 1
    assert why in failed[0]["why"]
    assert "the task is tried again" in capsys.readouterr().err
    for pid in stopped:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
