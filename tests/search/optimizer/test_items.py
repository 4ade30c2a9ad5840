"""The error by the choice of items is that of drawing them again, done by hand."""

import math
from functools import partial

import numpy as np
import pytest

from climbstream.loader.formats.heldout import FEW_ITEMS
from climbstream.search.optimizer.items import (
    ItemEvidence,
    TargetItems,
    _bytes_text,
    objection,
    with_few_items,
)

SIZES = np.array([10.0, 20.0, 5.0, 40.0])
OURS = np.array([[1.0, 4.0, 2.0, 9.0], [3.0, 2.0, 2.0, 7.0]])
THEIRS = np.array([[4.0, 5.0, 1.0, 12.0]])


def by_hand(sizes, ours, theirs):
    """Draw the items a thousand times; the ratio of sums is a score."""
    rng, n = np.random.default_rng(len(sizes)), len(sizes)
    gains = []
    for _ in range(1000):
        drawn = [int(i) for i in rng.integers(n, size=n)]
        score = [
            sum(sum(run[i] for run in runs) / len(runs) for i in drawn)
            / sum(sizes[i] for i in drawn)
            for runs in (ours, theirs)
        ]
        gains.append(score[1] - score[0])
    mean = sum(gains) / 1000
    return math.sqrt(sum((g - mean) ** 2 for g in gains) / 1000 * n / (n - 1))


def test_the_error_is_the_sd_over_items_that_are_drawn_again():
    items = TargetItems(sizes=SIZES)
    assert items.gain_sd(OURS, THEIRS) == pytest.approx(by_hand(SIZES, OURS, THEIRS))
    alone = np.zeros((1, len(SIZES)))
    assert items.score_sd(OURS[0]) == pytest.approx(by_hand(SIZES, alone, OURS[:1]))
    two = TargetItems(sizes=SIZES[:2])
    expected = by_hand(SIZES[:2], OURS[:, :2], THEIRS[:, :2])
    assert two.gain_sd(OURS[:, :2], THEIRS[:, :2]) == pytest.approx(expected)
    assert expected > 0


def test_of_equal_items_it_is_the_standard_error_of_their_mean():
    gains = np.random.default_rng(0).normal(size=60)
    items = TargetItems(sizes=np.ones(60))
    expected = gains.std(ddof=1) / math.sqrt(60)
    assert items.gain_sd(np.zeros((1, 60)), gains[None]) == pytest.approx(expected, rel=0.06)


def test_one_item_shows_no_spread():
    items = TargetItems(sizes=np.array([3.0]))
    assert items.gain_sd(np.array([[1.0]]), np.array([[9.0]])) == 0.0


def test_items_without_bytes_break_nothing():
    items = TargetItems(sizes=np.zeros(2))
    assert items.gain_sd(np.zeros((1, 2)), np.zeros((1, 2))) == 0.0
    assert items.effective == 0.0


def test_items_of_unequal_size_count_as_fewer():
    assert TargetItems(sizes=np.ones(7)).effective == pytest.approx(7)
    assert TargetItems(sizes=SIZES).effective == pytest.approx(75**2 / (100 + 400 + 25 + 1600))


@pytest.mark.parametrize(
    ("count", "bytes_", "text"),
    [
        (1, None, "1 question"),
        (2, None, "2 questions"),
        (1200, None, "1,200 questions"),
        (2, 999, "2 questions, 999 bytes of text"),
    ],
)
def test_the_number_of_items_is_said(count, bytes_, text):
    items = TargetItems(sizes=np.ones(count), noun="questions", bytes=bytes_)
    assert items.text == text


def test_one_sentence_names_all_targets_with_few_items_and_each_remedy_once():
    make = partial(TargetItems, noun="documents", remedy="have more")
    few, many = make(sizes=np.ones(4)), make(sizes=np.ones(5))
    targets = {"a": few, "b": make(sizes=np.ones(1)), "c": many}
    assert [*with_few_items(targets)] == ["a", "b"]
    assert objection(with_few_items(targets)) == (
        "But a has only 4 documents and b has only 1 document to score, too few to tell whether "
        "other documents gain as well. Only a gain on 5 documents or more is called certain: have "
        "more."
    )
    assert objection({}) == ""


def test_fewer_than_thirty_items_are_few():
    assert FEW_ITEMS == 30
    few = TargetItems(sizes=np.ones(29), remedy="ask more")
    assert few.warning("piqa") == (
        "only 29 items score piqa, so errors and intervals are uncertain themselves; have 30 items "
        "or more: ask more"
    )
    assert TargetItems(sizes=np.ones(30)).warning("piqa") == ""


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (999, "999 bytes"),
        (1_000, "1 kB"),
        (20_600, "21 kB"),
        (999_400, "999 kB"),
        (1_000_000, "1.0 MB"),
        (3_400_000, "3.4 MB"),
    ],
)
def test_bytes_are_written_for_people(count, text):
    assert _bytes_text(count) == text


def evidence(**costs):
    rows = {1: OURS[0], 2: OURS[1], 3: THEIRS[0]}
    known = {n: {"loss": row.tolist()} for n, row in rows.items()} | costs.get("more", {})
    return ItemEvidence(targets={"loss": TargetItems(sizes=SIZES)}, costs=known)


def test_the_error_of_trials_is_that_of_their_items():
    expected = TargetItems(sizes=SIZES).gain_sd(OURS, THEIRS)
    assert evidence().gain_sd("loss", [1, 2], [3]) == expected


@pytest.mark.parametrize(
    ("target", "ours", "theirs", "more"),
    [
        ("other", [1], [3], {}),
        ("loss", [], [3], {}),
        ("loss", [1], [], {}),
        ("loss", [1], [4], {}),
        ("loss", [4], [3], {}),
        ("loss", [1, 4], [3], {4: {"loss": [1.0, 2.0]}}),
        ("loss", [1], [3, 4], {4: {"arc": [1.0, 2.0, 3.0, 4.0]}}),
    ],
)
def test_what_is_not_known_of_every_trial_is_unknown(target, ours, theirs, more):
    assert evidence(more=more).gain_sd(target, ours, theirs) is None
