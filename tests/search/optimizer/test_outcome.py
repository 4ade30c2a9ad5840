"""An answer is a sentence in the target's unit, and the items that score it count in its doubt."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from climbstream.loader import Mixture
from climbstream.loader.core.console import counted, with_error
from climbstream.loader.formats.heldout import FEW_ITEMS
from climbstream.search import Search, Trial
from climbstream.search.optimizer.answer import BASE as BASELINE
from climbstream.search.optimizer.answer import Candidate, Confirmation, Outcome, Pick
from climbstream.search.optimizer.conclude import choose_mixture, upper_confidence_sd
from climbstream.search.optimizer.confirm import confirm as confirmed_by
from climbstream.search.optimizer.confirm import seed_error
from climbstream.search.optimizer.items import MIN_ITEMS, ItemEvidence, TargetItems
from climbstream.search.optimizer.observations import Observations
from climbstream.search.optimizer.outcome import (
    JOINT_SCORE,
    contender,
    outcome_heads,
    outcome_note,
    outcome_rows,
    settle,
)
from climbstream.search.optimizer.outcome import _missing as missing
from climbstream.search.predictors.base import Skill

NAMES = ["c00", "c01", "c02", "c03"]
SHARES = {"c00": 0.5, "c01": 0.3, "c02": 0.15, "c03": 0.05}


def items(count, spread):
    """Documents of 3,000 bytes that gain differently from more of c03: mean 1, sd ``spread``."""
    sizes = np.full(count, 3000.0)
    taste = np.random.default_rng(5).normal(0, 1, count)
    taste = 1 + spread * (taste - taste.mean()) / (taste.std() or 1.0)
    about = TargetItems(
        sizes, "documents", "bits per byte", int(sizes.sum()), "build with a larger --holdout"
    )
    return about, taste


def searched(count, spread, confirm=3, targets=("text",)):
    """A search for targets that more of c03 is good for, on ``count`` documents; its answer."""
    about, taste = items(count, spread)
    s = Search(NAMES, dict.fromkeys(targets, "min"), budget=16, prior=SHARES, confirm=confirm)
    costs = {}
    while mixtures := s.ask():
        for mixture in mixtures:
            noise = np.random.default_rng(mixture.about["trial"]).normal(0, 0.003)
            gain = 0.2 * math.log1p(mixture.weights["c03"] / 0.1)
            bits = about.sizes * (3.0 + noise - gain * taste)
            costs[mixture.about["trial"]] = dict.fromkeys(targets, bits.tolist())
            s.tell(mixture, dict.fromkeys(targets, float(bits.sum() / about.sizes.sum())))
    evidence = ItemEvidence(dict.fromkeys(targets, about), costs)
    return s.result(evidence), s.result()


@pytest.mark.parametrize("confirm", [0, 3])
def test_a_gain_on_few_documents_that_differ_is_not_called_sure(confirm):
    with_items, without = searched(7, spread=2.0, confirm=confirm)
    assert without.choice != "baseline"
    assert with_items.choice == "baseline"
    assert with_items.mixture == Mixture.of(SHARES)
    assert with_items.reason.startswith("It is not certain that any mixture is better than the")
    assert with_items.gain_sd > without.gain_sd
    assert with_items.reason.endswith(
        "More documents or questions in the target would reduce the error."
    )


@pytest.mark.parametrize("confirm", [0, 3])
@pytest.mark.parametrize("count", [1, MIN_ITEMS - 1])
def test_a_gain_on_fewer_than_five_documents_is_not_called_certain(count, confirm):
    answer, without = searched(count, spread=0.0, confirm=confirm)
    assert without.choice != BASELINE
    assert answer.choice == BASELINE
    assert answer.mixture == Mixture.of(SHARES)
    assert answer.reason.startswith("It is not certain that any mixture is better than the")
    assert answer.reason.endswith(
        f"But text has only {counted(count, 'document')} to score, too few to tell whether other "
        "documents gain as well. Only a gain on 5 documents or more is called certain: build with "
        "a larger --holdout."
    )
    # One document shows no variation, so the ± covers no other documents.
    assert ("also covers other documents" in outcome_note(answer)) == (count > 1)


def test_a_gain_on_five_documents_that_gain_alike_is_certain():
    answer, _ = searched(MIN_ITEMS, spread=0.0)
    assert answer.choice != BASELINE


def test_the_same_gain_on_many_documents_is_sure():
    with_items, without = searched(400, spread=2.0)
    assert with_items.choice == without.choice != "baseline"
    assert with_items.gain_sd > without.gain_sd
    assert with_items.warnings == []


def test_the_doubt_by_items_is_that_of_the_mean_of_their_gains():
    about, _ = items(200, 1.0)
    gains = np.random.default_rng(0).normal(0.1, 0.5, 200) * about.sizes
    theirs = np.full((2, 200), 9000.0)
    sd = about.gain_sd(theirs - gains, theirs)
    expected = (gains / about.sizes).std(ddof=1) / math.sqrt(200)
    assert sd == pytest.approx(expected, rel=0.1)
    assert about.gain_sd(theirs - 0.1 * about.sizes, theirs) == pytest.approx(0, abs=1e-9)


def test_the_answer_is_one_sentence_in_the_unit_of_the_target_with_what_scores_it():
    answer, _ = searched(40, spread=0.1)
    (outcome,) = answer.outcomes
    first, joined = answer.reason.split(" Joined with what the search had expected, ")
    assert joined.startswith("the gain is ")
    ours, theirs, gain = outcome_rows(answer.outcomes)[0][1:4]
    assert first == (
        f"Found {ours} against token shares {theirs} bits per byte, better by {gain} in 3 seeds; "
        "40 documents, 120 kB of text score it."
    )
    assert outcome.gain == pytest.approx(outcome.baseline - outcome.best)
    assert " sd" not in answer.reason
    assert (outcome.seeds, outcome.items, outcome.unit) == (3, 40, "bits per byte")


def test_several_targets_are_compared_one_by_one():
    answer, _ = searched(40, spread=0.1, targets=("a", "b"))
    assert answer.reason.startswith("Found a ")
    assert answer.reason.count("against token shares") == 2
    assert "40 documents, 120 kB of text score a, 40 documents, 120 kB of text score b" in (
        answer.reason
    )


@pytest.mark.parametrize(("count", "warned"), [(7, True), (FEW_ITEMS, False)])
def test_too_few_items_are_a_warning_that_names_the_remedy(count, warned):
    answer, _ = searched(count, spread=0.1)
    assert bool(answer.warnings) == warned
    if warned:
        assert answer.warnings[0] == (
            "only 7 documents, 21 kB of text score text, so errors and intervals are uncertain "
            "themselves; have 30 documents or more: build with a larger --holdout"
        )


def test_trials_whose_items_nobody_wrote_down_leave_the_answer_as_it_was():
    about, _ = items(7, 1.0)
    _, without = searched(7, spread=2.0)
    assert without.outcomes[0].item_sd is None
    assert ItemEvidence({"text": about}, {}).gain_sd("text", [1], [2]) is None
    assert ItemEvidence({"text": about}, {1: {"text": [1.0]}}).gain_sd("text", [1], [1]) is None


def test_one_large_document_counts_as_little_more_than_one():
    sizes = np.array([100_000.0, *[100.0] * 50])
    assert TargetItems(sizes).effective < 1.2
    assert TargetItems(np.ones(50)).effective == pytest.approx(50)


def test_an_answer_is_read_as_it_was_written():
    answer, _ = searched(7, spread=0.1)
    assert type(answer).from_json(answer.to_json()) == answer
    old = answer.to_json()
    del old["outcomes"], old["warnings"]
    assert type(answer).from_json(old).outcomes == []


def test_numbers_are_written_as_tables_of_results_do():
    assert with_error(3.1149, 0.0031, 3) == "3.115 ± .003"
    assert with_error(-0.026, math.inf, 3) == "-.026"
    assert with_error(10.04, 0.5, 3) == "10.040 ± .500"


# By hand: runs of a few mixtures, and what follows from them.

BASE = Mixture.of({"a": 0.5, "b": 0.5})
BEST = Mixture.of({"a": 0.2, "b": 0.8})
OTHER = Mixture.of({"a": 0.9, "b": 0.1})
RUNS = [(BASE, 4.0, 0.5), (BASE, 5.0, 0.6), (BEST, 1.0, 0.9), (BEST, 1.5, 0.8), (OTHER, 9.0, 0.1)]


def known_of(runs=RUNS, ways=None, importance=None):
    """Observations of ``runs``: a mixture, its loss and its accuracy."""
    ways = ways or {"loss": "min"}
    trials = [
        Trial(number=n, round=1, mixture=m, seed=n, scores={"loss": loss, "acc": acc})
        for n, (m, loss, acc) in enumerate(runs, start=1)
    ]
    share = np.full(len(ways), 1 / len(ways)) if importance is None else np.array(importance)
    return Observations.of(trials, ["a", "b"], ways, share)


BOTH = {"acc": "max", "loss": "min"}
LOSS_NOISE = math.sqrt((0.5 + 0.125) / 2)
ACC_NOISE = math.sqrt((0.005 + 0.005) / 2)
"""Sd of a run: two pairs, each with the square of half its difference twice."""


def test_a_single_target_has_the_gain_that_luck_leaves_in_its_unit():
    known = known_of()
    answer = choose_mixture(known, BASE, None)
    (outcome,) = settle(answer, BASE, known).outcomes
    assert (outcome.best, outcome.baseline) == pytest.approx((1.25, 4.5))
    error = upper_confidence_sd(LOSS_NOISE, 2) / math.sqrt(2)
    assert (outcome.best_sd, outcome.baseline_sd) == pytest.approx((error, error))
    scale = float(known.scale[0])
    assert outcome.gain == pytest.approx(answer.candidates[0].gain * scale)
    assert outcome.gain_sd == pytest.approx(answer.candidates[0].gain_sd * scale)
    assert 0 < outcome.gain < 3.25
    assert (outcome.seeds, outcome.items, outcome.item_sd, outcome.unit) == (0, None, None, "")


def test_several_targets_have_the_difference_of_means_and_the_sd_of_two_means():
    known = known_of([*RUNS, (BEST, 1.1, 0.85)], BOTH)
    answer = settle(choose_mixture(known, BASE, None), BASE, known)
    accuracy, loss = answer.outcomes
    assert (accuracy.target, loss.target) == ("acc", "loss")
    assert accuracy.gain == pytest.approx(0.85 - 0.55)
    assert loss.gain == pytest.approx(4.5 - 1.2)
    noise = upper_confidence_sd(math.sqrt((0.5 + 0.2**2 + 0.3**2 + 0.1**2) / 3), 3)
    assert loss.gain_sd == pytest.approx(noise * math.sqrt(1 / 3 + 1 / 2))
    assert loss.best_sd == pytest.approx(noise / math.sqrt(3))
    assert loss.baseline_sd == pytest.approx(noise / math.sqrt(2))
    noise = upper_confidence_sd(math.sqrt((0.005 + 0.005) / 3), 3)
    assert accuracy.gain_sd == pytest.approx(noise * math.sqrt(1 / 3 + 1 / 2))


def test_without_repeats_the_doubt_of_several_targets_is_unknown():
    known = known_of(RUNS[1:3], BOTH)
    answer = settle(choose_mixture(known, BASE, None), BASE, known)
    assert [(o.best_sd, o.baseline_sd, o.gain_sd) for o in answer.outcomes] == [(None,) * 3] * 2
    assert answer.outcomes[1].gain == 4.0
    assert "How much of that is luck is unknown: no mixture was run twice." in answer.reason


def again_of(base, best):
    """Confirming runs of two mixtures: a column of losses and accuracies each, a seed a row."""
    return [
        Trial(number=99 + seed, round=2, mixture=m, seed=50 + seed, scores=dict(row))
        for m, column in ((BASE, base), (BEST, best))
        for seed, row in enumerate(column)
    ]


AGAIN_BASE = [{"loss": 4.2, "acc": 0.5}, {"loss": 4.6, "acc": 0.7}, {"loss": 4.0, "acc": 0.6}]
AGAIN_BEST = [{"loss": 1.4, "acc": 0.8}, {"loss": 1.6, "acc": 0.9}, {"loss": 1.3, "acc": 0.7}]


@pytest.mark.parametrize("ways", [{"loss": "min"}, BOTH])
def test_what_confirmed_an_answer_is_what_is_told_of_it(ways):
    known = known_of(ways=ways)
    again = again_of(AGAIN_BASE, AGAIN_BEST)
    answer = confirmed_by(choose_mixture(known, BASE, None), BASE, again, known)
    outcome = {o.target: o for o in settle(answer, BASE, known, again).outcomes}["loss"]
    ours, theirs = ([row["loss"] for row in rows] for rows in (AGAIN_BEST, AGAIN_BASE))
    assert (outcome.best, outcome.baseline) == pytest.approx((np.mean(ours), np.mean(theirs)))
    # Two repeats of the search and four of the confirmation have one noise.
    squares = 2 * LOSS_NOISE**2 + 2 * np.var(ours, ddof=1) + 2 * np.var(theirs, ddof=1)
    error = upper_confidence_sd(math.sqrt(squares / 6), 6) / math.sqrt(3)
    assert (outcome.best_sd, outcome.baseline_sd) == pytest.approx((error, error))
    assert outcome.gain == pytest.approx(np.mean(theirs) - np.mean(ours))
    expected = seed_error(np.array([theirs, ours]), LOSS_NOISE, 2)
    assert outcome.gain_sd == pytest.approx(expected)
    assert outcome.seeds == 3


def test_items_of_a_confirmed_answer_are_those_of_the_runs_that_confirmed_it():
    known = known_of()
    again = again_of(AGAIN_BASE, AGAIN_BEST)
    for number, trial in enumerate(again, start=90):
        again[number - 90] = replace(trial, number=number)
    failed = [replace(again[0], number=98, seed=60), replace(again[3], number=99, seed=61)]
    answer = confirmed_by(choose_mixture(known, BASE, None), BASE, again, known)
    about = costs_of(known.trials, 3.0, 1.0)
    more, other = costs_of(again, 2.0, 3.0), costs_of(failed, 2.0, 9.0)
    evidence = ItemEvidence(about.targets, {**about.costs, **more.costs, **other.costs})
    (outcome,) = settle(answer, BASE, known, [*again, *failed], evidence).outcomes
    expected = more.gain_sd("loss", [93, 94, 95], [90, 91, 92])
    assert outcome.item_sd == pytest.approx(upper_confidence_sd(expected, 39))
    assert expected > 2 * about.gain_sd("loss", [3, 4], [1, 2])


def test_one_seed_that_confirms_has_the_noise_of_the_repeats_of_the_search():
    known = known_of()
    for seeds in (1, 2, 3):
        again = again_of(AGAIN_BASE[:seeds], AGAIN_BEST[:seeds])
        answer = confirmed_by(choose_mixture(known, BASE, None), BASE, again, known)
        settled = settle(answer, BASE, known, again)
        assert f" in {seeds} seed{'s' if seeds > 1 else ''}." in settled.reason
        if seeds == 1:
            error = upper_confidence_sd(LOSS_NOISE, 2)
            assert settled.outcomes[0].best_sd == pytest.approx(error)
    alone = known_of([RUNS[0], RUNS[2], RUNS[4]])
    answer = confirmed_by(
        choose_mixture(alone, BASE, None),
        BASE,
        again_of([{"loss": 4.0, "acc": 0.5}], [{"loss": 1.0, "acc": 0.5}]),
        alone,
    )
    assert settle(answer, BASE, alone).outcomes[0].best_sd is None


def test_two_scores_that_agree_by_chance_do_not_make_a_small_error():
    runs = [(BASE, 4.0, 0.5), (BASE, 4.0 + 1e-9, 0.5), (BEST, 1.0, 0.5), (BEST, 1.6, 0.5)]
    known = known_of([*runs, (OTHER, 9.0, 0.1)])
    answer = settle(choose_mixture(known, BASE, None), BASE, known)
    assert answer.outcomes[0].baseline_sd > 0.2


def test_a_prediction_on_several_targets_has_the_errors_of_predictions_and_allows_for_luck():
    known, answer = sure()
    mixture = Mixture.of({"a": 0.1, "b": 0.9})
    gains = {"acc": (0.5, 0.9), "loss": (-0.1, 1.1)}
    candidate = Candidate(choice="predicted", mixture=mixture, gain=0.05, gain_sd=0.8, gains=gains)
    scores, errors = {"loss": 0.5, "acc": 0.9}, {"loss": 0.7, "acc": 0.3}
    pick = Pick(mixture=mixture, score=-2.0, sd=0.1, scores=scores, trials=[], errors=errors)
    answer = replace(
        answer, choice=BASELINE, mixture=BASE, candidates=[candidate], predicted_best=pick
    )
    answer = settle(replace(answer, gain=0.05, gain_sd=0.8), BASE, known)
    for outcome, scale in zip(answer.outcomes, np.abs(known.scale).tolist(), strict=True):
        gain, sd = gains[outcome.target]
        assert (outcome.gain, outcome.gain_sd) == pytest.approx((gain * scale, sd * scale))
        assert outcome.best_sd == errors[outcome.target]
    assert outcome_heads(answer)[3] == "expected better by"
    assert re.search(
        r"these gains are expected: acc better by \.\d+ ± \.\d+; loss worse by \.\d+ ± \d\.\d+\. "
        r"The gain in the joint score of all targets is \.050; it is",
        answer.reason,
    )


def costs_of(trials, gain, spread, count=40):
    """Bits of ``count`` documents of 10 bytes; those of `BEST` are fewer by a gain that differs."""
    taste = spread * np.random.default_rng(0).normal(size=count)
    base = np.full(count, 30.0)
    about = TargetItems(np.full(count, 10.0), "documents", "bits per byte")
    costs = {
        t.number: {"loss": (base - (gain + taste) * 10 if t.mixture == BEST else base).tolist()}
        for t in trials
    }
    return ItemEvidence({"loss": about}, costs)


def test_the_doubt_by_items_is_its_upper_end_and_adds_to_that_by_runs():
    known = known_of()
    evidence = costs_of(known.trials, 3.0, 1.0)
    answer = choose_mixture(known, BASE, None)
    plain, settled = settle(answer, BASE, known), settle(answer, BASE, known, (), evidence)
    raw = evidence.gain_sd("loss", [3, 4], [1, 2])
    item_sd = upper_confidence_sd(raw, 39)
    (outcome,) = settled.outcomes
    assert outcome.item_sd == pytest.approx(item_sd)
    assert outcome.gain_sd == pytest.approx(math.hypot(plain.outcomes[0].gain_sd, item_sd))
    assert (outcome.items, outcome.scored_on) == (40, "40 documents")
    assert settled.choice == "baseline"


def sure(importance=(0.25, 0.75)):
    """Runs of two targets that leave no doubt, and the answer."""
    runs = [(BASE, 4.0 + 0.01 * i, 0.5 + 0.001 * i) for i in range(4)]
    runs += [(BEST, 1.0 + 0.01 * i, 0.9 + 0.001 * i) for i in range(4)]
    known = known_of([*runs, (OTHER, 5.0, 0.4)], BOTH, importance)
    answer = choose_mixture(known, BASE, None)
    assert answer.choice == "measured"
    return known, answer


def test_the_doubt_by_items_of_each_target_counts_by_its_importance():
    known, answer = sure()
    evidence = costs_of(known.trials, 3.0, 0.5)
    settled = settle(answer, BASE, known, (), evidence)
    item_sd = settled.outcomes[1].item_sd
    assert settled.outcomes[0].item_sd is None
    assert settled.gain_sd == pytest.approx(
        math.hypot(answer.gain_sd, 0.75 * item_sd / float(known.scale[1]))
    )
    assert settled.choice == "measured"


@pytest.mark.parametrize(("factor", "choice"), [(0.99, "measured"), (1.01, "baseline")])
def test_a_gain_of_less_than_two_and_a_half_joint_sd_is_not_answered(factor, choice):
    known, answer = sure()
    scale = float(known.scale[1])
    most = math.sqrt((answer.gain / 2.5) ** 2 - answer.gain_sd**2) * scale / 0.75
    one = settle(answer, BASE, known, (), costs_of(known.trials, 3.0, 1.0)).outcomes[1].item_sd
    evidence = costs_of(known.trials, 3.0, factor * most / one)
    settled = settle(answer, BASE, known, (), evidence)
    assert settled.outcomes[1].item_sd == pytest.approx(factor * most)
    assert settled.choice == choice
    assert settled.mixture == (BASE if choice == "baseline" else BEST)


@pytest.mark.parametrize("spread", [0.5, 100.0])
def test_an_answer_and_its_candidate_have_the_same_gain_and_error(spread):
    known, answer = sure()
    settled = settle(answer, BASE, known, (), costs_of(known.trials, 3.0, spread))
    assert settled.choice == ("measured" if spread < 1 else "baseline")
    (candidate,) = settled.candidates
    assert (candidate.gain, candidate.gain_sd) == (settled.gain, settled.gain_sd)
    assert candidate.gain_sd > answer.gain_sd


def test_a_target_on_which_alone_the_gain_is_certain_is_named():
    known = known_of(ways=BOTH)
    again = again_of(AGAIN_BASE, [row | {"acc": AGAIN_BASE[0]["acc"]} for row in AGAIN_BEST])
    answer = confirmed_by(choose_mixture(known, BASE, None), BASE, again, known)
    unsure = replace(answer, choice="baseline", gain=0.5, gain_sd=0.4)
    settled = settle(unsure, BASE, known, again)
    accuracy, loss = settled.outcomes
    assert accuracy.gain < 2.5 * accuracy.gain_sd
    assert loss.gain > 2.5 * loss.gain_sd
    assert (
        "On one target alone, the gain is more than 2.5 times its error: loss better by "
        f"{with_error(loss.gain, loss.gain_sd, 3)}. If this target"
    ) in settled.reason
    sure_of_both = settle(replace(answer, choice="measured"), BASE, known, again)
    assert "On one target alone" not in sure_of_both.reason


def test_items_that_are_all_alike_change_nothing():
    known, answer = sure()
    settled = settle(answer, BASE, known, (), costs_of(known.trials, 3.0, 0.0))
    assert (settled.choice, settled.gain_sd) == (answer.choice, answer.gain_sd)


def test_of_a_mixture_that_never_ran_the_items_are_those_of_the_best_that_did():
    known = known_of()
    answer = choose_mixture(known, BASE, None)
    predicted = Mixture.of({"a": 0.1, "b": 0.9})
    candidate = replace(answer.candidates[0], choice="predicted", mixture=predicted)
    pick = Pick(
        mixture=predicted, score=-2.0, sd=0.3, scores={"loss": 1.0}, trials=[], errors={"loss": 0.7}
    )
    answer = replace(
        answer,
        choice="predicted",
        mixture=predicted,
        candidates=[candidate],
        predicted_best=pick,
    )
    evidence = costs_of(known.trials, 3.0, 0.1)
    (outcome,) = settle(answer, BASE, known, (), evidence).outcomes
    assert outcome.item_sd == pytest.approx(
        upper_confidence_sd(evidence.gain_sd("loss", [3, 4], [1, 2]), 39)
    )
    assert outcome.best == 1.0
    assert outcome.best_sd == 0.7
    unsure = replace(answer, predicted_best=replace(pick, errors={}))
    assert settle(unsure, BASE, known).outcomes[0].best_sd is None


# The sentence.


def test_the_sentence_without_scores_of_the_token_shares_names_the_best_trial():
    known = known_of(RUNS[2:])
    answer = settle(choose_mixture(known, BASE, None), BASE, known)
    assert answer.reason == "The best is trial 1 (loss 1.25); the token shares have no score."


def test_where_the_token_shares_are_best_no_other_is_shown():
    known = known_of([(BASE, 1.0, 0.5), (BASE, 1.5, 0.5), (OTHER, 9.0, 0.1)])
    answer = settle(choose_mixture(known, BASE, None), BASE, known)
    # One pair of runs tells little about the noise: its sd of .354 may be four times as large.
    assert (
        answer.reason == "No gain over the token shares: none scored better (loss 1.250 ± 1.063)."
    )


def test_a_prediction_beside_token_shares_that_measured_best_is_shown_once_it_was_run():
    known = known_of([(BASE, 1.0, 0.5), (BASE, 1.5, 0.5), (OTHER, 9.0, 0.1)])
    answer = choose_mixture(known, BASE, None)
    candidate = replace(
        choose_mixture(known_of(), BASE, None).candidates[0], choice="predicted", mixture=BEST
    )
    pick = Pick(mixture=BEST, score=-2.0, sd=0.3, scores={"loss": 1.0}, trials=[])
    answer = replace(answer, candidates=[candidate], predicted_best=pick)
    assert settle(answer, BASE, known).outcomes[0].best is None
    scores = {"baseline": {"loss": [1.4]}, "predicted": {"loss": [1.3]}}
    confirmed = replace(answer, confirmation=Confirmation(seeds=[50], scores=scores))
    assert settle(confirmed, BASE, known).outcomes[0].best == 1.3


def test_items_change_nothing_where_the_token_shares_are_the_answer():
    known = known_of()
    answer = replace(choose_mixture(known, BASE, None), choice="baseline")
    settled = settle(answer, BASE, known, (), costs_of(known.trials, 3.0, 1.0))
    assert settled.gain_sd == answer.gain_sd


def test_a_gain_in_doubt_is_told_beside_the_token_shares():
    known = known_of()
    answer = settle(choose_mixture(known, BASE, None), BASE, known)
    row = outcome_rows(answer.outcomes)[0]
    (outcome,) = answer.outcomes
    assert outcome_heads(answer)[3] == "expected better by"
    assert answer.reason.startswith(
        "It is not certain that any mixture is better than the token shares: the best other one "
        f"scored loss {row[1]} against token shares {row[2]}, better by "
        f"{outcome.baseline - outcome.best:.1f}"
    )
    assert answer.reason.endswith(
        "(trial 3). After allowing for picking the best of many mixtures, it is expected to be "
        f"better by {row[3]}. Runs of both with new seeds, which a search makes with --confirm (in "
        "Python: confirm=), would reduce the error."
    )
    again = again_of(AGAIN_BASE, AGAIN_BASE)
    checked = confirmed_by(choose_mixture(known, BASE, None), BASE, again, known)
    said = settle(checked, BASE, known, again).reason
    assert said.startswith("It is not certain that any mixture is better than the token shares: ")
    assert "Only the new runs count here: the gain in loss is" in said


def test_a_gain_with_an_interval_above_0_that_is_not_certain_says_what_is_missing():
    known, again = known_of(), again_of(AGAIN_BASE, AGAIN_BASE)
    gain, sd = (f"{x * float(known.scale[0]):.3f}".lstrip("0") for x in (0.2, 0.1))
    answer = confirmed_by(choose_mixture(known, BASE, None), BASE, again, known)
    shown = settle(replace(answer, gain=0.2, gain_sd=0.1), BASE, known, again).reason
    assert shown.endswith(
        "A gain is called certain if it is more than 2.5 times its standard error, because the "
        f"mixture was chosen among many. This gain of {gain} is 2.00 times its error of {sd}. More "
        "seeds (--confirm) would reduce the error."
    )
    shown = settle(replace(answer, gain=-0.2, gain_sd=0.1), BASE, known, again).reason
    assert shown.endswith("This gain decides, and not that of the new runs alone.")
    shown = settle(replace(answer, gain=0.3, gain_sd=0.1), BASE, known, again).reason
    assert shown.endswith(
        "But it did not score better with the new seeds, so this gain is not certain."
    )


def test_a_mixture_that_scored_better_and_is_expected_worse_says_both_in_this_order():
    known = known_of()
    answer = choose_mixture(known, BASE, None)
    worse = replace(answer.candidates[0], gain=-0.1, gain_sd=0.2)
    answer = replace(answer, choice="baseline", mixture=BASE, candidates=[worse])
    shown = settle(answer, BASE, known).reason
    first, second = shown.split(" After allowing for picking the best of many mixtures, ")
    assert ", better by " in first
    assert second.startswith("it is expected to be worse by ")


def test_a_gain_has_its_interval_of_68_and_95_percent():
    runs = [(BASE, 4.0 + 0.01 * i, 0.5) for i in range(4)]
    runs += [(BEST, 1.0 + 0.01 * i, 0.5) for i in range(4)]
    known = known_of([*runs, (OTHER, 5.0, 0.4)])
    answer = settle(choose_mixture(known, BASE, None), BASE, known)
    gain, sd = (x * float(known.scale[0]) for x in (answer.gain, answer.gain_sd))
    row = outcome_rows(answer.outcomes)[0]
    (outcome,) = answer.outcomes
    assert answer.reason == (
        f"Found loss {row[1]} against token shares {row[2]}, better by "
        f"{outcome.baseline - outcome.best:.3f} (trial 5). After allowing for picking the best of "
        f"many mixtures, the gain in loss is {gain:.3f}; it is between "
        f"{gain - sd:.3f} and "
        f"{gain + sd:.3f} with 68 % confidence and between {gain - 1.96 * sd:.3f} and "
        f"{gain + 1.96 * sd:.3f} with 95 % confidence."
    )


def test_the_interval_of_several_targets_is_that_of_their_joint_score():
    known, answer = sure()
    said = settle(answer, BASE, known).reason
    gain, sd = answer.gain, answer.gain_sd
    assert (
        "After allowing for picking the best of many mixtures, the gain in the joint score of all "
        f"targets is {gain:.3f};"
    ) in said
    assert f"; it is between {gain - sd:.3f} and" in said
    assert said.endswith(JOINT_SCORE)
    assert "(trial 5)." in said


def predicted(weight, choice="predicted"):
    """The answer of `known_of`, but for a mixture with ``weight`` of b that was never run."""
    known = known_of()
    answer = choose_mixture(known, BASE, None)
    mixture = Mixture.of({"a": 1 - weight, "b": weight})
    pick = Pick(mixture=mixture, score=-2.0, sd=0.3, scores={"loss": 1.0}, trials=[])
    candidate = replace(answer.candidates[0], choice="predicted", mixture=mixture)
    answer = replace(
        answer, choice=choice, mixture=mixture, candidates=[candidate], predicted_best=pick
    )
    return answer, known


def test_a_mixture_that_was_not_trained_is_called_predicted_and_not_found():
    answer, known = predicted(0.5)
    settled = settle(answer, BASE, known)
    assert settled.predicted_only
    assert settled.reason.startswith("Predicted only, not trained: loss 1.0")
    assert "No model was trained on this mixture. " in settled.reason
    assert ", the gain in loss is " in settled.reason
    assert outcome_heads(settled)[1] == "answer, predicted"
    assert not settle(choose_mixture(known, BASE, None), BASE, known).predicted_only


def test_the_answer_is_compared_even_if_another_candidate_has_a_larger_gain():
    answer, known = predicted(0.5)
    other = replace(answer.candidates[0], choice="measured", mixture=BEST, gain=99.0)
    answer = replace(answer, candidates=[other, *answer.candidates])
    assert contender(answer).choice == "predicted"
    assert settle(answer, BASE, known).outcomes[0].best == 1.0


def test_the_cluster_that_lies_furthest_outside_of_what_was_trained_is_named():
    # Trained mixtures give b at most 80 %, and a at most 90 %.
    answer, known = predicted(0.815)
    said = settle(answer, BASE, known).reason
    assert "it gives b the weight 81.5%, and no trained mixture gives this cluster more" in said
    answer, known = predicted(0.805)
    assert "unlike all trained mixtures" not in settle(answer, BASE, known).reason


@pytest.mark.parametrize(
    ("item_sd", "remedy"), [(0.6, "More seeds (--confirm)"), (0.8, "More documents or questions")]
)
def test_the_larger_part_of_the_error_decides_what_would_reduce_it(item_sd, remedy):
    answer, known = predicted(0.5)
    scores = {"baseline": {"loss": [2.0, 2.1]}, "predicted": {"loss": [1.6, 1.7]}}
    answer = settle(
        replace(answer, confirmation=Confirmation(seeds=[50, 51], scores=scores)), BASE, known
    )
    outcome = replace(answer.outcomes[0], item_sd=item_sd, gain_sd=1.0)
    assert missing(replace(answer, outcomes=[outcome])).startswith(remedy)


def test_a_prediction_that_is_no_better_than_a_measured_score_says_so_and_names_the_run():
    answer, known = predicted(0.5)
    best = f"{next(iter(answer.measured_best.scores.values())):.5g}"
    assert "No prediction is better" not in settle(answer, BASE, known).reason
    pick = replace(answer.predicted_best, score=answer.measured_best.score)
    number = answer.measured_best.trials[0]
    said = settle(replace(answer, predicted_best=pick), BASE, known, names={number: "r1 (line 2)"})
    assert (
        f"No prediction is better than the best measured score, that of r1 (line 2) (loss {best})."
        in said.reason
    )


def test_a_gain_that_is_larger_than_the_difference_of_the_scores_says_where_it_comes_from():
    answer, known = predicted(0.5)
    large = replace(answer.candidates[0], gain=9.0)
    settled = settle(replace(answer, gain=9.0, candidates=[large]), BASE, known)
    said = "Counting the scores of all mixtures, and not only of these two, the gain in loss is "
    assert said in settled.reason


def test_a_mixture_outside_of_what_was_trained_is_said_with_its_weight():
    answer, known = predicted(0.97)
    most = max(trial.mixture.weights["b"] for trial in known.trials)
    assert most < 0.96
    assert (
        "No model was trained on this mixture, and it is unlike all trained mixtures: it gives "
        f"b the weight 97.0%, and no trained mixture gives this cluster more than {most:.1%}."
    ) in settle(answer, BASE, known).reason


def test_another_mixture_that_was_only_predicted_is_not_said_to_have_scored():
    answer, known = predicted(0.5, choice="baseline")
    settled = settle(answer, BASE, known)
    assert not settled.predicted_only
    assert "the best other one is predicted to score loss 1.0" in settled.reason
    pick = answer.measured_best
    assert (
        f"The best measured mixture, that of trial {pick.trials[0]} (loss {pick.scores['loss']:.5g}"
        "), also scored better than the token shares."
    ) in settled.reason
    assert "No model was trained on this mixture." in settled.reason
    assert outcome_heads(settled)[1] == "best other, predicted"


def test_predictions_that_are_not_surely_better_than_the_mean_are_a_warning():
    answer, known = predicted(0.5)
    skill = Skill(
        predictor="stack", rows=14, nmse=0.98, spearman=-0.36, verdict="unsure", target="loss"
    )
    (warning,) = settle(replace(answer, table=[skill]), BASE, known).warnings
    assert warning.startswith("predictions of loss are not surely better than the mean of all")
    useful = replace(skill, verdict="useful")
    assert settle(replace(answer, table=[skill, useful]), BASE, known).warnings == []


def test_a_loss_is_told_as_one():
    known, again = known_of(), again_of(AGAIN_BEST, AGAIN_BASE)
    answer = confirmed_by(choose_mixture(known, BASE, None), BASE, again, known)
    settled = settle(answer, BASE, known, again)
    assert settled.outcomes[0].gain == pytest.approx((4.3 - 12.8) / 3)
    assert "worse by 2.8" in settled.reason


def test_a_table_row_has_what_is_known():
    outcome = Outcome(
        target="loss",
        unit="bits per byte",
        best=1.25,
        best_sd=0.0312,
        baseline=4.5,
        baseline_sd=None,
        gain=None,
        gain_sd=None,
        item_sd=None,
        seeds=0,
        items=None,
        scored_on="7 documents",
    )
    (row,) = outcome_rows([outcome])
    assert row == ("loss", "1.250 ± .031", "4.500", "", "bits per byte", "7 documents")


def test_a_candidate_that_no_seed_confirmed_is_not_shown():
    known = known_of()
    answer = choose_mixture(known, BASE, None)
    better = replace(answer.candidates[0], choice="predicted", mixture=OTHER, gain=9.0, gain_sd=0.1)
    scores = {"baseline": {"loss": [4.0]}, "measured": {"loss": [2.0]}}
    answer = replace(
        answer,
        choice="baseline",
        candidates=[*answer.candidates, better],
        confirmation=Confirmation(seeds=[50], scores=scores),
    )
    assert settle(answer, BASE, known).outcomes[0].best == 2.0


def test_of_two_candidates_in_doubt_the_one_of_larger_gain_is_shown():
    known = known_of()
    answer = choose_mixture(known, BASE, None)
    scores = {c: {"loss": [x]} for c, x in (("baseline", 4), ("measured", 2), ("predicted", 3))}
    for gain, shown in ((9.0, 3), (-9.0, 2), (None, 2)):
        other = replace(answer.candidates[0], choice="predicted", mixture=OTHER, gain=gain)
        both = replace(
            answer,
            choice="baseline",
            candidates=[*answer.candidates, other],
            confirmation=Confirmation(seeds=[50], scores=scores),
        )
        assert settle(both, BASE, known).outcomes[0].best == shown
