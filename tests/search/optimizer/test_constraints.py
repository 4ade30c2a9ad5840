"""Whatever is proposed is brought within the limits, and changed no more than they ask for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from climbstream.loader.core.errors import UsageError
from climbstream.search.optimizer import candidates as propose
from climbstream.search.optimizer.constraints import (
    Group,
    WeightConstraints,
    by_name,
    epoch_caps,
    fill,
)


def limits_of(prior, **settings):
    return WeightConstraints.of([f"c{i}" for i in range(len(prior))], np.asarray(prior), **settings)


@st.composite
def problems(draw):
    """A prior over 1 to 9 clusters, some without weight, with limits that can be kept."""
    k = draw(st.integers(1, 9))
    names = [f"c{i}" for i in range(k)]
    prior = np.array(
        draw(st.lists(st.sampled_from([0.0, 1e-3, 0.2, 1.0, 30.0]), min_size=k, max_size=k))
    )
    prior[draw(st.integers(0, k - 1))] = 1.0
    prior /= prior.sum()
    low = np.array(draw(st.lists(st.floats(0, 0.1), min_size=k, max_size=k))) * (prior > 0)
    high = np.maximum(low, draw(st.lists(st.floats(0, 1), min_size=k, max_size=k)))
    short = 1 - high[prior > 0].sum()
    if short > 0:
        high[prior > 0] += short / (prior > 0).sum() + 1e-9
    groups = {}
    if k > 2 and draw(st.booleans()):
        groups = {"some": Group(names[:2], 0.0, min(1.0, float(low[:2].sum()) + 0.3))}
    try:
        return WeightConstraints.of(
            names,
            prior,
            min_weight=dict(zip(names, low, strict=True)),
            max_weight=dict(zip(names, high, strict=True)),
            groups=groups,
        )
    except UsageError:
        return limits_of(prior)


@given(problems(), st.integers(0, 10**6))
def test_what_is_projected_is_a_mixture_within_the_limits(limits, seed):
    rng = np.random.default_rng(seed)
    mixtures = propose.candidates(20, [limits.prior], limits, (2, 50), rng)
    assert mixtures.sum(axis=1) == pytest.approx(np.ones(20), abs=1e-8)
    assert (mixtures >= limits.low).all()
    assert (mixtures <= limits.high).all()
    for group, (least, most) in enumerate(zip(limits.least, limits.most, strict=True)):
        sums = mixtures[:, limits.members == group].sum(axis=1)
        assert (sums >= least - 1e-9).all()
        assert (sums <= most + 1e-9).all()


@given(problems(), st.integers(0, 10**6))
def test_a_mixture_within_the_limits_stays_as_it_is(limits, seed):
    rng = np.random.default_rng(seed)
    mixtures = propose.candidates(20, [limits.prior], limits, (2, 50), rng)
    again = limits.project(mixtures)
    assert again == pytest.approx(mixtures, abs=1e-9)


def test_a_weight_next_to_nothing_is_none():
    limits = limits_of(np.full(3, 1 / 3), max_weight={"c0": 0.4})
    with np.errstate(all="raise", under="ignore"):
        (row,) = limits.project(np.array([[0.9, 0.1, 3e-309]]))
    assert row == pytest.approx([0.4, 0.6, 0.0])


def test_ratios_of_what_is_under_its_cap_stay():
    limits = limits_of(np.full(4, 0.25), max_weight={"c0": 0.4})
    (row,) = limits.project(np.array([[0.7, 0.2, 0.1, 0.0]]))
    assert row == pytest.approx([0.4, 0.4, 0.2, 0.0])


def test_what_has_no_room_goes_to_the_prior():
    limits = limits_of([0.2, 0.2, 0.6], max_weight=0.4)
    assert limits.project(np.array([[1.0, 0, 0]]))[0] == pytest.approx([0.4, 0.2, 0.4])


def test_a_least_weight_is_taken_from_the_others_in_proportion():
    limits = limits_of(np.full(3, 1 / 3), min_weight={"c2": 0.25})
    assert limits.project(np.array([[0.6, 0.4, 0]]))[0] == pytest.approx([0.45, 0.3, 0.25])


def test_a_pinned_weight_is_what_it_is():
    limits = limits_of(np.full(3, 1 / 3), pinned={"c1": 0.2})
    rows = propose.candidates(50, [limits.prior], limits, (2, 50), np.random.default_rng(0))
    assert set(rows[:, 1]) == {0.2}


def test_a_group_is_held_as_a_whole_and_keeps_its_inner_ratios():
    limits = limits_of(np.full(4, 0.25), groups={"code": Group(["c0", "c1"], 0.1, 0.3)})
    rows = limits.project(np.array([[0.4, 0.2, 0.3, 0.1], [0.0, 0.0, 0.5, 0.5]]))
    assert rows[0] == pytest.approx([0.2, 0.1, 0.525, 0.175])
    assert rows[1] == pytest.approx([0.05, 0.05, 0.45, 0.45])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_weight": 0.2}, "of the 4 clusters with a prior sum to 0.8, .* at least 0.25"),
        ({"min_weight": {"c0": 0.7, "c1": 0.5}}, "least weights sum to 1.2, and a mixture sums to"),
        ({"min_weight": {"c0": 0.7}, "max_weight": 0.5}, "c0 must be 0.7 or more and can be 0.5"),
        (
            {"pinned": {"c4": 0.1}},
            "c4 must be 0.1 or more and can be 0 at most, because the cluster has no tokens",
        ),
        ({"pinned": {"c9": 0.1}}, "pinned names c9; the possible names are c0, c1"),
        (
            {"groups": {"a": Group(["c0"], 0.5, 0.4)}},
            "the weights of group a must sum to 0.5 or more and can sum",
        ),
        ({"groups": {"a": Group(["c0"]), "b": Group(["c0"])}}, "c0 is in group b and in another"),
    ],
)
def test_limits_that_cannot_be_kept_are_refused_with_numbers(settings, words):
    with pytest.raises(UsageError, match=words):
        limits_of([0.25, 0.25, 0.25, 0.25, 0.0], **settings)


def test_caps_follow_from_epochs():
    caps = epoch_caps({"a": 100, "b": 1000}, final_tokens=2000, max_epochs=4)
    assert caps == {"a": 0.2, "b": 1.0}
    assert epoch_caps({"a": 100}, None, 4) == {"a": 1.0}


def test_mixtures_at_their_limits_are_not_touched(monkeypatch):
    limits = limits_of(
        [0.25] * 4,
        min_weight={"c0": 0.25},
        max_weight={"c1": 0.5},
        groups={"some": Group(["c2", "c3"], 0.125, 0.25)},
    )
    monkeypatch.delattr("climbstream.search.optimizer.constraints.fill")
    rows = np.array([[0.375, 0.5, 0.125, 0.0], [0.25, 0.5, 0.125, 0.125], [0.375, 0.5, 0, 0.125]])
    assert (limits.project(rows) == rows).all()


def test_a_cap_within_a_group_sends_the_rest_to_the_group():
    limits = limits_of(
        [0.25] * 4, max_weight={"c0": 0.3}, groups={"code": Group(["c0", "c1"], 0.0, 1.0)}
    )
    rows = limits.project(np.array([[0.5, 0.1, 0.3, 0.1], [0.2, 0.2, 0.3, 0.3]]))
    assert rows[0] == pytest.approx([0.3, 0.3, 0.3, 0.1])
    assert rows[1].tolist() == [0.2, 0.2, 0.3, 0.3]


def test_what_a_group_must_have_is_taken_from_the_others_in_their_ratio():
    limits = limits_of([0.1, 0.3, 0.3, 0.3], groups={"code": Group(["c0", "c1"], least=0.2)})
    (row,) = limits.project(np.array([[0.0, 0.0, 0.6, 0.4]]))
    # A group that has nothing is filled by the prior.
    assert row == pytest.approx([0.05, 0.15, 0.48, 0.32])


def test_a_group_without_numbers_has_from_nothing_to_all():
    assert Group(["c0"]) == (["c0"], 0.0, 1.0)


def test_limits_as_json_name_the_groups_of_several_clusters():
    limits = limits_of(
        [0.25] * 4,
        min_weight={"c3": 0.1},
        max_weight={"c0": 0.5},
        groups={"code": Group(["c0", "c2"], 0.1, 0.3)},
    )
    names = ["c0", "c1", "c2", "c3"]
    assert limits.to_json(names) == {
        "min_weight": {"c0": 0.0, "c1": 0.0, "c2": 0.0, "c3": 0.1},
        "max_weight": {"c0": 0.5, "c1": 1.0, "c2": 1.0, "c3": 1.0},
        "groups": {"c0,c2": [0.1, 0.3]},
    }


def test_the_limits_of_a_group_are_no_wider_than_those_of_its_clusters():
    limits = limits_of(
        [0.25] * 4,
        min_weight={"c0": 0.1, "c1": 0.05},
        max_weight={"c0": 0.2, "c1": 0.3},
        groups={"a": Group(["c0", "c1"], 0.0, 1.0), "b": Group(["c2", "c3"], 0.3, 0.6)},
    )
    assert limits.members[0] == limits.members[1] != limits.members[2] == limits.members[3]
    assert limits.least[limits.members[[0, 2]]] == pytest.approx([0.15, 0.3])
    assert limits.most[limits.members[[0, 2]]] == pytest.approx([0.5, 0.6])


@settings(deadline=None)  # it imports scipy
@given(st.integers(0, 10**6))
def test_filling_finds_the_level_that_a_search_for_it_finds(seed):
    from scipy.optimize import brentq

    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 7))
    weights = rng.dirichlet(np.full(k, 0.7), 1) * (rng.random(k) < 0.8)
    low = rng.uniform(0, 0.1, k)
    high = low + rng.uniform(0, 1, k)
    most = np.where(weights[0] > 0, high, low).sum()
    total = rng.uniform(low.sum(), most)

    def over(log):
        return np.clip(np.exp(log) * weights[0], low, high).sum() - total

    expected = np.where(weights[0] > 0, high, low)
    if over(-40.0) < 0 < over(40.0):
        expected = np.clip(np.exp(brentq(over, -40.0, 40.0, xtol=1e-13)) * weights[0], low, high)
    elif over(-40.0) >= 0:
        expected = low
    (row,) = fill(weights, low, high, np.array([total]))
    assert row == pytest.approx(expected, abs=1e-7)
    assert row.sum() == pytest.approx(total)


@pytest.mark.parametrize("number", [-0.1, float("nan")])
def test_numbers_by_name_are_none_below_zero(number):
    assert by_name("caps", {"b": 0.0}, ["a", "b"]).tolist() == [1, 0]
    with pytest.raises(UsageError, match="caps must have numbers of 0 or more"):
        by_name("caps", {"b": number}, ["a", "b"])


def test_a_cap_above_one_is_one_and_sums_that_are_just_enough_are_taken():
    limits = limits_of([0.5, 0.5, 0.0], max_weight=3.0)
    assert limits.high.tolist() == [1, 1, 0]
    even = limits_of([0.5, 0.5], max_weight=0.5)
    assert even.project(np.array([[0.9, 0.1]]))[0] == pytest.approx([0.5, 0.5])
    assert limits_of([0.5, 0.5], min_weight={"c0": 0.4, "c1": 0.6}).low.tolist() == [0.4, 0.6]
