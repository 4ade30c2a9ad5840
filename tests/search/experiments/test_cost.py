"""The plan is counted and measured before anything is trained, and a dry run writes nothing."""

import json
from dataclasses import replace

import pytest
import torch

from climbstream.loader.cli.main import run
from climbstream.loader.core.errors import UsageError
from climbstream.search.experiments.doremi_search import dry_doremi
from climbstream.search.experiments.proxy_search import dry_search, run_search
from climbstream.search.experiments.settings import SearchSettings
from climbstream.search.optimizer.trials import TrialLog
from climbstream.search.training.settings import TrainSettings
from climbstream.search.training.step_cost import StepTask, measure_step

SETTINGS = SearchSettings(budget=8, confirm=2, proxy=TrainSettings(tokens=2048, average=0.2))


def test_a_dry_search_counts_what_will_be_trained_and_writes_nothing(shards, tmp_path):
    out = tmp_path / "out"
    plan = dry_search(shards, ["label=sea"], out, SETTINGS, workers=1)
    assert not out.exists()
    assert (plan.models, plan.confirm, plan.done, plan.steps) == (14, 6, 0, 4)
    assert plan.tokens == 14 * 4 * 512
    assert plan.flops > 14 * 4 * 512 * 6 * plan.parameters
    assert plan.seconds == pytest.approx(14 * 4 * plan.step_seconds, rel=0.8)
    assert " documents, " in plan.targets["label=sea"]
    assert "--holdout" in plan.warnings[0]
    text = plan.text(out)
    for part in ("14, of which at most 6 confirm", "measured on this machine", "FLOPs", "disk"):
        assert part in text


def test_what_is_trained_already_is_not_planned_again(searched, shards):
    out, _ = searched
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    plan = dry_search(shards, ["label=sea"], out, replace(SETTINGS, confirm=0), workers=1)
    assert (plan.models, plan.done, plan.seconds) == (8, 8, 0)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_proxies_that_confirmed_an_earlier_answer_are_counted_beside_the_budget(shards, tmp_path):
    out = tmp_path / "out"
    confirmed = replace(SETTINGS, confirm=1)
    run_search(shards, ["label=sea"], out, confirmed, workers=1)
    done = len(TrialLog.open(out / "trials.jsonl").trials)
    plan = dry_search(shards, ["label=sea"], out, replace(confirmed, budget=10), workers=1)
    assert plan.beside == done - 8
    assert (plan.models, plan.done, plan.confirm) == (10 + plan.beside + 3, done, 3)
    assert plan.left == plan.models - done
    text = plan.text(out)
    assert (
        f"; {plan.beside} confirmed earlier answers or come from another search, and do not count "
        f"in the budget; {done} are trained already, and at most {plan.left} are left" in text
    )
    assert " of them by the models that are left" in text
    assert "--skip-check leaves this check out" in text


def test_a_confirmation_with_fewer_targets_is_planned_although_the_budget_is_spent(
    shards, tmp_path
):
    # The first answer was confirmed; then the budget grew, and now one target is left out.
    out, both = tmp_path / "out", ["label=sea", "label=space"]
    confirmed = replace(SETTINGS, confirm=1)
    run_search(shards, both, out, confirmed, workers=1)
    run_search(shards, both, out, replace(SETTINGS, budget=10, confirm=0), workers=1)
    before = (out / "trials.jsonl").read_bytes()
    plan = dry_search(shards, both[:1], out, confirmed, workers=1)
    assert (out / "trials.jsonl").read_bytes() == before
    assert (plan.left, plan.tokens_left) == (3, 3 * 2048)
    assert plan.seconds > 0
    done = plan.done
    run_search(shards, both[:1], out, confirmed, workers=1)
    assert done < len(TrialLog.open(out / "trials.jsonl").trials) <= done + plan.left


@pytest.mark.parametrize(
    ("targets", "settings", "words"),
    [
        (["label=poems"], SETTINGS, "no held-out document has label 'poems'"),
        (["label=sea"], replace(SETTINGS, budget=0), "budget is 1 or more"),
        (["label=sea"], replace(SETTINGS, max_weight={"c99": 0.1}), "c99"),
    ],
)
def test_a_dry_search_refuses_what_a_search_refuses(shards, tmp_path, targets, settings, words):
    with pytest.raises(UsageError, match=words):
        dry_search(shards, targets, tmp_path / "out", settings, workers=1)


def test_a_dry_doremi_counts_its_four_models_and_refuses_what_doremi_refuses(shards, tmp_path):
    out, settings = tmp_path / "out", TrainSettings(tokens=20_480)
    plan = dry_doremi(shards, ["label=sea"], out, settings, workers=2)
    assert (plan.models, plan.steps, plan.tokens) == (4, 40, 4 * 40 * 512)
    assert plan.seconds > 3 * 40 * plan.step_seconds
    with pytest.raises(UsageError, match="DoReMi chooses weights every 10"):
        dry_doremi(shards, ["label=sea"], out, replace(settings, tokens=2048))
    assert not out.exists()


def test_dry_runs_of_the_commands_print_the_plan_and_write_nothing(shards, tmp_path, capfd):
    out = tmp_path / "out"
    search = f"search {shards} --target label=sea --budget 8 --proxy-tokens 2048 --workers 1"
    train = f"train {shards} --tokens 1e5"
    doremi = f"search {shards} --target label=sea --preset doremi --proxy-tokens 20k"
    for command in (doremi, search, train):
        arguments = [*command.split(), "--out", str(out), "--dry-run"]
        assert run(arguments) == 0
        assert "measured on this machine" in capfd.readouterr().out
        assert run([*arguments, "--json"]) == 0
        plan = json.loads(capfd.readouterr().out)
        assert plan["flops"] > 0
        assert plan["disk_bytes"] > 0
    assert plan["models"] == 1
    assert list(tmp_path.iterdir()) == []


def test_measuring_leaves_the_threads_of_torch(shards):
    before = torch.get_num_threads()
    settings = TrainSettings(tokens=1024, model="mini")
    cost = measure_step(StepTask(settings=settings, vocab_size=300, threads=1))
    assert torch.get_num_threads() == before
    tokens = settings.seq_len * settings.batch_rows
    assert cost.flops == tokens * (6 * cost.parameters + 12 * 4 * 128 * settings.seq_len)
