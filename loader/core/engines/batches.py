"""Batches: short tasks are handed over together, because each hand-over takes time."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from climbstream.loader.core.errors import ClimbError
from climbstream.loader.core.log import get_logger

logger = get_logger(__name__)

_MOST = 256
"""Tasks of a batch, at most."""

T = TypeVar("T")
R = TypeVar("R")


class BatchQueue:
    """The tasks of a stage, in batches that take about ``seconds``; see `run_batch`."""

    def __init__(self, tasks: Iterable[Any], seconds: float, *, short: bool = True) -> None:
        self._fresh = iter(tasks)
        self._seconds = seconds
        self._short = short
        """Whether tasks may be short; if not, they are handed over singly."""
        self._size = 1
        """Tasks of the next batch."""
        self._again: deque[Any] = deque()
        """Tasks that were handed over, but not begun."""
        self._suspects: deque[Any] = deque()
        """Tasks of batches that were lost, to be handed over singly."""

    def next(self) -> list[Any]:
        """Return the tasks of the next batch; [] if none is left."""
        if self._suspects:
            return [self._suspects.popleft()]
        if self._again:
            return [self._again.popleft() for _ in range(min(self._size, len(self._again)))]
        return [*islice(self._fresh, self._size)]

    def note_end(self, tasks: Sequence[Any], done: int, seconds: float) -> None:
        """Note that the first ``done`` tasks of a batch took ``seconds``; queue the others."""
        if self._short:
            fitting = int(self._seconds * done / max(seconds, 1e-6))
            self._size = max(1, min(fitting, 4 * self._size, _MOST))
        self._again.extend(tasks[done:])

    def note_loss(self, tasks: Sequence[Any]) -> None:
        """Queue the tasks of a batch that was lost, to find the one at fault."""
        self._suspects.extend(tasks)

    def give_up(
        self, tasks: Sequence[Any], why: str, instead: Callable[[Any, ClimbError], Any] | None
    ) -> Iterator[tuple[Any, Any]]:
        """Yield the substitute result of a lost task; queue the tasks of a larger batch singly.

        Raises:
            ClimbError: There is no substitute result.
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
    """Run tasks one after the other; return results and seconds.

    After ``limit`` seconds none is begun any more. So a long task delays the short ones in its
    batch by no more than its own time. A task other than the first that fails has no result: it
    will be the first of another batch, and fail there.
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
