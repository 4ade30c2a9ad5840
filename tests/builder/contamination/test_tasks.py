"""Tests of tasks: the usual ways to write a question, in any file."""

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from climbstream.builder.contamination.tasks import item_of, read_tasks
from climbstream.loader.core.errors import InvalidDataError, UsageError

RECORDS = {
    "own": ({"query": "Question: Who?\nAnswer:", "choices": ["a", "b"], "gold": 1}, "Who?", "b"),
    "arc": (
        {
            "question": "Who?",
            "choices": {"text": ["a", "b"], "label": ["A", "B"]},
            "answerKey": "B",
        },
        "Who?",
        "b",
    ),
    "old arc": (
        {
            "question": {"stem": "Who?", "choices": [{"text": "a"}, {"text": "b"}]},
            "answerKey": "A",
        },
        "Who?",
        "a",
    ),
    "csv of mmlu": (
        {"question": "Who?", "A": "a", "B": "b", "C": "c", "D": "d", "answer": "C"},
        "Who?",
        "c",
    ),
    "piqa": ({"goal": "To sew", "sol1": "a", "sol2": "b", "label": 1}, "To sew", "b"),
    "hellaswag": ({"ctx": "A man", "endings": ["a", "b"], "label": "1"}, "A man", "b"),
    "winogrande": (
        {"sentence": "He _ it", "option1": "a", "option2": "b", "answer": "1"},
        "He _ it",
        "a",
    ),
    "squad": (
        {"context": "Text.", "question": "Who?", "answers": {"text": ["a"], "answer_start": [0]}},
        "Text.\nWho?",
        "a",
    ),
    "mmlu": ({"question": "Who?", "choices": ["a", "b"], "answer": 0}, "Who?", "a"),
    "gsm8k": ({"question": "How many?", "answer": "4"}, "How many?", "4"),
    "human eval": (
        {"prompt": "def f():", "canonical_solution": "return 1"},
        "def f():",
        "return 1",
    ),
    "text": ({"text": "Only text."}, "Only text.", ""),
    "sentences compete": ({"query": "", "choices": ["a c", "b c"], "gold": 1}, "b c", ""),
    "lm-eval sample": (
        {"doc_id": 3, "doc": {"question": "Who?", "answer": "a"}, "arguments": [["x", "y"]]},
        "Who?",
        "a",
    ),
    "lm-eval sample of unusual fields": (
        {"doc": {"x": 1}, "arguments": {"gen_args_0": {"arg_0": "Who?"}}, "target": "a"},
        "Who?",
        "a",
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_of_a_usual_data_set_has_its_question_and_its_right_answer(name):
    record, question, answer = RECORDS[name]
    item = item_of(record, "line 1")
    assert (item.question, item.answer) == (question, answer)


@pytest.mark.filterwarnings("default")  # the harness has warnings of its own
@pytest.mark.parametrize(
    ("more", "answer"),
    [
        (
            {
                "output_type": "multiple_choice",
                "doc_to_target": "label",
                "doc_to_choice": "{{[a, b]}}",
            },
            "by moonlight",
        ),
        ({"output_type": "generate_until", "doc_to_target": "{{a}}"}, "by lamplight"),
    ],
)
def test_a_task_of_lm_eval_has_its_questions_and_answers(tmp_path, monkeypatch, more, answer):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    record = {"goal": "To read at night", "a": "by lamplight", "b": "by moonlight", "label": 1}
    (tmp_path / "test.jsonl").write_text(json.dumps(record))
    task = {
        "task": "ours",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(tmp_path / "test.jsonl")},
            "cache_dir": str(tmp_path / "data"),
        },
        "test_split": "test",
        "doc_to_text": "Question: {{goal}}\nAnswer:",
        **more,
    }
    (tmp_path / "ours.yaml").write_text(json.dumps(task))  # JSON is YAML too
    (read,) = read_tasks([f"lm-eval={tmp_path / 'ours.yaml'}"])
    assert [(item.question, item.answer) for item in read.items] == [("To read at night", answer)]


def test_a_record_without_a_question_is_named_with_its_fields():
    with pytest.raises(InvalidDataError, match=r"line 7 has no question.*its fields are x, y"):
        item_of({"x": 1, "y": 2}, "line 7")


def test_a_record_of_choices_alone_has_no_question():
    record = {"frage": "Who?", "choices": ["a", "b"], "answer": 1}
    message = "line 7 has no question.*its fields are frage, choices, answer"
    for one in (record, {"doc": record}):
        with pytest.raises(InvalidDataError, match=message):
            item_of(one, "line 7")


def test_one_record_without_a_question_among_others_is_named_with_its_file_and_line(tmp_path):
    path = tmp_path / "task.jsonl"
    path.write_text('{"question": "Who?"}\n\n{"frage": "Who?", "choices": ["a"], "answer": 0}\n')
    with pytest.raises(InvalidDataError, match=r"task\.jsonl, line 3 has no question"):
        read_tasks([str(path)])


def test_text_is_an_item_a_block(tmp_path):
    path = tmp_path / "task.txt"
    path.write_text("one\nmore\n\n\ntwo\n")
    (task,) = read_tasks([str(path)])
    assert [item.question for item in task.items] == ["one\nmore", "two"]


def test_json_lines_one_array_and_packed_lines_hold_the_same_items(tmp_path):
    records = [{"id": "a", "question": "Who?"}, {"id": "b", "question": "What?"}]
    lines = "\n".join(map(json.dumps, records))
    (tmp_path / "task.jsonl").write_text(lines)
    (tmp_path / "task.json").write_text(json.dumps(records))
    (tmp_path / "task.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    tasks = read_tasks([str(tmp_path / f"task.{kind}") for kind in ("jsonl", "json", "jsonl.gz")])
    assert len({task.items for task in tasks}) == 1
    assert [item.id for item in tasks[0].items] == ["a", "b"]


def test_tables_hold_the_same_items_as_json_lines(tmp_path):
    records = [
        {"id": "a", "question": "Wer fährt?", "choices": ["er", "sie"], "answer": 1},
        {"id": "b", "question": 'What,\nand "why"?', "choices": ["x", "y"], "answer": 0},
    ]
    (tmp_path / "task.jsonl").write_text("\n".join(map(json.dumps, records)))
    table = pa.Table.from_pylist(records)
    pq.write_table(table, tmp_path / "task.parquet")
    with pa.ipc.new_file(tmp_path / "task.arrow", table.schema) as writer:
        writer.write_table(table)
    with (tmp_path / "task.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "question", "A", "B", "C", "D", "answer"])
        for record in records:
            letter = "AB"[record["answer"]]
            writer.writerow([record["id"], record["question"], *record["choices"], "", "", letter])
    names = ["task.jsonl", "task.parquet", "task.arrow", "task.csv"]
    for name in names[1:]:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    tasks = read_tasks([str(tmp_path / name) for name in (*names, *(f"{n}.gz" for n in names[1:]))])
    assert len({task.items for task in tasks}) == 1
    assert [(item.id, item.answer) for item in tasks[0].items] == [("a", "sie"), ("b", "x")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("task.bin", b"PAR1\x15\x04\xff\xff", r"task\.bin is not text in UTF-8"),
        ("task.bin", b"a question\0\0", r"task\.bin is not text in UTF-8"),
        ("task.txt", "Wer fährt?".encode("latin-1"), r"task\.txt is not text in UTF-8"),
        ("task.csv", "question\nWer fährt?".encode("latin-1"), r"task\.csv, row 1 is not UTF-8"),
        ("task.csv", b"frage,answer\nWho?,a\n", "row 1 has no question.*fields are frage, answer"),
        ("task.csv", b"question,answer\nWho?\n", "row:1 .line 2.: not as many fields"),
        ("task.parquet", b"PAR1, cut", r"task\.parquet, row: .*cut short, or damaged"),
    ],
)
def test_a_file_that_cannot_be_read_as_questions_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidDataError, match=message):
        read_tasks([str(tmp_path / name)])


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, UsageError, "there is no such file"),
        (b"{broken\n", InvalidDataError, "line 1 is not JSON"),
        (b"\n\n", InvalidDataError, "has no item"),
        (b"[1]", InvalidDataError, "record 1 must be an object"),
    ],
)
def test_a_file_that_is_no_task_is_said_to_be_none(tmp_path, content, error, message):
    path = tmp_path / "task.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=message):
        read_tasks([str(path)])


def test_held_out_documents_are_no_task_of_a_build():
    with pytest.raises(UsageError, match="a build has none yet"):
        read_tasks(["label=chapter"])
