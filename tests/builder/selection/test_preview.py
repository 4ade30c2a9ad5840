"""A dry run says what would be left out, and the build goes on from there."""

import pytest

from climbstream.builder.pipeline import build, dry_run
from climbstream.builder.selection.preview import preview_text
from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.errors import InvalidDataError, UsageError


def test_a_dry_run_says_what_falls_and_the_build_then_does_so(tmp_path, make_records, write_jsonl):
    records = make_records(each=10)
    junk = {"id": "junk", "text": "1 2 3 4 5 6 7 8 9 " * 40, "label": "", "license": ""}
    again = {**records[0], "id": "again"}
    source = write_jsonl(tmp_path / "topics.jsonl", [*records, junk, again])
    out = tmp_path / "out"
    settings = BuildSettings(
        clusters=2, micro_clusters=6, vocab_size=300, min_cluster_score={}, near_duplicates=None
    )
    found = dry_run([str(source)], out, settings, workers=1)
    assert not (out / "manifest.json").exists()
    assert [sample["id"] for sample in found["samples"]["text seen before"]] == ["again"]
    assert "junk" in {sample["id"] for sample in found["samples"]["low overall score"]}
    counts = [row["clusters"] for row in found["heights"]]
    assert counts == sorted(counts, reverse=True)
    text = preview_text(found)
    assert "deduplicate: 1 document," in text
    assert "again: " in text
    manifest = build([str(source)], out, settings, workers=1)
    built = manifest.conservation[1 : 1 + len(found["stages"])]
    assert list(built) == found["stages"]
    with pytest.raises(UsageError, match="is built already; name a new folder"):
        dry_run([str(source)], out, settings, workers=1)


@pytest.fixture
def source(tmp_path, make_records, write_jsonl):
    junk = [{"id": f"junk {n}", "text": f"{n} 2 3 4 5 6 7 8 9 " * 40} for n in range(2)]
    return write_jsonl(tmp_path / "topics.jsonl", [*make_records(each=10), *junk])


def settings(**given):
    return BuildSettings(
        **{"clusters": 2, "micro_clusters": 6, "vocab_size": 300, "min_cluster_score": {}} | given
    )


def test_other_settings_may_follow_dry_runs_in_the_same_folder(source, tmp_path, all_bytes, capsys):
    out = tmp_path / "out"
    dry_run([str(source)], out, settings(), workers=1)
    capsys.readouterr()
    dry_run([str(source)], out, settings(min_document_score={"overall": 3}), workers=1)
    assert "fit the embedding" not in capsys.readouterr().err  # what is embedded is used again
    dry_run([str(source)], out, settings(seed=3), workers=1)
    dry_run([str(source)], out, settings(max_bytes=400_000), workers=1)
    build([str(source)], out, settings(clusters=3), workers=1)
    build([str(source)], tmp_path / "fresh", settings(clusters=3), workers=1)
    assert all_bytes(out) == all_bytes(tmp_path / "fresh")


def test_a_build_binds_where_dry_runs_do_not(source, tmp_path):
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("climbstream.builder.pipeline.fit_tokenizer", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build([str(source)], out, settings(), workers=1)
    with pytest.raises(InvalidDataError, match="--clusters was 2 and is 3"):
        dry_run([str(source)], out, settings(clusters=3), workers=1)


def test_documents_that_are_named_stay_and_unpruned_all_do(source, tmp_path, catalogue, capsys):
    build([str(source)], tmp_path / "pruned", settings(), workers=1)
    assert "kept 60 of 62 documents" in (said := capsys.readouterr().err)
    assert "left out: low overall score 2" in said
    whys = {"junk 0": "low overall score", "junk 1": "low overall score"}
    assert {r["id"]: r["why"] for r in catalogue(tmp_path / "pruned") if r["why"]} == whys
    named = ["junk 1", "nobody", "nothing"]
    build([str(source)], tmp_path / "named", settings(keep_ids=named), workers=1)
    said = capsys.readouterr().err
    assert "2 of 3 identifiers belong to no document (the first: nobody)" in said
    assert "cannot keep" not in said
    assert [r["id"] for r in catalogue(tmp_path / "named") if r["why"]] == ["junk 0"]
    build([str(source)], tmp_path / "all", settings(no_prune=True), workers=1)
    assert not [r for r in catalogue(tmp_path / "all") if r["why"]]


def test_what_was_dropped_is_listed_filtered_and_shown(source, tmp_path, climb):
    out = tmp_path / "out"
    options = ("--clusters", "2", "--micro-clusters", "6", "--vocab-size", "300", "--out", out)
    bars = ("--min-document-score", "ad-free=1.5,overall=1")
    assert climb("build", source, *options, *bars, "--dry-run").returncode == 0
    assert "so it has no list of documents" in climb("dropped", out).stderr
    assert climb("build", source, *options, *bars).returncode == 0
    shown = climb("dropped", out).stdout
    assert "2 documents left out" in shown
    assert "0 2 3 4 5 6 7 8 9" in shown
    assert climb("dropped", out, "--ids").stdout.split("\n")[:2] == ["junk 0", "junk 1"]
    for option, value, there in (
        ("--why", "copy", "the reasons are low overall score 2"),
        ("--language", "german", "possible values are und 2"),
        ("--label", "law", "possible values are - 2"),
    ):
        wrong = climb("dropped", out, option, value)
        assert wrong.returncode == 2
        assert there in wrong.stderr
    assert climb("dropped", out, "--list", "--ids").returncode == 2
    listed = climb("dropped", out, "--list").stdout.split("\n")
    assert listed[0] == "id\treason\tlanguage\tscores\torigin"
    assert listed[1].startswith("junk 0\tlow overall score")
    wrong = climb("build", source, *options, "--min-document-score", "ads=1")
    assert wrong.returncode == 3
    assert "there is no score ads" in wrong.stderr


def test_only_languages_asked_for_stay(tmp_path, make_records, write_jsonl, catalogue, capsys):
    russian = "Все люди рождаются свободными и равными в своем достоинстве и правах, и это так. "
    more = [{"id": f"ru {n}", "text": russian * 2 + f"И номер {n}."} for n in range(12)]
    program = "for (int i = 0; i < n; i++) {\n    sum += a[i];\n}\n"
    more += [{"id": f"code {n}", "text": program * (9 + n)} for n in range(3)]
    source = write_jsonl(tmp_path / "topics.jsonl", [*make_records(each=10), *more])
    out = tmp_path / "out"
    build([str(source)], out, settings(languages=["en", "cy"], near_duplicates=None), workers=1)
    rows = catalogue(out)
    assert {row["language"] for row in rows if not row["why"]} == {"en"}
    assert {row["why"] for row in rows if row["language"] == "ru"} == {"language not asked for"}
    assert {row["script"] for row in rows} == {"Latn", "Cyrl"}
    said = capsys.readouterr().err
    assert "more than half of the documents" not in said  # this was asked for
    assert "no document is in the language cy; by language: en 60, ru 12, code 3" in said
    assert "--languages leaves out 3 documents as code; these may be lists" in said
    report = (out / "report.html").read_text()
    assert "language not asked for" in report
    assert "<div>Все люди" in report


def test_a_build_says_that_words_are_judged_in_english_only(
    tmp_path, make_records, write_jsonl, capsys
):
    russian = "Все люди рождаются свободными и равными в своем достоинстве и правах, и это так. "
    more = [{"id": f"ru {n}", "text": russian * 2 + f"И номер {n}."} for n in range(20)]
    two = write_jsonl(tmp_path / "two.jsonl", [*make_records(each=10), *more])
    one = write_jsonl(tmp_path / "one.jsonl", make_records(each=10))
    said = {}
    for source in (one, two):
        build([str(source)], tmp_path / source.stem, settings(near_duplicates=None), workers=1)
        said[source.stem] = capsys.readouterr().err
    line = "scores use words only in English; 20 documents of other languages are scored by their"
    assert line in said["two"]
    assert "only in English" not in said["one"]
