"""Trials are written once, read back whole, and never mixed with another search's."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.loader import Mixture
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.search import Trial, TrialLog
from climbstream.search.optimizer.trials import read_outcome

SETTINGS = {"clusters": ["c00", "c01"], "targets": {"loss": "min"}, "budget": 8, "seed": 0}
MIXTURE = Mixture({"c00": 0.25, "c01": 0.75})


def a_trial(log, number=1, **changes):
    fields = {"round": 1, "mixture": MIXTURE, "seed": 0, "scores": {"loss": 1.5}}
    return Trial(number=number, config=log.config, **fields | changes)


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.integers(1, 999), st.none() | st.dictionaries(st.text(), finite), st.text())
def test_a_trial_survives_json(number, scores, why):
    trial = Trial(number=number, round=2, mixture=MIXTURE, seed=7, scores=scores, why=why)
    assert Trial.from_json(json.loads(json.dumps(trial.to_json()))) == trial


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_no_score(score):
    with pytest.raises(InvalidDataError, match="loss="):
        a_trial(TrialLog(SETTINGS), scores={"loss": score})


def test_a_trial_of_another_version_is_refused():
    value = a_trial(TrialLog(SETTINGS)).to_json() | {"version": 2}
    with pytest.raises(InvalidDataError, match="version 2; this climbstream reads 1"):
        Trial.from_json(value)


@pytest.mark.parametrize(
    "value", [None, 3, [], {"version": 1}, {"version": 1, "mixture": {"a": 1}}]
)
def test_what_is_no_trial_is_refused(value):
    with pytest.raises(InvalidDataError):
        Trial.from_json(value)


def test_a_log_gives_back_its_trials_by_number(tmp_path):
    log = TrialLog.open(tmp_path / "trials.jsonl", SETTINGS)
    for number in (2, 1, 3):
        log.append(a_trial(log, number))
    again = TrialLog.open(log.path, SETTINGS)
    assert [trial.number for trial in again.trials] == [1, 2, 3]
    assert again.trials == log.trials
    assert TrialLog.open(log.path).settings == SETTINGS


def test_a_line_cut_short_is_written_over(tmp_path):
    log = TrialLog.open(tmp_path / "trials.jsonl", SETTINGS)
    log.append(a_trial(log, 1))
    log.append(a_trial(log, 2))
    log.path.write_bytes(log.path.read_bytes()[:-20])
    again = TrialLog.open(log.path, SETTINGS)
    assert [trial.number for trial in again.trials] == [1]
    again.append(a_trial(log, 2))
    assert len(TrialLog.open(log.path, SETTINGS).trials) == 2


def test_a_number_is_told_once(tmp_path):
    log = TrialLog.open(tmp_path / "trials.jsonl", SETTINGS)
    log.append(a_trial(log))
    with pytest.raises(UsageError, match="trial 1 was told already"):
        log.append(a_trial(log, scores=None))
    assert TrialLog.open(log.path).trials == log.trials


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"budget": 16}, "budget was 8 and is 16"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"targets": {"loss": "max"}}, "targets.loss was 'min' and is 'max'"),
        ({"targets": {"loss": "min", "arc": "max"}}, "targets.arc was not given"),
        ({"clusters": ["c00", "c02"]}, "clusters.1 was 'c01' and is 'c02'"),
    ],
)
def test_a_foreign_log_is_refused_by_what_differs(tmp_path, change, words):
    log = TrialLog.open(tmp_path / "trials.jsonl", SETTINGS)
    with pytest.raises(InvalidDataError, match=words):
        TrialLog.open(log.path, SETTINGS | change)


def test_many_differences_are_counted(tmp_path):
    TrialLog.open(tmp_path / "trials.jsonl", {"prior": {f"c{i}": 0.1 for i in range(9)}})
    with pytest.raises(InvalidDataError, match=r"prior\.c3 .* and 4 more differences\. Use"):
        TrialLog.open(tmp_path / "trials.jsonl", {"prior": {f"c{i}": 0.2 for i in range(9)}})


def test_a_trial_of_another_search_is_refused():
    trial = a_trial(TrialLog(SETTINGS | {"seed": 1}))
    with pytest.raises(UsageError, match="trial 1 belongs to the search"):
        TrialLog(SETTINGS).append(trial)


def test_a_log_that_is_not_there_is_not_made_up(tmp_path):
    with pytest.raises(UsageError, match="no trial log"):
        TrialLog.open(tmp_path / "trials.jsonl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scores", [{}, {"": 1.1}, {"another": 1.1}])
def test_a_log_with_scores_that_lack_a_target_is_refused(tmp_path, scores):
    log = TrialLog.open(tmp_path / "trials.jsonl", SETTINGS)
    with log.path.open("a") as file:
        file.write(json.dumps(a_trial(log, 1, scores=scores).to_json()) + "\n")
    with pytest.raises(
        InvalidDataError, match=r"trials\.jsonl: the scores .* lack the targets loss"
    ):
        TrialLog.open(log.path, SETTINGS)


def test_a_damaged_log_names_the_file(tmp_path):
    path = tmp_path / "trials.jsonl"
    path.write_text('{"settings": {}}\n{"version": 1}\n')
    with pytest.raises(InvalidDataError, match=r"trials\.jsonl: line 2: this is not a valid trial"):
        TrialLog.open(path)
    path.write_text("[]\n")
    with pytest.raises(InvalidDataError, match=r"trials\.jsonl, line 1"):
        TrialLog.open(path)


# A log that goes on with other settings.

FIXED = ("clusters", "seed")


def longer(tmp_path, told, **changes):
    """A log with trials of the seeds ``told``, opened again with a budget of 12."""
    log = TrialLog.open(tmp_path / "trials.jsonl", SETTINGS | changes)
    for number, seed in enumerate(told, start=1):
        log.append(a_trial(log, number, seed=seed))
    return TrialLog.open(log.path, SETTINGS | changes | {"budget": 12}, FIXED)


def test_trials_of_seeds_beyond_the_budget_confirmed_and_spent_nothing(tmp_path):
    # Of a budget of 8 and seed 0, confirmations have the seeds from 8 on.
    log = longer(tmp_path, [0, 7, 8, 9])
    assert (len(log.earlier), log.spent) == (4, 2)


def test_nothing_is_written_by_a_snapshot_of_a_log(tmp_path):
    log = longer(tmp_path, [0, 1])
    before = log.path.read_bytes()
    copy = TrialLog.snapshot(log.path)
    copy.continue_with(SETTINGS | {"budget": 20}, FIXED)
    copy.append(a_trial(copy, 3))
    copy.enqueue(MIXTURE, 3)
    assert (len(copy.trials), len(copy.enqueued), copy.settings["budget"]) == (3, 1, 20)
    assert log.path.read_bytes() == before
    assert TrialLog.snapshot(tmp_path / "none.jsonl") is None


def test_seeds_count_from_that_of_the_search(tmp_path):
    log = longer(tmp_path, [5, 12, 13], seed=5)
    assert log.spent == 2


@pytest.mark.parametrize("changes", [{"budget": None}, {"seed": None}])
def test_without_a_budget_or_a_seed_all_trials_spent_budget(tmp_path, changes):
    log = TrialLog.open(tmp_path / "trials.jsonl", SETTINGS | changes)
    log.append(a_trial(log, 1, seed=99))
    again = TrialLog.open(log.path, SETTINGS | changes | {"confirm": 1}, ())
    assert again.spent == 1


def test_the_same_settings_add_no_line_and_others_add_one(tmp_path):
    log = longer(tmp_path, [0])
    lines = log.path.read_bytes().splitlines()
    assert len(lines) == 3
    again = TrialLog.open(log.path, log.settings, FIXED)
    assert log.path.read_bytes().splitlines() == lines
    assert again.earlier == log.earlier == log.trials
    with pytest.raises(InvalidDataError, match="seed was 0 and is 1"):
        TrialLog.open(log.path, SETTINGS | {"seed": 1}, FIXED)


def test_other_targets_need_scores_of_the_trials_that_have_some(tmp_path):
    log = TrialLog.open(tmp_path / "trials.jsonl", SETTINGS)
    log.append(a_trial(log, 1, scores=None))
    other = SETTINGS | {"targets": {"arc": "max"}}
    log = TrialLog.open(log.path, other, FIXED)
    log.append(a_trial(log, 2, scores={"arc": 0.5}))
    with pytest.raises(InvalidDataError, match="lack the targets loss; search for targets"):
        TrialLog.open(log.path, SETTINGS, FIXED)
    assert TrialLog.open(log.path).settings == other


def test_settings_without_targets_ask_for_no_scores():
    log = TrialLog({"targets": None})
    log.append(a_trial(log, 1, scores={"anything": 1.0}))
    assert len(log.trials) == 1


@pytest.mark.parametrize("kept", [True, False])
def test_a_mixture_of_a_user_is_a_line_of_the_log(tmp_path, kept):
    log = TrialLog.open(tmp_path / "trials.jsonl", SETTINGS) if kept else TrialLog(SETTINGS)
    log.enqueue(MIXTURE, 3)
    assert log.enqueued == [(3, MIXTURE)]
    if kept:
        assert TrialLog.open(log.path).enqueued == [(3, MIXTURE)]
        line = {"enqueued": MIXTURE.to_json(), "round": 4}
        with log.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        assert TrialLog.open(log.path).enqueued[1:] == [(4, MIXTURE)]


def test_a_trial_says_whether_it_has_scores():
    log = TrialLog(SETTINGS)
    assert [a_trial(log, 1, scores=scores).status for scores in ({"loss": 1.0}, None)] == [
        "ok",
        "failed",
    ]


def test_the_rows_of_a_log_have_all_weights_and_scores():
    log = TrialLog(SETTINGS)
    log.append(a_trial(log, 1, scores=None, mixture=Mixture({"c00": 1.0})))
    log.append(a_trial(log, 2, round=2, seed=3))
    assert log.to_rows() == [
        {
            "run": 1,
            "round": 1,
            "seed": 0,
            "status": "failed",
            "enqueued": False,
            "w_c00": 1.0,
            "w_c01": 0.0,
            "loss": None,
        },
        {
            "run": 2,
            "round": 2,
            "seed": 3,
            "status": "ok",
            "enqueued": False,
            "w_c00": 0.25,
            "w_c01": 0.75,
            "loss": 1.5,
        },
    ]


# What was told.


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (None, "no scores"),
        (RuntimeError("out of memory"), "RuntimeError: out of memory"),
        ({"a": math.nan, "b": 1.0}, "a is nan"),
        ({"a": 1.0, "b": -math.inf}, "b is -inf"),
        ({"a": None, "b": 1.0}, "a is None"),
    ],
)
def test_what_is_not_a_finite_score_of_every_target_is_a_failure(outcome, why):
    assert read_outcome(outcome, ["a", "b"]) == (None, why)


def test_scores_that_are_no_target_are_kept_if_finite():
    outcome = {"a": np.float32(1.5), "accuracy": 0.4, "other": math.nan}
    assert read_outcome(outcome, ["a"]) == ({"a": 1.5, "accuracy": 0.4}, "")


def test_a_missing_target_is_the_mistake_of_the_caller():
    with pytest.raises(UsageError, match="the scores a, c lack the targets b"):
        read_outcome({"a": 1.0, "c": 1.0}, ["a", "b"])
