"""Mixtures are compared in pairs, and nothing is claimed within two standard errors."""

import json
import math
from itertools import permutations

import pytest

from climbstream.loader import Mixture
from climbstream.loader.core.errors import ClimbError, InvalidDataError, LockedError
from climbstream.loader.core.files import lock
from climbstream.search.evaluation.comparison import Comparison
from climbstream.search.experiments.compare import _read_runs, compare
from climbstream.search.training.settings import TrainSettings

SETTINGS = TrainSettings(tokens=2048)


@pytest.fixture(scope="module")
def mixtures(shares):
    return {"shares": shares, "uniform": Mixture.uniform(list(shares.weights))}


@pytest.fixture(scope="module")
def compared(shards, mixtures, tmp_path_factory):
    """Folder and result of a finished comparison."""
    out = tmp_path_factory.mktemp("compare") / "out"
    return out, compare(shards, mixtures, ["label=sea"], SETTINGS, [1, 2], out, workers=1)[
        "label=sea"
    ]


# Means and claims.


def test_means_and_standard_errors_are_those_by_hand():
    comparison = Comparison({"new": [1.0, 1.2, 1.1], "old": [1.5, 1.5, 1.8]})
    # Sums of squares 0.02 and 0.06, over n - 1, over n.
    assert comparison.mean("new") == pytest.approx((1.1, math.sqrt(0.02 / 2 / 3)))
    assert comparison.mean("old") == pytest.approx((1.6, math.sqrt(0.06 / 2 / 3)))
    # Paired: 0.5, 0.3, 0.7.
    assert comparison.gain("new", "old") == pytest.approx((0.5, math.sqrt(0.08 / 2 / 3)))
    assert comparison.gain("old", "new") == pytest.approx((-0.5, math.sqrt(0.08 / 2 / 3)))


def test_a_mixture_that_beats_all_others_is_said_to():
    comparison = Comparison({"new": [1.0, 1.2, 1.1], "old": [1.5, 1.5, 1.8], "even": [2, 2.2, 2.1]})
    assert comparison.verdict("new") == (
        True,
        "New 1.100 ± .058 bits per byte against old 1.600 ± .100, better by .500 ± .115; "
        "against even 2.100 ± .058, better by 1.000 ± .000; in 3 seeds.",
    )


@pytest.mark.parametrize("old", [[1.0, 1.5, 1.2], [0.5, 0.6, 0.7], [1.0, 1.3, 1.1]])
def test_a_mixture_that_does_not_beat_one_other_is_not_said_to(old):
    comparison = Comparison({"new": [1.0, 1.2, 1.1], "bad": [3.0, 3.0, 3.1], "old": old})
    holds, text = comparison.verdict("new")
    assert not holds
    assert text.startswith("No sure gain: new 1.100 ± .058 bits per byte against bad 3.033 ± .033")
    assert "At least one gain is less than twice its error" in text
    assert "Give the search a larger budget" in text


def test_a_mixture_that_is_another_one_is_said_to_be_it_and_not_better_by_nothing():
    new = [1.0, 1.2, 1.1]
    comparison = Comparison({"new": new, "old": [*new], "even": [2, 2.2, 2.1]})
    holds, text = comparison.verdict("new")
    assert not holds
    assert text.startswith(
        "No gain: new is the same mixture as old, because nothing better was found. New 1.100 ± "
        ".058 bits per byte against even 2.100 ± .058, better by 1.000 ± .000; in 3 seeds. Give"
    )
    shown = {other: comparison.gain_text("new", other) for other in comparison.scores}
    assert shown == {"new": "", "old": "the same mixture", "even": "1.000 ± .000"}
    _, text = Comparison({"new": new, "old": [*new]}).verdict("new")
    assert "was found. New 1.100 ± .058 bits per byte; in 3 seeds." in text


def test_a_clear_gain_on_too_few_items_is_not_sure():
    scores = {"ours": [2.0, 2.1, 2.05], "shares": [3.0, 3.1, 3.05]}
    assert Comparison(scores).verdict("ours")[0]
    holds, text = Comparison(scores, objection="Too few.").verdict("ours")
    assert not holds
    assert text.startswith("No sure gain: ours")
    assert text.endswith(". Too few.")


def test_one_seed_proves_nothing():
    comparison = Comparison({"new": [1.0], "old": [9.0]})
    assert comparison.mean("new") == (1.0, math.inf)
    assert comparison.gain("new", "old") == (8.0, math.inf)
    holds, text = comparison.verdict("new")
    assert not holds
    assert text.startswith("No sure gain: new 1.000 bits per byte against old 9.000, better by 8")


def test_what_the_items_leave_open_counts_in_the_doubt_of_a_gain():
    scores = {"new": [1.0, 1.2, 1.1], "old": [1.5, 1.7, 1.6]}
    on_items = Comparison(
        scores, scored_on="7 documents, 21 kB of text", item_sds={("new", "old"): 0.3}
    )
    assert Comparison(scores).verdict("new")[0]
    assert on_items.gain("new", "old") == pytest.approx((0.5, 0.3))
    holds, text = on_items.verdict("new")
    assert not holds
    assert "in 3 seeds; 7 documents, 21 kB of text score it" in text


# Runs.


def test_each_mixture_has_a_score_a_seed(compared, mixtures):
    out, comparison = compared
    assert list(comparison.scores) == list(mixtures)
    runs = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
    assert len(runs) == 4
    for run in runs:
        score = run["scores"]["label=sea"]
        assert comparison.scores[run["mixture"]][run["seed"] - 1] == score
    assert len({run["scores"]["label=sea"] for run in runs}) == 4
    assert f"{len(runs[0]['costs']['label=sea'])} documents, " in comparison.scored_on
    assert set(comparison.item_sds) == set(permutations(mixtures, 2))
    assert min(comparison.item_sds.values()) > 0
    assert "--holdout" in comparison.warning


def test_a_finished_comparison_is_read_and_not_run(compared, shards, mixtures):
    out, comparison = compared
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    again = compare(shards, mixtures, ["label=sea"], SETTINGS, [1, 2], out)
    assert again == {"label=sea": comparison}
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.slow
def test_a_comparison_that_was_cut_short_runs_what_is_missing(compared, shards, mixtures, tmp_path):
    out, comparison = compared
    lines = (out / "runs.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "compare.json").write_bytes((out / "compare.json").read_bytes())
    (tmp_path / "runs.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:9])
    (tmp_path / ".tmp-0123456789ab-compare.json").write_text("cut")
    found = compare(shards, mixtures, ["label=sea"], SETTINGS, [1, 2], tmp_path, workers=1)
    found = found["label=sea"]
    assert found == comparison
    assert (tmp_path / "runs.jsonl").read_bytes() == (out / "runs.jsonl").read_bytes()
    assert not list(tmp_path.glob(".tmp*"))


def test_another_comparison_is_refused_by_what_differs(compared, shards, mixtures):
    other = TrainSettings(tokens=4096)
    with pytest.raises(InvalidDataError, match=r"begun differently: --tokens was 2048"):
        compare(shards, mixtures, ["label=sea"], other, [1, 2], compared[0])
    with pytest.raises(InvalidDataError, match=r"targets\.label=law was not given"):
        compare(shards, mixtures, ["label=law"], SETTINGS, [1, 2], compared[0])


def test_two_comparisons_at_once_are_refused(shards, mixtures, tmp_path):
    with lock(tmp_path), pytest.raises(LockedError):
        compare(shards, mixtures, ["label=sea"], SETTINGS, [1], tmp_path)


@pytest.mark.slow
def test_a_run_that_fails_is_named(shards, mixtures, tmp_path):
    failing = TrainSettings(tokens=4096, learning_rate=1e9)
    with pytest.raises(ClimbError, match=r"the run of \w+ with seed 1: the loss is not finite"):
        compare(shards, mixtures, ["label=sea"], failing, [1], tmp_path, workers=1)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[]", "line 2: this is not a valid run of a comparison"),
        ('{"mixture": 1, "seed": 1, "scores": {}}', "line 2: .*mixture: expected str, got int"),
        ('{"mixture": "a", "seed": 1, "scores": {"t": null}}', "line 2: .*scores"),
        ('{"mixture": "a", "seed": 1, "scores": {"u": 1}}', "line 2: there are scores of u"),
    ],
)
def test_a_broken_line_of_a_comparison_is_named(tmp_path, line, words):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"mixture": "a", "seed": 1, "scores": {"t": 1.5}}\n' + line + "\n")
    with pytest.raises(InvalidDataError, match=f"{path}, {words}"):
        _read_runs(path, ["t"])
