"""Pictures of mixtures: a corner a cluster for three, an axis a cluster for more."""

import re
from dataclasses import replace

import pytest

from climbstream.search.experiments.mixture_plots import AXES, DrawnMixture, DrawnMixtures


def drawn(names, *weights):
    trials = [DrawnMixture(weights=w, color="r0", tip=f"proxy {i}") for i, w in enumerate(weights)]
    return DrawnMixtures(
        names=names,
        trials=trials,
        best=weights[0],
        shares=[1 / len(names)] * len(names),
        rounds=[("round 1", "r0", False)],
    )


def test_three_clusters_are_a_triangle_with_a_pure_mixture_in_its_corner():
    html = drawn(["c00 sea", "c01 food", "c02 law"], [1, 0, 0], [0, 0.5, 0.5]).draw()
    (top,) = re.findall(r'<path d="M([\d.]+ [\d.]+)L[^"]*Z"', html)
    x, y = top.split()
    assert f'cx="{x}" cy="{y}"' in html
    assert html.count("data-tip=") == 2
    assert "polyline" not in html


@pytest.mark.parametrize("clusters", [2, 8, 60])
def test_other_numbers_have_a_line_a_mixture_and_axes_for_the_largest_weights(clusters):
    names = [f"c{k:02} w{k}" for k in range(clusters)]
    last = [0.0] * (clusters - 1) + [1.0]
    html = drawn(names, [1 / clusters] * clusters, last).draw()
    assert html.count("<polyline") == 2 + 2  # the trials, the answer, the token shares
    assert html.count("<line") == min(clusters, AXES)
    assert f"c{clusters - 1:02}" in html
    assert "the answer" in html
    assert "token shares" in html


@pytest.mark.parametrize(("clusters", "mark"), [(3, "<circle"), (8, "<polyline")])
def test_another_mixture_has_a_mark_of_its_own_and_its_name_in_the_legend(clusters, mark):
    names = [f"c{k:02} w{k}" for k in range(clusters)]
    plain = drawn(names, [1 / clusters] * clusters)
    other = replace(plain, others={"best other, predicted": [1.0] + [0.0] * (clusters - 1)})
    assert other.draw().count(mark) == plain.draw().count(mark) + 1
    assert "best other, predicted</li>" in other.draw()


def test_one_cluster_has_no_picture():
    assert drawn(["c00"], [1.0]).draw() == ""


def test_words_from_data_are_text():
    assert "<b>" not in drawn(["<b>", "c01 <b>x</b>"], [1, 0]).draw()
