"""A search that kept its proxies scores other targets with them, and trains nothing for that."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from climbstream.loader import Manifest, Mixture
from climbstream.loader.cli.main import run
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.search.experiments.cost import CostPlan
from climbstream.search.experiments.kept_proxies import kept_files, load_weights, prune
from climbstream.search.experiments.proxy_search import dry_search, run_search
from climbstream.search.experiments.settings import SearchSettings
from climbstream.search.optimizer.trials import TrialLog
from climbstream.search.training.settings import TrainSettings
from climbstream.search.training.trainer import train_model

SETTINGS = SearchSettings(budget=8, proxy=TrainSettings(tokens=2048, average=0.2))


@pytest.fixture(scope="module")
def kept(shards, tmp_path_factory):
    """Folder of a finished search for label=sea that kept its proxies."""
    out = tmp_path_factory.mktemp("kept") / "out"
    run_search(shards, ["label=sea"], out, SETTINGS, workers=1, keep_proxies=10**9)
    return out


@pytest.fixture
def untrained(monkeypatch):
    """No model can be trained."""
    monkeypatch.delattr("climbstream.search.experiments.proxy_search._run_round")


def trials(out):
    return TrialLog.open(out / "trials.jsonl").trials


def retargeted(shards, old, out, targets=("label=law",), **settings):
    settings = replace(SETTINGS, **settings)
    return run_search(shards, targets, out, settings, workers=1, retarget=old)


# What is kept.


def test_weights_are_kept_in_two_bytes_each(kept):
    files = kept_files(kept)
    assert list(files) == list(range(1, 9))
    state = torch.load(files[3], weights_only=True)
    assert {weight.dtype for weight in state.values()} == {torch.bfloat16}
    weights = sum({w.data_ptr(): w.numel() for w in state.values()}.values())
    assert 2 * weights < files[3].stat().st_size < 2.2 * weights + 20_000


def test_kept_weights_are_those_that_were_trained_but_for_rounding(kept, shards):
    trial = trials(kept)[4]
    trained = train_model(shards, trial.mixture, SETTINGS.proxy, trial.seed).model
    vocab = trained.config.vocab_size
    again = load_weights(kept_files(kept)[5], SETTINGS.proxy, vocab)
    for (name, weight), (other, loaded) in zip(
        trained.named_parameters(), again.named_parameters(), strict=True
    ):
        assert name == other
        assert loaded.dtype == torch.float32
        assert torch.allclose(loaded, weight.bfloat16().float(), rtol=0, atol=0)


def test_keeping_weights_changes_no_score(kept, searched):
    assert [t.scores for t in trials(kept)] == [t.scores for t in trials(searched[0])]


def test_a_search_that_keeps_none_leaves_no_folder(searched):
    assert not (searched[0] / "proxies").exists()


def test_the_latest_weights_go_first_where_they_do_not_fit(kept, tmp_path):
    out = shutil.copytree(kept, tmp_path / "out")
    size = kept_files(out)[1].stat().st_size
    assert prune(out, 3 * size) == 5
    assert list(kept_files(out)) == [1, 2, 3]
    assert prune(out, 3 * size) == 0
    assert prune(out, 3 * size - 1) == 1
    assert list(kept_files(out)) == [1, 2]


def test_what_is_not_kept_is_said(kept, shards, tmp_path, caplog):
    size = kept_files(kept)[1].stat().st_size
    out = tmp_path / "out"
    run_search(shards, ["label=sea"], out, SETTINGS, workers=1, keep_proxies=2 * size)
    assert list(kept_files(out)) == [1, 2]
    assert "the parameters of 2 of 8 proxies are kept" in caplog.text


def test_a_dry_search_counts_kept_weights_on_disk(shards, tmp_path):
    plans: list[CostPlan] = [
        dry_search(shards, ["label=sea"], tmp_path, SETTINGS, workers=1, keep_proxies=most)
        for most in (0, 1000, 10**9)
    ]
    none, few, all_ = (plan.disk_bytes for plan in plans)
    assert few - none == 1000
    assert all_ - none == 8 * 2 * plans[0].parameters


# Other targets.


def test_a_second_target_in_place_is_refused_with_the_command_that_scores_it(kept, shards):
    with pytest.raises(InvalidDataError) as error:
        run_search(shards, ["label=sea", "label=law"], kept, SETTINGS)
    assert str(error.value) == (
        f"{kept} was begun differently: --target label=law was not given. Use the settings it was "
        f"begun with, or name another folder with --out and add --retarget {kept}, which scores "
        "the kept proxies of this search on the present targets"
    )


def test_another_target_is_scored_without_training(kept, shards, tmp_path, untrained):
    out = tmp_path / "out"
    answer = retargeted(shards, kept, out)
    old, new = trials(kept), trials(out)
    assert [(t.number, t.round, t.mixture, t.seed) for t in new] == [
        (t.number, t.round, t.mixture, t.seed) for t in old
    ]
    assert all(list(t.scores) == ["label=law"] for t in new)
    assert len(answer.out_of_fold) == 8
    assert answer.predicted_only == any("--confirm 3" in each for each in answer.warnings)
    assert answer.predicted_only == (answer.choice == "predicted")
    lines = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    assert sorted(line["trial"] for line in lines) == list(range(1, 9))
    assert all(list(line["costs"]) == ["label=law"] for line in lines)
    assert (out / "report.html").exists()


def test_scores_are_those_of_proxies_that_were_trained_for_the_target(kept, shards, tmp_path):
    run_search(shards, ["label=law"], tmp_path / "afresh", SETTINGS, workers=1)
    retargeted(shards, kept, tmp_path / "out")
    # The first round is the same whatever the target is.
    pairs = [
        (one.scores["label=law"], two.scores["label=law"])
        for one, two in zip(trials(tmp_path / "afresh"), trials(tmp_path / "out"), strict=True)
        if (one.mixture, one.seed) == (two.mixture, two.seed)
    ]
    assert len(pairs) >= 4
    spread = max(a for a, _ in pairs) - min(a for a, _ in pairs)
    assert max(abs(a - b) for a, b in pairs) < 0.01 * spread


def test_a_larger_budget_goes_on_from_the_scored_proxies(kept, shards, tmp_path):
    out = tmp_path / "out"
    retargeted(shards, kept, out)
    before = (out / "trials.jsonl").read_bytes()
    answer = run_search(shards, ["label=law"], out, replace(SETTINGS, budget=10), workers=1)
    assert (out / "trials.jsonl").read_bytes().startswith(before)
    assert [t.number for t in trials(out)] == list(range(1, 11))
    assert len(answer.out_of_fold) == 10


def test_the_same_command_again_gives_the_same_answer(kept, shards, tmp_path):
    out = tmp_path / "out"
    answer = retargeted(shards, kept, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert retargeted(shards, kept, out) == answer
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_scoring_goes_on_where_it_was_stopped(kept, shards, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    answer = retargeted(shards, kept, whole)
    place = "climbstream.search.experiments.retarget.append_costs"
    told = []

    def stop_at_the_fourth(*arguments):
        told.append(arguments[1])
        if len(told) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, stop_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            retargeted(shards, kept, out)
    assert len(trials(out)) == 3
    again = retargeted(shards, kept, out)
    assert again.mixture == answer.mixture
    assert (out / "trials.jsonl").read_bytes() == (whole / "trials.jsonl").read_bytes()


def test_proxies_that_are_not_kept_are_counted_and_left_out(kept, shards, tmp_path, caplog):
    old = shutil.copytree(kept, tmp_path / "old")
    kept_files(old)[6].unlink()
    retargeted(shards, old, tmp_path / "out", budget=7)
    assert [t.number for t in trials(tmp_path / "out")] == [1, 2, 3, 4, 5, 7, 8]
    assert "7 of 8 proxies of" in caplog.text


# What is refused.


def test_a_search_that_kept_nothing_is_named_with_the_remedy(searched, shards, tmp_path):
    with pytest.raises(UsageError, match=r"no parameters of its 8 proxies.*--keep-proxies 1G"):
        retargeted(shards, searched[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_folder_of_the_earlier_search_is_no_folder_for_the_new_one(kept, shards):
    before = {path.name: path.read_bytes() for path in kept.iterdir() if path.is_file()}
    with pytest.raises(UsageError, match="is the folder of this search; give the new search a new"):
        retargeted(shards, kept, kept)
    assert {p.name: p.read_bytes() for p in kept.iterdir() if p.is_file()} == before


def test_a_folder_without_a_search_is_refused(shards, tmp_path):
    with pytest.raises(UsageError, match="is no search"):
        retargeted(shards, tmp_path, tmp_path / "out")


def test_proxies_of_other_settings_are_refused_by_name(kept, shards, tmp_path):
    with pytest.raises(
        InvalidDataError, match="trained with other settings: --proxy-tokens was 2048 and"
    ):
        retargeted(shards, kept, tmp_path / "out", proxy=TrainSettings(tokens=4096, average=0.2))
    with pytest.raises(InvalidDataError, match="--seed was 0 and is 1"):
        retargeted(shards, kept, tmp_path / "out", seed=1)


def test_a_search_with_trials_of_its_own_takes_no_others(kept, searched, shards, tmp_path):
    out = shutil.copytree(searched[0], tmp_path / "out")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(InvalidDataError, match="did not begin with the proxies of"):
        retargeted(shards, kept, out, ["label=sea"])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_damaged_file_of_weights_is_named(kept, shards, tmp_path):
    old = shutil.copytree(kept, tmp_path / "old")
    file = kept_files(old)[2]
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InvalidDataError, match=r"0002\.pt"):
        retargeted(shards, old, tmp_path / "out")


# The command.


def test_the_command_trains_nothing_unless_it_is_asked_to(kept, shards, tmp_path, capfd, untrained):
    old, out = str(kept), str(tmp_path / "out")
    command = f"search {shards} --target label=law --workers 1 --skip-check"
    assert run([*command.split(), "--retarget", old, "--out", out]) == 0
    assert len(trials(tmp_path / "out")) == 8
    said = capfd.readouterr().err
    assert f"as the search in {old}, this search has --proxy-tokens 2048\n" in said
    given = [*command.split(), "--proxy-tokens", "4096", "--retarget", old, "--out", out]
    assert run(given) == 3
    assert "--proxy-tokens was 2048 and is 4096" in capfd.readouterr().err


def test_enqueued_mixtures_need_a_place_beside_kept_proxies(kept, shards, tmp_path):
    own = [Mixture.uniform(Manifest.load(shards).names[:2])]
    for search in (run_search, dry_search):
        with pytest.raises(UsageError, match=r"8 of the 8 places are taken .* give --budget 9 or"):
            search(shards, ["label=law"], tmp_path / "out", SETTINGS, retarget=kept, enqueue=own)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_counts_what_is_only_scored(kept, shards, tmp_path, capfd, untrained):
    out = tmp_path / "out"
    command = f"search {shards} --target label=law --proxy-tokens 2048 --workers 1 --skip-check"
    dry = [*command.split(), "--retarget", str(kept), "--out", str(out), "--dry-run"]
    assert run(dry) == 0
    assert "8; 8 are kept by another search, and only scored" in capfd.readouterr().out
    assert not out.exists()
    assert run([*dry, "--json"]) == 0
    plan = json.loads(capfd.readouterr().out)
    assert (plan["models"], plan["scored"], plan["tokens"]) == (8, 8, 0)
    more = retargeted_plan(shards, kept, out, replace(SETTINGS, budget=11))
    alone = retargeted_plan(shards, None, out, replace(SETTINGS, budget=11))
    assert (more.scored, alone.scored, more.models) == (8, 0, 11)
    assert (more.tokens, alone.tokens) == (3 * 2048, 11 * 2048)
    assert alone.flops - more.flops == pytest.approx(alone.flops / 11 * 8, rel=0.2)
    retargeted(shards, kept, out)
    again = retargeted_plan(shards, kept, out, SETTINGS)
    assert (again.done, again.scored, again.seconds) == (8, 0, 0.0)


def retargeted_plan(shards, old, out, settings):
    return dry_search(shards, ["label=law"], out, settings, workers=1, retarget=old)


def test_a_dry_run_refuses_what_the_search_refuses(kept, shards, tmp_path):
    other = replace(SETTINGS, proxy=TrainSettings(tokens=4096, average=0.2))
    with pytest.raises(
        InvalidDataError, match="trained with other settings: --proxy-tokens was 2048 and"
    ):
        retargeted_plan(shards, kept, tmp_path / "out", other)


@pytest.mark.parametrize("line", ["7", "null", '["settings"]', '{"settings": 1}'])
def test_a_log_that_begins_with_no_settings_is_named(kept, shards, tmp_path, line):
    for name in ("old", "out"):
        old, out = tmp_path / f"{name}-old", tmp_path / f"{name}-out"
        shutil.copytree(kept, old)
        retargeted(shards, old, out)
        log = (old if name == "old" else out) / "trials.jsonl"
        log.write_text("\n".join([line, *log.read_text().splitlines()[1:]]) + "\n")
        with pytest.raises(InvalidDataError, match="line 1, has no settings of a search"):
            retargeted(shards, old, out)
