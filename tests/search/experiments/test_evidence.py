"""A search begins from the trials of an earlier one on other groups of the same cells."""

import json
import shutil

import pytest

from climbstream.builder import build
from climbstream.builder.settings import BuildSettings
from climbstream.loader import Manifest, Mixture
from climbstream.loader.cli.main import run
from climbstream.loader.core.files import read_json
from climbstream.search.experiments.evidence import SearchCells
from climbstream.search.optimizer.trials import TrialLog

PROXY = ["--proxy-tokens", "2048", "--skip-check", "--confirm", "0", "--workers", "1"]
BUILD = {"dims": 16, "vocab_size": 600, "no_prune": True, "holdout": 0.1}


def search(place, out, *more, budget="8", target="label=sea"):
    words = ["search", str(place), "--target", target, "--out", str(out), "--budget", budget]
    return run([*words, *PROXY, *map(str, more)])


def log_of(out):
    return TrialLog.open(out / "trials.jsonl")


def carried_and_own(out):
    log = log_of(out)
    carried = [trial for trial in log.trials if log.is_carried(trial)]
    return carried, [trial for trial in log.trials if not log.is_carried(trial)]


def mixtures_of(trials):
    """What is said of trials of which some have the same mixture."""
    count = len({trial.mixture.fingerprint for trial in trials})
    noun = "mixture" if count == 1 else "mixtures"
    return f" ({count} different {noun})" if count < len(trials) else ""


@pytest.fixture(scope="module")
def directory(shards, tmp_path_factory):
    """The six clusters, and two groups of them."""
    directory = shutil.copytree(shards, tmp_path_factory.mktemp("cells") / "shards")
    names = Manifest.load(directory).names
    groups = directory.parent / "halves.json"
    groups.write_text(json.dumps({"a": names[:3], "b": names[3:]}))
    assert run(["regroup", str(directory), "--by", str(groups)]) == 0
    return directory


@pytest.fixture(scope="module")
def coarse(directory, tmp_path_factory):
    """A search over the two groups."""
    out = tmp_path_factory.mktemp("coarse") / "out"
    assert search(directory / "groupings" / "halves", out) == 0
    return out


def test_a_search_keeps_which_cells_its_clusters_have(coarse, directory):
    cells = SearchCells.from_json(read_json(coarse / "cells.json"))
    manifest = Manifest.load(directory)
    assert [*cells.clusters] == ["a", "b"]
    assert cells.shards == manifest.fingerprint
    assert cells.hashes() == {c.name: c.index_hash for c in manifest.clusters}


def test_after_regrouping_all_trials_count_and_the_new_proxies_are_beside_them(
    coarse, directory, tmp_path, capsys
):
    out = tmp_path / "out"
    assert search(directory, out, "--from", coarse, budget="3") == 0
    shown = capsys.readouterr()
    said = f"8 of the 8 trials of {coarse} count as measured{mixtures_of(log_of(coarse).trials)}\n"
    assert said in shown.err
    assert "search: 3/3 proxies" in shown.err
    carried, own = carried_and_own(out)
    assert ([t.number for t in carried], len(own)) == ([*range(1, 9)], 3)
    halves = read_json(directory / "groupings" / "halves" / "grouping.json")["groups"]
    tokens = {c.name: c.tokens for c in Manifest.load(directory).clusters}
    for old, told in zip(log_of(coarse).trials, carried, strict=True):
        assert (told.scores, told.seed) == (old.scores, old.seed)
        for group, names in halves.items():
            total = sum(tokens[name] for name in names)
            for name in names:
                share = old.mixture.weights[group] * tokens[name] / total
                assert told.mixture.weights[name] == pytest.approx(share, abs=1e-9)
    # The token shares are the same mixture in both, so they are not measured again.
    base = Manifest.load(directory).token_shares
    measured = [t for t in carried if t.mixture.weights == pytest.approx(base.weights, abs=1e-3)]
    assert measured
    assert not any(t.mixture == measured[0].mixture for t in own)
    answer = read_json(out / "answer.json")
    assert len(answer["out_of_fold"]) == 11
    assert str(coarse) in (out / "report.html").read_text()
    lines = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    assert sorted(line["trial"] for line in lines) == [*range(1, 12)]


def test_a_search_from_trials_is_continued_and_ended_like_any_other(coarse, directory, tmp_path):
    out = tmp_path / "out"
    assert search(directory, out, "--from", coarse, budget="2") == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert search(directory, out, "--from", coarse, budget="2") == 0
    assert search(directory, out, budget="2") == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert search(directory, out, budget="4") == 0
    assert [len(some) for some in carried_and_own(out)] == [8, 4]


def test_groups_that_join_clusters_learn_from_all_trials_and_say_how_many_only_help_to_predict(
    coarse, directory, tmp_path, capsys
):
    fine, out = tmp_path / "fine", tmp_path / "out"
    assert search(directory, fine) == 0
    assert search(directory / "groupings" / "halves", out, "--from", fine, budget="2") == 0
    carried, own = carried_and_own(out)
    apart = log_of(out).apart
    assert len(carried) + len(apart) == 8
    assert apart
    assert len(own) == 2
    old = {t.number: t for t in log_of(fine).trials}
    for one in apart:
        assert (one.mixture, one.scores) == (old[one.number].mixture, old[one.number].scores)
    shown = capsys.readouterr().err
    said = f"{len(carried)} of the 8 trials of {fine} count as measured{mixtures_of(carried)}; "
    assert f"{said}{len(apart)} are used only" in shown
    assert "search: 2/2 proxies" in shown
    answer = read_json(out / "answer.json")
    assert len(answer["out_of_fold"]) == 10
    assert f"learnt from {len(apart)} of its proxies" in (out / "report.html").read_text()
    rows = log_of(out).to_rows()
    assert {key for row in rows for key in row if key.startswith("w_")} == {"w_a", "w_b"}
    # A third search learns from what the second measured.
    assert search(directory, tmp_path / "third", "--from", out, "--dry-run") == 0
    said = f"{len(carried) + 2} of the 10 trials of {out} count as measured"
    said += f"{mixtures_of([*carried, *own])}; {len(apart)} are not used"
    assert said in capsys.readouterr().err


def test_if_a_search_only_holds_trials_that_helped_it_to_predict_the_error_names_their_search(
    directory, tmp_path, capsys
):
    fine, out = tmp_path / "fine", tmp_path / "out"
    assert search(directory, fine, budget="4") == 0
    assert search(directory / "groupings" / "halves", out, "--from", fine, budget="2") == 0
    log = out / "trials.jsonl"
    kept = [
        line for line in log.read_text().splitlines() if '"settings"' in line or "apart" in line
    ]
    log.write_text("\n".join(kept) + "\n")
    apart = len(log_of(out).apart)
    capsys.readouterr()
    assert search(directory, tmp_path / "third", "--from", out, "--dry-run") == 2
    said = capsys.readouterr().err
    assert "none of its 0 trials has anything in common with these clusters" in said
    assert f"it also used {apart} trials of {fine}, which may have: name that search" in said


def test_after_an_append_the_trials_count_at_the_level_of_the_new_ones(
    coarse, directory, tmp_path, make_records, write_jsonl
):
    grown = shutil.copytree(directory, tmp_path / "shards")
    records = [{**r, "id": f"new {r['id']}"} for r in make_records(each=12, seed=9)]
    more = write_jsonl(tmp_path / "more.jsonl", records)
    assert run(["build", str(more), "--out", str(grown), "--append"]) == 0
    out = tmp_path / "out"
    assert search(grown / "groupings" / "halves", out, "--from", coarse, budget="9") == 0
    carried, own = carried_and_own(out)
    assert (len(carried), len(own)) == (8, 9)
    origin = log_of(out).origin
    assert (origin["search"], origin["same"]) == (str(coarse), False)
    assert origin["overlap"]["to_new"] == {"a": {"a": 1.0}, "b": {"b": 1.0}}
    for old, told in zip(log_of(coarse).trials, carried, strict=True):
        assert told.mixture.weights == pytest.approx(old.mixture.weights)
    # Held-out text has grown too, so scores of items are those of the new proxies alone.
    lines = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    assert sorted(line["trial"] for line in lines) == [t.number for t in own]


def test_after_merging_otherwise_the_micro_clusters_are_what_both_have(built, tmp_path):
    four, nine = tmp_path / "four", tmp_path / "nine"
    for out, clusters in ((four, 4), (nine, 9)):
        settings = BuildSettings(**BUILD, micro_clusters=24, clusters=clusters)
        build([str(built.source)], out, settings, workers=1)
    assert search(four, tmp_path / "old") == 0
    assert search(nine, tmp_path / "new", "--from", tmp_path / "old", budget="2") == 0
    carried, _ = carried_and_own(tmp_path / "new")
    # Merging goes on from nine to four, so none of the nine is in two of the four.
    assert len(carried) == 8
    both = [SearchCells.from_json(read_json(tmp_path / n / "cells.json")) for n in ("old", "new")]
    inside = {m: name for name, part in both[0].by_micro([]).items() for m in part}
    for old, told in zip(log_of(tmp_path / "old").trials, carried, strict=True):
        back = dict.fromkeys(old.mixture.weights, 0.0)
        for name, part in both[1].by_micro([]).items():
            back[inside[next(iter(part))]] += told.mixture.weights[name]
        assert back == pytest.approx(old.mixture.weights, abs=1e-9)


def test_what_tells_nothing_is_refused_by_name(coarse, directory, built, tmp_path, capsys):
    text = tmp_path / "target.txt"
    text.write_text("One harbour.\n\nAnother reef.\n")
    other = tmp_path / "other"
    settings = BuildSettings(**BUILD, micro_clusters=9, clusters=3)
    build([str(built.source)], other, settings, workers=1)
    for words, said in [
        ((directory, tmp_path / "a", "--from", tmp_path), "is no search"),
        ((directory, coarse, "--from", coarse), "is the folder of this search"),
        ((other, tmp_path / "b", "--from", coarse), "and have other micro-clusters"),
        ((directory, tmp_path / "c", "--from", coarse, "--model", "mini"), "--model was"),
    ]:
        capsys.readouterr()
        assert search(*words) in (2, 3)
        assert said in capsys.readouterr().err
        assert words[1] == coarse or not words[1].exists()
    assert search(directory, tmp_path / "d", "--from", coarse, target=str(text)) == 2
    assert "it has no scores of" in capsys.readouterr().err
    old = tmp_path / "old"
    assert search(directory, old, target=str(text)) == 0
    text.write_text("One harbour.\n\nAnother sail.\n")
    assert search(directory, tmp_path / "e", "--from", old, target=str(text)) == 3
    assert "has changed since" in capsys.readouterr().err
    assert search(directory, tmp_path / "f", budget="2") == 0
    assert search(directory, tmp_path / "f", "--from", coarse, budget="2") == 2
    assert "was begun without --from" in capsys.readouterr().err


def test_a_search_of_an_earlier_version_counts_on_its_own_shards(
    coarse, directory, tmp_path, capsys
):
    old = shutil.copytree(coarse, tmp_path / "old")
    (old / "cells.json").unlink()
    halves = directory / "groupings" / "halves"
    assert search(halves, tmp_path / "same", "--from", old, budget="2") == 0
    assert len(carried_and_own(tmp_path / "same")[0]) == 8
    assert search(directory, tmp_path / "other", "--from", old, budget="2") == 3
    assert "did not write cells.json" in capsys.readouterr().err
    assert search(halves, old) == 0  # which writes it
    assert search(directory, tmp_path / "other", "--from", old, budget="2") == 0
    assert Mixture.load(tmp_path / "other" / "mixture.json")


def test_a_dry_run_says_how_many_trials_count_and_writes_nothing(
    coarse, directory, tmp_path, capsys
):
    assert search(directory, tmp_path / "out", "--from", coarse, "--dry-run") == 0
    assert "8 trials" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_refuses_the_folder_of_the_search_itself(coarse, directory, capsys):
    assert search(directory, coarse, "--from", coarse, "--dry-run") == 2
    assert "is the folder of this search" in capsys.readouterr().err
