"""Trials are told over other clusters of the same cells, as far as these have the same cells."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.loader import Mixture
from climbstream.loader.core.errors import UsageError
from climbstream.search import Search, TrialLog
from climbstream.search.optimizer.transfer import (
    Columns,
    Overlap,
    carry,
    carry_trials,
    level,
    rows_of,
)
from climbstream.search.optimizer.trials import Trial
from climbstream.search.predictors.earlier_runs import EarlierRuns

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
    trials.append(trial(4, {"a": 1, "b": 2}, loss=1.5))
    carried = carry_trials(trials, COARSE, FINE, base)
    told = carried.trials
    assert (carried.apart, carried.lost) == ([], 0)
    assert [(t.number, t.scores) for t in told] == [
        (1, {"loss": 2.0}),
        (2, {"loss": 1.0}),
        (4, {"loss": 1.5}),
    ]
    assert told[0].mixture == base
    assert told[1].mixture == told[2].mixture


def test_only_trials_that_lose_nothing_are_measured_and_the_others_count_apart():
    whole, near, far = {"p": 0.25, "q": 0.75, "r": 0}, {"p": 0.3, "q": 0.7, "r": 0}, {"p": 1}
    trials = [trial(n, w, loss=1.0) for n, w in enumerate((whole, near, far, {"s": 1}), 1)]
    old = {**FINE, "s": {"gone": 4.0}}
    carried = carry_trials(trials, old, COARSE, Mixture.of({"a": 2, "b": 1}))
    assert [t.number for t in carried.trials] == [1]
    assert carried.apart == trials[1:3]
    assert carried.lost == 1


def test_after_documents_were_added_to_the_same_groups_all_trials_are_measured():
    grown = {"a": {"x": 1.1, "y": 3.0}, "b": {"z": 4.0}}
    carried = carry_trials(
        [trial(1, {"a": 0.3, "b": 0.7}, loss=1.0)], COARSE, grown, Mixture.of({"a": 1})
    )
    assert ([t.number for t in carried.trials], carried.apart) == ([1], [])
    rows = np.array([[0.3, 0.7]])
    assert Columns(["a", "b"], carried.overlap).of(rows) is rows


def columns_of(old, new, mixtures, trials):
    """Columns of mixtures of the new clusters, and of trials of the old ones."""
    columns = Columns(list(new), Overlap.from_json(Overlap.of(old, new).to_json()))
    return columns.of(np.array(mixtures)), columns.of_old(trials)


def test_groups_that_were_cut_keep_a_column_beside_their_parts():
    seen, (nearest, theirs) = columns_of(
        COARSE, FINE, [[0.2, 0.3, 0.5]], [trial(1, {"a": 0.4, "b": 0.6}, loss=1.0)]
    )
    assert seen == pytest.approx(np.array([[0.2, 0.3, 0.5, 0.5]]))
    assert nearest == pytest.approx(np.array([[0.1, 0.3, 0.6]]))
    assert theirs == pytest.approx(np.array([[0.1, 0.3, 0.6, 0.4]]))


def test_groups_that_were_joined_have_columns_of_their_parts_alone():
    seen, (nearest, theirs) = columns_of(
        FINE, COARSE, [[0.4, 0.6]], [trial(1, {"p": 0.3, "q": 0.1, "r": 0.6}, loss=1.0)]
    )
    assert seen == pytest.approx(np.array([[0.6, 0.1, 0.3]]))
    assert nearest == pytest.approx(np.array([[0.4, 0.6]]))
    assert theirs == pytest.approx(np.array([[0.6, 0.3, 0.1]]))


def test_groups_across_those_of_before_have_columns_of_both():
    old = {"a": {"w": 1.0, "x": 1.0}, "b": {"y": 3.0, "z": 1.0}}
    new = {"c": {"w": 1.0, "y": 3.0}, "d": {"x": 1.0, "z": 1.0, "new": 2.0}}
    seen, (_, theirs) = columns_of(
        old, new, [[1.0, 0.0], [0.0, 1.0]], [trial(1, {"a": 0.6, "b": 0.4}, loss=1.0)]
    )
    assert seen == pytest.approx(np.array([[1, 0, 0.25, 0.75], [0, 1, 0.25, 0.25]]))
    assert theirs == pytest.approx(np.array([[0.6, 0.4, 0.6, 0.4]]))


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), min_size=1, max_size=9))
def test_a_mixture_of_the_same_cells_has_the_same_columns_and_features_see_the_mixture(weights):
    trials = [trial(n, {"a": a, "b": b}, loss=1.0) for n, (a, b) in enumerate(weights, 1)]
    carried = carry_trials(trials, COARSE, FINE, Mixture.of({"p": 1}))
    assert [t.number for t in carried.trials] == [t.number for t in trials]
    columns = Columns(list(FINE), carried.overlap)
    mixtures = rows_of(carried.trials, list(FINE))
    nearest, seen = columns.of_old(trials)
    assert columns.of(mixtures) == pytest.approx(seen)
    assert nearest == pytest.approx(mixtures)
    for old, new in ((COARSE, FINE), (FINE, COARSE)):
        columns = Columns(list(new), Overlap.of(old, new))
        rows = np.eye(len(new))
        assert columns.feature(lambda rows: rows)(columns.of(rows)) == pytest.approx(rows)
        drawn = np.random.default_rng(0).dirichlet(np.ones(len(new)), 12)
        runs = EarlierRuns([(drawn, drawn[:, 0])])
        seen, of_columns = columns.of(drawn), columns.feature(runs)
        assert of_columns(seen) == pytest.approx(runs(drawn))
        assert of_columns.sd(seen) == pytest.approx(runs.sd(drawn))
        pairs = of_columns.covariance(seen, seen[:3])
        assert pairs == pytest.approx(runs.covariance(drawn, drawn[:3]), abs=1e-12)


def test_trials_from_before_an_append_are_shifted_to_the_level_of_the_new_ones():
    rng = np.random.default_rng(0)

    def some(first, shift):
        rows = rng.dirichlet(np.ones(3), 12).tolist()
        return [
            trial(n, dict(zip("abc", row, strict=True)), loss=shift - row[0], other=1.0)
            for n, row in enumerate(rows, start=first)
        ]

    old, new = some(1, 5.0), some(20, 3.0)
    there, here = (rows_of(trials, list("abc")) for trials in (old, new))
    told = level(old, there, new, here, ["loss"])
    for before, after in zip(old, told, strict=True):
        assert after.scores["loss"] == pytest.approx(before.scores["loss"] - 2, abs=0.05)
        assert after.scores["other"] == 1.0
    assert level(old, there, new[:7], here[:7], ["loss"]) == old


def joined(path, scores):
    """Begin a search over a = p + q and b = r from trials over p, q and r, scored by ``scores``.

    No mixture of the groups has the cells of a trial, as in each one p and q are alike.
    """
    rows = np.random.default_rng(0).dirichlet(np.ones(3), 40)
    trials = [
        trial(n, dict(zip("pqr", row, strict=True)), loss=score)
        for n, (row, score) in enumerate(zip(rows.tolist(), scores(rows), strict=True), 1)
    ]
    new = {"a": {"x": 1.0, "y": 1.0}, "b": {"z": 2.0}}
    old = {"p": {"x": 1.0}, "q": {"y": 1.0}, "r": {"z": 2.0}}
    carried = carry_trials(trials, old, new, Mixture.of({"a": 1, "b": 1}))
    assert carried.apart == trials
    shared = {"clusters": ["a", "b"], "targets": {"loss": "min"}, "seed": 3}
    origin = {"search": "old", "same": True, "overlap": carried.overlap.to_json()}
    TrialLog.begin_with(path, carried.trials, shared, origin, carried.apart)
    return Search(["a", "b"], ["loss"], budget=8, seed=3, log=path), trials


def test_trials_apart_lead_the_search_and_are_no_measurements(tmp_path):
    def scores(rows):
        # The best mixture over the groups is a half of a; over p, q and r it is p alone.
        halves = (rows[:, 0] + rows[:, 1] - 0.5) ** 2
        return halves - rows[:, 0] + rows[:, 1]

    search, old = joined(tmp_path / "log.jsonl", scores)
    assert search.log.trials == []
    assert [(t.number, t.mixture, t.scores) for t in search.log.apart] == [
        (t.number, t.mixture, t.scores) for t in old
    ]
    rounds = []
    while mixtures := search.ask():
        rounds.append([mixture.weights["a"] for mixture in mixtures])
        for mixture in mixtures:
            a = mixture.weights["a"]
            search.tell(mixture, {"loss": float(scores(np.array([[a / 2, a / 2, 1 - a]]))[0])})
    assert [t.number for t in search.log.trials] == [*range(41, 49)]
    # The third round is the first that predictors choose, and two proxies tell too little.
    assert all(abs(a - 0.5) < 0.15 for some in rounds[2:] for a in some)
    answer = search.result()
    assert abs(answer.mixture.weights["a"] - 0.5) < 0.05
    assert set(answer.measured_best.trials) <= set(range(41, 49))
    assert len(answer.out_of_fold) == 48
    again = Search(["a", "b"], ["loss"], budget=8, seed=3, log=tmp_path / "log.jsonl")
    assert again.result() == answer


def test_without_a_proxy_of_its_own_a_search_concludes_nothing(tmp_path):
    search, _ = joined(tmp_path / "log.jsonl", lambda rows: rows[:, 0])
    with pytest.raises(UsageError, match="nothing to conclude from"):
        search.result()


def test_a_log_that_says_nothing_of_an_overlap_goes_on_as_before(tmp_path):
    names, path = ["c00", "c01"], tmp_path / "log.jsonl"
    rows = np.random.default_rng(0).dirichlet(np.ones(2), 9).tolist()
    trials = [trial(n, {"c00": a, "c01": b}, loss=a) for n, (a, b) in enumerate(rows, 1)]
    shared = {"clusters": names, "targets": {"loss": "min"}, "seed": 0}
    TrialLog.begin_with(path, trials, shared, {"search": "old", "same": True})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.keys() & {"apart", "overlap"} for line in lines] == [set()] * 10
    search = Search(names, ["loss"], budget=3, log=path)
    assert search.log.apart == []
    assert [t.number for t in search.log.trials] == [*range(1, 10)]
    assert search.ask()[0].about["trial"] == 10


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
    assert (len(search.log.trials), search.planned) == (30, 6)
    own = [t for t in search.log.trials if not search.log.is_carried(t)]
    assert [t.number for t in own] == list(range(25, 31))
    # The token shares were measured before, and two rounds are drawn: the rest goes where it may be
    # best.
    assert all(abs(t.mixture.weights["c01"] - 0.7) < 0.2 for t in own[2:])
    assert abs(search.result().mixture.weights["c01"] - 0.7) < 0.05
    assert run(6, path, seed=3).result() == search.result()
    assert run(8, path, seed=3).log.spent == 6
