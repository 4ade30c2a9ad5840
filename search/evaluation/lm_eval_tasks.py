"""Tasks of lm-eval, the language model evaluation harness, as questions.

lm-eval provides data, prompts and right answers. climbstream asks the questions without examples
(zero-shot), and scores the answers. lm-eval takes half a minute to read its list of tasks, and
every proxy (small model of a search) needs the questions. So the questions of a task are cached
under the name of the task and the version of lm-eval.
"""

from pathlib import Path
from typing import Any

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import default_cache, read_json, write_json
from climbstream.loader.core.log import get_logger
from climbstream.loader.storage.lm_eval_tasks import (
    is_task_file,
    lm_eval_version,
    load_tasks,
    read_splits,
    task_errors,
)

from .questions import Question

logger = get_logger(__name__)


def read_task(name: str) -> list[Question]:
    """Return the questions of a multiple-choice task of lm-eval.

    ``name`` is the name of a task in lm-eval, or the path of a YAML file that defines a task. If
    the task has a validation and a test split, each question has the name of its split. If the task
    has only one of these splits, the ``split`` of each question is "".

    Raises:
        UsageError: lm-eval is not installed, the task or file does not exist, or the task is not
            multiple choice.
        InvalidDataError: The data of the task cannot be loaded, or a question has no right answer.
        RemoteError: The Hub cannot be reached, and its cache lacks the data.
    """
    release = lm_eval_version(name)
    if is_task_file(name):
        return _read_questions(name)
    if not name.replace("-", "").replace("_", "").isalnum():
        raise UsageError(
            f"lm-eval={name}: give the name of a task of lm-eval, or a .yaml file that defines one"
        )
    kept = default_cache() / "tasks" / f"{name}-{release}.json"
    if not kept.exists():
        logger.info(f"lm-eval={name}: reading the task, which takes half a minute the first time")
        write_json(kept, [q.to_json() for q in _read_questions(name)])
    return _read_kept(kept)


def _read_kept(path: Path) -> list[Question]:
    """Read the questions of a task from the cache.

    Raises:
        InvalidDataError: The file does not hold a JSON list of questions.
    """
    lines = read_json(path)
    if not isinstance(lines, list):
        raise InvalidDataError(
            f"{path} has no list of questions; remove this file, and run the command again"
        )
    fields = ("query", "choices", "gold", "split", "between")
    return [
        Question.from_json(
            dict(zip(fields, line if isinstance(line, list) else [], strict=False)),
            f"{path}, question {number} (to read the task again, remove this file)",
        )
        for number, line in enumerate(lines, start=1)
    ]


def _read_questions(name: str) -> list[Question]:
    """Return the questions of the validation and test splits of an lm-eval task."""
    tasks = load_tasks(name)
    if len(tasks) != 1:
        names = ", ".join(task.config.task for task in tasks[:5])
        raise UsageError(
            f"lm-eval={name} stands for {len(tasks)} tasks; give each as a target: {names}, ..."
        )
    (task,) = tasks
    if task.OUTPUT_TYPE != "multiple_choice":
        raise UsageError(
            f"lm-eval={name} is of type {task.OUTPUT_TYPE}; a target must be a multiple-choice task"
        )
    splits = read_splits(name, task)
    return [
        _question(name, task, document, split if len(splits) > 1 else "", f"{split} {i}")
        for split, documents in splits.items()
        for i, document in enumerate(documents)
    ]


def _question(name: str, task: Any, document: Any, split: str, which: str) -> Question:
    """Convert a document of an lm-eval task to the question that lm-eval asks without examples."""
    with task_errors(name):
        asked, choices = task.doc_to_text(document), task.doc_to_choice(document)
        gold, between = task.doc_to_target(document), task.config.target_delimiter
    if task.multiple_input:
        # In this task, several beginnings are compared, each with the same end. doc_to_text returns
        # the number of the right beginning, and doc_to_target returns the end.
        end, gold, asked, choices = gold, asked, "", list(choices)
        choices = [f"{begin}{between}{end}" for begin in choices]
    elif isinstance(gold, str) and gold in choices:
        gold = choices.index(gold)
    record = {"query": asked, "choices": list(choices), "gold": gold, "split": split}
    return Question.from_json(record | {"between": between}, f"lm-eval={name}, {which}")
