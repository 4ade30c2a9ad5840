"""Batches: short tasks are sent to a worker process together, because each message takes time."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from climbstream.loader.core.errors import ClimbError
from climbstream.loader.core.log import get_logger

logger = get_logger(__name__)

_MOST = 256
"""Largest number of tasks in a batch."""

T = TypeVar("T")
R = TypeVar("R")


class BatchQueue:
    """The tasks of a stage, which are sent to workers in batches that take about ``seconds`` each.

    `run_batch` runs a batch in a worker.
    """

    def __init__(self, tasks: Iterable[Any], seconds: float, *, short: bool = True) -> None:
        self._fresh = iter(tasks)
        self._seconds = seconds
        self._short = short
        """Whether tasks may be short; if False, each batch has one task."""
        self._size = 1
        """Number of tasks in the next batch."""
        self._again: deque[Any] = deque()
        """Tasks of earlier batches that were not begun in time."""
        self._suspects: deque[Any] = deque()
        """Tasks of lost batches; each is sent again in a batch of its own."""

    def next(self) -> list[Any]:
        """Return the tasks of the next batch; [] if there are no more tasks now."""
        if self._suspects:
            return [self._suspects.popleft()]
        if self._again:
            return [self._again.popleft() for _ in range(min(self._size, len(self._again)))]
        return [*islice(self._fresh, self._size)]

    def note_end(self, tasks: Sequence[Any], done: int, seconds: float) -> None:
        """Note that the first ``done`` tasks of a batch took ``seconds``.

        The other tasks of the batch go to later batches.
        """
        if self._short:
            fitting = int(self._seconds * done / max(seconds, 1e-6))
            self._size = max(1, min(fitting, 4 * self._size, _MOST))
        self._again.extend(tasks[done:])

    def note_loss(self, tasks: Sequence[Any]) -> None:
        """Note that a batch was lost; its tasks go to batches of one task, to find the cause."""
        self._suspects.extend(tasks)

    def give_up(
        self, tasks: Sequence[Any], why: str, instead: Callable[[Any, ClimbError], Any] | None
    ) -> Iterator[tuple[Any, Any]]:
        """Give up a lost batch: yield (task, substitute result) if it has one task.

        If the batch has several tasks, nothing is yielded, and each task goes to a batch of its
        own.

        Args:
            tasks: Tasks of the batch.
            why: How the batch was lost, for the message.
            instead: Function of a task and an error that returns a substitute for the result; None:
                an error is raised.

        Raises:
            ClimbError: The batch has one task, and ``instead`` is None.
        """
        if len(tasks) > 1:
            self.note_loss(tasks)
            return
        if instead is None:
            raise ClimbError(why)
        logger.warning(why)
        yield tasks[0], instead(tasks[0], ClimbError(why))


def run_batch(
    function: Callable[[T], R], tasks: Sequence[T], limit: float
) -> tuple[list[R], float]:
    """Run tasks one after the other; return (results, seconds taken).

    The results may be those of the first tasks only, for two reasons. First, no task is begun more
    than ``limit`` seconds after the first, so that a short task need not wait for several long
    ones. Second, if a later task than the first fails, its error is not raised. The batch ends with
    the task before it, and the caller makes the failed task the first of another batch. If the
    first task fails, its error is raised.
    """
    begun = time.monotonic()
    results: list[R] = []
    for task in tasks:
        try:
            results.append(function(task))
        except Exception:
            if not results:
                raise
            break
        if time.monotonic() - begun > limit:
            break
    return results, time.monotonic() - begun
