"""Copies stay known: the catalogue, `climb inspect` and the report count those left out."""

from collections import Counter
from dataclasses import replace

import pytest
from click.testing import CliRunner

from climbstream.builder import append
from climbstream.builder.pipeline import build
from climbstream.builder.report.copies import copy_sections
from climbstream.builder.report.near_copies import NearCopies
from climbstream.builder.settings import EQUAL_TEXT, BuildSettings
from climbstream.loader.cli.shards import inspect
from climbstream.loader.core.files import read_json
from climbstream.loader.formats.cluster_tables import copies_text
from climbstream.loader.formats.clusters import ClusterInfo, CopyCounts, load_clusters

SETTINGS = BuildSettings(
    clusters=2, micro_clusters=6, dims=8, vocab_size=400, min_cluster_score={}, no_prune=True
)
NEAR = "nearly the same as another"
COUNTS = ("exact_copies", "near_copies", "source_count")


@pytest.fixture(scope="module")
def records(make_records):
    """Records without labels."""
    return [{**record, "label": ""} for record in make_records(each=8)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory, records, write_jsonl):
    """Two files with copies of some records, and one file to append."""
    folder = tmp_path_factory.mktemp("in")
    one, two, three = records[:3]
    near = {"id": "near", "label": "", "text": f"{two['text']} and so on"}
    parts = (
        [*records, {**one, "id": "one again"}, near],
        [{**one, "id": "one elsewhere"}, {**near, "id": "near again"}, {**three, "id": "three"}],
        [{**one, "id": "one late"}, {"id": "new", "text": "Of " + three["text"][::-1]}],
    )
    return [str(write_jsonl(folder / f"{n}.jsonl", part)) for n, part in enumerate(parts)]


@pytest.fixture(scope="module")
def made(tmp_path_factory, sources, engines):
    out = tmp_path_factory.mktemp("made") / "shards"
    build(sources[:2], out, SETTINGS)
    return out


@pytest.fixture(scope="module")
def rows(made, catalogue):
    return catalogue(made)


def test_a_document_that_stays_has_the_numbers_of_its_copies_and_sources(rows, records):
    counts = {row["id"]: tuple(row[name] for name in COUNTS) for row in rows}
    one, two, three = (record["id"] for record in records[:3])
    assert (counts[one], counts[three]) == ((2, 0, 2), (1, 0, 2))
    # The longer one of two near copies stays.
    assert (counts["near"], counts[two]) == ((1, 1, 2), (None, None, None))
    others = {counts[record["id"]] for record in records[3:]}
    assert others == {(0, 0, 1)}


def test_all_dropped_copies_are_counted_once_and_name_their_originals(rows):
    dropped = Counter(row["why"] for row in rows)
    assert sum(row["exact_copies"] or 0 for row in rows) == dropped[EQUAL_TEXT] == 4
    assert sum(row["near_copies"] or 0 for row in rows) == dropped[NEAR] == 1
    for row in rows:
        assert (row["copy_of"] is None) == (row["why"] not in (EQUAL_TEXT, NEAR))
        if row["why"] == EQUAL_TEXT:
            assert rows[row["copy_of"]]["text_hash"] == row["text_hash"]


def test_clusters_report_and_inspect_sum_up_what_the_catalogue_says(made, rows):
    infos = load_clusters(made)
    for info in infos:
        ours = [row for row in rows if row["cluster"] == info.name]
        assert info.copy_counts == CopyCounts(
            documents=sum(row["exact_copies"] + row["near_copies"] > 0 for row in ours),
            exact=sum(row["exact_copies"] for row in ours),
            near=sum(row["near_copies"] for row in ours),
            several_sources=sum(row["source_count"] > 1 for row in ours),
        )
    line = "copies left out: 4 exact and 1 near, of 3 documents in shards; 3 are in several sources"
    assert line in CliRunner().invoke(inspect, [str(made)]).output.splitlines()
    assert ">Copies<" in (made / "report.html").read_text()


def test_labels_are_the_sources_where_there_are_labels(
    tmp_path, records, write_jsonl, engines, catalogue
):
    one, two = records[:2]
    some = [{**r, "label": "web"} for r in records]
    some += [{**one, "id": "a", "label": "books"}, {**two, "id": "b", "label": "web"}]
    build([str(write_jsonl(tmp_path / "a.jsonl", some))], tmp_path / "out", SETTINGS)
    counts = {row["id"]: row["source_count"] for row in catalogue(tmp_path / "out")}
    assert (counts[one["id"]], counts[two["id"]]) == (2, 1)


def test_an_append_leaves_the_counts_and_its_copies_name_the_old_rows(
    made, sources, tmp_path, engines, catalogue, rows, records
):
    out = tmp_path / "shards"
    build(sources[:2], out, SETTINGS)
    append(sources[2:], out)
    grown = catalogue(out)
    assert grown[: len(rows)] == rows
    late, new = grown[len(rows) :]
    assert (late["why"], grown[late["copy_of"]]["id"]) == (EQUAL_TEXT, records[0]["id"])
    assert tuple(new[name] for name in COUNTS) == (0, 0, 1)
    assert copies_text(load_clusters(out)) == copies_text(load_clusters(made))
    # The exact copy is not shown as a near copy.
    copies = NearCopies.from_json(read_json(out / "clusters.json")["near_copies"])
    assert (len(copies.build), copies.append) == (1, ())


def test_copies_that_are_kept_are_not_counted(sources, tmp_path, engines, catalogue):
    out = tmp_path / "shards"
    build(sources[:2], out, replace(SETTINGS, keep_duplicates=True))
    assert {row[name] for row in catalogue(out) for name in COUNTS} == {None}
    infos = load_clusters(out)
    assert [info.copy_counts for info in infos] == [None] * len(infos)
    assert (copies_text(infos), copy_sections(infos)) == ("", [])


def test_the_description_of_an_earlier_version_has_no_counts(made):
    info = load_clusters(made)[0].to_json()
    del info["copy_counts"]
    assert ClusterInfo.from_json(info).copy_counts is None
    assert "copy_counts" not in ClusterInfo.from_json(info).to_json()
