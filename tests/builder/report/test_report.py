"""The report of a build: one page that says what is there, and loads and runs nothing."""

import re
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations

import numpy as np
import pytest

from climbstream.builder.pipeline import build
from climbstream.builder.report.cluster_plot import _written, plot_clusters
from climbstream.builder.report.copies import copy_sections
from climbstream.builder.report.losses import loss_sections
from climbstream.builder.report.near_copies import NearCopies, near_copy
from climbstream.builder.report.report import report_page, write_report
from climbstream.builder.settings import SCORES, BuildSettings
from climbstream.loader.core.files import read_json
from climbstream.loader.core.html_page import SCRIPT, script_hash
from climbstream.loader.formats.clusters import CopyCounts, load_clusters
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
        # A reader sees them when pointing at what has them.
        self.words += [value for name, value in attrs if name == "data-tip"]
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


def test_the_report_explains_how_clusters_agree_with_known_domains_and_what_und_is(built, report):
    text = " ".join(report.words)
    purity = read_json(built.directory / "clusters.json")["agreement"]["purity"]
    most = "of the documents are of the most frequent known domain of their cluster"
    assert f"{purity:.0%} {most} (purity {purity:.2f})" in text
    assert "Normalised mutual information of clusters and known domains (NMI)" in text
    assert "und: text whose language was not recognised" in text


def test_the_report_is_whole_needs_no_network_and_runs_its_own_script_alone(built, report):
    assert report.open == []
    assert not report.tags & {"link", "img", "iframe"}
    assert not {name for name, _ in report.attributes} & {"src", "onload", "onerror"}
    assert all(value[0] == "#" for name, value in report.attributes if name == "href")
    html = (built.directory / "report.html").read_text()
    assert html.count("<script>") == 1
    assert f"script-src '{script_hash(SCRIPT)}'" in html
    assert "default-src 'none'" in html


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
    assert "img" not in page.tags
    assert (tmp_path / "<b>out" / "report.html").read_text().count("<script") == 1
    assert not {name for name, _ in page.attributes} & {"src", "onerror"}
    assert evil in " ".join(page.words)


def test_the_report_has_a_map_with_a_dot_for_each_micro_cluster(built, report):
    infos = load_clusters(built.directory)
    dots = sum(name == "r" for name, _ in report.attributes)
    assert dots == sum(len(info.micro) for info in infos) > 0


def test_the_legend_of_the_map_names_every_cluster_and_is_folded_if_they_are_many(built):
    (info, *_) = load_clusters(built.directory)
    for number in (24, 300):
        infos = [
            replace(info, name=f"c{i:03d}", micro=(i,), micro_documents=(2,)) for i in range(number)
        ]
        page = plot_clusters(np.eye(300, 8, dtype=np.float32), infos)
        legend = page.partition('<ul class="legend">')[2]
        assert legend.count("<li>") == number
        assert ("<details><summary>colours of the 300 clusters</summary>" in page) == (
            number == 300
        )


def test_shares_are_of_all_clusters(built, report):
    clusters = load_clusters(built.directory)
    total = sum(info.tokens for info in clusters)
    for info in clusters:
        assert f"\N{NO-BREAK SPACE}{info.tokens / total:.1%}" in report.words


def test_no_heading_stands_twice(report):
    links = [value for name, value in report.attributes if name == "href"]
    assert len(links) == len(set(links)) > 4


def test_what_was_pruned_is_a_cross_on_the_map_with_its_reason(built, tmp_path):
    clusters = load_clusters(built.directory)
    centroids = np.load(built.directory / "centroids.npy")
    page = plot_clusters(centroids, clusters[1:], dict.fromkeys(clusters[0].micro, "low <b>"))
    assert page.count('data-tip="pruned: low &lt;b&gt;"') == len(clusters[0].micro)


def test_near_copies_stand_beside_what_stays(tmp_path, write_jsonl, make_records):
    records = make_records(each=10)
    long = " ".join(record["text"] for record in records[:6])
    records += [{"id": f"long {n}", "text": f"{long} The end {n}."} for n in range(2)]
    source = write_jsonl(tmp_path / "topics.jsonl", records)
    settings = BuildSettings(
        clusters=2, micro_clusters=6, vocab_size=300, min_cluster_score={}, min_document_score={}
    )
    build([str(source)], tmp_path / "out", settings, workers=1)
    html = (tmp_path / "out" / "report.html").read_text()
    (pair,) = re.findall(r'<div class="sides">(.*?)</div>', html)
    assert set(re.findall("<b>(.*?)</b>", pair)) == {"long 0", "long 1"}


def side_by_side(one, other):
    (html,) = NearCopies((near_copy(one, other),)).sections()
    return html


def test_the_words_of_a_pair_are_marked_where_they_differ():
    one, other = (
        {"id": "a<", "text": "red blue <i> green"},
        {"id": "b", "text": "red grey <i> green"},
    )
    html = side_by_side(one, other)
    assert html.count("<mark>") == 2
    assert "<mark>blue </mark>&lt;i&gt; green" in html
    assert "<b>a&lt;</b>" in html


def marked(one, other):
    html = side_by_side({"id": "a", "text": one}, {"id": "b", "text": other})
    return re.findall("<mark>(.*?)</mark>", html)


def test_of_a_pair_without_spaces_the_characters_are_marked_that_differ():
    assert marked("皆さんが部品を見る。", "皆さんが製品を見る。") == ["部", "製"]


def test_accents_that_are_written_another_way_are_no_difference_nor_is_the_cut():
    text = "proclamação à noite"
    assert marked(f"{text} em d…", f"{unicodedata.normalize('NFD', text)} em depois e d…") == [
        "depois ",
        "e ",
    ]


def test_a_pair_that_differs_late_is_shown_from_where_it_differs():
    text = "so it went on and on, " * 200
    one, other = ({"id": name, "text": f"{text}{name} {text}"} for name in ("first", "second"))
    html = side_by_side(one, other)
    assert "The first 4,400 characters are equal; the first difference is shown here." in html
    assert re.findall("<mark>(.*?)</mark>", html) == ["first ", "second "]
    assert html.count("… ") == 2


@pytest.mark.parametrize("other", ["caf\u00e9  au\nlait", "cafe\u0301 au lait"])
def test_a_pair_that_looks_the_same_says_in_what_it_differs(other):
    html = side_by_side({"id": "a", "text": "caf\u00e9 au lait"}, {"id": "b", "text": other})
    assert "These differ only in white space, or in how accents are written." in html
    assert "<mark>" not in html


def test_a_score_has_its_own_name_in_a_reason_too():
    sample = {"id": "a", "text": "b", "micro": 0} | dict.fromkeys(SCORES, 1.0)
    (html,) = loss_sections({}, {"low advertisement score": [sample]}, {})
    assert "low ad-free score" in html
    assert "advertisement" not in html


def test_after_an_append_the_report_says_whose_documents_it_shows():
    sample = {"id": "a", "text": "b", "micro": 0} | dict.fromkeys(SCORES, 1.0)
    (first,) = loss_sections({}, {"low overall": [sample]}, {})
    (later,) = loss_sections({}, {"low overall": [sample]}, {}, appended=True)
    said = "Of documents that an append left out, only near copies are shown"
    assert (said in first, said in later) == (False, True)


ARABIC = (
    "React: مكتبة لبناء واجهات المستخدم من مكونات صغيرة، وكل مكون دالة تعيد ما يظهر على الشاشة. "
)
HEBREW = "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם, וכולם חוננו בתבונה ובמצפון. "
ENGLISH = "Everyone is born free and equal in dignity and rights, and has a conscience. "


@pytest.fixture
def from_right_to_left(built, tmp_path):
    """A report on clusters in Arabic, Hebrew and English, as a file."""
    texts = {"ar": ARABIC, "he": HEBREW, "en": ENGLISH}
    clusters = [
        replace(
            info,
            terms=tuple(text.replace(",", "").replace(".", "").split()[1:9]),
            labels={language: info.documents},
            samples=({"id": f"{language}-0001", "text": text * 3},),
        )
        for info, (language, text) in zip(
            load_clusters(built.directory) * 2, texts.items(), strict=False
        )
    ]
    dropped = [
        {"id": f"{language}-0002", "text": text, "micro": number} | dict.fromkeys(SCORES, 1.0)
        for number, (language, text) in enumerate(texts.items())
    ]
    one, other = ({"id": f"ar-000{n}", "text": f"{ARABIC} {n}"} for n in (3, 4))
    why = dict.fromkeys(range(3), "cluster scores 1.0 in overall, below 2")
    more = loss_sections({}, {"pruned cluster": dropped}, why, NearCopies((near_copy(one, other),)))
    centroids = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    manifest = Manifest.load(built.directory)
    write_report(tmp_path, report_page(manifest, clusters, None, centroids, more=more, pruned=why))
    return tmp_path / "report.html"


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 768, 390])
def test_text_from_right_to_left_is_shown_so_in_a_page_from_left_to_right(
    from_right_to_left, browser, width
):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(from_right_to_left.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    styles = browser.execute_script(
        "return [...document.querySelectorAll('blockquote, td div')].map(e => {"
        "const s = getComputedStyle(e); return [e.textContent, s.direction, s.textAlign]; })"
    )
    assert len(styles) == 3 + 2 + 3 + 3
    for text, direction, align in styles:
        right = "Everyone" not in text
        assert direction == ("rtl" if right else "ltr"), text
        assert align == ("right" if right else "left"), text
    # The strongest word of a cluster stands first, on the left.
    places = browser.execute_script(
        "return [...document.querySelector('#clusters td.t').querySelectorAll('bdi')].slice(0, 2)"
        ".map(e => [e.getBoundingClientRect().top, e.getBoundingClientRect().left])"
    )
    assert sorted(places) == places
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_a_thousand_clusters_make_a_page_of_two_megabytes_at_most(built, tmp_path):
    one = load_clusters(built.directory)[0]
    sample = {"id": "document 123456", "text": "word " * 40}
    clusters = [
        replace(
            one,
            name=f"c{k:03d}",
            samples=(sample,) * 4,
            micro=tuple(range(10 * k, 10 * k + 10)),
            micro_documents=(7,) * 10,
        )
        for k in range(1000)
    ]
    centroids = np.random.default_rng(0).normal(size=(10_000, 8)).astype(np.float32)
    write_report(tmp_path, report_page(Manifest.load(built.directory), clusters, None, centroids))
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_without_known_domains_there_is_no_column_for_them(built, tmp_path, report):
    assert "known domains" in report.words
    clusters = [replace(info, labels={}) for info in load_clusters(built.directory)]
    write_report(tmp_path, report_page(Manifest.load(built.directory), clusters, None))
    assert "known domains" not in page_of(tmp_path).words


def test_several_languages_have_a_column(built, tmp_path):
    manifest, clusters = Manifest.load(built.directory), load_clusters(built.directory)
    one = [replace(info, languages={"de": info.documents}) for info in clusters]
    write_report(tmp_path, report_page(manifest, one, None))
    assert "languages" not in page_of(tmp_path).words
    one[0] = replace(one[0], languages={"fr": 3, "code": 1})
    write_report(tmp_path, report_page(manifest, one, None))
    words = page_of(tmp_path).words
    assert "languages" in words
    assert "fr 75%, code 25%" in words


def test_the_parts_of_a_cluster_add_up(built):
    for info in load_clusters(built.directory):
        assert sum(info.micro_documents) == info.documents
        assert sum(info.languages.values()) == info.documents
        assert all(sum(counts) == info.documents for counts in info.spread.values())
        assert info.effective_tokens == info.tokens


def test_a_name_at_the_right_edge_of_the_map_stands_to_the_left_of_its_dot():
    names = [(40.0, 40.0, 9.0, "c00"), (900.0, 90.0, 3.0, "c01")]
    assert _written(names, np.array([name[:3] for name in names])) == (
        '<text x="53.0" y="44.0">c00</text><text x="893.0" y="94.0" text-anchor="end">c01</text>'
    )


def test_a_name_stands_to_the_left_of_its_dot_if_another_dot_is_to_the_right():
    names = [(400.0, 40.0, 9.0, "c00"), (450.0, 90.0, 3.0, "c01")]
    dots = np.array([name[:3] for name in names])
    assert "text-anchor" not in _written(names, dots)
    written = _written(names, np.vstack([dots, [430.0, 44.0, 8.0]]))
    assert '<text x="387.0" y="44.0" text-anchor="end">c00</text>' in written


def test_clusters_with_similar_hues_have_another_lightness(built):
    info = load_clusters(built.directory)[0]
    clusters = [replace(info, name=f"c{n:02}", micro=(n,), micro_documents=(5,)) for n in range(20)]
    page = plot_clusters(np.random.default_rng(0).normal(size=(20, 4)), clusters)
    colors = re.findall(r'fill="hsl\((\d+) 65% (\d+)%\)"', page)
    assert len(set(colors)) == 20
    pairs = combinations([(int(hue), int(light)) for hue, light in colors], 2)
    near = [(a, b) for a, b in pairs if min((a[0] - b[0]) % 360, (b[0] - a[0]) % 360) < 40]
    assert near
    assert all(a[1] != b[1] for a, b in near)


def test_clusters_without_copies_are_counted_below_the_table_of_copies(built):
    info = load_clusters(built.directory)[0]
    some = replace(info, copy_counts=CopyCounts(documents=1, exact=1))
    (html,) = copy_sections([some, *[replace(info, copy_counts=CopyCounts())] * 2])
    assert "Not in the table: 2 clusters without copies." in html
    (html,) = copy_sections([some])
    assert "Not in the table" not in html
