"""A search asks for the right mixtures, survives anything, and does not claim what is luck."""

import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from climbstream.loader import Mixture
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.search import Search, TrialLog
from climbstream.search.optimizer.constraints import Group
from climbstream.search.optimizer.presets import PRESETS
from climbstream.search.predictors.trees import LightGBM

NAMES = ["c00", "c01", "c02", "c03", "c04", "c05"]
SHARES = {"c00": 0.4, "c01": 0.25, "c02": 0.15, "c03": 0.1, "c04": 0.07, "c05": 0.03}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The preset of the paper with a pool that is sampled in no time."""
    monkeypatch.setitem(PRESETS, "quick", replace(PRESETS["climb"], pool=1000))


def search(budget=16, targets=None, **settings):
    targets = targets or {"loss": "min"}
    return Search(
        NAMES, targets, **{"budget": budget, "preset": "quick", "prior": SHARES} | settings
    )


def loss(mixture):
    """Least where c03 and c05 have half each."""
    w = mixture.weights
    return 3.0 - math.log1p(w["c03"] / 0.1) - math.log1p(w["c05"] / 0.1) + 0.1 * w["c00"]


def noisy(mixture, sd=1.0, seed=0):
    """Noise of a run of its own for each trial."""
    return float(np.random.default_rng([seed, mixture.about["trial"]]).normal(0, sd))


def play(s, score=loss, most=1000):
    """Tell scores until ``most`` are told or the budget is spent; return all that was asked."""
    asked = []
    while mixtures := s.ask():
        for mixture in mixtures:
            if len(asked) == most:
                return asked
            asked.append(mixture)
            outcome = score(mixture)
            s.tell(mixture, {"loss": outcome} if isinstance(outcome, float) else outcome)
    return asked


def play_round(s):
    """Tell the scores of one round; return it."""
    for mixture in (asked := s.ask()):
        s.tell(mixture, {"loss": loss(mixture)})
    return asked


def same(some, others):
    """Whether two lists hold equal mixtures, with equal numbers, rounds and seeds."""
    return [(m.weights, m.about) for m in some] == [(m.weights, m.about) for m in others]


# What is asked.


def test_it_is_used_as_it_is_written():
    s = Search(clusters=NAMES, targets={"piqa": "min", "arc": "min"}, budget=12, prior=SHARES)
    while s.ask():
        for mixture in s.ask():
            s.tell(mixture, {"piqa": loss(mixture), "arc": 2.10})
    answer = s.result()
    assert answer.mixture.array(NAMES).sum() == pytest.approx(1)
    assert answer.measured_best.trials
    assert {skill.target for skill in answer.table} == {"piqa", "arc"}


def test_the_budget_is_split_and_spent_to_the_last():
    asked = play(search(28))
    assert Counter(m.about["round"] for m in asked) == {1: 16, 2: 8, 3: 4}
    assert [m.about["trial"] for m in asked] == list(range(1, 29))


def test_asking_again_gives_what_is_left_of_the_round():
    s = search()
    first = s.ask()
    s.tell(first[3], {"loss": 1.0})
    s.tell(first[0], {"loss": 1.0})
    assert same(s.ask(), first[1:3] + first[4:])


def test_a_trial_told_twice_is_refused_without_proposing_a_round(monkeypatch):
    s = search(28)
    for mixture in (first := s.ask()):
        s.tell(mixture, {"loss": loss(mixture)})
    monkeypatch.delattr(Search, "_propose")
    with pytest.raises(UsageError, match="was told before"):
        s.tell(first[-1], {"loss": 1.0})


def test_the_first_round_repeats_the_token_shares_and_has_the_uniform_mixture():
    first = search().ask()
    repeats = [m for m in first if m == Mixture.of(SHARES)]
    assert len(repeats) == 3
    assert len({m.about["seed"] for m in repeats}) == 3
    assert first.count(Mixture.uniform(NAMES)) == 1
    # All others differ in the mixture alone.
    assert {m.about["seed"] for m in first if m != Mixture.of(SHARES)} == {0}


@pytest.mark.parametrize(
    ("budget", "repeats"), [(4, 1), (7, 1), (8, 2), (16, 3), (28, 3), (112, 6)]
)
def test_the_more_budget_the_better_the_noise_is_known(budget, repeats):
    assert search(budget).ask().count(Mixture.of(SHARES)) == repeats


def test_without_token_shares_the_uniform_mixture_is_what_is_repeated():
    assert search(prior=None).ask().count(Mixture.uniform(NAMES)) == 3


def test_no_mixture_is_measured_twice_but_the_token_shares():
    asked = play(search(28))
    counts = Counter(m.fingerprint for m in asked)
    assert counts.pop(Mixture.of(SHARES).fingerprint) == 3
    assert set(counts.values()) == {1}


def test_a_failed_mixture_is_not_asked_for_again():
    asked = play(search(28), lambda m: None if m.weights["c05"] > 0.2 else loss(m))
    assert max(Counter(m.fingerprint for m in asked).values()) == 3


def test_every_round_has_a_pool_of_its_own(monkeypatch):
    pools = []
    draw = Search._draw
    monkeypatch.setattr(Search, "_draw", lambda *args: pools.append(draw(*args)) or pools[-1])
    play(search(28))
    rows = [{tuple(row) for row in pool} for pool in pools]
    assert len(rows) == 3
    assert not rows[0] & rows[1]
    assert not rows[1] & rows[2]


def test_later_rounds_are_better_than_the_first():
    asked = play(search(56))
    means = [np.mean([loss(m) for m in asked if m.about["round"] == r]) for r in (1, 2, 3)]
    assert means[0] > means[1] > means[2]


def test_another_seed_asks_for_other_mixtures_and_seeds():
    one, other = search(seed=0).ask(), search(seed=1).ask()
    assert same(one, search(seed=0).ask())
    shared = {m.fingerprint for m in one} & {m.fingerprint for m in other}
    assert len(shared) == 2
    assert other[4].about["seed"] == 1


def test_the_spread_of_the_target_decides_nothing():
    # Powers of two, so that standardised scores are the same to the last bit.
    asked = play(search(28))
    for spread in (2.0**-14, 2.0**14):
        assert same(play(search(28), lambda m, spread=spread: spread * loss(m)), asked)


def test_a_spread_of_a_ten_thousandth_still_guides_the_search():
    asked = play(search(56), lambda m: 5.0 + 1e-4 * loss(m))
    means = [np.mean([loss(m) for m in asked if m.about["round"] == r]) for r in (1, 2, 3)]
    assert means[0] > means[1] > means[2]


def test_more_is_better_when_that_is_asked_for():
    asked = play(search(28))
    assert same(play(search(28, {"loss": "max"}), lambda m: -loss(m)), asked)


def test_a_small_target_counts_as_much_as_a_large_one():
    def both(m):
        return {"a": 1000 * m.weights["c00"], "b": -0.001 * m.weights["c05"]}

    s = search(56, {"a": "min", "b": "min"})
    last = [m for m in play(s, both) if m.about["round"] == 3]
    assert np.mean([m.weights["c00"] for m in last]) < 0.25
    assert np.mean([m.weights["c05"] for m in last]) > 0.25


def test_importance_weighs_the_targets():
    def rivals(m):
        return {"a": m.weights["c00"], "b": -m.weights["c00"]}

    means = []
    for importance in ({"a": 9}, {"b": 9}):
        s = search(28, {"a": "min", "b": "min"}, importance=importance)
        means.append(np.mean([m.weights["c00"] for m in play(s, rivals)[16:]]))
    assert means[0] < 0.2 < 0.6 < means[1]


@pytest.mark.parametrize("clusters", [["only"], ["a", "b"]])
def test_a_search_over_hardly_any_clusters_ends(clusters):
    s = Search(clusters, {"loss": "min"}, budget=20, preset="quick")
    asked = play(s, lambda m: m.weights[clusters[0]])
    assert len(asked) == (3 if clusters == ["only"] else 20)
    assert s.result().mixture.weights[clusters[-1]] > 0.5


# Caps.


@pytest.mark.parametrize("caps", [0.3, {"c00": 0.2, "c03": 0.1, "c05": 0.0}, 1 / 6])
def test_caps_hold_in_all_that_is_asked_and_in_the_answer(caps):
    s = search(28, max_weight=caps)
    most = caps if isinstance(caps, dict) else dict.fromkeys(NAMES, caps)
    answer = (play(s), s.result())[1]
    picks = [answer.measured_best, answer.predicted_best, answer.baseline]
    mixtures = [t.mixture for t in s.log.trials] + [p.mixture for p in picks if p]
    for mixture in [*mixtures, answer.mixture]:
        assert all(mixture.weights[name] <= cap for name, cap in most.items())


def test_a_cluster_without_tokens_gets_no_weight():
    asked = play(search(prior=SHARES | {"c02": 0.0}))
    assert {m.weights["c02"] for m in asked} == {0.0}


def test_caps_that_leave_no_room_are_refused():
    with pytest.raises(UsageError, match=r"6 clusters .* sum to 0\.6, .* at least 0\.1667"):
        search(max_weight=0.1)


def test_least_pinned_and_grouped_weights_hold_in_all_that_is_asked_and_in_the_answer():
    s = search(
        16,
        preset="robust",
        min_weight={"c00": 0.1},
        pinned={"c05": 0.2},
        groups={"few": Group(["c03", "c04"], 0.1, 0.25)},
    )
    answer = (play(s), s.result())[1]
    for mixture in [*(t.mixture for t in s.log.trials), answer.mixture]:
        w = mixture.weights
        assert w["c00"] >= 0.1
        assert w["c05"] == pytest.approx(0.2)
        assert 0.1 - 1e-9 <= w["c03"] + w["c04"] <= 0.25 + 1e-9


# Presets.


@pytest.mark.parametrize("preset", ["robust", "regmix", "random"])
def test_every_preset_spends_its_budget_and_goes_on_after_a_crash(tmp_path, preset):
    whole = search(20, preset=preset, log=tmp_path / "whole.jsonl")
    asked = play(whole)
    assert len(asked) == 20
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    for told in (3, 15):
        (tmp_path / "cut.jsonl").write_bytes(b"".join(lines[: told + 1]))
        again = search(20, preset=preset, log=tmp_path / "cut.jsonl")
        assert same(play(again), asked[told:])
        assert again.result() == whole.result()


def test_robust_finds_what_its_first_round_does_not_hold():
    s = search(28, preset="robust")
    asked = play(s)
    first = min(loss(m) for m in asked if m.about["round"] == 1)
    assert loss(s.result().mixture) < first - 0.1


def test_a_target_loses_no_more_than_is_allowed():
    def rivals(m):
        return {"a": -m.weights["c05"], "b": m.weights["c05"]}

    base = SHARES["c05"]
    losses = {}
    for allowed in ({}, {"b": 0.2}):
        s = search(
            24,
            {"a": "min", "b": "min"},
            preset="robust",
            allowed=allowed,
            importance={"a": 1, "b": 0.01},
        )
        play(s, rivals)
        losses[len(allowed)] = s.result().mixture.weights["c05"] - base
    assert losses[0] > 0.5
    assert 0.1 < losses[1] < 0.23


# Failures.


@pytest.mark.parametrize(
    "failure", [{"loss": math.nan}, {"loss": -math.inf}, {"loss": None}, None, OSError("gone")]
)
def test_a_failed_trial_is_kept_and_never_fitted(monkeypatch, failure):
    fitted = []

    class Spy(LightGBM):
        def fit(self, weights, scores):
            fitted.append(scores)
            super().fit(weights, scores)

    monkeypatch.setitem(PRESETS, "quick", replace(PRESETS["quick"], predictors=(Spy,)))
    s = search(28)
    asked = play(s, lambda m: failure if m.about["trial"] % 4 == 0 else loss(m))
    answer = s.result()
    assert len(asked) == len(s.log.trials) == 28
    assert {t.number for t in s.log.trials if t.status == "failed"} == {4, 8, 12, 16, 20, 24, 28}
    assert all(t.why for t in s.log.trials if t.status == "failed")
    assert all(np.isfinite(scores).all() for scores in fitted)
    assert max(map(len, fitted)) == 21
    assert math.isfinite(answer.measured_best.score)


def test_a_round_that_failed_as_a_whole_is_followed_by_fresh_draws():
    s = search(28)
    asked = play(s, lambda m: None if m.about["round"] == 1 else loss(m))
    assert len({m.fingerprint for m in asked}) == 26
    answer = s.result()
    assert answer.baseline is None
    assert answer.choice == "measured"
    assert "the token shares have no score" in answer.reason


def test_nothing_is_concluded_from_failures_alone():
    s = search()
    play(s, lambda _: None)
    with pytest.raises(UsageError, match="none of 16 trials has scores"):
        s.result()


# Crashes.


def test_a_search_resumed_after_any_number_of_tells_goes_on_as_it_would_have(tmp_path):
    path = tmp_path / "whole.jsonl"
    s = search(log=path)
    whole = play(s)
    lines = path.read_bytes().splitlines(keepends=True)
    for told in range(17):
        log = tmp_path / f"{told}.jsonl"
        # Cut in the middle of a line, as a crash would.
        log.write_bytes(b"".join(lines[: told + 1]) + b'{"version":1,"num')
        again = search(log=log)
        assert len(again.log.trials) == told
        assert same(play(again), whole[told:])
        assert again.log.trials == s.log.trials
    assert again.result() == s.result()


def test_the_order_of_tells_within_a_round_decides_nothing():
    s, backwards = search(), search()
    play(s, most=9)
    for mixture in reversed(backwards.ask()):
        backwards.tell(mixture, {"loss": loss(mixture)})
    assert same(backwards.ask(), s.ask())


def test_a_log_keeps_numbers_seeds_and_mixtures(tmp_path):
    s = search(log=tmp_path / "trials.jsonl")
    asked = play(s)
    trials = TrialLog.open(tmp_path / "trials.jsonl").trials
    kept = [(t.mixture, t.number, t.round, t.seed) for t in trials]
    assert kept == [(m, m.about["trial"], m.about["round"], m.about["seed"]) for m in asked]
    assert {t.config for t in trials} == {s.log.config}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 3}, "begun differently: seed was 0 and is 3. Use"),
        ({"clusters": [*NAMES[:5], "c9"], "prior": None}, "clusters.5 was 'c05' and is 'c9'. Use"),
    ],
)
def test_a_log_of_other_proxies_is_refused_by_what_differs(tmp_path, change, words):
    search(log=tmp_path / "trials.jsonl")
    with pytest.raises(InvalidDataError, match=words):
        Search(
            **{"clusters": NAMES, "targets": ["loss"], "prior": SHARES, "budget": 16} | change,
            log=tmp_path / "trials.jsonl",
        )


# Going on with other settings.


def test_a_larger_budget_goes_on_from_the_trials_of_the_smaller_one(tmp_path):
    log = tmp_path / "trials.jsonl"
    first = play(search(16, log=log))
    more = play(search(28, log=log))
    assert [m.about["trial"] for m in first + more] == list(range(1, 29))
    assert min(m.about["round"] for m in more) == 1 + max(m.about["round"] for m in first)
    # Nothing is measured twice, and 28 proxies repeat the token shares no more often than 16.
    assert len({m.fingerprint for m in first + more}) == 26
    # They are evidence: what is asked for now is better than a first round.
    assert np.mean([loss(m) for m in more]) < np.mean([loss(m) for m in first])
    again = search(28, log=log)
    assert not again.ask()
    assert len(again.result().out_of_fold) == 28


def test_a_search_that_goes_on_does_so_after_a_crash_too(tmp_path):
    path = tmp_path / "whole.jsonl"
    play(search(10, log=path), most=4)  # in the middle of a round
    begun = len(path.read_bytes().splitlines())
    whole = play(search(16, log=path))
    assert [m.about["trial"] for m in whole] == list(range(5, 17))
    lines = path.read_bytes().splitlines(keepends=True)
    for told in range(13):
        log = tmp_path / f"{told}.jsonl"
        log.write_bytes(b"".join(lines[: begun + 1 + told]))
        assert same(play(search(16, log=log)), whole[told:])


def test_the_token_shares_are_repeated_as_often_as_the_larger_budget_needs(tmp_path):
    log = tmp_path / "trials.jsonl"
    first = play(search(16, log=log))
    more = play(search(48, log=log))
    runs = [m for m in first + more if m == Mixture.of(SHARES)]
    assert [m.about["seed"] for m in runs] == [0, 1, 2, 3, 4]
    assert first.count(Mixture.of(SHARES)) == 3


def test_what_confirmed_an_answer_spends_no_budget_and_is_evidence_later(tmp_path):
    log = tmp_path / "trials.jsonl"
    first = play(search(10, confirm=2, log=log))
    beside = [m.about["seed"] for m in first if m.about["seed"] >= 10]
    assert len(first) == 10 + len(beside) > 10
    longer = search(16, confirm=2, log=log)
    assert (longer.done, longer.planned) == (10, 16)
    more = play(longer)
    assert longer.done == 10 + len(more)
    assert sum(m.about["seed"] < 12 for m in more) == 6
    # No run has the mixture and the seed of another one.
    runs = [(m.fingerprint, m.about["seed"]) for m in first + more]
    assert len(set(runs)) == len(runs)
    assert {m.about["seed"] for m in more if m.about["seed"] >= 12} == {16, 17}
    answer = search(16, confirm=2, log=log).result()
    assert answer.confirmation.seeds == [16, 17]
    assert len(answer.out_of_fold) == 16 + len(beside)


def test_limits_and_targets_may_change_and_hold_from_then_on(tmp_path):
    log, two = tmp_path / "trials.jsonl", {"loss": "min", "other": "min"}

    def score(mixture):
        return {"loss": loss(mixture), "other": mixture.weights["c00"]}

    first = play(search(16, two, log=log), score)
    assert max(m.weights["c03"] for m in first) > 0.3
    more = play(search(22, {"other": "min"}, max_weight={"c03": 0.3}, log=log), score)
    assert len(more) == 6
    assert max(m.weights["c03"] for m in more) <= 0.3
    answer = search(22, {"other": "min"}, max_weight={"c03": 0.3}, log=log).result()
    assert [*answer.measured_best.scores] == ["other"]
    assert answer.measured_best.score == min(score for _, score in answer.out_of_fold)


def test_a_target_that_no_trial_scored_is_refused_and_changes_nothing(tmp_path):
    log = tmp_path / "trials.jsonl"
    play(search(log=log), most=3)
    before = log.read_bytes()
    with pytest.raises(InvalidDataError, match=r"the scores loss of trial 1 lack the targets arc"):
        search(targets=["loss", "arc"], log=log)
    assert log.read_bytes() == before


def test_a_budget_that_is_spent_already_asks_for_nothing(tmp_path):
    log = tmp_path / "trials.jsonl"
    play(search(16, log=log))
    smaller = search(12, log=log)
    assert not smaller.ask()
    assert len(smaller.result().out_of_fold) == 16


def test_the_log_tells_which_trials_are_of_which_settings(tmp_path):
    log = tmp_path / "trials.jsonl"
    play(search(10, log=log))
    play(search(12, log=log))
    read = TrialLog.open(log)
    assert (read.settings["budget"], len(read.earlier), read.spent) == (12, 10, 10)
    assert [len({t.config for t in part}) for part in (read.trials[:10], read.trials[10:])] == [
        1,
        1,
    ]


# Mixtures of one's own.


OWN = {"c00": 0.1, "c03": 0.5, "c05": 0.4}


def test_an_enqueued_mixture_is_asked_for_with_the_next_round_within_the_budget(tmp_path):
    log = tmp_path / "trials.jsonl"
    s = search(log=log)
    first = play_round(s)
    s.enqueue(OWN)
    lines = log.read_bytes()
    second = s.ask()
    assert second[0] == Mixture.of({**dict.fromkeys(NAMES, 0.0), **OWN})
    assert [m.about["trial"] for m in second] == list(range(10, 15))
    assert len(first + play(s)) == 16
    # A search that is opened again knows of it.
    log.write_bytes(lines)
    assert same(search(log=log).ask(), second)


def test_an_enqueued_mixture_is_in_the_first_round_if_nothing_was_asked_yet():
    s = search()
    s.enqueue(Mixture.of(OWN))
    first = s.ask()
    assert len(first) == 9
    assert first[0].weights["c03"] == 0.5
    assert first.count(Mixture.of(SHARES)) == 3


def test_the_token_shares_have_a_place_beside_enqueued_mixtures():
    s = Search(NAMES, {"loss": "min"}, budget=2, prior=SHARES, rounds=(1,))
    s.enqueue(OWN)
    with pytest.raises(UsageError, match="have room for 1, and 1 of these places are taken"):
        s.enqueue({"c00": 0.95, "c01": 0.05})
    asked = play(s)
    assert [m.weights["c03"] for m in asked] == [0.5, SHARES["c03"]]
    assert [s.log.is_enqueued(trial) for trial in s.log.trials] == [True, False]


def test_a_mixture_waits_for_a_round_that_has_a_place(tmp_path):
    log = tmp_path / "trials.jsonl"
    s = search(log=log)
    play_round(s)
    own = [{"c00": part, "c01": 1 - part} for part in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)]
    for mixture in own:
        s.enqueue(mixture)
    asked = play(s)
    assert [m.weights["c00"] for m in asked] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    with pytest.raises(UsageError, match="have room for 0, and 0 of these places are taken"):
        s.enqueue({"c00": 0.95, "c01": 0.05})
    more = search(20, log=log)
    more.enqueue({"c00": 0.95, "c01": 0.05})
    assert more.ask()[0].weights["c00"] == 0.95


def test_a_mixture_that_cannot_be_tried_is_refused_with_what_can():
    s = search(max_weight={"c03": 0.4})
    with pytest.raises(UsageError, match=r"'c03': 0.5.*outside of the limits.*'c03': 0.4"):
        s.enqueue(OWN)
    with pytest.raises(InvalidDataError, match="c9"):
        s.enqueue({"c9": 1.0})


def test_a_program_that_enqueues_mixtures_can_be_started_again_on_its_log(tmp_path, caplog):
    caplog.set_level("INFO", logger="climbstream")
    asked = []
    for _ in range(2):
        s = search(16, log=tmp_path / "trials.jsonl")
        s.enqueue(OWN)
        s.enqueue(OWN)
        asked += play(s)
    assert len(asked) == 16
    assert sum(m.fingerprint == Mixture.of(OWN).fingerprint for m in asked) == 1
    assert len(s.log.enqueued) == 1
    assert "is enqueued already" in caplog.text
    assert f"is trial {asked[0].about['trial']} already, so it is not enqueued" in caplog.text


def test_a_target_that_was_minimised_cannot_be_maximised_from_the_same_trials(tmp_path):
    log = tmp_path / "trials.jsonl"
    play(search(log=log), most=3)
    before = log.read_bytes()
    with pytest.raises(InvalidDataError, match="loss was 'min' and is 'max'"):
        search(targets={"loss": "max"}, log=log)
    assert log.read_bytes() == before


# Mistakes.


def test_only_what_was_asked_can_be_told():
    s = search()
    first = s.ask()
    with pytest.raises(
        UsageError,
        match=r"did not ask for this .*\(trial None\).* trials 1 to 9; pass a .* to enqueue",
    ):
        s.tell(Mixture(first[0].weights), {"loss": 1.0})
    with pytest.raises(UsageError, match="did not ask for this mixture"):
        s.tell(Mixture(first[8].weights, first[0].about), {"loss": 1.0})
    s.tell(first[0], {"loss": 1.0})
    with pytest.raises(UsageError, match=r"trial 1 was told before \(ok\)"):
        s.tell(first[0], {"loss": 1.0})
    assert len(s.log.trials) == 1


def test_a_missing_target_spends_no_budget():
    s = search()
    with pytest.raises(UsageError, match="lack the targets loss"):
        s.tell(s.ask()[0], {"lost": 1.0})
    assert not s.log.trials


def test_a_mixture_that_went_through_a_file_can_be_told(tmp_path):
    s = search()
    s.ask()[4].save(tmp_path / "mixture.json")
    assert s.tell(Mixture.load(tmp_path / "mixture.json"), {"loss": 1.0}).number == 5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"preset": "swarm"}, "no preset 'swarm'; the presets are robust, climb"),
        ({"targets": {"loss": "less"}}, '"min" or "max"'),
        ({"budget": 0}, "budget is 1 or more"),
        ({"seed": -1}, "seed 0 or more"),
        ({"rounds": (0, 0)}, "rounds are a ratio"),
        ({"importance": {"piqa": 1}}, "importance names piqa; the possible names are loss"),
        ({"importance": {"loss": 0}}, "a number that is not 0"),
        ({"max_weight": {"c09": 0.1}}, "max_weight names c09; the possible names are c00, c01"),
        ({"max_weight": math.nan}, "numbers of 0 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        search(**settings)


def test_names_are_needed_once_each():
    for clusters in ([], ["a", "a"]):
        with pytest.raises(UsageError, match="clusters are different names"):
            Search(clusters, {"loss": "min"})


# The answer.


def test_a_clear_gain_is_answered_with_its_numbers():
    s = search(28)
    play(s, lambda m: loss(m) + noisy(m, 0.02))
    answer = s.result()
    assert answer.choice in {"measured", "predicted"}
    assert loss(answer.mixture) < loss(answer.baseline.mixture) - 0.3
    assert answer.noise * np.std([t.scores["loss"] for t in s.log.trials]) < 0.1
    (outcome,) = answer.outcomes
    assert outcome.gain == pytest.approx(outcome.baseline - outcome.best, abs=2 * outcome.gain_sd)
    assert answer.choice == "predicted"
    lead = f"Predicted only, not trained: loss {outcome.best:.3f}".replace(" 0.", " .")
    assert answer.reason.startswith(lead)
    assert f" against token shares {outcome.baseline:.3f} ± " in answer.reason
    assert f", better by {outcome.baseline - outcome.best:.3f}" in answer.reason
    assert " sd " not in answer.reason
    scale = np.std([t.scores["loss"] for t in s.log.trials])
    low, high = ((answer.gain + sign * answer.gain_sd) * scale for sign in (-1, 1))
    assert f"he gain in loss is {answer.gain * scale:.3f}" in answer.reason
    assert f"between {low:.3f} and {high:.3f} with 68 % confidence" in answer.reason


def test_without_token_shares_the_answer_is_compared_with_equal_weights():
    s = search(10, prior=None)
    play(s, loss)
    answer = s.result()
    assert " against equal weights " in answer.reason
    assert "token shares" not in answer.reason


def test_no_gain_is_the_answer_to_pure_noise():
    choices = Counter()
    for seed in range(12):
        s = search(28, seed=seed)
        play(s, lambda m, seed=seed: noisy(m, seed=seed))
        answer = s.result()
        choices[answer.choice] += 1
        if answer.choice == "baseline":
            assert answer.reason.startswith(
                ("No gain over the token shares", "It is not certain that any mixture")
            )
            assert answer.mixture == Mixture.of(SHARES)
    assert choices["baseline"] >= 10


def predicted_gains(score, seeds, truth):
    """Return printed gain, sd and true gain of the predicted picks, in sd: ``[n, 3]``."""
    rows = []
    for seed in seeds:
        s = search(28, seed=seed, preset="robust")
        play(s, lambda m, seed=seed: score(m) + noisy(m, 0.1, seed=seed))
        scale = np.std([trial.scores["loss"] for trial in s.log.trials])
        for pick in s.result().candidates:
            if pick.choice == "predicted":
                gain = (truth(Mixture.of(SHARES)) - truth(pick.mixture)) / scale
                rows.append((pick.gain, pick.gain_sd, gain))
    return np.array(rows)


@pytest.mark.slow
def test_the_intervals_hold_the_true_gain_as_often_as_they_say():
    roots = np.sqrt(Mixture.of(SHARES).array(NAMES))

    def best_at_the_shares(mixture):
        return float(((np.sqrt(mixture.array(NAMES)) - roots) ** 2).sum())

    rows = np.concatenate(
        [predicted_gains(each, range(12), each) for each in (best_at_the_shares, loss)]
    )
    printed, sd, true = rows.T
    z = (printed - true) / sd
    assert len(z) >= 20
    assert 0.55 <= np.mean(np.abs(z) < 1) <= 0.8
    assert np.mean(np.abs(z) < 1.96) >= 0.85
    assert abs(z.mean()) < 2 * z.std() / len(z) ** 0.5 + 0.3


def test_the_gain_of_the_best_of_thousands_is_lowered_by_its_optimism():
    # The token shares are the best mixture, so that every predicted gain is luck.
    base = Mixture.of(SHARES).array(NAMES)
    s = search(28, preset="robust")
    play(s, lambda m: float(np.abs(m.array(NAMES) - base).sum()) + noisy(m, 0.3))
    answer = s.result()
    forecast = s._forecast(s._evidence(s.log.trials))
    pick = next(c for c in answer.candidates if c.choice == "predicted")
    raw, sd = forecast.gain(pick.mixture.array(NAMES), base)
    assert pick.gain < raw
    assert pick.gain_sd > sd


def test_the_token_shares_are_the_answer_where_they_are_best():
    base = Mixture.of(SHARES).array(NAMES)
    s = search(28)
    play(s, lambda m: float(np.abs(m.array(NAMES) - base).sum()) + noisy(m, 0.01))
    answer = s.result()
    assert answer.choice == "baseline"
    assert "none scored better" in answer.reason


def test_an_answer_is_given_at_any_time():
    s = search(28)
    play(s, most=1)
    answer = s.result()
    assert (answer.choice, answer.noise, answer.table) == ("baseline", None, [])
    play(s, most=4)
    assert s.result().noise is not None


def test_without_repeats_the_noise_is_unknown():
    s = search(6)
    play(s)
    answer = s.result()
    assert answer.noise is None
    assert answer.choice == "measured"
    assert "How much of that is luck is unknown" in answer.reason


def test_the_front_holds_what_no_other_beats_on_all_targets():
    s = search(20, {"a": "min", "b": "max"}, preset="random")
    play(s, lambda m: {"a": m.weights["c00"], "b": m.weights["c03"] + m.weights["c00"] / 3})
    answer = s.result()
    points = {t.mixture.fingerprint: (t.scores["a"], -t.scores["b"]) for t in s.log.trials}

    def beaten(point):
        return any(
            other != point and all(x <= y for x, y in zip(other, point, strict=True))
            for other in points.values()
        )

    expected = {name for name, point in points.items() if not beaten(point)}
    assert {pick.mixture.fingerprint for pick in answer.front} == expected
    assert 1 < len(expected) < len(points)
    scores = [pick.score for pick in answer.front]
    assert scores == sorted(scores)
    value = json.loads(json.dumps(answer.to_json()))
    assert Mixture.from_json(value["front"][0]["mixture"]) == answer.front[0].mixture


def test_one_target_has_no_front():
    s = search(8)
    play(s)
    assert s.result().front == []


def test_the_spread_is_narrow_where_a_cluster_decides_and_wide_where_it_does_not():
    def score(mixture):
        w = mixture.array(NAMES)
        # Half of c00 is best; how the rest is shared is all the same.
        return 20 * (w[0] - 0.5) ** 2 + noisy(mixture, 0.02)

    s = search(40, preset="robust", prior=dict.fromkeys(NAMES, 1))
    play(s, score)
    found = s.spread()
    assert found == s.spread()
    assert list(found) == NAMES
    low, high = found["c00"]
    assert 0.4 < low <= high < 0.6
    assert all(0 <= low <= high <= 1 for low, high in found.values())
    widths = [high - low for name, (low, high) in found.items() if name != "c00"]
    assert min(widths) > high - low


def test_where_nothing_can_be_predicted_there_is_no_spread():
    s = search(6)
    play(s)
    assert s.spread() == {}


def test_the_answer_is_json():
    s = search(28)
    play(s, lambda m: loss(m) + noisy(m, 0.02))
    answer = s.result()
    value = json.loads(json.dumps(answer.to_json()))
    assert Mixture.from_json(value["mixture"]) == answer.mixture
    assert Mixture.from_json(value["measured_best"]["mixture"]) == answer.measured_best.mixture
    assert value["table"][0]["predictor"] == "lightgbm"


def test_importing_the_search_imports_nothing_heavy():
    heavy = {"torch", "lightgbm", "sklearn", "scipy", "numba", "climbstream.builder"}
    code = f"import sys, climbstream.search.optimizer.search; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# Against random search.


def sparse_problem(seed, k=16):
    """A loss to which 5 of ``k`` clusters matter, its token shares, and the least it can be."""
    rng = np.random.default_rng(seed)
    value = np.zeros(k)
    live = rng.permutation(k)[:5]
    value[live] = rng.uniform(0.5, 1.5, 5)
    shares = rng.dirichlet(np.full(k, 2.0))
    # The least of a sum of concave terms: equal slopes, water-filled.
    level = np.linspace(1e-3, 50, 200_000)[:, None]
    filled = np.maximum(value[live] / level - 0.05, 0)
    best = filled[np.argmin(np.abs(filled.sum(axis=1) - 1))]
    least = -float(np.log1p(best / 0.05) @ value[live])
    return (lambda w: -np.log1p(w / 0.05) @ value), shares, least


def regrets(seed):
    """Regret of a search with 56 trials, and of the best of 56 random mixtures; 1 is the median."""
    true_loss, shares, least = sparse_problem(seed)
    names = [f"c{i:02}" for i in range(len(shares))]
    rng = np.random.default_rng(seed)
    random = rng.dirichlet(10 * shares, 2000)
    sd = 0.1 * float(true_loss(random).std())
    s = Search(
        names, {"loss": "min"}, budget=56, prior=dict(zip(names, shares, strict=True)), seed=seed
    )
    play(s, lambda m: float(true_loss(m.array(names))) + noisy(m, sd, seed))
    best = random[np.argmin(true_loss(random[:56]) + rng.normal(0, sd, 56))]
    middle = float(np.median(true_loss(random)))
    found = (s.result().mixture.array(names), best)
    return [(float(true_loss(weights)) - least) / (middle - least) for weights in found]


@pytest.mark.slow
def test_it_beats_the_best_of_as_many_random_mixtures():
    ours, theirs = np.median([regrets(seed) for seed in range(5)], axis=0)
    assert ours < 0.75 * theirs


# Arguments of another kind.


@pytest.mark.parametrize("targets", [["b", "a"], ("a", "b"), {"a": "min", "b": "min"}])
def test_targets_that_are_names_alone_are_minimised(targets):
    assert Search(["c00", "c01"], targets, budget=16).targets == {"a": "min", "b": "min"}
    assert Search(["c00", "c01"], "a", budget=16).targets == {"a": "min"}


def test_arguments_that_cannot_be_are_refused_with_what_can():
    with pytest.raises(
        UsageError, match=r"clusters are a list of names, not 'c00'; pass \['c00'\]"
    ):
        Search("c00", ["a"])
    with pytest.raises(UsageError, match="targets must be a dictionary of directions"):
        Search(["c00", "c01"], [1, 2])


@pytest.mark.parametrize("own", [Mixture.of({"c00": 1, "c01": 1}), {"c00": 0.5, "c01": 0.5}, 3])
def test_a_mixture_of_ones_own_is_refused_with_what_to_do(own):
    search = Search(["c00", "c01"], ["a"], budget=16)
    search.ask()
    with pytest.raises(
        UsageError, match=r"tell a mixture that ask.. returned, .*; climb fit takes"
    ):
        search.tell(own, {"a": 1.0})


def test_a_score_without_a_name_is_refused_with_one():
    search = Search(["c00", "c01"], ["a"], budget=16)
    with pytest.raises(UsageError, match=r"give scores by target, as {'a': 1\.5}"):
        search.tell(search.ask()[0], 1.5)
