"""Tests of a build that keeps the questions of a test out, or marks the documents with them."""

import json

import pytest
from small_build import SMALL_BUILD

from climbstream.builder import append, build, dry_run, pipeline
from climbstream.builder.cli.dropped import read_dropped
from climbstream.builder.selection.reasons import RESERVED
from climbstream.builder.settings import BuildSettings
from climbstream.loader.cli.main import run
from climbstream.loader.core.errors import IntegrityError, InvalidDataError, UsageError
from climbstream.loader.formats.manifest import CONTAMINATION

QUESTIONS = (
    "Seven geese cross a frozen lake at dawn, and each leaves forty two prints; how many in all?",
    "Why did the clockmaker of the old town keep nineteen mirrors behind his narrow workshop door?",
    "Which of the three brothers carried the copper kettle over the pass before the snow came?",
)
LEAKS = {"leak-0": QUESTIONS[0], "leak-1": QUESTIONS[1].upper(), "leak-2": QUESTIONS[0]}


@pytest.fixture
def corpus(tmp_path, make_records, write_jsonl):
    """A corpus of which three documents hold two of the three questions of a task."""
    records = make_records(each=20)
    for record, (name, question) in zip(records[10:60:20], LEAKS.items(), strict=True):
        record["id"] = name
        record["text"] += f"\n{question}"
    write_jsonl(tmp_path / "corpus.jsonl", records)
    lines = [json.dumps({"id": f"q{n}", "question": q}) for n, q in enumerate(QUESTIONS)]
    (tmp_path / "task.jsonl").write_text("\n".join(lines))
    return tmp_path


def settings_of(corpus, **more):
    return BuildSettings(**SMALL_BUILD, decontaminate=[str(corpus / "task.jsonl")], **more)


def built(corpus, name="out", workers=1, **more):
    source, settings = str(corpus / "corpus.jsonl"), settings_of(corpus, **more)
    return build([source], corpus / name, settings, workers=workers)


def stage_of(manifest):
    return next(s for s in manifest.conservation if s["stage"] == "decontaminate")


def test_documents_with_a_question_are_left_out_counted_and_named(
    corpus, catalogue, capsys, caplog
):
    caplog.set_level("INFO", logger="climbstream")
    manifest = built(corpus)
    assert stage_of(manifest)["dropped"]["contaminated"]["documents"] == 3
    rows = {row["id"]: row for row in catalogue(corpus / "out")}
    assert {name for name, row in rows.items() if row["why"] == "contaminated"} == set(LEAKS)
    assert all(rows[name]["cluster"] is None for name in LEAKS)
    assert rows["leak-1"]["contaminated"].endswith("task.jsonl: q1")
    assert {row["contaminated"] for name, row in rows.items() if name not in LEAKS} == {None}
    assert "contaminated 3" in caplog.text
    assert "contaminated" in (corpus / "out" / "report.html").read_text()
    assert run(["dropped", str(corpus / "out"), "--why", "contaminated", "--ids"]) == 0
    assert set(capsys.readouterr().out.split()) == set(LEAKS)
    assert "of the tasks in more than" not in caplog.text
    assert run(["dropped", str(corpus / "out"), "--why", "contaminated"]) == 0
    task = corpus / "task.jsonl"
    text = capsys.readouterr().out
    assert f"documents by test question: {task}: q0 2, {task}: q1 1" in text
    assert f"contaminated: {task}: q1\t" in text


def test_an_item_in_many_documents_is_named_as_one_that_may_be_a_phrase(corpus, caplog):
    lines = (corpus / "corpus.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records[::2]:
        record["text"] += f"\n{QUESTIONS[2]}"
    (corpus / "corpus.jsonl").write_text("\n".join(map(json.dumps, records)))
    dry_run([str(corpus / "corpus.jsonl")], corpus / "dry", settings_of(corpus), workers=1)
    assert (
        f"1 item of the tasks in more than 20 documents each: {corpus / 'task.jsonl'}: q2 "
        f"{len(records[::2]) - len(LEAKS)}. If the item is a common phrase, delete it"
        in caplog.text
    )


def test_one_document_that_was_left_out_is_not_called_documents(corpus, capsys, monkeypatch):
    built(corpus)
    rows = [row for row in read_dropped(corpus / "out") if row["id"] == "leak-1"]
    monkeypatch.setattr("climbstream.builder.cli.dropped.read_dropped", lambda _: rows)
    assert run(["dropped", str(corpus / "out")]) == 0
    assert capsys.readouterr().out.startswith(f"1 document left out, {rows[0]['bytes']:,} bytes\n")


def test_nothing_is_found_in_what_a_build_kept(corpus, capsys):
    built(corpus)
    assert run(["contamination", str(corpus / "out"), str(corpus / "task.jsonl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["contaminated"]["documents"] == 0


def test_documents_that_are_marked_stay(corpus, catalogue):
    manifest = built(corpus, mark_contaminated=True)
    assert stage_of(manifest)["dropped"] == {}
    assert stage_of(manifest)["marked"]["documents"] == 3
    rows = {row["id"]: row for row in catalogue(corpus / "out")}
    assert all(rows[name]["cluster"] and rows[name]["contaminated"] for name in LEAKS)


def test_keep_ids_brings_back_no_contaminated_and_no_held_out_document(
    corpus, catalogue, capsys, caplog
):
    built(corpus, holdout=0.2)
    rows = catalogue(corpus / "out")
    left_out = [row["id"] for row in rows if row["why"]]
    reserved = {row["id"]: row["why"] for row in rows if row["why"] in RESERVED}
    assert set(reserved.values()) == set(RESERVED)
    capsys.readouterr()
    assert run(["dropped", str(corpus / "out"), "--ids"]) == 0
    printed = capsys.readouterr()
    assert set(printed.out.split()) == set(left_out) - set(reserved)
    assert "contaminated 3" in printed.err
    caplog.clear()
    built(corpus, "again", holdout=0.2, keep_ids=left_out)
    after = {row["id"]: row["why"] for row in catalogue(corpus / "again") if row["why"]}
    assert {name: after[name] for name in reserved} == reserved
    assert "contaminated 3" in caplog.text
    assert f"--keep-ids cannot keep {len(after)} documents that it names: held out" in caplog.text


def test_the_bytes_are_those_of_more_processes_and_of_a_build_that_went_on(
    corpus, monkeypatch, all_bytes
):
    built(corpus, "one")

    def fail(*_, **__):
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "write_catalogue", fail)
        with pytest.raises(OSError, match="the disk is gone"):
            built(corpus, "two", workers=2)
    built(corpus, "two", workers=2)
    assert all_bytes(corpus / "two") == all_bytes(corpus / "one")
    assert CONTAMINATION in all_bytes(corpus / "one")


def test_an_append_keeps_the_same_questions_out(corpus, catalogue, make_records, write_jsonl):
    built(corpus)
    (corpus / "task.jsonl").unlink()
    records = make_records(each=4)
    for number, record in enumerate(records):
        record["id"] = f"new-{number}"
        record["text"] += f"\n{number} more" if number else f"\n{QUESTIONS[2]}"
    more = write_jsonl(corpus / "more.jsonl", records)
    manifest = append([str(more)], corpus / "out", workers=1)
    assert stage_of(manifest)["dropped"]["contaminated"]["documents"] == 4
    rows = {row["id"]: row for row in catalogue(corpus / "out")}
    assert rows["new-0"]["why"] == "contaminated"


def test_an_append_refuses_questions_that_are_not_those_of_the_build(
    corpus, make_records, write_jsonl
):
    built(corpus)
    path = corpus / "out" / CONTAMINATION
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    more = write_jsonl(corpus / "more.jsonl", make_records())
    with pytest.raises(IntegrityError, match=r"contamination\.npz: expected hash"):
        append([str(more)], corpus / "out", workers=1)


def test_a_task_with_other_questions_is_another_build(corpus):
    built(corpus)
    (corpus / "task.jsonl").write_text(json.dumps({"question": QUESTIONS[0]}))
    with pytest.raises(InvalidDataError, match=r"contents of tasks\..*task\.jsonl differ"):
        built(corpus)


def test_a_dry_run_counts_them_and_another_task_may_follow(corpus):
    source = str(corpus / "corpus.jsonl")
    stages = dry_run([source], corpus / "out", settings_of(corpus), workers=1)["stages"]
    assert {r: n["documents"] for s in stages for r, n in s["dropped"].items()} == {
        "contaminated": 3
    }
    (corpus / "task.jsonl").write_text(json.dumps({"question": QUESTIONS[1]}))
    assert stage_of(built(corpus))["dropped"]["contaminated"]["documents"] == 1


def test_a_build_without_tasks_has_no_trace_of_them(corpus, catalogue):
    manifest = build(
        [str(corpus / "corpus.jsonl")], corpus / "out", BuildSettings(**SMALL_BUILD), workers=1
    )
    assert "tasks" not in manifest.provenance
    assert "decontaminate" not in {stage["stage"] for stage in manifest.conservation}
    assert "contaminated" not in catalogue(corpus / "out")[0]


def test_a_task_that_is_not_there_is_said_before_anything_is_read(tmp_path):
    settings = BuildSettings(decontaminate=["nowhere.jsonl"])
    (tmp_path / "corpus.txt").write_text("some text")
    with pytest.raises(UsageError, match=r"task nowhere\.jsonl: there is no such file"):
        build([str(tmp_path / "corpus.txt")], tmp_path / "out", settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mark_contaminated": True}, "mark_contaminated needs tasks in decontaminate"),
        ({"decontaminate": ["a"], "keep": ["contaminated"]}, "a column that decontaminate adds"),
    ],
)
def test_settings_that_say_nothing_together_are_refused(settings, message):
    with pytest.raises(InvalidDataError, match=message):
        BuildSettings(**settings)
