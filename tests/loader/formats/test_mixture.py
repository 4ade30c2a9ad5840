"""Mixtures: any usable numbers in, exact integers out, and clear words about the others."""

import contextlib
import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from climbstream.loader import Mixture
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.formats.mixture import ONE, integer_weights

positive = st.floats(1e-12, 1e12)
numbers = st.just(0.0) | st.just(1e-12) | st.integers(0, 10**9) | positive
names = st.text("abcdefgh0123456789", min_size=1, max_size=6)
any_weights = st.dictionaries(names, numbers, min_size=1, max_size=30).filter(
    lambda weights: any(weights.values())
)


def many(seed, k):
    """Weights over 24 orders of magnitude, a third of them zero."""
    draw = np.random.default_rng(seed)
    weights = 10.0 ** draw.uniform(-12, 12, k) * (draw.random(k) < 0.67)
    weights[draw.integers(k)] = 1.0
    return {f"c{i:04}": float(w) for i, w in enumerate(weights)}


# Weights.


@given(any_weights)
def test_any_weights_are_scaled_to_one(weights):
    mixture = Mixture.of(weights)
    total = math.fsum(float(w) for w in weights.values())
    assert math.fsum(mixture.weights.values()) == pytest.approx(1, abs=1e-12)
    assert list(mixture.weights) == list(weights)
    for name, weight in weights.items():
        assert mixture.weights[name] == pytest.approx(weight / total, rel=1e-9, abs=0)


@given(any_weights)
def test_scaling_twice_changes_nothing(weights):
    mixture = Mixture.of(weights)
    assert Mixture.of(mixture.weights).weights == mixture.weights


@given(st.lists(names, min_size=1, max_size=20, unique=True))
def test_uniform_gives_all_the_same(clusters):
    assert set(Mixture.uniform(clusters).weights.values()) == {1 / len(clusters)}


def test_the_array_follows_the_names_and_fills_in_zeros():
    mixture = Mixture.of({"c01": 3, "c00": 1})
    assert mixture.array(["c00", "c01", "c02"]).tolist() == [0.25, 0.75, 0.0]


def test_an_unknown_cluster_is_named_beside_those_that_there_are():
    mixture = Mixture.of({"c00": 1, "web": 1})
    with pytest.raises(
        InvalidDataError, match=r"the mixture gives weight to web, but the clusters are c00, c01$"
    ):
        mixture.array(["c00", "c01"])


def test_of_many_unknown_clusters_a_few_are_named_and_the_rest_counted():
    mixture = Mixture.uniform([f"x{i}" for i in range(20)])
    with pytest.raises(InvalidDataError, match=r"x0, x1, x2, x3, x4, x5 and 14 more"):
        mixture.array(["c00"])


def test_an_unknown_cluster_of_weight_zero_does_no_harm():
    assert Mixture.of({"c00": 1, "web": 0}).array(["c00"]).tolist() == [1.0]


# Integer weights.


@given(any_weights)
def test_integers_sum_to_one_exactly(weights):
    integers = Mixture.of(weights).integers(list(weights))
    assert integers.dtype == np.int64
    assert int(integers.sum()) == ONE


@given(any_weights)
def test_integers_of_zeros_stay_zero_and_positives_stay_positive(weights):
    integers = Mixture.of(weights).integers(list(weights))
    assert (integers > 0).tolist() == [w > 0 for w in weights.values()]


@given(st.integers(0, 1 << 32), st.sampled_from([1, 2, 999, 1000]))
def test_a_thousand_clusters_are_as_exact_as_two(seed, k):
    weights = many(seed, k)
    integers = Mixture.of(weights).integers(list(weights))
    assert int(integers.sum()) == ONE
    assert (integers > 0).tolist() == [w > 0 for w in weights.values()]
    assert (integers >= 0).all()


@given(any_weights)
def test_each_integer_is_its_weight_within_what_keeps_the_others_positive(weights):
    mixture = Mixture.of(weights)
    integers = mixture.integers(list(weights))
    off = np.abs(integers - mixture.array(list(weights)) * ONE)
    assert off.max() <= len(weights) + 1


@given(st.lists(st.integers(0, ONE), min_size=1, max_size=10))
@example([1, ONE - 1])
def test_weights_that_are_integers_over_one_are_kept(parts):
    parts = [*parts, 0]
    assume(sum(parts) <= ONE)
    parts[-1] = ONE - sum(parts)
    assert integer_weights(np.array(parts) / ONE).tolist() == parts


def test_equal_weights_that_do_not_divide_one_differ_by_a_unit():
    integers = Mixture.uniform(["a", "b", "c"]).integers(["a", "b", "c"])
    assert integers.tolist() == [ONE // 3 + 1, ONE // 3, ONE // 3]


def test_one_cluster_has_all():
    assert Mixture.of({"b": 1e-12}).integers(["a", "b"]).tolist() == [0, ONE]


def test_the_order_of_names_does_not_change_a_weight():
    mixture = Mixture.of({"a": 0.1, "b": 0.2, "c": 0.7})
    forth = dict(zip("abc", mixture.integers(list("abc")).tolist(), strict=True))
    back = dict(zip("cba", mixture.integers(list("cba")).tolist(), strict=True))
    assert all(abs(forth[name] - back[name]) <= 1 for name in "abc")


# Weights that are refused.


@pytest.mark.parametrize(
    "weight", [-1, -1e-12, math.nan, math.inf, -math.inf, "1", None, True, [1]]
)
def test_a_weight_that_is_no_usable_number_is_named(weight):
    with pytest.raises(
        InvalidDataError, match=r"the weight of cluster 'c01' is .*finite numbers, 0 or more"
    ):
        Mixture.of({"c00": 1, "c01": weight})


def test_a_name_that_is_no_text_is_refused():
    with pytest.raises(InvalidDataError, match="the weight of cluster 7"):
        Mixture.of({7: 1.0})


def test_all_zero_is_refused():
    with pytest.raises(InvalidDataError, match="every weight of the mixture is 0; give"):
        Mixture.of({"c00": 0, "c01": 0.0})


@pytest.mark.parametrize("weights", [{}, [], None, 5, "c00"])
def test_what_is_no_object_of_weights_is_refused(weights):
    with pytest.raises(InvalidDataError, match="must be an object with the weights of clusters"):
        Mixture.of(weights)


def test_weights_that_do_not_sum_to_one_are_refused_unless_they_are_to_be_scaled():
    with pytest.raises(InvalidDataError, match=r"these sum to 1\.5; use Mixture\.of"):
        Mixture({"c00": 1.0, "c01": 0.5})


def test_a_mixture_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Mixture.of({"c00": 1}).weights = {}


@pytest.mark.parametrize("weights", [{"a": 1e308, "b": 1e308}, {"a": 10**400}])
def test_weights_too_large_to_sum_are_refused_or_scaled(weights):
    with contextlib.suppress(InvalidDataError):
        Mixture.of(weights)


# JSON.


@given(any_weights, st.dictionaries(names, st.text(max_size=5), max_size=2))
def test_a_mixture_comes_back_as_it_was(weights, about):
    mixture = Mixture.of(weights, about)
    back = Mixture.from_json(json.loads(json.dumps(mixture.to_json())))
    assert back == mixture
    assert back.about == mixture.about
    assert list(back.weights) == list(mixture.weights)
    assert back.fingerprint == mixture.fingerprint


def test_a_mixture_comes_back_from_its_file(tmp_path):
    mixture = Mixture.of({"c00": 1, "é": 2}, {"how": "by hand"})
    mixture.save(tmp_path / "mixture.json")
    assert Mixture.load(tmp_path / "mixture.json") == mixture


def test_a_plain_object_of_weights_is_a_mixture_too():
    assert Mixture.from_json({"a": 1, "b": 3}) == Mixture.of({"a": 0.25, "b": 0.75})


def test_another_version_is_refused():
    with pytest.raises(InvalidDataError, match="version 2; this climbstream reads 1"):
        Mixture.from_json({"version": 2, "weights": {"a": 1}})


@pytest.mark.parametrize("value", [None, 5, [], {}, {"version": 1, "weights": 5}])
def test_what_is_no_mixture_is_refused(value):
    with pytest.raises(InvalidDataError, match="must be an object with the weights of clusters"):
        Mixture.from_json(value)


@pytest.mark.parametrize("about", ["text", 5])
def test_an_about_that_is_no_object_is_refused(about):
    with pytest.raises(InvalidDataError):
        Mixture.from_json({"version": 1, "weights": {"a": 1}, "about": about})


def test_an_error_in_a_file_names_the_file(tmp_path):
    (tmp_path / "mixture.json").write_text('{"c00": -1}')
    with pytest.raises(InvalidDataError, match=r"mixture\.json: the weight of cluster 'c00'"):
        Mixture.load(tmp_path / "mixture.json")


# The fingerprint.


def test_the_fingerprint_does_not_see_order_zeros_or_what_is_said_about_it():
    one = Mixture.of({"a": 1, "b": 3, "c": 0}, {"how": "x"})
    two = Mixture.of({"b": 3, "a": 1})
    assert one.fingerprint == two.fingerprint


def test_the_fingerprint_sees_weights_and_names():
    prints = {
        Mixture.of(w).fingerprint
        for w in ({"a": 1, "b": 3}, {"a": 3, "b": 1}, {"a": 1, "c": 3}, {"a": 1})
    }
    assert len(prints) == 4


@pytest.mark.parametrize("place", [5, ["c00"], None, 0.3, {"c00": 1}])
def test_a_mixture_is_read_from_a_path_alone(place):
    with pytest.raises(UsageError, match=r"read from the path of a file, not from .*Mixture\.of"):
        Mixture.load(place)


def test_a_folder_is_no_mixture_and_the_file_in_it_is_named(tmp_path):
    with pytest.raises(UsageError, match="is a folder, and a mixture is a file; climb search"):
        Mixture.load(tmp_path)
    Mixture.of({"c00": 1}).save(str(tmp_path / "mixture.json"))
    with pytest.raises(UsageError, match=r"is a folder.*; name .*/mixture\.json"):
        Mixture.load(str(tmp_path))


def test_an_answer_is_no_mixture_and_the_file_beside_it_is_named(tmp_path):
    (tmp_path / "answer.json").write_text('{"version": 1, "mixture": {"weights": {"c00": 1}}}')
    with pytest.raises(InvalidDataError, match=r"not a mixture; name .*/mixture\.json"):
        Mixture.load(tmp_path / "answer.json")


@pytest.mark.parametrize("weights", [5, ["c00"], "mixture.json", [0.5, 0.5]])
def test_what_is_no_mixture_is_shown_with_what_is(weights):
    with pytest.raises(InvalidDataError, match=r'as {"c00": 0\.7, "c01": 0\.3}; this is '):
        Mixture.of(weights)
