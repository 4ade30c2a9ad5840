"""Descriptions: words that set clusters apart, how they agree with known domains, openings."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from climbstream.builder.corpus.document import Document
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.features.words import opening
from climbstream.builder.report.describe import (
    label_agreement,
    large_cluster,
    name_licenses,
    name_terms,
)
from climbstream.builder.settings import BuildSettings
from climbstream.loader.formats.clusters import ClusterInfo


def test_each_group_is_named_by_words_that_the_others_lack(make_records):
    groups = {}
    for record in make_records():
        groups.setdefault(record["label"], []).append(record["text"])
    words = {name: {*re.findall(r"\w+", " ".join(texts))} for name, texts in groups.items()}
    terms = name_terms(list(groups.values()))
    for name, found in zip(groups, terms, strict=True):
        others = set().union(*(words[other] for other in words if other != name))
        assert len(found) >= 5
        assert {*found} <= words[name] - others


def test_a_word_that_one_long_document_repeats_names_no_group():
    groups = [["anchor sail"] * 9 + ["zebra " * 500], ["flour oven"] * 10]
    assert name_terms(groups)[0][:2] == ("anchor", "sail")


@pytest.mark.parametrize("groups", [[["1 2 3"], ["=="]], [["a b"], ["the and"]]])
def test_groups_without_words_have_no_names(groups):
    assert name_terms(groups) == [(), ()]


@given(st.text(), st.integers(1, 40))
def test_an_opening_is_one_short_line(text, most):
    line = opening(text, most)
    assert len(line) <= most
    assert len(line.splitlines()) <= 1
    assert line == " ".join(line.split())


def test_an_opening_says_where_it_was_cut():
    assert opening("a short  text\nof two lines") == "a short text of two lines"
    assert opening("one two three", most=8) == "one two…"


def test_clusters_that_are_the_domains_agree_with_them_fully():
    assert label_agreement([{"b": 1}, {"a": 2}]) == {"nmi": 1.0, "purity": 1.0}


def test_one_cluster_of_two_domains_agrees_by_half():
    assert label_agreement([{"a": 1, "b": 1}]) == {"nmi": 0.0, "purity": 0.5}


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3)), min_size=1, max_size=60))
def test_agreement_is_that_of_scikit_learn(documents):
    names, clusters = zip(*documents, strict=True)
    labels = [Counter(n for n, k in documents if k == cluster) for cluster in range(4)]
    expected = normalized_mutual_info_score(names, clusters)
    assert label_agreement(labels)["nmi"] == pytest.approx(expected, abs=1e-9)


def test_without_known_domains_there_is_nothing_to_agree_with():
    assert label_agreement([{}, {}]) is None


def test_words_are_whole_in_scripts_that_write_vowels_on_letters():
    bengali, hindi = "কম্পিউটার ব্যবহার করুন", "कम्प्यूटर उपयोग कीजिए"
    assert [set(terms) for terms in name_terms([[bengali] * 3, [hindi] * 3])] == [
        set(bengali.split()),
        set(hindi.split()),
    ]


@pytest.mark.parametrize("sizes", [[4], [2, 2], [1, 1, 1, 1]])
def test_licences_as_frequent_are_named_in_the_order_of_the_corpus(tmp_path, serial, sizes):
    documents = [
        Document(id=str(n), text="", label="", license=name, origin="")
        for n, name in enumerate(["MIT", "BSD-3-Clause", "BSD-3-Clause", "MIT"])
    ]
    partitions = []
    for number, size in enumerate(sizes):
        partition = Partition(tmp_path / f"00000-{number:05d}")
        partition.write_documents(documents[:size])
        partition.write("order", np.arange(size)[::-1])  # by cluster, the last one is first
        partitions.append(partition)
        documents = documents[size:]
    assert name_licenses(serial, partitions) == "MIT, BSD-3-Clause"


def clusters_of(*tokens):
    return [
        ClusterInfo(
            name=f"c{n:02d}",
            terms=(),
            documents=1,
            tokens=count,
            bytes=count,
            quality={},
            labels={},
            samples=(),
            micro=(n,),
        )
        for n, count in enumerate(tokens)
    ]


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ({}, "--balanced or a larger --clusters"),
        ({"balanced": True}, "a larger --clusters"),
        ({"merge_height": 1.0}, "a lower --merge-height"),
    ],
)
def test_a_cluster_with_more_than_half_of_the_tokens_is_named_with_a_remedy(setting, remedy):
    said = large_cluster(clusters_of(20, 61, 19), BuildSettings(**setting))
    assert said.startswith("cluster c01 has 61.0% of all tokens")
    assert f"; {remedy} may split the cluster" in said
    assert large_cluster(clusters_of(50, 30, 20), BuildSettings()) == ""
    assert large_cluster(clusters_of(90, 10), BuildSettings()) == ""
