"""Threads: many waits for the network at once."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_threads(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Yield the results of ``function`` for ``items``, in the order in which they end.

    The first error is raised; calls that have not begun by then never begin.
    """
    executor = ThreadPoolExecutor(threads, "climbstream")
    try:
        for future in as_completed([executor.submit(function, item) for item in items]):
            yield future.result()
    finally:
        executor.shutdown(cancel_futures=True)
