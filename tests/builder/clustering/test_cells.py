"""Cells: topics are cut by language and by quantiles of quality, and each document has one cell."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder.clustering.cells import Cells
from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.errors import InvalidDataError


def histograms(documents):
    """Count (topic, language, score) as a build does."""
    groups = {}
    for topic, language, score in documents:
        groups.setdefault((topic, language), []).append(score)
    return {
        group: np.unique(np.array(scores, np.float16), return_counts=True)
        for group, scores in groups.items()
    }


def fitted(documents, tiers=5, **more):
    return Cells.fit(histograms(documents), BuildSettings(tiers=tiers, **more))


def placed(cells, documents):
    topics, languages, scores = zip(*documents, strict=True)
    numbers = cells.place(
        np.array(topics, np.int32), np.array(languages), np.array(scores, np.float16)
    )
    return [cells.names[number] for number in numbers]


def test_tiers_are_quantiles_within_topic_and_language():
    documents = [(0, "en", n / 64) for n in range(50)] + [(0, "de", 2 + n / 64) for n in range(20)]
    documents += [(1, "en", 4 + n / 64) for n in range(30)]
    names = placed(fitted(documents), documents)
    sizes = {name: names.count(name) for name in names}
    assert sizes == {
        **{f"c00-en-t{tier}": 10 for tier in range(5)},
        **{f"c00-de-t{tier}": 4 for tier in range(5)},
        **{f"c01-en-t{tier}": 6 for tier in range(5)},
    }
    assert names[:50] == sorted(names[:50])


def test_documents_of_one_score_are_of_one_tier_and_an_empty_tier_has_no_cell():
    documents = [(0, "en", 1.0)] * 2 + [(0, "en", 3.0)] * 2 + [(0, "en", 5.0)] * 6
    cells = fitted(documents)
    assert placed(cells, documents) == ["c00-t0"] * 2 + ["c00-t1"] * 2 + ["c00-t4"] * 6
    assert cells.names == ["c00-t0", "c00-t1", "c00-t4"]
    assert placed(cells, [(0, "en", 0.0), (0, "en", 3.5), (0, "en", 9.0)]) == [
        "c00-t0",
        "c00-t1",
        "c00-t4",
    ]


def test_one_language_is_no_axis():
    documents = [(0, "en", n / 8) for n in range(199)] + [(0, "fr", 1.0)]
    assert fitted(documents, tiers=2).names == ["c00-t0", "c00-t1"]
    assert fitted(documents, tiers=2).axes[0] == {"topic": "c00", "tier": "t0"}


def test_rare_languages_are_other_together_or_go_with_the_most_frequent_of_their_topic():
    documents = [(n % 2, "en", 2.0) for n in range(100)] + [(0, "de", 2.0)] * 100
    few = [(1, "cs", 2.0)]
    assert set(placed(fitted(documents + few, 1), few)) == {"c01-en-t0"}
    many = [(n % 2, f"l{n}", 2.0) for n in range(8)]
    assert set(placed(fitted(documents + many, 1), many)) == {"c00-other-t0", "c01-other-t0"}


def test_languages_that_were_asked_for_have_cells_however_rare():
    documents = [(0, "en", 2.0)] * 500 + [(0, "de", 2.0)]
    assert fitted(documents, 1).names == ["c00-t0"]
    assert fitted(documents, 1, languages=["en", "de"]).names == ["c00-en-t0", "c00-de-t0"]


def test_a_language_that_a_topic_lacks_goes_to_its_most_frequent():
    documents = [(0, "en", 2.0)] * 50 + [(1, "de", 2.0)] * 20 + [(1, "fr", 2.0)] * 30
    cells = fitted(documents, 1)
    assert placed(cells, [(0, "fr", 1.0), (1, "en", 1.0), (1, "xx", 1.0)]) == [
        "c00-en-t0",
        "c01-fr-t0",
        "c01-fr-t0",
    ]


def test_names_have_as_many_digits_as_they_need():
    documents = [(topic, "en", n / 8) for topic in range(101) for n in range(12)]
    cells = fitted(documents, 12)
    assert cells.names[0] == "c000-t00"
    assert cells.names[-1] == "c100-t11"
    assert cells.names == sorted(cells.names)


DOCUMENTS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(["en", "de", "ja", "und"]),
        st.floats(-9, 9, width=16),
    ),
    min_size=1,
    max_size=80,
)


@given(DOCUMENTS, st.integers(1, 7), DOCUMENTS)
def test_every_cell_holds_a_document_and_any_document_has_a_cell(documents, tiers, others):
    cells = fitted(documents, tiers)
    assert set(placed(cells, documents)) == {*cells.names}
    assert len({*cells.names}) == len(cells.names) == len(cells.topics)
    topics = {topic for topic, _, _ in documents}
    assert {*placed(cells, [d for d in others if d[0] in topics] or documents)} <= {*cells.names}
    again = Cells.from_json(json.loads(json.dumps(cells.to_json())))
    assert again == cells


@pytest.mark.parametrize(
    "broken",
    [
        {"borders": [3.0, 1.0]},
        {"borders": [1.0]},
        {"tiers": []},
        {"tiers": [1, 0]},
        {"tiers": [3]},
        {"topic": -1},
        {"borders": ["a", "b"]},
    ],
)
def test_a_broken_list_of_cells_is_refused(broken):
    group = {"topic": 0, "language": "", "borders": [1.0, 2.0], "tiers": [0, 2]}
    value = {"version": 1, "score": "mean", "tiers": 3, "groups": [group | broken]}
    with pytest.raises(InvalidDataError, match="cells"):
        Cells.from_json(value)
