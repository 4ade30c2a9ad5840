"""Cells from end to end: stored as clusters, told apart by axes, and put together by groupings."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from small_build import SMALL_BUILD

from climbstream.builder import append, build
from climbstream.builder.report.cells import cell_sections
from climbstream.builder.settings import BuildSettings
from climbstream.loader import Manifest, MixtureLoader
from climbstream.loader.cli.main import run
from climbstream.loader.core.files import read_json
from climbstream.loader.core.html_page import page
from climbstream.loader.formats.clusters import load_clusters
from climbstream.loader.formats.heldout import read_heldout
from climbstream.loader.tools.verify import verify_directory

SETTINGS = {
    **SMALL_BUILD,
    "holdout": 0.1,
    "tiers": 3,
    "keep": ["score"],
    "scores": {"overall": "column:score"},
    "tier_score": "overall",
}
GREEK = "Η θάλασσα είναι ήρεμη και το πλοίο φεύγει από το λιμάνι με πολλούς ανθρώπους. "


def records_of(make_records, **how):
    """English records and Greek ones, with scores that all differ."""
    records = make_records(each=20, **how)
    for number, record in enumerate(records):
        if number % 4 == 0:
            record["text"] = GREEK * (2 + number % 3) + f"{number} {how}"
        record["score"] = 5 * (number * 37 % len(records)) / len(records)
    return records


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, make_records, write_jsonl):
    folder = tmp_path_factory.mktemp("in")
    return str(write_jsonl(folder / "corpus.jsonl", records_of(make_records)))


@pytest.fixture(scope="module")
def cells(tmp_path_factory, corpus):
    """A directory of cells: three topics, two languages, three tiers."""
    out = tmp_path_factory.mktemp("cells") / "shards"
    build([corpus], out, BuildSettings(**SETTINGS), workers=1)
    return out


@pytest.fixture(scope="module")
def plain(tmp_path_factory, corpus):
    """The same corpus without cells."""
    out = tmp_path_factory.mktemp("plain") / "shards"
    settings = {k: v for k, v in SETTINGS.items() if not k.startswith("tier")}
    build([corpus], out, BuildSettings(**settings), workers=1)
    return out


def axes_of(directory):
    return {cluster.name: cluster.axes for cluster in Manifest.load(directory).clusters}


def stored(rows):
    return [row for row in rows if row["why"] is None]


def test_each_document_lies_in_the_cell_of_its_topic_language_and_tier(cells, plain, catalogue):
    topics = {row["id"]: row["cluster"] for row in stored(catalogue(plain))}
    axes = axes_of(cells)
    scores: dict = {}
    for row in stored(catalogue(cells)):
        cell = axes[row["cluster"]]
        assert row["cluster"] == "-".join(cell.values())
        assert cell["topic"] == topics[row["id"]]
        assert cell["language"] == row["language"]
        group = scores.setdefault((cell["topic"], cell["language"]), {})
        group.setdefault(cell["tier"], []).append(float(row["score"]))
    for tiers in scores.values():
        ordered = [tiers[tier] for tier in sorted(tiers)]
        sizes = [len(tier) for tier in ordered]
        assert max(sizes) - min(sizes) <= 1
        for low, high in pairwise(ordered):
            assert max(low) <= min(high)


def test_manifest_and_clusters_carry_the_axes_and_the_directory_is_whole(cells):
    axes = axes_of(cells)
    assert {(a["language"], a["tier"]) for a in axes.values()} == {
        (language, tier) for language in ("en", "el") for tier in ("t0", "t1", "t2")
    }
    infos = {info.name: info for info in load_clusters(cells)}
    assert {name: info.axes for name, info in infos.items()} == axes
    manifest = Manifest.load(cells)
    for cluster in manifest.clusters:
        info = infos[cluster.name]
        assert sum(info.micro_documents) == info.documents == cluster.documents
    assert not verify_directory(cells).faults
    report = (cells / "report.html").read_text()
    assert f"{len(axes)} cells of 3 clusters" in report
    assert all(f'data-tip="{name}: ' in report for name in axes)


def test_a_build_of_cells_serves_the_same_documents_as_one_without(cells, plain, catalogue):
    def texts(directory):
        return Counter((row["id"], row["why"], row["tokens"]) for row in catalogue(directory))

    assert texts(cells) == texts(plain)
    for name in ("tokenizer.json", "centroids.npy", "model.npz"):
        assert (cells / name).read_bytes() == (plain / name).read_bytes()
    assert read_json(cells / "clusters.json")["map"] == read_json(plain / "clusters.json")["map"]


def test_held_out_documents_name_the_cell_that_they_would_be_in(cells):
    held = [*read_heldout(cells)]
    assert held
    assert {document.cluster for document in held} <= axes_of(cells).keys()


def test_without_tiers_nothing_tells_of_cells(plain):
    assert "tiers" not in Manifest.load(plain).provenance["settings"]
    assert "cells" not in read_json(plain / "clusters.json")
    for name in ("manifest.json", "clusters.json"):
        assert '"axes"' not in (plain / name).read_text()
    assert '<section id="cells">' not in (plain / "report.html").read_text()


@pytest.mark.slow
def test_five_tiers_are_seen_on_a_phone_without_moving_the_table_and_sort_by_size(
    cells, tmp_path, browser
):
    one = load_clusters(cells)[0]
    sizes = [[10 ** (3 + tier) * (9 - topic) for tier in range(5)] for topic in range(9)]
    infos = [
        replace(one, name=f"c{topic}-de-t{tier}", tokens=tokens)
        for topic, row in enumerate(sizes)
        for tier, tokens in enumerate(row)
    ]
    infos = [
        replace(
            info, axes=dict(zip(("topic", "language", "tier"), info.name.split("-"), strict=True))
        )
        for info in infos
    ]
    (tmp_path / "report.html").write_bytes(page("Report", "Cells.", cell_sections(infos)))
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get((tmp_path / "report.html").as_uri())
    wide, room = browser.execute_script(
        "const d = document.querySelector('#cells .wide'); return [d.scrollWidth, d.clientWidth]"
    )
    assert wide <= room
    last = browser.find_element("css selector", "#cells th:last-child button")
    last.click()  # the largest first
    last.click()
    shown = [e.text for e in browser.find_elements("css selector", "#cells td:last-child")]
    assert shown == ["10M", "20M", "30M", "40M", "50M", "60M", "70M", "80M", "90M"]
    tip = browser.find_element("css selector", "#cells td:last-child span")
    assert "c8-de-t4: 10,000,000 tokens in" in tip.get_attribute("data-tip")


LONG = ("incrementaldecoder_configuration_of_parsers", "Donaudampfschifffahrtsgesellschaft")


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 360])
@pytest.mark.parametrize("count", [8, 60, 1000])
def test_long_words_of_micro_cells_break_so_that_their_table_fits_the_screen_of_a_phone(
    cells, tmp_path, browser, count, width
):
    one = load_clusters(cells)[0]
    infos = [
        replace(
            one,
            name=f"c{number // 12:02d}-m{number:03d}",
            axes={"topic": f"c{number // 12:02d}", "micro": f"m{number:03d}"},
            terms=(*LONG, "sea"),
            tokens=100_000,
        )
        for number in range(count)
    ]
    (tmp_path / "report.html").write_bytes(page("Report", "Cells.", cell_sections(infos)))
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get((tmp_path / "report.html").as_uri())
    across, wide, room = browser.execute_script(
        "const d = document.querySelector('#cells .wide');"
        "return [document.documentElement.scrollWidth, d.scrollWidth, d.clientWidth]"
    )
    assert across <= width
    assert wide <= room


def test_cells_with_less_than_a_row_are_named_on_the_console_and_in_the_report(
    corpus, tmp_path, monkeypatch, caplog
):
    def built(name, length):
        monkeypatch.setattr("climbstream.builder.report.cells.ROW", length)
        caplog.clear()
        out = tmp_path / name
        build([corpus], out, BuildSettings(**SETTINGS), workers=1)
        shown = [
            record.message
            for record in caplog.records
            if "training with rows of that length" in record.message
        ]
        return out, Manifest.load(out).clusters, shown

    out, cells, _ = built("first", 1)
    row = sorted(cell.tokens for cell in cells)[-2]
    out, cells, (said,) = built("second", row)
    small = sorted((cell for cell in cells if cell.tokens < row), key=lambda cell: cell.tokens)
    assert 8 < len(small) < len(cells)
    assert f"{len(small)} of {len(cells)} cells have fewer than" in said
    assert f"This is {sum(cell.tokens for cell in small):,} tokens in total" in said
    for cell in small[:8]:
        assert f"{cell.name} ({cell.tokens:,})" in said
    assert f"and {len(small) - 8} more" in said
    assert said.strip() in (out / "report.html").read_text()
    out, _, shown = built("third", 1)
    assert not shown
    assert "training with rows of that length" not in (out / "report.html").read_text()


@pytest.fixture(scope="module")
def micro(tmp_path_factory, corpus):
    """The same corpus in cells by micro-cluster and language."""
    out = tmp_path_factory.mktemp("micro") / "shards"
    settings = {k: v for k, v in SETTINGS.items() if not k.startswith("tier")}
    build([corpus], out, BuildSettings(**settings, cells="micro"), workers=1)
    return out


def test_cells_of_micro_clusters_hold_the_documents_of_one_each(micro, catalogue):
    axes = axes_of(micro)
    assert len({a["micro"] for a in axes.values()}) > len({a["topic"] for a in axes.values()}) == 3
    home = read_json(micro / "clusters.json")["map"]["cluster"]
    for row in stored(catalogue(micro)):
        cell = axes[row["cluster"]]
        assert cell == {
            "topic": f"c{home[row['micro']]:02d}",
            "micro": f"m{row['micro']:02d}",
            "language": row["language"],
        }
    for info in load_clusters(micro):
        assert info.micro == (int(info.axes["micro"][1:]),)
        assert info.micro_documents == (info.documents,)
    assert {document.cluster for document in read_heldout(micro)} <= axes.keys()
    assert not verify_directory(micro).faults
    report = (micro / "report.html").read_text()
    assert f"{len(axes)} cells of 3 clusters" in report
    assert all(f'data-tip="{name}: ' in report for name in axes)


def test_a_micro_cluster_has_words_of_its_own_documents_and_a_topic_those_of_all(micro):
    topics: dict = {}
    for info in load_clusters(micro):
        topics.setdefault(info.axes["topic"], {}).setdefault(info.axes["micro"], info.terms)
    assert any(len({*words.values()}) > 1 for words in topics.values())
    report = (micro / "report.html").read_text()
    shown = re.findall(r"<td class=t><b>([^<]*)</b>", report)
    assert len(shown) == len(topics)
    for heading, words in zip(shown, topics.values(), strict=True):
        assert {*heading.split(", ")} <= {term for terms in words.values() for term in terms}
        for terms in words.values():
            assert f"<td class=t>{', '.join(terms[:4])}</td>" in report


def test_cells_of_micro_clusters_are_put_together_to_the_clusters_of_the_merge(
    micro, tmp_path, corpus, catalogue
):
    settings = {k: v for k, v in SETTINGS.items() if not k.startswith("tier")}
    whole = tmp_path / "whole"
    build([corpus], whole, BuildSettings(**settings), workers=1)
    out = shutil.copytree(micro, tmp_path / "shards")
    assert run(["regroup", str(out), "--by", "topic"]) == 0
    assert run(["regroup", str(out), "--by", "micro"]) == 0
    merged = Manifest.load(out / "groupings" / "topic")
    assert [(c.name, c.tokens, c.documents) for c in merged.clusters] == [
        (c.name, c.tokens, c.documents) for c in Manifest.load(whole).clusters
    ]
    names = {row["id"]: row["cluster"] for row in stored(catalogue(whole))}
    for row in stored(catalogue(out)):
        assert row["cluster"].startswith(names[row["id"]])
    fine = Manifest.load(out / "groupings" / "micro")
    assert {*fine.names} == {a["micro"] for a in axes_of(micro).values()}


def test_cells_of_micro_clusters_take_tiers_and_appended_documents(
    corpus, tmp_path, make_records, write_jsonl, catalogue
):
    out = tmp_path / "shards"
    settings = BuildSettings(**SETTINGS, cells="micro")
    build([corpus], out, settings, workers=1)
    before, axes = len(catalogue(out)), axes_of(out)
    assert {*next(iter(axes.values()))} == {"topic", "micro", "language", "tier"}
    records = records_of(make_records, seed=5)
    for record in records:
        record["id"] = f"new {record['id']}"
    append([str(write_jsonl(tmp_path / "more.jsonl", records))], out, workers=1)
    assert axes_of(out) == axes
    added = stored(catalogue(out)[before:])
    assert len(added) > 50
    with_cells = {a["micro"] for a in axes.values()}
    for row in added:
        micro = f"m{row['micro']:02d}"
        assert axes[row["cluster"]]["micro"] == micro or micro not in with_cells
    assert not verify_directory(out).faults


@pytest.mark.slow
def test_cells_are_the_same_bytes_by_several_processes(cells, corpus, tmp_path, all_bytes):
    build([corpus], tmp_path / "again", BuildSettings(**SETTINGS), workers=3)
    assert all_bytes(tmp_path / "again") == all_bytes(cells)


def test_an_append_puts_documents_into_cells_by_the_borders_of_the_build(
    cells, tmp_path, make_records, write_jsonl, catalogue
):
    out = shutil.copytree(cells, tmp_path / "shards")
    records = records_of(make_records, seed=5)
    for record in records:
        record["id"] = f"new {record['id']}"
    before = len(catalogue(out))
    append([str(write_jsonl(tmp_path / "more.jsonl", records))], out, workers=1)
    kept = read_json(cells / "clusters.json")["cells"]
    assert read_json(out / "clusters.json")["cells"] == kept
    borders = {(f"c{g['topic']:02d}", g["language"]): g["borders"] for g in kept["groups"]}
    added = stored(catalogue(out)[before:])
    assert len(added) > 50
    for row in added:
        cell = axes_of(out)[row["cluster"]]
        assert cell["language"] == row["language"]
        border = borders[cell["topic"], cell["language"]]
        tier = sum(np.float16(float(row["score"])) >= np.float16(least) for least in border)
        assert cell["tier"] == f"t{tier}"
    assert axes_of(out) == axes_of(cells)
    assert not verify_directory(out).faults


@pytest.mark.parametrize(
    ("by", "name", "groups"),
    [
        ("topic", "topic", {"c00", "c01", "c02"}),
        ("tier", "tier", {"t0", "t1", "t2"}),
        ("language", "language", {"en", "el"}),
        ("topic,tier", "topic-tier", {f"c0{k}-t{t}" for k in range(3) for t in range(3)}),
    ],
)
def test_cells_are_regrouped_by_axes(cells, tmp_path, capsys, by, name, groups):
    out = shutil.copytree(cells, tmp_path / "shards")
    assert run(["regroup", str(out), "--by", by, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["members"].keys() == groups
    manifest = Manifest.load(out / "groupings" / name)
    for cluster in manifest.clusters:
        own = [*cluster.axes.values()]
        assert "-".join(cluster.axes[axis] for axis in by.split(",")) == cluster.name
        for member in manifest.members[cluster.name]:
            assert {*own} <= {*member.axes.values()}
    loader = MixtureLoader(
        out / "groupings" / name, seq_len=16, batch_rows=8, cache_dir=tmp_path / "cache"
    )
    shares = np.array([*loader.mixture.weights.values()])
    served = np.zeros(len(groups))
    for step in range(1, 60):
        served += np.bincount(next(loader)["cluster_ids"], minlength=len(groups))
        assert np.abs(served - 8 * step * shares / shares.sum()).max() <= 1


def test_what_cannot_be_regrouped_by_is_told(cells, plain, tmp_path, capsys):
    assert run(["regroup", str(plain), "--by", "topic"]) == 2
    assert "climb build --tiers N or --cells micro makes cells" in capsys.readouterr().err
    assert run(["regroup", str(cells), "--by", "quality"]) == 2
    assert "the axes of cells are topic, micro, language, tier" in capsys.readouterr().err
    one = tmp_path / "one"
    shutil.copytree(cells, one)
    value = read_json(one / "manifest.json")
    for cluster in value["clusters"]:
        del cluster["axes"]["language"]
    (one / "manifest.json").write_text(json.dumps(value))
    assert run(["regroup", str(one), "--by", "language"]) == 2
    assert "have no axis language; their axes are topic, tier" in capsys.readouterr().err


def test_axes_of_a_hostile_manifest_name_nothing_outside(cells, tmp_path, capsys):
    out = shutil.copytree(cells, tmp_path / "shards")
    for axes in ({"topic": "../../x"}, {"mood": "t0"}, {"tier": ""}):
        value = read_json(cells / "manifest.json")
        value["clusters"][0]["axes"] = axes
        (out / "manifest.json").write_text(json.dumps(value))
        assert run(["regroup", str(out), "--by", "topic"]) == 3
        assert "manifest.json: " in capsys.readouterr().err
    assert not (out / "groupings").exists()
