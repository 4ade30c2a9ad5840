"""The command ``climb dropped`` says what decided over a document, and shows texts of all kinds."""

import json
import random
import re
import shutil
from collections import Counter
from itertools import chain, pairwise

import pytest

from climbstream.builder import append, build
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


@pytest.fixture(scope="module")
def same_names(tmp_path_factory, make_records, write_jsonl):
    """Shards of two files with the same identifiers; in the second, an identifier is repeated."""
    folder = tmp_path_factory.mktemp("same names")
    texts = [record["text"] for record in make_records(each=10)]
    texts += [f"{n} 2 3 4 5 6 7 8 9 " * 40 for n in range(6)]
    for name in "ab":
        records = [{"id": str(n), "text": f"{name} {text}"} for n, text in enumerate(texts)]
        repeated = [{"id": "0", "text": f"{name} again {texts[0]}"}]
        write_jsonl(folder / f"{name}.jsonl", records + repeated * (name == "b"))
    settings = BuildSettings(**{**SETTINGS, "holdout": 0.0, "near_duplicates": None})
    build([str(folder / "a.jsonl"), str(folder / "b.jsonl")], folder / "out", settings, workers=1)
    return folder


def texts_by_origin(out, capsys):
    capsys.readouterr()
    assert run(["dropped", str(out), "--sample", "60"]) == 0
    lines = capsys.readouterr().out.split("\n")
    return {
        a.rpartition("\t")[2]: b.strip()
        for a, b in pairwise(lines)
        if "\t" in a and b[:4] == "    "
    }


def test_a_document_shows_its_own_text_if_another_has_its_identifier(same_names, capsys, tmp_path):
    texts = texts_by_origin(same_names / "out", capsys)
    assert len(texts) == 13
    assert all(text.startswith(origin[0]) for origin, text in texts.items())
    # Earlier versions stored no origin; then a text that may be another document's is not shown.
    older = tmp_path / "older"
    shutil.copytree(same_names / "out", older)
    clusters = json.loads((older / "clusters.json").read_text())
    for document in chain.from_iterable(clusters["dropped"].values()):
        del document["origin"]
    (older / "clusters.json").write_text(json.dumps(clusters))
    assert [*texts_by_origin(older, capsys)] == ["b.jsonl:67"]


def test_an_identifier_of_several_documents_is_printed_once_and_keeps_all_of_them(
    same_names, capsys, catalogue
):
    assert run(["dropped", str(same_names / "out"), "--ids"]) == 0
    printed = capsys.readouterr()
    names = printed.out.split()
    assert sorted(names) == [str(n) for n in range(60, 66)]
    assert "6 identifiers printed once" in printed.err
    assert "identifier seen before (build with --ids none to keep them) 1" in printed.err
    sources = [str(same_names / f"{name}.jsonl") for name in "ab"]
    settings = BuildSettings(
        **{**SETTINGS, "holdout": 0.0, "near_duplicates": None, "keep_ids": [*names, "0"]}
    )
    build(sources, same_names / "again", settings, workers=1)
    said = capsys.readouterr().err
    assert "--keep-ids keeps 14 documents that it names" in said
    assert "7 identifiers are those of several documents, which all stay (the first: " in said
    assert "--keep-ids cannot keep 1 document that it names: identifier seen before 1" in said
    whys = [row["why"] for row in catalogue(same_names / "again") if row["why"]]
    assert whys == ["identifier seen before"]


def test_a_score_that_is_too_low_is_shown_below_its_limit(same_names, capsys):
    capsys.readouterr()
    assert run(["dropped", str(same_names / "out"), "--why", "low", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    scores = [re.search(r"\tlow overall score: (\S+), below (\S+)\t", line) for line in lines]
    assert len(scores) == 12
    assert all(float(match[1]) < float(match[2]) for match in scores)


def test_after_an_append_the_identifiers_come_with_the_build_that_they_are_for(
    same_names, tmp_path, capsys
):
    shutil.copytree(same_names / "out", tmp_path / "out")
    (tmp_path / "more.jsonl").write_text('{"id": "new", "text": "1 2 3 4 5 6"}\n')
    append([str(tmp_path / "more.jsonl")], tmp_path / "out", workers=1)
    capsys.readouterr()
    assert run(["dropped", str(tmp_path / "out"), "--ids"]) == 0
    assert "from all sources, also those of appends" in capsys.readouterr().err
