"""An engine without processes."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any


class SerialPool:
    """Runs tasks in this process, so that what a test patches holds for them."""

    def __enter__(self) -> "SerialPool":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(
        self, function: Callable[[Any], Any], tasks: Iterable[Any], *_: Any, **__: Any
    ) -> Iterator[Any]:
        """Yield each task with its result."""
        for task in tasks:
            yield task, function(task)

    def gpus(self) -> int:
        """Return that there is no GPU."""
        return 0
