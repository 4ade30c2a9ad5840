"""Questions of a task of lm-eval, the language model evaluation harness, as records."""

from typing import Any

from climbstream.loader.storage.lm_eval_tasks import load_tasks, read_splits, task_errors


def read_lm_eval(name: str) -> list[dict[str, Any]]:
    """Return the records of a task of lm-eval, or of a task that a YAML file defines.

    The records are those of the validation and test splits of the task. Each record has ``query``
    and ``answer``, worded as in a prompt that lm-eval makes without examples.

    Raises:
        UsageError: lm-eval is not installed, or has no such task.
        InvalidDataError: The data of the task cannot be loaded.
        RemoteError: The Hub cannot be reached, and its cache lacks the data.
    """
    return [
        _record(name, task, document)
        for task in load_tasks(name)
        for documents in read_splits(name, task).values()
        for document in documents
    ]


def _record(name: str, task: Any, document: Any) -> dict[str, Any]:
    """Return ``query`` and ``answer`` of a document, worded as in a prompt without examples."""
    with task_errors(name):
        asked, target = task.doc_to_text(document), task.doc_to_target(document)
        choices = task.doc_to_choice(document) if task.OUTPUT_TYPE == "multiple_choice" else []
    if isinstance(asked, int):  # each choice begins the text; its end is the same
        return {"query": f"{choices[asked]}{task.config.target_delimiter}{target}"}
    if isinstance(target, int) and 0 <= target < len(choices):
        target = choices[target]
    return {"query": asked, "answer": target if isinstance(target, str) else ""}
