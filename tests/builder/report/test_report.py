"""The report of a build: one page that says what is there, and loads and runs nothing."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from climbstream.builder.pipeline import build
from climbstream.builder.report.report import write_report
from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.files import read_json
from climbstream.loader.formats.clusters import load_clusters
from climbstream.loader.formats.manifest import Manifest


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words, self.open = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Keep a tag and its attributes."""
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        """See that the last tag is closed first."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Keep the text."""
        self.words.append(data)


def page_of(directory):
    return Page((directory / "report.html").read_text())


@pytest.fixture(scope="module")
def report(built):
    return page_of(built.directory)


def test_the_report_names_every_cluster_with_its_words_and_counts(built, report):
    text = " ".join(report.words)
    for info in load_clusters(built.directory):
        assert info.name in text
        assert ", ".join(info.terms[:4]) in text
        assert f"{info.tokens:,}" in text


def test_the_report_says_what_was_dropped_and_why(built, report):
    text = " ".join(report.words)
    for stage in Manifest.load(built.directory).conservation:
        for reason, size in stage["dropped"].items():
            n = size["documents"]
            assert f"{n} document{'s' if n != 1 else ''}: {reason}" in text


def test_the_report_says_how_good_the_best_start_of_k_means_was(built, report):
    kmeans = read_json(built.directory / "clusters.json")["kmeans"]
    assert kmeans["objective"] == max(kmeans["tried"])
    assert kmeans["centroids"] == len(np.load(built.directory / "centroids.npy"))
    said = f"found {kmeans['centroids']} micro-clusters, {kmeans['empty']} of them empty"
    assert said in " ".join(report.words)


def test_the_report_is_whole_and_needs_no_network_and_no_script(report):
    assert report.open == []
    assert not report.tags & {"script", "link", "img", "iframe", "a"}
    assert not {name for name, _ in report.attributes} & {"src", "href", "onload", "onerror"}


def test_what_comes_from_data_is_text_and_never_markup(tmp_path, write_jsonl, make_records):
    evil = '<script>alert(1)</script><img src=x onerror="alert(2)">\'"&'
    records = [
        {**record, "id": f"{evil}{i}", "label": evil, "license": evil, "text": f"{evil} {text}"}
        for i, record in enumerate(make_records(each=8))
        for text in [record["text"]]
    ]
    source = write_jsonl(tmp_path / "evil.jsonl", records)
    settings = BuildSettings(
        clusters=2, micro_clusters=6, vocab_size=300, min_cluster_score={}, min_document_score={}
    )
    build([str(source)], tmp_path / "<b>out", settings, workers=1)
    page = page_of(tmp_path / "<b>out")
    assert not page.tags & {"script", "img"}
    assert not {name for name, _ in page.attributes} & {"src", "onerror"}
    assert evil in " ".join(page.words)


def test_the_report_has_a_map_with_a_dot_for_each_micro_cluster(built, report):
    infos = load_clusters(built.directory)
    dots = sum(name == "r" for name, _ in report.attributes)
    assert dots == sum(len(info.micro) for info in infos) > 0


def test_shares_are_of_all_clusters_also_where_some_are_folded_away(built, tmp_path, monkeypatch):
    clusters = load_clusters(built.directory)
    monkeypatch.setattr("climbstream.builder.report.report._SHOWN", 2)
    write_report(tmp_path, Manifest.load(built.directory), clusters, None)
    page = page_of(tmp_path)
    total = sum(info.tokens for info in clusters)
    assert f"{len(clusters) - 2} smaller clusters" in page.words
    for info in clusters:
        assert f"\N{NO-BREAK SPACE}{info.tokens / total:.1%}" in page.words


def test_without_known_domains_there_is_no_column_for_them(built, tmp_path, report):
    assert "known domains" in report.words
    clusters = [replace(info, labels={}) for info in load_clusters(built.directory)]
    write_report(tmp_path, Manifest.load(built.directory), clusters, None)
    assert "known domains" not in page_of(tmp_path).words


def test_the_parts_of_a_cluster_add_up(built):
    for info in load_clusters(built.directory):
        assert sum(info.micro_documents) == info.documents
        assert all(sum(counts) == info.documents for counts in info.spread.values())
        assert info.effective_tokens == info.tokens
