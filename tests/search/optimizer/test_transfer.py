"""Trials are told over other clusters of the same cells, as far as these have the same cells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.loader import Mixture
from climbstream.search import Search, TrialLog
from climbstream.search.optimizer.transfer import carry, carry_trials, level
from climbstream.search.optimizer.trials import Trial

COARSE = {"a": {"x": 1.0, "y": 3.0}, "b": {"z": 2.0}}
FINE = {"p": {"x": 1.0}, "q": {"y": 3.0}, "r": {"z": 2.0}}


def trial(number, weights, **scores):
    return Trial(number=number, round=1, mixture=Mixture.of(weights), seed=0, scores=scores or None)


def test_groups_that_are_split_keep_every_mixture():
    rows, lost = carry(np.array([[0.6, 0.4], [0.0, 1.0]]), COARSE, FINE)
    assert rows == pytest.approx(np.array([[0.15, 0.45, 0.4], [0, 0, 1]]))
    assert lost == pytest.approx([0, 0])


def test_groups_that_are_joined_lose_what_differs_from_their_own_shares():
    rows, lost = carry(np.array([[0.25, 0.75, 0.0], [0.5, 0.0, 0.5]]), FINE, COARSE)
    assert rows == pytest.approx(np.array([[1, 0], [0.5, 0.5]]))
    # Half of the tokens are of x, and an eighth is what the group a has of it by that weight.
    assert lost == pytest.approx([0, 0.375])


def test_cells_that_are_no_more_are_lost_and_clusters_without_tokens_are_nothing():
    new = {"a": COARSE["a"], "c": {"new": 5.0}, "d": {"none": 0.0}}
    rows, lost = carry(np.array([[0.75, 0.25], [0.0, 1.0]]), COARSE, new)
    assert rows == pytest.approx(np.array([[1, 0, 0], [0, 0, 0]]))
    assert lost == pytest.approx([0.25, 1])


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), min_size=1, max_size=9))
def test_there_and_back_by_finer_groups_is_the_same_mixture(weights):
    rows = np.array(weights)
    rows /= rows.sum(axis=1, keepdims=True)
    there, _ = carry(rows, COARSE, FINE)
    back, lost = carry(there, FINE, COARSE)
    assert back == pytest.approx(rows)
    assert lost == pytest.approx(np.zeros(len(rows)), abs=1e-12)


def test_trials_keep_number_seed_and_scores_and_repeats_stay_repeats():
    base = Mixture.of({"p": 1 / 6, "q": 3 / 6, "r": 2 / 6})
    shares = {"a": 4 / 6, "b": 2 / 6}
    trials = [trial(1, shares, loss=2.0), trial(2, {"a": 1, "b": 2}, loss=1.0), trial(3, shares)]
    told, lost = carry_trials([*trials, trial(4, {"a": 1, "b": 2}, loss=1.5)], COARSE, FINE, base)
    assert lost == 0
    assert [(t.number, t.scores) for t in told] == [
        (1, {"loss": 2.0}),
        (2, {"loss": 1.0}),
        (4, {"loss": 1.5}),
    ]
    assert told[0].mixture == base
    assert told[1].mixture == told[2].mixture


def test_trials_that_lose_a_tenth_of_their_tokens_are_left_out_and_counted():
    near, far = {"p": 0.3, "q": 0.7, "r": 0}, {"p": 1, "q": 0, "r": 0}
    trials = [trial(1, near, loss=1.0), trial(2, far, loss=2.0)]
    told, lost = carry_trials(trials, FINE, COARSE, Mixture.of({"a": 2, "b": 1}))
    assert ([t.number for t in told], lost) == ([1], 1)


def test_trials_from_before_an_append_are_shifted_to_the_level_of_the_new_ones():
    rng = np.random.default_rng(0)

    def some(first, shift):
        rows = rng.dirichlet(np.ones(3), 12).tolist()
        return [
            trial(n, dict(zip("abc", row, strict=True)), loss=shift - row[0], other=1.0)
            for n, row in enumerate(rows, start=first)
        ]

    old, new = some(1, 5.0), some(20, 3.0)
    for before, after in zip(old, level(old, new, list("abc"), ["loss"]), strict=True):
        assert after.scores["loss"] == pytest.approx(before.scores["loss"] - 2, abs=0.05)
        assert after.scores["other"] == 1.0
    assert level(old, new[:7], list("abc"), ["loss"]) == old


def test_the_first_two_rounds_after_carried_trials_do_not_follow_their_scores(tmp_path):
    names = ["c00", "c01", "c02"]

    def run(sign):
        old, log = Search(names, ["loss"], budget=24), tmp_path / f"{sign}.jsonl"
        while mixtures := old.ask():
            for mixture in mixtures:
                old.tell(mixture, {"loss": sign * mixture.weights["c01"]})
        shared = {"clusters": names, "targets": {"loss": "min"}, "seed": 3}
        base = [trial for trial in old.log.trials if trial.round == 1]
        TrialLog.begin_with(log, base, shared, {"search": "old", "same": True})
        search = Search(names, ["loss"], budget=16, seed=3, log=log)
        rounds = []
        while mixtures := search.ask():
            rounds.append([mixture.weights for mixture in mixtures])
            for mixture in mixtures:
                search.tell(mixture, {"loss": sign * mixture.weights["c01"]})
        return rounds

    low, high = run(1), run(-1)
    assert len(low) == len(high) == 8
    assert low[:2] == high[:2]
    for one, other in zip(low[2:], high[2:], strict=True):
        assert max(w["c01"] for w in one) < 0.5 < min(w["c01"] for w in other)


def test_a_search_goes_on_from_carried_trials_that_spend_no_budget(tmp_path):
    names = ["c00", "c01", "c02"]

    def run(budget, log, seed=0):
        search = Search(names, ["loss"], budget=budget, seed=seed, log=log)
        while mixtures := search.ask():
            for mixture in mixtures:
                search.tell(mixture, {"loss": (mixture.weights["c01"] - 0.7) ** 2})
        return search

    old = run(24, tmp_path / "old.jsonl").log.trials
    shared = {"clusters": names, "targets": {"loss": "min"}, "seed": 3}
    path = tmp_path / "new.jsonl"
    TrialLog.begin_with(path, old, shared, {"search": "old", "same": True})
    search = run(6, path, seed=3)
    assert (len(search.log.trials), search.planned) == (30, 30)
    own = [t for t in search.log.trials if not search.log.is_carried(t)]
    assert [t.number for t in own] == list(range(25, 31))
    # The token shares were measured before, and two rounds are drawn: the rest goes where it may be
    # best.
    assert all(abs(t.mixture.weights["c01"] - 0.7) < 0.2 for t in own[2:])
    assert abs(search.result().mixture.weights["c01"] - 0.7) < 0.05
    assert run(6, path, seed=3).result() == search.result()
    assert run(8, path, seed=3).log.spent == 6
