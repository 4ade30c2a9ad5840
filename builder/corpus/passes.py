"""Passes over all partitions: tasks do the work, each for a batch of partitions."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from climbstream.loader.core.engines.engine import Engine

from .partition import Partition

_BATCHES = 1024
"""Number of batches from which on they grow."""
_MOST = 64
"""Partitions of a batch, at most."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Batch:
    """Partitions that follow each other; the first is number ``first`` of the corpus."""

    first: int
    partitions: tuple[Partition, ...]


def batches(partitions: Sequence[Partition]) -> Iterator[Batch]:
    """Cut ``partitions`` into batches."""
    size = min(max(len(partitions) // _BATCHES, 1), _MOST)
    for first in range(0, len(partitions), size):
        yield Batch(first, tuple(partitions[first : first + size]))


def each(
    engine: Engine, partitions: Sequence[Partition], function: Callable[[Partition], R]
) -> Iterator[R]:
    """Yield what ``function`` returns for each partition, in their order; tasks call it."""
    for results in in_order(engine, partial(_call_each, function=function), batches(partitions)):
        yield from results


def _call_each(batch: Batch, function: Callable[[Partition], Any]) -> list[Any]:
    return [function(partition) for partition in batch.partitions]


def in_order(engine: Engine, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
    """Yield the results in the order of ``tasks``; a result that comes too early waits."""
    early: dict[int, R] = {}
    following = 0
    for (number, _), result in engine.run(partial(_call_numbered, function), enumerate(tasks)):
        early[number] = result
        while following in early:
            yield early.pop(following)
            following += 1


def _call_numbered(function: Callable[[T], R], task: tuple[int, T]) -> R:
    return function(task[1])
