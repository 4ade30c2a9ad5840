"""Read the questions of tasks of lm-eval, the language model evaluation harness."""

from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from climbstream.loader.core.errors import InvalidDataError, RemoteError, UsageError
from climbstream.loader.storage.hub import cache_unless_reached


def read_lm_eval(name: str) -> list[dict[str, Any]]:
    """Return the records of a task of lm-eval, or of a task that a YAML file defines.

    The records are those of the validation and test splits of the task. Each record has ``query``
    and ``answer``, worded as in a prompt that lm-eval makes without examples.

    Raises:
        UsageError: lm-eval is not installed, or has no such task.
        InvalidDataError: The data of the task cannot be loaded.
        RemoteError: The Hub cannot be reached, and its cache lacks the data.
    """
    try:
        version("lm_eval")
    except PackageNotFoundError:
        raise UsageError(
            f"lm-eval={name} needs the package lm-eval; run pip install 'climbstream[lm-eval]'"
        ) from None
    from lm_eval.tasks import TaskManager  # noqa: PLC0415 - an extra; the import takes seconds

    is_file = Path(name).suffix in (".yaml", ".yml")
    if is_file and not Path(name).is_file():
        raise UsageError(f"lm-eval={name}: there is no such file")
    manager = TaskManager(include_defaults=not is_file)
    if not is_file and name not in manager.all_tasks:
        raise UsageError(f"lm-eval has no task {name!r}; `lm-eval ls tasks` lists all tasks")
    try:
        with nullcontext() if is_file else cache_unless_reached():
            tasks = list(manager.load(name)["tasks"].values())
        return [_record(task, document) for task in tasks for document in _documents(task)]
    except RemoteError as error:
        raise RemoteError(f"lm-eval={name} cannot be loaded: {error}") from None
    except Exception as error:  # a task may run any code, and so raise any error
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InvalidDataError(f"lm-eval={name} cannot be loaded: {reason}") from None


def _documents(task: Any) -> list[Any]:
    documents: list[Any] = []
    if task.has_validation_docs():
        documents += task.validation_docs()
    if task.has_test_docs():
        documents += task.test_docs()
    return documents


def _record(task: Any, document: Any) -> dict[str, Any]:
    """Return ``query`` and ``answer`` of a document, worded as in a prompt without examples."""
    asked, target = task.doc_to_text(document), task.doc_to_target(document)
    choices = task.doc_to_choice(document) if task.OUTPUT_TYPE == "multiple_choice" else []
    if isinstance(asked, int):  # each choice begins the text; its end is the same
        return {"query": f"{choices[asked]}{task.config.target_delimiter}{target}"}
    if isinstance(target, int) and 0 <= target < len(choices):
        target = choices[target]
    return {"query": asked, "answer": target if isinstance(target, str) else ""}
