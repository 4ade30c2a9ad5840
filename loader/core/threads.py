"""Threads: make calls at the same time if each of them waits for the network."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_threads(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Call ``function`` with each of ``items``, in ``threads`` threads; yield results as calls end.

    The first error of a call is raised; calls that have not begun by then are not made.
    """
    executor = ThreadPoolExecutor(threads, "climbstream")
    try:
        for future in as_completed([executor.submit(function, item) for item in items]):
            yield future.result()
    finally:
        executor.shutdown(cancel_futures=True)
