"""Licences: documents are kept by licence, none vanishes in silence, and each cluster says its."""

import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from small_build import SMALL_BUILD

from climbstream.builder import append, build
from climbstream.builder.dataset_card import license_column, license_rows
from climbstream.builder.exporter.shards import export_shards
from climbstream.builder.licenses import is_kept
from climbstream.builder.publisher.repo_files import PublishSettings, collect
from climbstream.builder.settings import BuildSettings
from climbstream.builder.writers.license_counts import _named
from climbstream.loader import Manifest
from climbstream.loader.cli.main import run
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.formats.cluster_tables import licenses_text
from climbstream.loader.formats.manifest import (
    ClusterEntry,
    Size,
    join_licenses,
    single_licenses,
)
from climbstream.loader.tools.regroup import Grouping, regroup
from climbstream.loader.tools.verify import verify_directory

STATED = ["MIT", "mit", ["Apache-2.0", "MIT"], "GPL-3.0", "", None]


def write_corpus(folder, make_records, write_jsonl, name="corpus.jsonl", **how):
    records = make_records(each=20, **how)
    for number, record in enumerate(records):
        record["id"] = f"{name} {record['id']}"
        record["license"] = STATED[number % len(STATED)]
    return str(write_jsonl(folder / name, records))


@pytest.fixture
def corpus(tmp_path, make_records, write_jsonl):
    """A corpus with a licence in turn: of 120 documents 20 under each, 40 under none."""
    return write_corpus(tmp_path, make_records, write_jsonl)


def built(corpus, out, licenses=(), **more):
    settings = BuildSettings(**SMALL_BUILD, licenses=list(licenses), **more)
    return build([corpus], out, settings, workers=1)


def stage_of(manifest):
    return next(s for s in manifest.conservation if s["stage"] == "licences")


def totals(manifest):
    return join_licenses(cluster.licenses for cluster in manifest.clusters)


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["MIT"], "MIT|mit"),
        ([" mit ", "apache-2.0"], "MIT|mit|Apache-2.0, MIT"),
        (["MIT", "unknown"], "MIT|mit|"),
        (["!MIT"], "GPL-3.0|"),
        (["!unknown"], "MIT|mit|Apache-2.0, MIT|GPL-3.0"),
        (["Apache-2.0, MIT"], "Apache-2.0, MIT"),
        (["noassertion"], ""),
    ],
)
def test_of_several_licences_all_must_be_kept_and_none_left_out(names, kept):
    stated = ["MIT", "mit", "Apache-2.0, MIT", "GPL-3.0", ""]
    assert "|".join(s for s, k in zip(stated, is_kept(stated, names), strict=True) if k) == kept


@pytest.mark.parametrize(
    ("names", "said"),
    [(["MIT", "!GPL-3.0"], "MIT to keep and !GPL-3.0 to leave out"), (["!"], "empty name")],
)
def test_names_that_contradict_are_refused(names, said):
    with pytest.raises(InvalidDataError, match=said):
        BuildSettings(licenses=names)


def test_documents_of_other_licences_are_dropped_counted_and_listed(corpus, tmp_path, catalogue):
    manifest = built(corpus, tmp_path / "out", ["MIT", "Apache-2.0"])
    stage = stage_of(manifest)
    assert stage["dropped"]["licence not allowed"]["documents"] == 60
    assert {name: n["documents"] for name, n in stage["licenses"].items()} == {
        "unknown": 40,
        "GPL-3.0": 20,
    }
    why = Counter((row["license"], row["why"]) for row in catalogue(tmp_path / "out"))
    assert why["GPL-3.0", "licence not allowed"] == 20
    assert why["", "licence not allowed"] == 40
    assert {name for name, reason in why if reason is None} == {"MIT", "mit", "Apache-2.0, MIT"}
    assert not verify_directory(tmp_path / "out").faults


def test_what_is_fitted_has_not_seen_other_licences(tmp_path, make_records, write_jsonl):
    def tokenizer(name, words, licenses):
        records = make_records(each=20)
        for record in records[::2]:
            record |= {"license": "GPL-3.0", "text": words}
        corpus = str(write_jsonl(tmp_path / f"{name}.jsonl", records))
        built(corpus, tmp_path / name, licenses, keep_duplicates=True)
        return (tmp_path / name / "tokenizer.json").read_bytes()

    one = tokenizer("one", "quokka wombat numbat " * 9, ["CC0-1.0"])
    other = tokenizer("other", "zeppelin airship balloon " * 9, ["CC0-1.0"])
    assert one == other
    assert b"quokka" not in one


def test_a_copy_under_a_licence_that_is_kept_stays(tmp_path, make_records, write_jsonl, catalogue):
    records = make_records(each=20)
    records[0]["license"] = "GPL-3.0"
    records.append({**records[0], "id": "free copy", "license": "CC0-1.0"})
    corpus = str(write_jsonl(tmp_path / "corpus.jsonl", records))
    built(corpus, tmp_path / "out", ["CC0-1.0"])
    rows = {row["id"]: row["why"] for row in catalogue(tmp_path / "out")}
    assert rows["free copy"] is None
    assert rows[records[0]["id"]] == "licence not allowed"


def test_a_card_lists_a_licence_once_however_its_case_is_spelled():
    sizes = {"mit": Size(1, 10), "MIT": Size(2, 20), "CC0-1.0": Size(1, 5)}
    entry = ClusterEntry(name="c00", tokens=35, documents=4, index_hash="0", licenses=sizes)
    manifest = SimpleNamespace(clusters=[entry], tokens=35)
    assert license_rows(manifest)[2:] == [
        "| MIT | 3 | 30 | 85.7% |",
        "| CC0-1.0 | 1 | 5 | 14.3% |",
    ]
    assert license_column(manifest) == {"licences by tokens": ["MIT 86%, CC0-1.0 14%"]}


def test_a_licence_has_one_spelling_in_all_rows_of_a_card():
    sizes = [{"mit": Size(1, 10)}, {"MIT": Size(2, 20)}]
    clusters = [
        ClusterEntry(name=f"c{k}", tokens=30, documents=3, index_hash="0", licenses=each)
        for k, each in enumerate(sizes)
    ]
    manifest = SimpleNamespace(clusters=clusters, tokens=60)
    assert license_column(manifest) == {"licences by tokens": ["MIT 33%", "MIT 67%"]}
    assert licenses_text(sizes[0], ["MIT"]) == "MIT 10 tokens in 1 document"


def test_each_cluster_says_what_it_holds_by_licence(corpus, tmp_path, catalogue):
    manifest = built(corpus, tmp_path / "out")
    counted: Counter = Counter()
    for row in catalogue(tmp_path / "out"):
        if row["why"] is None:
            counted[row["cluster"], row["license"] or "unknown", "documents"] += 1
            counted[row["cluster"], row["license"] or "unknown", "tokens"] += row["tokens"]
    noted = {
        (cluster.name, name, unit): getattr(size, unit)
        for cluster in manifest.clusters
        for name, size in cluster.licenses.items()
        for unit in ("documents", "tokens")
    }
    assert noted == counted
    assert Manifest.load(tmp_path / "out") == manifest
    for cluster in manifest.clusters:
        assert sum(size.tokens for size in cluster.licenses.values()) == cluster.tokens
    folder = regroup(tmp_path / "out", "all", Grouping({"all": tuple(manifest.names)}))
    assert Manifest.load(folder).clusters[0].licenses == totals(manifest)


def test_the_report_says_what_each_cluster_holds_by_licence_and_cards_what_all_hold(
    corpus, tmp_path
):
    manifest = built(corpus, tmp_path / "out")
    export_shards(str(tmp_path / "out"), tmp_path / "rows", "jsonl", workers=1)
    report = (tmp_path / "out" / "report.html").read_text()
    cards = [
        (tmp_path / "rows" / "README.md").read_text(),
        collect(tmp_path / "out", "me/web", tmp_path / "work").files["README.md"].decode(),
    ]
    for cluster in manifest.clusters:
        assert f"GPL-3.0 {cluster.licenses['GPL-3.0'].tokens:,} tokens" in report
    for name, documents in (("GPL-3.0", 20), ("MIT", 60), ("Apache-2.0", 20)):
        size = single_licenses(totals(manifest))[name]
        assert size.documents == documents
        for card in cards:
            assert f"| {name} | {documents} | {size.tokens:,} | " in card
            assert "| mit |" not in card
            assert "A document with several licences counts for each of them." in card
        assert f"<td>{name}</td>" in report


def test_an_append_goes_by_the_same_licences_and_adds_up(
    corpus, tmp_path, make_records, write_jsonl
):
    before = built(corpus, tmp_path / "out", ["!GPL-3.0"])
    more = write_corpus(tmp_path, make_records, write_jsonl, "more.jsonl", seed=5)
    after = append([more], tmp_path / "out", workers=1)
    assert stage_of(after)["licenses"]["GPL-3.0"]["documents"] == 40
    assert "GPL-3.0" not in totals(after)
    for cluster in after.clusters:
        assert join_licenses([cluster.licenses]) == cluster.licenses
        assert sum(size.documents for size in cluster.licenses.values()) == cluster.documents
    assert totals(after)["MIT"].documents == 2 * totals(before)["MIT"].documents
    assert before.license == after.license == "MIT, unknown, Apache-2.0"


def test_an_append_names_the_union_of_many_licences(tmp_path, make_records, write_jsonl, capsys):
    first, more = make_records(each=20), make_records(each=14, seed=5)
    for number, record in enumerate([*first, *more]):
        record["license"] = f"L{number % 13}"
        record["id"] = f"document {number}"
    sources = [
        str(write_jsonl(tmp_path / name, part))
        for name, part in (("a.jsonl", first), ("b.jsonl", more))
    ]
    before = built(sources[0], tmp_path / "out")
    assert before.license.endswith(" and 3 more")
    assert "state no licence" not in capsys.readouterr().err
    after = append(sources[1:], tmp_path / "out", workers=1)
    names = after.license.removesuffix(" and 3 more").split(", ")
    assert len({*names}) == len(names) == 10


def test_documents_without_a_licence_are_told_with_their_sources(
    tmp_path, make_records, write_jsonl, capsys
):
    (tmp_path / "in").mkdir()
    for name, license_ in (("some", "MIT"), ("none", "")):
        records = make_records(each=10, seed=len(license_))
        write_jsonl(
            tmp_path / "in" / f"{name}.jsonl",
            [
                {**record, "license": license_, "id": f"{name} {i}"}
                for i, record in enumerate(records)
            ],
        )
    built(str(tmp_path / "in"), tmp_path / "out")
    said = capsys.readouterr().err
    assert "60 documents (" in said
    assert "of tokens) state no licence; no document of none.jsonl has one in 'license'" in said
    assert run(["inspect", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("licence: unknown, MIT; 60 documents (")
    counts = re.findall(r"(MIT|unknown) [\d,]+ tokens in 60 documents", lines[2])
    assert lines[2].startswith("by licence: ")
    assert sorted(counts) == ["MIT", "unknown"]


def card_of(folder, tmp_path, **settings):
    """Metadata and text of the card of a publication."""
    publication = collect(folder, "me/web", tmp_path / "work", PublishSettings(**settings))
    text = publication.files["README.md"].decode()
    return yaml.safe_load(text.split("---")[1]), text


def test_a_card_states_no_licence_for_documents_that_state_none(corpus, tmp_path):
    built(corpus, tmp_path / "out", ["MIT", "unknown"])
    path = tmp_path / "out" / "manifest.json"
    for license_ in ("MIT, unknown", "MIT"):  # earlier versions left out unknown
        path.write_text(json.dumps({**json.loads(path.read_text()), "license": license_}))
        metadata, text = card_of(tmp_path / "out", tmp_path)
        assert {*metadata["license_name"].split("-")} == {"mit", "unknown"}
        assert metadata["license"] == "other"
        assert "40 documents (" in text


def test_an_export_and_its_import_state_the_same_licence(corpus, tmp_path, capsys):
    manifest = built(corpus, tmp_path / "out", ["MIT", "unknown"])
    export_shards(str(tmp_path / "out"), tmp_path / "rows", "jsonl", text=True, workers=1)
    assert run(["import", str(tmp_path / "rows"), "--out", str(tmp_path / "again")]) == 0
    said = "a part of the documents states no licence; how many, was not counted"
    assert f"licence: {manifest.license}; {said}" in capsys.readouterr().out
    metadata, text = card_of(tmp_path / "again", tmp_path)
    assert {*metadata["license_name"].split("-")} == {"mit", "unknown"}
    assert "A part of the documents states no licence" in text


@pytest.mark.parametrize("names", [["unknown", "UNKNOWN"], ["NOASSERTION", "None"], ["", "NONE"]])
def test_all_names_of_no_licence_count_as_unknown(tmp_path, make_records, write_jsonl, names):
    records = make_records(each=10)
    for number, record in enumerate(records):
        record["license"] = [*names, ["NOASSERTION", "none"], "MIT"][number % 4]
    manifest = built(str(write_jsonl(tmp_path / "a.jsonl", records)), tmp_path / "out")
    assert {name: size.documents for name, size in totals(manifest).items()} == {
        "unknown": 45,
        "MIT": 15,
    }
    assert manifest.license == "unknown, MIT"


def test_an_append_of_licensed_documents_does_not_hide_those_without(
    tmp_path, make_records, write_jsonl
):
    records = make_records(each=20)
    for record in records:
        record["license"] = "unknown"
    records[0]["license"] = "MIT"
    before = built(str(write_jsonl(tmp_path / "a.jsonl", records)), tmp_path / "out")
    assert before.license == "unknown, MIT"
    more = [{**record, "license": "MIT"} for record in make_records(each=5, seed=5)]
    more = [{**record, "id": f"more {record['id']}"} for record in more]
    after = append([str(write_jsonl(tmp_path / "b.jsonl", more))], tmp_path / "out", workers=1)
    assert after.license == "unknown, MIT"


def test_many_sources_without_a_licence_are_counted():
    names = [f"{i}.txt" for i in range(371)]
    assert _named(names[:2]) == "0.txt, 1.txt"
    assert _named(names) == "371 sources, such as 0.txt,"


def test_documents_that_stated_none_are_unknown_when_later_ones_state_one(
    tmp_path, make_records, write_jsonl
):
    records = make_records(each=20)
    for record in records:
        del record["license"]
    first = str(write_jsonl(tmp_path / "first.jsonl", records))
    before = built(first, tmp_path / "out")
    assert not totals(before)
    assert "licenses" not in json.loads((tmp_path / "out" / "manifest.json").read_text())
    more = write_corpus(tmp_path, make_records, write_jsonl, "more.jsonl", seed=5)
    after = append([more], tmp_path / "out", workers=1)
    assert totals(after)["unknown"].documents == 120 + 40
    assert totals(after)["MIT"] == Size(20, totals(after)["MIT"].tokens)


def test_a_name_that_no_document_has_is_told_and_one_that_keeps_none_is_refused(
    corpus, tmp_path, capsys
):
    (tmp_path / "allow.txt").write_text("# free\nMIT\n\nBSD-2-Clause\n")
    asked = ["build", corpus, "--clusters", "3", "--vocab-size", "400", "--out"]
    asked += [str(tmp_path / "out"), "--workers", "1"]
    assert run([*asked, "--licenses", "Nothing"]) == 3
    said = capsys.readouterr().err
    assert "licenses keeps no document. The documents are under unknown 40, " in said
    assert run([*asked, "--licenses", str(tmp_path / "allow.txt")]) == 0
    said = capsys.readouterr().err
    assert "no document is under the licence BSD-2-Clause" in said
    assert "documents left out by licence: unknown 40, " in said
    assert run([*asked, "--licenses", str(tmp_path / "allowed.txt")]) == 2
    assert run(["dropped", str(tmp_path / "out"), "--why", "licence"]) == 0
    assert "licence not allowed (unknown 40, " in capsys.readouterr().out


def test_a_name_that_is_kept_in_spite_of_its_licence_is_told(corpus, tmp_path, capsys):
    rows = [json.loads(line) for line in Path(corpus).read_text().splitlines()]
    named = [row["id"] for row in rows if row["license"] in ("GPL-3.0", "MIT")]
    built(corpus, tmp_path / "out", ["!GPL-3.0"], keep_ids=named)
    first = next(row["id"] for row in rows if row["license"] == "GPL-3.0")
    said = f"--keep-ids keeps 20 documents whose licence is not allowed (the first: {first})"
    assert said in capsys.readouterr().err


def test_a_directory_of_an_earlier_version_lists_what_its_licences_left_out(
    corpus, tmp_path, capsys
):
    built(corpus, tmp_path / "out", ["!GPL-3.0"])
    part = tmp_path / "out" / "documents" / "part-00000.parquet"
    table = pq.read_table(part)
    why = pc.replace_substring(table["why"], "not allowed", "not asked for")
    index = table.schema.get_field_index("why")
    pq.write_table(table.set_column(index, table.schema.field(index), why), part)
    assert run(["dropped", str(tmp_path / "out"), "--why", "licence"]) == 0
    assert "20: licence not asked for (GPL-3.0 20)" in capsys.readouterr().out


def test_settings_that_name_no_licence_are_written_as_before():
    assert "licenses" not in BuildSettings().to_json()
    assert BuildSettings.from_json(BuildSettings(licenses=["MIT"]).to_json()).licenses == ["MIT"]
