"""Runs of other models tell a search where to look, and it says how far they do."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from climbstream.loader import Manifest, Mixture
from climbstream.loader.cli.main import run
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.search import Search, Trial, TrialLog
from climbstream.search.experiments.prior_runs import PriorRuns
from climbstream.search.experiments.proxy_search import dry_search, run_search
from climbstream.search.experiments.settings import SearchSettings
from climbstream.search.predictors.base import Skill
from climbstream.search.training.settings import TrainSettings

NAMES = ["c00", "c01", "c02", "c03"]
SETTINGS = SearchSettings(budget=9, proxy=TrainSettings(tokens=2048, average=0.2))


def loss(weights):
    return -np.log1p(weights[:, 2] / 0.1) - 0.5 * np.log1p(weights[:, 3] / 0.1)


def runs(n=40, names=NAMES, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(len(names)), n)


def write(path: Path, weights, names=NAMES, **scores) -> Path:
    with path.open("w", newline="") as file:
        heads = ["run", *(f"w_{name}" for name in names), *scores]
        rows = zip(range(len(weights)), *weights.T, *scores.values(), strict=True)
        csv.writer(file).writerows([heads, *rows])
    return path


@pytest.fixture
def table(tmp_path):
    """Runs with two scores: ``loss``, in another unit, and ``other``, which is noise."""
    weights = runs()
    noise = np.random.default_rng(7).normal(size=len(weights))
    return write(tmp_path / "runs.csv", weights, loss=50 + 9 * loss(weights), other=noise)


# What is read.


def test_a_table_has_the_weights_of_the_clusters_in_their_order(table):
    prior = PriorRuns.read([table], NAMES[::-1], ["loss"])
    ((weights, scores),) = prior.swarms["loss"]
    assert weights == pytest.approx(runs()[:, ::-1])
    assert scores == pytest.approx(50 + 9 * loss(runs()))
    assert list(prior.hashes) == [str(table)]


def test_targets_may_be_in_some_tables_only_and_tables_keep_their_order(table, tmp_path):
    more = write(tmp_path / "more.csv", runs(12, seed=3), loss=loss(runs(12, seed=3)))
    prior = PriorRuns.read([more, table], NAMES, ["loss", "other", "third"])
    assert {t: [len(y) for _, y in some] for t, some in prior.swarms.items()} == {
        "loss": [12, 40],
        "other": [40],
    }
    assert {t: each.rows for t, each in prior.by_target().items()} == {"loss": 52, "other": 40}


def test_the_folder_of_a_search_is_a_table_too(searched, shards):
    manifest = Manifest.load(shards)
    targets = ["label=sea"]
    prior = PriorRuns.read([searched[0]], manifest.names, targets, manifest.fingerprint)
    ((weights, scores),) = prior.swarms["label=sea"]
    assert weights.shape == (8, len(manifest.names))
    assert weights.sum(axis=1) == pytest.approx(np.ones(8))
    assert len(set(scores)) > 4
    with pytest.raises(InvalidDataError, match=r"was on shards .*, and these are 12ab"):
        PriorRuns.read([searched[0]], manifest.names, targets, "12ab")


def test_what_is_no_such_table_is_named_with_the_remedy(table, tmp_path):
    with pytest.raises(UsageError, match=r"no scores of piqa; it has scores of run, loss, other"):
        PriorRuns.read([table], NAMES, ["piqa"])
    with pytest.raises(UsageError, match="it has no weights of c04; it has weights of c00"):
        PriorRuns.read([table], [*NAMES, "c04"], ["loss"])
    with pytest.raises(
        UsageError, match=r"its weights c03 belong to no cluster.*the clusters are c00"
    ):
        PriorRuns.read([table], NAMES[:3], ["loss"])
    with pytest.raises(
        UsageError, match=r"is no search\. Name the --out of a climb search, or a table"
    ):
        PriorRuns.read([tmp_path], NAMES, ["loss"])
    few = write(tmp_path / "few.csv", runs(5), loss=loss(runs(5)))
    with pytest.raises(UsageError, match="5 of 5 runs have scores of loss"):
        PriorRuns.read([few], NAMES, ["loss"])


# What it is good for.


def searched_with(prior, noise=0.1, targets=("loss",), **settings):
    """A search of 16 trials, and its answer."""
    search = Search(
        NAMES,
        dict.fromkeys(targets, "min"),
        budget=16,
        earlier_runs=prior and prior.by_target(),
        **settings,
    )
    while mixtures := search.ask():
        for mixture in mixtures:
            rng = np.random.default_rng([3, mixture.about["trial"]])
            score = float(loss(mixture.array(NAMES)[None])[0]) + noise * rng.normal()
            search.tell(mixture, dict.fromkeys(targets, score))
    return search, search.result()


def told(prior, search):
    return prior.told(search.earlier_runs, search.log.trials, NAMES, search.table)


def test_a_benchmark_that_transfers_is_said_to_with_its_figures(table):
    prior = PriorRuns.read([table], NAMES, ["loss"])
    search, _ = searched_with(prior)
    (line,), warnings = told(prior, search)
    assert warnings == []
    assert line.startswith("on loss, predictions from 40 prior runs have a rank correlation of 0.8")
    assert "with the scores of 16 proxies" in line
    errors = {s.predictor: s.nmse for s in search.table}
    with_, without = (errors[f"gaussian process{on}"] for on in (" on earlier runs", ""))
    assert f"{with_:.2f} with these runs and {without:.2f} without." in line
    assert with_ < 0.6 * without


def test_one_that_does_not_transfer_is_a_warning_and_changes_no_prediction(tmp_path):
    warned = 0
    for seed in range(6):
        # By chance, noise may seem to predict the scores of 16 proxies.
        noise = np.random.default_rng(seed).normal(size=len(runs()))
        prior = PriorRuns.read(
            [write(tmp_path / f"{seed}.csv", runs(), other=noise)], NAMES, ["other"]
        )
        log = tmp_path / f"{seed}.jsonl"
        search, answer = searched_with(prior, noise=0.3, targets=("other",), log=log)
        lines, warnings = told(prior, search)
        assert len(lines) + len(warnings) == 1
        if warnings:
            warned += 1
            assert "so these runs are not used for other" in warnings[0]
            same = Search(NAMES, {"other": "min"}, budget=16, log=log).result()
            assert same.mixture == answer.mixture
            assert same.gain == pytest.approx(answer.gain)
    assert warned


def test_runs_of_another_sign_transfer_as_well(tmp_path):
    path = write(tmp_path / "accuracy.csv", runs(), loss=-loss(runs()))
    prior = PriorRuns.read([path], NAMES, ["loss"])
    search, _ = searched_with(prior)
    (line,), _ = told(prior, search)
    assert "a rank correlation of 0.8" in line


def test_a_target_without_prior_runs_and_a_search_without_predictors_say_nothing(table):
    prior = PriorRuns.read([table], NAMES, ["loss"])
    trial = Trial(number=1, round=1, mixture=Mixture.uniform(NAMES), seed=0, scores={"loss": 1.0})
    assert prior.told(prior.by_target(), [trial], NAMES, []) == ([], [])
    skill = Skill(predictor="gaussian process", rows=1, nmse=1.0, spearman=0.0, verdict="useful")
    table = [replace(skill, target="third")]
    assert prior.told(prior.by_target(), [trial], NAMES, table) == ([], [])


# A search over proxies.


@pytest.fixture
def small(searched, shards, tmp_path):
    """A table of the trials of a finished search."""
    path = tmp_path / "small.csv"
    TrialLog.open(searched[0] / "trials.jsonl").to_csv(path)
    return path


def test_the_command_says_in_log_answer_and_report_how_far_runs_transfer(
    small, searched, shards, tmp_path, capfd
):
    out = tmp_path / "out"
    command = f"search {shards} --target label=sea --proxy-tokens 2048 --workers 1 --skip-check"
    command += f" --budget 9 --confirm 0 --out {out} --prior-runs {searched[0]}"
    assert run([*command.split(), "--prior-runs", str(small)]) == 0
    said = capfd.readouterr()
    answer = json.loads((out / "answer.json").read_text())
    assert "gaussian process on earlier runs" in {s["predictor"] for s in answer["table"]}
    everywhere = said.out + said.err
    assert "predictions from 16 prior runs have a rank correlation of" in everywhere
    if answer["warnings"]:
        assert answer["warnings"][-1] in said.out.replace("\n", " ")
    plan = json.loads((out / "search.json").read_text())
    assert list(plan["prior_runs"]) == [str(searched[0]), str(small)]
    assert (
        "predictions from 16 prior runs have a rank correlation of"
        in (out / "report.html").read_text()
    )


def test_a_search_goes_on_with_other_prior_runs_and_trains_none_again(
    searched, small, shards, tmp_path, caplog
):
    out = shutil.copytree(searched[0], tmp_path / "out")
    before = (out / "trials.jsonl").read_bytes()
    run_search(shards, ["label=sea"], out, SETTINGS, workers=1, prior_runs=[small])
    assert (out / "trials.jsonl").read_bytes().startswith(before)
    assert "continues from its trials with other budget, prior runs" in caplog.text


def test_presets_that_are_as_published_take_no_prior_runs(small, shards, tmp_path):
    for begin in (run_search, dry_search):
        with pytest.raises(UsageError, match=r"climb learns from its own proxies alone; .* robust"):
            begin(
                shards,
                ["label=sea"],
                tmp_path / "out",
                replace(SETTINGS, preset="climb"),
                prior_runs=[small],
            )
    assert not (tmp_path / "out").exists()
