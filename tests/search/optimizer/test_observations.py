"""Trials become arrays in which less is better, and an sd is an sd."""

import math

import numpy as np
import pytest

from climbstream.loader import Mixture
from climbstream.search import Trial
from climbstream.search.optimizer.observations import Observations

NAMES = ["a", "b"]
MIXTURES = [Mixture.of({"a": w, "b": 1 - w}) for w in (0.5, 0.5, 0.2, 0.9)]
SCORES = [
    {"acc": 0.5, "loss": 4.0},
    {"acc": 0.7, "loss": 2.0},
    {"acc": 0.9, "loss": 3.0},
    {"acc": 0.3, "loss": 7.0},
]
TARGETS = {"acc": "max", "loss": "min"}


def of(scores=SCORES, importance=(0.25, 0.75), mixtures=MIXTURES, **settings):
    trials = [
        Trial(number=n, round=1, mixture=m, seed=n, scores=s)
        for n, (m, s) in enumerate(zip(mixtures, scores, strict=True), start=1)
    ]
    return Observations.of(trials, NAMES, TARGETS, np.array(importance), **settings)


def test_scores_are_standardised_and_their_mean_is_weighed_by_importance():
    known = of()
    raw = np.array([[s["acc"], s["loss"]] for s in SCORES])
    expected = (raw - raw.mean(axis=0)) / raw.std(axis=0) * [-1, 1]
    assert known.scores == pytest.approx(expected)
    assert known.total == pytest.approx(expected @ [0.25, 0.75])
    assert known.scale == pytest.approx(raw.std(axis=0) * [-1, 1])
    assert known.standard(raw) == pytest.approx(expected)
    for row, scores in zip(expected, SCORES, strict=True):
        assert known.units(row) == pytest.approx(scores)
    assert known.weights == pytest.approx(
        np.array([[0.5, 0.5], [0.5, 0.5], [0.2, 0.8], [0.9, 0.1]])
    )


def test_a_target_above_its_ceiling_pays_ten_sd_for_each():
    # The base is the mean of its two runs: accuracy .6, loss 3.
    known = of(allowed={"acc": 0.1}, base=MIXTURES[0])
    sd = np.array([s["acc"] for s in SCORES]).std()
    assert known.ceilings[1] == math.inf
    assert known.ceilings[0] == pytest.approx(known.scores[:2, 0].mean() + 0.1 / sd)
    plain = known.scores @ known.importance
    over = (0.5 - 0.3) / sd  # of the last, and of none else
    assert known.total - plain == pytest.approx([0, 0, 0, 10 * over])
    assert known.joined(known.scores) == pytest.approx(known.total)


def test_until_the_base_has_scores_everything_is_allowed():
    for base in (None, Mixture.of({"a": 1, "b": 3})):
        assert (of(allowed={"acc": 0.0}, base=base).ceilings == math.inf).all()


def test_failed_trials_are_left_out_and_none_leaves_nothing():
    known = of([None, *SCORES[1:]])
    assert [trial.number for trial in known.trials] == [2, 3, 4]
    assert known.scores.shape == (3, 2)
    nothing = of([None] * 4)
    assert (nothing.weights.shape, nothing.scores.shape) == ((0, 2), (0, 2))
    assert nothing.scale.tolist() == [-1, 1]
    assert nothing.noise() == (None, 0)


def test_equal_scores_have_a_scale_of_one_and_others_their_own():
    known = of([{"acc": 0.1 + 0.2, "loss": 5.0}, *[{"acc": 0.3, "loss": 5.0 + 1e-9}] * 3])
    assert known.scale[0] == -1.0
    assert abs(known.scale[1]) < 1e-8
    # An sd of a part in 1e12 of the mean, or less, is rounding.
    for part, scale in ((1e-12, 1.0), (4e-12, 2e-12)):
        two = [{"acc": 1.0, "loss": 1 + part * x} for x in (0, 0, 1, 1)]
        assert of(two).scale[1] == pytest.approx(scale, rel=0.01)


def test_repeats_are_grouped_by_mixture_in_the_order_of_their_first_trials():
    groups = of(mixtures=[MIXTURES[2], MIXTURES[0], MIXTURES[2], MIXTURES[0]]).repeats()
    assert [group.tolist() for group in groups] == [[0, 2], [1, 3]]


def test_the_noise_is_that_of_the_mean_score_within_the_groups():
    mixtures = [MIXTURES[0], MIXTURES[0], MIXTURES[2], MIXTURES[2]]
    known = of(mixtures=mixtures)
    mean = known.scores @ known.importance
    squares = ((mean[0] - mean[1]) ** 2 + (mean[2] - mean[3]) ** 2) / 2
    sd, freedom = known.noise()
    assert freedom == 2
    assert sd == pytest.approx(math.sqrt(squares / 2))
