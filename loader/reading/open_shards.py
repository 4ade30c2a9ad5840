"""OpenShards: the shards that lanes are reading from, open for `gather`."""

import sys
from collections import OrderedDict
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.sampling.planner import PlannedSteps

from .gather import ByteSpans, OpenShard
from .row_source import RowSource

Key = TypeVar("Key")
Value = TypeVar("Value")


class LRUCache(Generic[Key, Value]):
    """Keeps values of up to ``most`` bytes together, and drops the least recently used first."""

    def __init__(self, most: int) -> None:
        self._most, self._left = most, most
        self._kept: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """Return the value of ``key`` and count it as used now; None if it is not kept."""
        if (kept := self._kept.get(key)) is None:
            return None
        self._kept.move_to_end(key)
        return kept[0]

    def put(self, key: Key, value: Value, size: int) -> None:
        """Keep ``value``, which has ``size`` bytes; one larger than the whole cache is not kept."""
        if key in self._kept:
            self._left += self._kept.pop(key)[1]
        if size > self._most:
            return
        self._kept[key] = value, size
        self._left -= size
        while self._left < 0:
            _, (_, freed) = self._kept.popitem(last=False)
            self._left += freed


_KEPT = 16 << 20
"""Bytes of packings that are kept of shards that no lane reads from now. Another lane may own rows
of the same shard; with its packing at hand it need not parse and pack it again."""

Place = tuple[int, int, int]
"""Cluster, shard, epoch."""


class OpenShards:
    """Opens a shard for its first row, and closes it when all its lanes have moved on."""

    def __init__(self, sources: list[RowSource], lanes: int) -> None:
        self._sources = sources
        self._open: dict[Place, OpenShard] = {}
        self._packings: LRUCache[Place, ByteSpans] = LRUCache(_KEPT)
        self._readers: dict[Place, set[tuple[int, int]]] = {}
        self._reading = np.full((len(sources), lanes, 5), -1)
        """Shard and epoch that each lane reads from (-1: none) and the addresses of that shard, by
        cluster and lane. One array, so that an interrupt cannot mix two shards."""
        self._left: list[OpenShard] = []
        self._prepared = 0
        """Number of rows that `prepare` was last asked for: what lanes left for them stays open."""
        self._turns: list[tuple[int, ...]] = []
        self.addresses: NDArray[np.int64] = np.zeros((0, 3), np.int64)
        """Addresses of the shard of each visit, as `gather` takes them."""
        self.dropped, self.cut = 0, 0
        """Tokens that are in no row, and documents that were cut, in all shards opened so far."""

    def begin(self, steps: PlannedSteps) -> None:
        """Begin to serve ``steps``: shards that no lane reads from yet are opened later."""
        clusters, lanes = steps.visits[:, 0], steps.visits[:, 1]
        # A lane that stays on its shard keeps it open; its first turn closes it.
        stays = np.zeros(len(clusters), np.bool_)
        stays[np.unique(clusters * self._reading.shape[1] + lanes, return_index=True)[1]] = True
        reading = self._reading[clusters, lanes]
        stays &= (reading[:, :2] == steps.visits[:, 2:4]).all(axis=1)
        self.addresses = np.where(stays[:, None], reading[:, 2:], 0)
        turns = np.flatnonzero(~stays)
        self._turns = []
        for i, visit in zip(turns.tolist(), steps.visits[turns].tolist(), strict=True):
            cluster, lane, shard, epoch, row = visit
            self._turns.append((row, i, cluster, lane, shard, epoch))
            if (cluster, shard, epoch) not in self._open:
                self._sources[cluster].want(shard)
        self._turns.reverse()

    def want(self, cluster: int, shard: int) -> None:
        """Begin to fetch a shard, unless it is here or on its way."""
        self._sources[cluster].want(shard)

    def prepare(self, rows: int) -> int:
        """Open the shards that the first ``rows`` rows need; return how many rows are ready then.

        A shard that all lanes have left stays open until other rows are asked for: the present
        batch may have rows of it, also when the batch is tried again after an error.

        Raises:
            IntegrityError: A shard is missing or damaged.
        """
        if rows != self._prepared:
            self._left.clear()
            self._prepared = rows
        while self._turns and self._turns[-1][0] < rows:
            _, i, cluster, lane, shard, epoch = self._turns[-1]
            self.addresses[i] = self._turn((cluster, lane), (cluster, shard, epoch)).addresses
            self._turns.pop()
        return self._turns[-1][0] if self._turns else sys.maxsize

    def _turn(self, lane: tuple[int, int], place: Place) -> OpenShard:
        """Let ``lane`` read from ``place``."""
        if (opened := self._open.get(place)) is None:
            cluster, shard, epoch = place
            opened = self._sources[cluster].open(shard, epoch, self._packings.get(place))
            self._readers[place], self._open[place] = set(), opened
            self.dropped += opened.pieces.dropped
            self.cut += opened.pieces.cut
        before = (place[0], *self._reading[lane][:2].tolist())
        self._readers[place].add(lane)
        # Set before the old shard is closed: the addresses in `_reading` always point to an open
        # shard.
        self._reading[lane] = (*place[1:], *opened.addresses)
        if before in self._open and before != place:
            self._readers[before].discard(lane)
            if not self._readers[before]:
                left = self._open.pop(before)
                self._left.append(left)
                self._packings.put(before, left.pieces, left.pieces.bytes)
                del self._readers[before]
                if not any(place[:2] == before[:2] for place in self._open):
                    self._sources[before[0]].release(before[1])
        return opened
