"""Losses: whatever a build does not use is said, stands in its record, and can be forbidden."""

import json
import re
from collections import Counter

import pytest

from climbstream.builder.writers import catalogue
from climbstream.loader import Manifest
from climbstream.loader.cli.main import run
from climbstream.loader.core.files import read_json
from climbstream.loader.tools.verify import verify_directory

LINES = [
    "2 files: of an unknown format (the first: README.md)",
    "1 file: empty (empty.jsonl)",
    "1 document: not JSON (f0.jsonl:61)",
    "1 document: identifier seen before (t1, f0.jsonl:62)",
]
"""What the folder that is built of has that cannot be used."""


pytestmark = pytest.mark.usefixtures("engines")


@pytest.fixture
def folder(tmp_path, make_records, write_jsonl):
    """Three files whose identifiers begin anew in each, and what cannot be used."""
    folder = tmp_path / "in"
    files = [make_records(each=10, seed=seed) for seed in range(3)]
    for number, records in enumerate(files):
        named = [
            {**record, "id": f"t{i}", "meta": {"topic": record["label"]}}
            for i, record in enumerate(records)
        ]
        more = [] if number else [b"bad", {"id": "t1", "text": "Another text of the same name."}]
        write_jsonl(folder / f"f{number}.jsonl", [*named, *more])
    (folder / "empty.jsonl").write_bytes(b"")
    (folder / "README.md").write_bytes(b"")
    (folder / "photo.png").write_bytes(b"")
    return folder


@pytest.fixture
def build(folder, tmp_path):
    """Return a function that runs the command with options, and gives its exit code."""
    config = {"min_cluster_score": {}, "min_document_score": {}, "near_duplicates": None}
    (tmp_path / "settings.json").write_text(json.dumps(config))
    options = f"--config {tmp_path}/settings.json --clusters 2 --micro-clusters 4 --vocab-size 400"

    def command(*more, out="out"):
        return run(["build", str(folder), "--out", str(tmp_path / out), *options.split(), *more])

    return command


def test_what_is_not_used_is_said_and_stands_in_report_and_manifest(
    build, tmp_path, capsys, catalogue
):
    assert build() == 0
    said = capsys.readouterr().err
    assert all(f"left out {line}\n" in said for line in LINES)
    out = tmp_path / "out"
    page = (out / "report.html").read_text()
    assert all(line in page for line in LINES)
    assert (
        "kept 180 of 181 documents (104,623 of 104,653 bytes); left out: identifier seen before 1; "
        "records without a usable document: not JSON 1\n"
    ) in said
    assert "of 181 documents read were kept" in page
    read = Manifest.load(out).conservation[0]
    assert read["files"] == {"of an unknown format": 2, "empty": 1}
    assert verify_directory(out).faults == []
    assert [row["why"] for row in catalogue(out)].count("identifier seen before") == 1
    assert {"origin": "empty.jsonl", "reason": "empty"} in read_json(out / "bad_records.json")


def test_a_file_that_loses_all_is_named_with_its_columns(build, folder, write_jsonl, capsys):
    write_jsonl(folder / "other.jsonl", [{"content": "text", "url": "u"}] * 3)
    assert build("--dry-run") == 0
    said = capsys.readouterr().err
    assert (
        "other.jsonl has no document: no column 'text' (3 of 3 records); its columns are "
        "content, url. --text text,NAME also reads the column NAME"
    ) in said
    assert "of 181 documents" in said
    assert "; records without a usable document: no column 'text' 3, not JSON 1" in said


def test_files_that_give_nothing_are_counted_with_their_records(build, folder, write_jsonl, capsys):
    for name in ("other", "third"):
        write_jsonl(folder / f"{name}.jsonl", [{"content": "words " * 900}] * 60)
    assert build("--dry-run") == 0
    said = capsys.readouterr().err
    assert "third.jsonl has no document: no column 'text' (60 of 60 records)" in said
    assert "2 of 6 files gave no document; their 120 records are left out, as listed above" in said
    first = r"none of the first 50 records of \w+\.jsonl has the column 'text'"
    assert re.search(
        rf"{first}.*\. Records without it are left out\. If no record of any file", said
    )


def test_a_label_that_is_the_folder_is_no_column_that_records_lack(build, capsys):
    assert build("--label", "folder", "--dry-run") == 0
    assert "none of the first" not in capsys.readouterr().err


def test_strictly_anything_that_is_not_used_is_an_error_before_anything_is_fitted(
    build, tmp_path, capsys
):
    assert build("--strict") == 3
    said = capsys.readouterr().err
    assert all(line in said for line in LINES)
    assert "fit" not in said
    assert build() == 0  # goes on
    assert build("--strict") == 3  # also of what is built already


def test_identifiers_of_the_whole_corpus_are_told_apart_only_if_asked(build, capsys):
    assert build("--ids", "global", "--dry-run") == 0
    assert (
        "left out 121 documents: identifier seen before (the first: t1, f0.jsonl:62)"
        in capsys.readouterr().err
    )
    assert build("--ids", "none", "--dry-run", out="other") == 0
    assert "identifier" not in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--label", "--id", "--license", "--text", "--keep"])
def test_a_column_that_no_record_has_is_an_error_with_those_that_there_are(build, capsys, option):
    assert build(option, "meta.topics") == 3
    said = capsys.readouterr().err
    assert f"no record has the column 'meta.topics', which the setting {option[2:]} names" in said
    assert (
        "did you mean 'meta.topic'? The columns are id, label, license, meta, meta.topic, text"
        in said
    )
    # The same folder can be used for the right name.
    assert build("--label", "meta.topic", "--dry-run") == 0
    assert "no known domain" in capsys.readouterr().err


def test_a_column_that_the_first_records_lack_is_warned_of_before_the_corpus_is_read(build, capsys):
    assert build("--label", "meta.topics") == 3
    said = capsys.readouterr().err
    warning = r"none of the first 50 records of f\d\.jsonl has the column 'meta\.topics'"
    assert re.search(f"(?s){warning}.*\\nread: .*no record has the column", said)


@pytest.mark.parametrize("option", ["label", "id", "license", "keep"])
def test_a_column_is_refused_before_text_files_are_read_which_have_none(tmp_path, capsys, option):
    (tmp_path / "a.txt").write_text("some words\n" * 20)
    (tmp_path / "b.txt").write_text("other words\n" * 20)
    asked = ["build", str(tmp_path), "--out", str(tmp_path / "out"), "--dry-run"]
    assert run([*asked, f"--{option}", "topic"]) == 3
    said = capsys.readouterr().err
    assert "text files have no columns; so there is no column 'topic', which the setting" in said
    assert f"leave out --{option}" in said
    assert ("or give --label folder" in said) == (option == "label")
    assert "read:" not in said


def test_a_build_after_a_dry_run_with_other_columns_says_what_is_done_anew(build, capsys):
    assert build("--dry-run") == 0
    assert build("--dry-run") == 0
    assert "done again" not in capsys.readouterr().err
    assert build("--label", "meta.topic", "--dry-run") == 0
    assert (
        " had other settings (--label was 'label' and is 'meta.topic'): what is read and all "
        "later stages are done again"
    ) in capsys.readouterr().err


def test_a_build_after_files_were_renamed_says_which_sources_differ(build, folder, capsys):
    assert build("--dry-run") == 0
    (folder / "f1.jsonl").rename(folder / "renamed.jsonl")
    assert build("--dry-run") == 0
    assert (
        " had other sources (new: renamed.jsonl; gone: f1.jsonl): what is read and all later "
        "stages are done again"
    ) in capsys.readouterr().err


def test_held_out_documents_are_counted_by_known_domain_and_too_few_are_told(caplog):
    catalogue.tell_heldout(Counter({f"d{n:02d}": 90 - n for n in range(12)}))
    assert "held-out documents by known domain: d00 90, d01 89, " in caplog.text
    assert "d09 81, 2 more" in caplog.text
    assert "unreliable target" not in caplog.text
    catalogue.tell_heldout(Counter({"perl": 74, "doc": 59}))
    assert "held-out documents by known domain: perl 74, doc 59\n" in caplog.text
    assert "fewer than 60 held-out documents makes an unreliable target" in caplog.text
    assert "no document is held out of" not in caplog.text
    catalogue.tell_heldout(Counter({"perl": 74}), ["perl", "rust", ""])
    assert "no document is held out of rust, so there is no target label=rust" in caplog.text


def test_a_line_break_in_the_name_of_a_file_breaks_no_message(tmp_path, capsys):
    (tmp_path / "new\nline.csv").write_text("text,id\n")
    (tmp_path / "bad\nline.jsonl").write_text("{")
    assert run(["build", str(tmp_path), "--out", str(tmp_path / "out")]) == 3
    said = capsys.readouterr().err
    assert "new\\nline.csv has no document: without a record\n" in said
    assert "bad\\nline.jsonl" in said
    assert not [line for line in said.splitlines() if line.startswith("line.")]


def test_a_column_with_a_name_like_that_of_the_licence_is_named(tmp_path, write_jsonl, capsys):
    texts = ["The sea is deep and the ship is far from land.", "A garden has many red roses."]
    records = [{"text": text, "licence": "MIT"} for text in texts]
    source = write_jsonl(tmp_path / "in.jsonl", records)
    command = ["build", str(source), "--out", str(tmp_path / "out"), "--dry-run", "--no-prune"]
    run([*command, "--clusters", "1"])
    assert "if the column 'licence' has licences, build with --license licence" in (
        capsys.readouterr().err
    )


def test_sources_without_a_document_say_why_for_each_file(tmp_path, capsys):
    (tmp_path / "a.csv").write_bytes(b"")
    (tmp_path / "b.csv").write_text("text,id\n")
    assert run(["build", str(tmp_path), "--out", str(tmp_path / "out")]) == 3
    said = capsys.readouterr().err
    assert "a.csv has no document: empty\n" in said
    assert "b.csv has no document: without a record\n" in said
    assert "; 1 file: empty; 1 file: without a record" in said


def test_files_of_unknown_formats_are_counted_by_ending(folder, build, capsys):
    for name in ("a.html", "b.html", "c.7"):
        (folder / name).write_text("text")
    assert build("--dry-run") == 0
    assert (
        "files of an unknown format: .html 2, .md 1, .7 1, .png 1; a build reads "
        in capsys.readouterr().err
    )
