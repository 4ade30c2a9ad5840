"""The command ``climb dropped`` says what decided over a document, and shows texts of all kinds."""

import json
import random
from collections import Counter

import pytest

from climbstream.builder import build
from climbstream.builder.selection.dropped import SAMPLED
from climbstream.builder.settings import BuildSettings
from climbstream.loader.cli.main import run

SETTINGS = {
    "clusters": 3,
    "micro_clusters": 9,
    "dims": 16,
    "vocab_size": 400,
    "holdout": 0.3,
    "min_cluster_score": {},
    "near_duplicates": 0.7,
}
GERMAN = "Alle Menschen sind frei und gleich an Würde und Rechten geboren und das gilt hier auch"


@pytest.fixture(scope="module")
def source(tmp_path_factory, make_records, write_jsonl):
    """Good records, an exact copy and a near copy of each, and junk of two labels and languages."""
    good = make_records(each=10)
    exact = [{**record, "id": f"exact {record['id']}"} for record in good]
    near = [
        {**record, "id": f"near {record['id']}", "text": record["text"][:-1]} for record in good
    ]
    junk = [
        {"id": f"junk {n}", "text": f"{n} 2 3 4 5 6 7 8 9 " * 40, "label": "junk"}
        for n in range(100)
    ]
    junk += [{**record, "id": f"exact {record['id']}"} for record in junk[:7]]
    rng = random.Random(0)
    junk += [
        {"id": f"de {n}", "text": " || 0 ==== ".join(rng.choices(GERMAN.split(), k=90))}
        for n in range(4)
    ]
    lines = [*good, *exact, *near, *junk, b"no JSON", {"id": "empty", "text": ""}]
    return str(write_jsonl(tmp_path_factory.mktemp("dropped") / "corpus.jsonl", lines))


@pytest.fixture(scope="module")
def out(source, tmp_path_factory):
    directory = tmp_path_factory.mktemp("built") / "out"
    build([source], directory, BuildSettings(**SETTINGS), workers=1)
    return directory


def rows_of(out, capsys, *options):
    capsys.readouterr()
    assert run(["dropped", str(out), "--json", *options]) == 0
    return {row["id"]: row for row in json.loads(capsys.readouterr().out)}


def test_a_copy_names_its_original_and_why_that_is_left_out(out, capsys):
    rows = rows_of(out, capsys)
    copies = {name: row for name, row in rows.items() if name.startswith(("exact", "near"))}
    assert len(copies) > 60
    for name, row in copies.items():
        assert row["original"] is not None, name
        original = rows.get(row["original"])
        assert row["original_why"] == (original and original["why"])
    assert rows["exact junk 3"]["original_why"] == "low overall score"
    assert any(row["original_why"] == "held out" for row in copies.values())
    assert any(row["original_why"] is None for row in copies.values())


def test_copies_of_documents_that_are_left_out_are_counted(out, capsys):
    rows = rows_of(out, capsys, "--why", "text seen before").values()
    why = Counter(row["original_why"] for row in rows if row["original_why"])
    assert run(["dropped", str(out), "--why", "text seen before", "--sample", "1"]) == 0
    said = capsys.readouterr().out
    assert f"{why.total()} of these repeat a document that is itself left out: " in said
    assert "low overall score 7" in said
    assert run(["dropped", str(out), "--list"]) == 0
    assert (
        "exact junk 3\ttext seen before: junk 3, itself left out: low overall score\t"
        in capsys.readouterr().out
    )


def test_identifiers_to_keep_have_no_copy_of_a_held_out_document(out, source, capsys, catalogue):
    rows = rows_of(out, capsys)
    heldout = {name for name, row in rows.items() if row["why"] == "held out"}
    of_heldout = {name for name, row in rows.items() if row["original_why"] == "held out"}
    assert any(name.startswith("near") for name in of_heldout)
    assert run(["dropped", str(out), "--ids"]) == 0
    printed = capsys.readouterr()
    assert set(printed.out.split("\n")[:-1]) == rows.keys() - heldout - of_heldout
    assert f"copy of held out {len(of_heldout)}; --why prints them" in printed.err
    again = out.parent / "again"
    build([source], again, BuildSettings(**SETTINGS, keep_ids=[*rows]), workers=1)
    after = {row["id"]: row["why"] for row in catalogue(again)}
    assert {after[name] for name in heldout | of_heldout} == {"held out"}


def test_texts_are_stored_of_every_language_and_label(out, capsys):
    assert run(["dropped", str(out), "--language", "de", "--why", "low", "--sample", "4"]) == 0
    said = capsys.readouterr().out
    assert "4: low overall score (de 4)" in said
    assert "without text" not in said
    stored = json.loads((out / "clusters.json").read_text())["dropped"]["low overall score"]
    assert len(stored) <= SAMPLED
    assert run(["dropped", str(out), "--why", "low", "--sample", "500"]) == 0
    assert (
        "without text: a build stores the text of at most 60 documents" in capsys.readouterr().out
    )


def test_records_that_could_not_be_read_are_counted_too(out, capsys):
    assert run(["dropped", str(out)]) == 0
    said = capsys.readouterr().out
    assert "2 records could not be used, and are not listed above: empty text 1, not JSON 1" in said
    assert run(["dropped", str(out), "--why", "low"]) == 0
    assert "could not be used" not in capsys.readouterr().out


def test_a_document_of_a_pruned_micro_cluster_says_which_score_was_too_low(
    source, tmp_path, capsys
):
    settings = BuildSettings(**{**SETTINGS, "min_cluster_score": {"overall": 2}})
    build([source], tmp_path / "out", settings, workers=1)
    assert run(["dropped", str(tmp_path / "out"), "--why", "pruned", "--list"]) == 0
    said = capsys.readouterr().out.splitlines()[1:]
    assert said
    assert all("pruned cluster: cluster scores " in line for line in said)
    assert all(" in overall, below 2" in line for line in said)
