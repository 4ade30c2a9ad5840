"""Passes over all partitions: each task calls a function for the partitions of one batch."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from os import SEEK_END
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any, Generic, Protocol, TypeVar

from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.engines.packed import pack, unpack
from climbstream.loader.core.files import writing

from .partition import Partition

_BATCHES = 1024
"""A batch has several partitions only if there are at least twice this number of partitions."""
_MOST = 64
"""Maximum number of partitions in a batch."""
_MOST_SHORT = 4
"""Maximum number of short tasks, of about a second each, in a group."""
_HELD = 64
"""Maximum number of results that are kept in memory until earlier results arrive."""


class _Named(Protocol):
    @property
    def name(self) -> str:
        """Name of the partition or part in messages."""


Part = TypeVar("Part", bound=_Named)
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Batch(Generic[Part]):
    """A series of consecutive partitions, or of consecutive parts of a catalogue."""

    first: int
    """Number of the first partition or part."""
    partitions: tuple[Part, ...]

    @property
    def name(self) -> str:
        """Name of the batch in messages: the name of its first partition."""
        more = f" and {len(self.partitions) - 1} more" if len(self.partitions) > 1 else ""
        return f"{self.partitions[0].name}{more}" if self.partitions else ""


def batches(partitions: Sequence[Part]) -> Iterator[Batch[Part]]:
    """Cut ``partitions`` into batches."""
    size = _size(len(partitions), _MOST)
    for first in range(0, len(partitions), size):
        yield Batch(first, tuple(partitions[first : first + size]))


def _size(count: int, most: int) -> int:
    """Return how many of ``count`` partitions or tasks go together, ``most`` at most."""
    return min(max(count // _BATCHES, 1), most)


def run_short(
    engine: Engine, function: Callable[[T], R], tasks: Iterable[T], count: int
) -> Iterator[tuple[T, R]]:
    """Run short tasks as `Engine.run` does, in groups if there are many.

    ``count`` is the number of ``tasks``, at least roughly. A group that was interrupted is run
    again as a whole.
    """
    call = partial(_call_group, function=function)
    for group, results in engine.run(call, _groups(tasks, count)):
        yield from zip(group, results, strict=True)


def run_short_in_order(
    engine: Engine, function: Callable[[T], R], tasks: Iterable[T], count: int
) -> Iterator[R]:
    """Yield the results of `run_short`, in the order of ``tasks``."""
    for results in in_order(engine, partial(_call_group, function=function), _groups(tasks, count)):
        yield from results


def _groups(tasks: Iterable[T], count: int) -> Iterator[tuple[T, ...]]:
    size, left = _size(count, _MOST_SHORT), iter(tasks)
    while group := tuple(islice(left, size)):
        yield group


def _call_group(group: tuple[T, ...], function: Callable[[T], R]) -> list[R]:
    return [function(task) for task in group]


def each(engine: Engine, partitions: Sequence[Part], function: Callable[[Part], R]) -> Iterator[R]:
    """Call ``function`` for each partition, in tasks; yield the results in order."""
    for results in in_order(engine, partial(_call_each, function=function), batches(partitions)):
        yield from results


def _call_each(batch: Batch[Part], function: Callable[[Part], R]) -> list[R]:
    return [function(partition) for partition in batch.partitions]


def summed(
    engine: Engine,
    partitions: Sequence[Partition],
    function: Callable[[Partition], R],
    add: Callable[[R, R], object],
    total: R,
) -> R:
    """Call ``function`` for each partition, in tasks; return ``total`` plus all results, in order.

    ``add`` adds its second argument to the first. Each task adds up the results of its own
    partitions, and then these sums are added. So ``add`` must give the same total however
    partitions are grouped. Counts do; floats do not, because their sums are rounded.
    """
    function = partial(_sum_batch, function=function, add=add)
    for part in in_order(engine, function, batches(partitions)):
        add(total, part)
    return total


def _sum_batch(
    batch: Batch[Partition], function: Callable[[Partition], Any], add: Callable[[Any, Any], object]
) -> Any:
    total, *others = map(function, batch.partitions)
    for other in others:
        add(total, other)
    return total


def remove_all(engine: Engine, partitions: Sequence[Partition]) -> None:
    """Remove the folders of all ``partitions``, in tasks of ``engine``."""
    for _ in engine.run(_remove_batch, batches(partitions)):
        pass


def _remove_batch(batch: Batch[Partition]) -> None:
    for partition in batch.partitions:
        shutil.rmtree(partition.folder, ignore_errors=True)


def in_order(engine: Engine, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
    """Yield the results in the order of ``tasks``; keep results that arrive early."""
    following = 0
    with TemporaryFile() as file:
        early = EarlyResults(file)
        for (number, _), result in engine.run(partial(_call_numbered, function), enumerate(tasks)):
            early.add(number, result)
            while following in early:
                yield early.take(following)
                following += 1


class EarlyResults:
    """Results that arrived too early: up to `_HELD` are in memory, all others in ``file``."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._held: dict[int, Any] = {}
        self._stored: dict[int, tuple[int, int]] = {}
        """Place and length in the file of each result that is in the file, by number of the
        task."""

    def __contains__(self, number: int) -> bool:
        return number in self._held or number in self._stored

    def add(self, number: int, result: Any) -> None:
        """Keep ``result``, the result of task ``number``."""
        if len(self._held) < _HELD:
            self._held[number] = result
            return
        data = pack(result)
        with writing(Path(gettempdir()) / "results of tasks", size=len(data)):
            place = self._file.seek(0, SEEK_END)
            self._file.write(data)
        self._stored[number] = place, len(data)

    def take(self, number: int) -> Any:
        """Remove the result of task ``number``, and return it."""
        if number in self._held:
            return self._held.pop(number)
        place, length = self._stored.pop(number)
        self._file.seek(place)
        result = unpack(self._file.read(length))
        if not self._stored:
            self._file.truncate(0)
        return result


def _call_numbered(function: Callable[[T], R], task: tuple[int, T]) -> R:
    return function(task[1])
