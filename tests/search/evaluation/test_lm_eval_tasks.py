"""Tasks of lm-eval: its data and prompts, asked and halved as any other task."""

import json
from functools import partial
from importlib.metadata import PackageNotFoundError

import pytest
from lm_eval.tasks import TaskManager

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.search.evaluation import lm_eval_tasks
from climbstream.search.evaluation.lm_eval_tasks import _read_kept, read_task
from climbstream.search.evaluation.questions import Question
from climbstream.search.evaluation.targets import load_target

pytestmark = pytest.mark.filterwarnings("default")  # the harness has warnings of its own

RECORDS = [
    {"goal": f"Boil water {i}", "a": "use a kettle", "b": f"use {i} shoes", "label": i % 2}
    for i in range(8)
]
TASK = {
    "task": "ours",
    "dataset_path": "json",
    "output_type": "multiple_choice",
    "validation_split": "validation",
    "doc_to_text": "Question: {{goal}}\nAnswer:",
    "doc_to_target": "label",
    "doc_to_choice": "{{[a, b]}}",
}


@pytest.fixture
def write_task(tmp_path, monkeypatch):
    """Return a function that writes a task of the harness, and gives the name of its file."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("CLIMBSTREAM_CACHE", str(tmp_path / "cache"))

    def write(splits=("validation",), records=RECORDS, **more):
        files = {}
        for split in splits:
            path = tmp_path / f"{split}.jsonl"
            path.write_text("".join(json.dumps(r) + "\n" for r in records))
            files[split] = str(path)
        data = {"dataset_kwargs": {"data_files": files, "cache_dir": str(tmp_path / "data")}}
        path = tmp_path / "ours.yaml"
        path.write_text(json.dumps({**TASK, **data, **more}))  # JSON is YAML too
        return str(path)

    return write


def test_a_task_is_asked_as_the_harness_asks_it(write_task):
    found = read_task(write_task())
    assert found == [
        Question(f"Question: {r['goal']}\nAnswer:", (r["a"], r["b"]), r["label"]) for r in RECORDS
    ]
    assert found[0].answer(0) == " use a kettle"


def test_a_task_without_a_test_split_is_halved(write_task):
    target = load_target(None, f"lm-eval={write_task()}")
    assert len(target.validation) + len(target.test) == len(RECORDS)
    assert min(len(target.validation), len(target.test)) >= 3
    assert target.measure == "bits"


def test_a_task_with_both_splits_has_these_as_halves(write_task):
    file = write_task(("validation", "test"), test_split="test")
    target = load_target(None, f"error=lm-eval={file}")
    assert [q.split for q in target.validation] == ["validation"] * 8
    assert [q.split for q in target.test] == ["test"] * 8
    assert target.measure == "error"


def test_the_answer_may_be_its_text_and_stand_behind_other_marks(write_task):
    records = [{**r, "label": "ab"[r["label"]]} for r in RECORDS]
    more = {"doc_to_target": "{{a if label == 'a' else b}}", "target_delimiter": "\n"}
    found = read_task(write_task(records=records, **more))
    assert [question.gold for question in found] == [r["label"] for r in RECORDS]
    assert found[1].answer(1) == "\nuse 1 shoes"


def test_where_beginnings_compete_each_is_read_to_the_end(tmp_path, write_task):
    (tmp_path / "parts.py").write_text(
        "def begin(doc):\n    return doc['label']\n\n"
        "def choices(doc):\n    return [doc['a'], doc['b']]\n\n"
        "def end(doc):\n    return doc['goal']\n"
    )
    file = write_task()
    functions = {"doc_to_text": "begin", "doc_to_choice": "choices", "doc_to_target": "end"}
    task = json.loads((tmp_path / "ours.yaml").read_text())
    lines = [f"{k}: {json.dumps(v)}" for k, v in task.items() if k not in functions]
    lines += [f"{name}: !function parts.{function}" for name, function in functions.items()]
    (tmp_path / "ours.yaml").write_text("\n".join(lines))
    first = read_task(file)[0]
    assert first == Question("", ("use a kettle Boil water 0", "use 0 shoes Boil water 0"), 0)


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        (
            {"output_type": "generate_until"},
            UsageError,
            "is of type generate_until; a target must be",
        ),
        ({"doc_to_target": "goal"}, InvalidDataError, 'validation 0: gold is "Boil water 0", and'),
        ({"validation_split": "nowhere"}, InvalidDataError, "cannot be loaded: "),
        ({"doc_to_text": "{{goal.no.such}}"}, InvalidDataError, "ours.yaml cannot be loaded: "),
        (
            {"validation_split": None, "training_split": "validation"},
            InvalidDataError,
            "valid or test",
        ),
    ],
)
def test_what_is_no_target_says_why(write_task, more, error, said):
    with pytest.raises(error, match=said):
        read_task(write_task(**more))


def test_a_task_of_the_harness_is_read_once(write_task, monkeypatch, tmp_path):
    asked = []

    def load(name):
        asked.append(name)
        return real(write_task())

    real = lm_eval_tasks.load_tasks
    monkeypatch.setattr(lm_eval_tasks, "load_tasks", load)
    first = read_task("our_task")
    assert read_task("our_task") == first
    assert asked == ["our_task"]


def test_a_task_that_the_harness_does_not_know_is_refused(write_task, monkeypatch):
    # Without its own 14,000 tasks, which take half a minute to list.
    listed = partial(TaskManager, include_defaults=False)
    monkeypatch.setattr("lm_eval.tasks.TaskManager", lambda include_defaults: listed())
    with pytest.raises(
        UsageError, match="lm-eval has no task 'no_such_task'; `lm-eval ls tasks` l"
    ):
        read_task("no_such_task")


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match=r"lm-eval=nowhere.yaml: there is no such file"):
        read_task("nowhere.yaml")


def test_a_name_that_leaves_the_cache_is_refused(write_task):
    with pytest.raises(UsageError, match="give the name of a task of lm-eval"):
        read_task("../piqa")


def test_without_the_harness_the_extra_is_named(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("climbstream.loader.storage.lm_eval_tasks.version", missing)
    with pytest.raises(UsageError, match=r"pip install 'climbstream\[lm-eval\]'"):
        read_task("piqa")


@pytest.mark.parametrize("value", [{}, [1], [[]], [["q", ["a"], 7, "", " "]], [["q", "a", 0]]])
def test_broken_questions_in_the_cache_are_named_with_the_remedy(tmp_path, value):
    path = tmp_path / "task.json"
    path.write_text(json.dumps(value))
    with pytest.raises(InvalidDataError, match=f"{path}.*remove"):
        _read_kept(path)
