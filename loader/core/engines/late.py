"""Late engine: an engine that is opened only when it gets its first tasks.

So a command that has no tasks to run starts no process.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Self, TypeVar

from climbstream.loader.core.errors import ClimbError

from .engine import Engine

T = TypeVar("T")
R = TypeVar("R")


class LateEngine:
    """Runs tasks in an engine, which it opens by ``open_engine`` when there are tasks.

    The end of the ``with`` block closes the engine, if it was opened.
    """

    def __init__(self, open_engine: Callable[[], Engine]) -> None:
        self._open = open_engine
        self._engine: Engine | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def workers(self) -> int:
        """Number of tasks that run at the same time; reading this number opens the engine."""
        return self._opened().workers

    def run(
        self,
        function: Callable[[T], R],
        tasks: Iterable[T],
        instead: Callable[[T, ClimbError], R] | None = None,
        *,
        gpu: bool = False,
    ) -> Iterator[tuple[T, R]]:
        """Yield (task, result) as `Engine.run` does; the engine is opened if needed."""
        return self._opened().run(function, tasks, instead, gpu=gpu)

    def gpus(self) -> int | None:
        """Return what `Engine.gpus` returns; this call opens the engine."""
        return self._opened().gpus()

    def _opened(self) -> Engine:
        if self._engine is None:
            self._engine = self._stack.enter_context(self._open())
        return self._engine
