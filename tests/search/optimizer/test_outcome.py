"""An answer is a sentence in the target's unit, and the items that score it count in its doubt."""

import math

import numpy as np
import pytest

from climbstream.loader import Mixture
from climbstream.loader.core.console import with_error
from climbstream.search import Search
from climbstream.search.optimizer.items import FEW_ITEMS, ItemEvidence, TargetItems
from climbstream.search.optimizer.outcome import outcome_rows

NAMES = ["c00", "c01", "c02", "c03"]
SHARES = {"c00": 0.5, "c01": 0.3, "c02": 0.15, "c03": 0.05}


def items(count, spread):
    """Documents of 3,000 bytes that gain differently from more of c03: mean 1, sd ``spread``."""
    sizes = np.full(count, 3000.0)
    taste = np.random.default_rng(5).normal(0, 1, count)
    taste = 1 + spread * (taste - taste.mean()) / taste.std()
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
    assert with_items.reason.startswith("No gain over the token-share mixture")
    assert with_items.gain_sd > without.gain_sd


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
    first = answer.reason.split(" With what ")[0]
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
            "only 7 documents, 21 kB of text score text, and 30 documents or more are needed to "
            "know what a gain is worth: build with a larger --holdout"
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
