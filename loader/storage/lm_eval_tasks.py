"""Load tasks of lm-eval, the language model evaluation harness, from its list or a YAML file."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from climbstream.loader.core.errors import InvalidDataError, RemoteError, UsageError

from .hub import cache_unless_reached


def lm_eval_version(name: str) -> str:
    """Return the version of lm-eval; ``name`` is the task that needs it.

    Raises:
        UsageError: lm-eval is not installed.
    """
    try:
        return version("lm_eval")
    except PackageNotFoundError:
        raise UsageError(
            f"lm-eval={name} needs the package lm-eval; run pip install 'climbstream[lm-eval]'"
        ) from None


def is_task_file(name: str) -> bool:
    """Whether ``name`` is the path of a YAML file that defines a task, and not a task's name.

    Raises:
        UsageError: The path has no file.
    """
    is_file = Path(name).suffix in (".yaml", ".yml")
    if is_file and not Path(name).is_file():
        raise UsageError(f"lm-eval={name}: there is no such file")
    return is_file


def load_tasks(name: str) -> list[Any]:
    """Return the tasks that a name in lm-eval stands for, or the tasks that a YAML file defines.

    Raises:
        UsageError: lm-eval is not installed, or has no such task.
        InvalidDataError: The data of the task cannot be loaded.
        RemoteError: The Hub cannot be reached, and its cache lacks the data.
    """
    lm_eval_version(name)
    bundled = not is_task_file(name)
    from lm_eval.tasks import TaskManager  # an extra; the import takes seconds

    manager = TaskManager(include_defaults=bundled)
    if bundled and name not in manager.all_tasks:
        raise UsageError(f"lm-eval has no task {name!r}; `lm-eval ls tasks` lists all tasks")
    with task_errors(name), cache_unless_reached() if bundled else nullcontext():
        return list(manager.load(name)["tasks"].values())


def read_splits(name: str, task: Any) -> dict[str, list[Any]]:
    """Return the documents of the validation and test splits of a task, by the name of the split.

    Raises:
        InvalidDataError: The documents cannot be read.
    """
    splits = {}
    with task_errors(name):
        if task.has_validation_docs():
            splits["validation"] = list(task.validation_docs())
        if task.has_test_docs():
            splits["test"] = list(task.test_docs())
    return splits


@contextmanager
def task_errors(name: str) -> Iterator[None]:
    """Name the task in each error of its code, which may be of any type.

    Raises:
        InvalidDataError: The code of the task failed.
        RemoteError: The Hub cannot be reached.
    """
    try:
        yield
    except RemoteError as error:
        raise RemoteError(f"lm-eval={name} cannot be loaded: {error}") from None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InvalidDataError(f"lm-eval={name} cannot be loaded: {reason}") from None
