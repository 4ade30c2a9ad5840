"""OpenShards: the shards that lanes are reading from, kept open so that `gather` can copy rows.

A lane is a virtual rank: it reads its own part of each cluster's rows. A visit is the reading of
one shard by one lane in one epoch (see `sampling.planner`).
"""

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
    """Keeps values of at most ``most`` bytes in total, and drops the least recently used first."""

    def __init__(self, most: int) -> None:
        self._most, self._left = most, most
        self._kept: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """Return the value of ``key``, and mark it as used now; None if it is not in the cache."""
        if (kept := self._kept.get(key)) is None:
            return None
        self._kept.move_to_end(key)
        return kept[0]

    def put(self, key: Key, value: Value, size: int) -> None:
        """Keep ``value``, which has ``size`` bytes, unless it is larger than the whole cache."""
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
"""Size, in bytes, of the cache of packings; a packing says which tokens are in which row of a
shard. The cache keeps the packings of closed shards. If another lane then needs such a shard in the
same epoch, the shard need not be parsed and packed again."""

Place = tuple[int, int, int]
"""Cluster, shard in the cluster, and epoch; the packing of a shard is different in each epoch."""


class OpenShards:
    """Opens each shard when its first row is needed, and closes it when no lane reads from it.

    Args:
        sources: Source of the rows of each of the K clusters.
        lanes: Number of lanes.
    """

    def __init__(self, sources: list[RowSource], lanes: int) -> None:
        self._sources = sources
        self._open: dict[tuple[int, int], dict[int, OpenShard]] = {}
        """Open shards: by cluster and shard, and then by epoch."""
        self._packings: LRUCache[Place, ByteSpans] = LRUCache(_KEPT)
        self._readers: dict[Place, set[tuple[int, int]]] = {}
        self._reading = np.full((len(sources), lanes, 5), -1)
        """What each lane reads of each cluster, ``[K, lanes, 5]``: shard, epoch (both -1: nothing
        yet), and the three addresses of the open shard. One assignment sets all five numbers, so
        that an interrupt cannot mix the numbers of two shards."""
        self._left: list[OpenShard] = []
        """Shards that no lane reads any more. They stay open until `prepare` gets another argument
        than in its last call."""
        self._prepared = 0
        """Argument of the last call of `prepare`."""
        self._turns: list[tuple[int, ...]] = []
        """Visits whose shard is not open yet, the first one last: (first row, index of the visit,
        cluster, lane, shard, epoch)."""
        self.addresses: NDArray[np.int64] = np.zeros((0, 3), np.int64)
        """Three memory addresses of the shard of each visit, as `gather` needs them; 0: the shard
        is not open yet."""
        self.dropped, self.cut = 0, 0
        """Number of tokens that are in no row, and number of documents that were split over rows or
        cropped, summed over all shards opened so far."""

    def begin(self, steps: PlannedSteps) -> None:
        """Begin to fetch the shards of the planned ``steps``; `prepare` opens them later."""
        clusters, lanes = steps.visits[:, 0], steps.visits[:, 1]
        # If the first visit of a lane is to the shard that it reads already, that shard stays open.
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
            if epoch not in self._open.get((cluster, shard), ()):
                self._sources[cluster].want(shard)
        self._turns.reverse()

    def want(self, cluster: int, shard: int) -> None:
        """Begin to fetch a shard into the cache, unless it is there or being fetched."""
        self._sources[cluster].want(shard)

    def prepare(self, rows: int) -> int:
        """Open the shards of the first ``rows`` planned rows; return how many rows can be copied.

        The result is at least ``rows``; it is `sys.maxsize` if the plan needs no further shard. A
        shard that all lanes have left stays open until a call with another value of ``rows``. The
        reason is that the present batch may have rows of that shard, and may be tried again after
        an error.

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
        """Let ``lane``, a pair (cluster, lane), read from the shard at ``place``; return the shard.

        The shard is opened if it is not open, and the lane leaves the shard that it read before.
        """
        cluster, shard, epoch = place
        if (opened := self._open.get((cluster, shard), {}).get(epoch)) is None:
            opened = self._sources[cluster].open(shard, epoch, self._packings.get(place))
            self._readers[place] = set()
            self._open.setdefault((cluster, shard), {})[epoch] = opened
            self.dropped += opened.pieces.dropped
            self.cut += opened.pieces.cut
        last = tuple(self._reading[lane][:2].tolist())
        self._readers[place].add(lane)
        # `_reading` is set before the old shard is closed, so that the addresses in it always point
        # to an open shard.
        self._reading[lane] = (shard, epoch, *opened.addresses)
        if last != (shard, epoch):
            self._leave(lane, (cluster, *last))
        return opened

    def _leave(self, lane: tuple[int, int], place: Place) -> None:
        """Close the shard at ``place``, which ``lane`` has left, if no other lane reads from it."""
        cluster, shard, epoch = place
        epochs = self._open.get((cluster, shard), {})
        if epoch not in epochs:
            return
        self._readers[place].discard(lane)
        if not self._readers[place]:
            left = epochs.pop(epoch)
            self._left.append(left)
            self._packings.put(place, left.pieces, left.pieces.bytes)
            del self._readers[place]
            if not epochs:
                del self._open[cluster, shard]
                self._sources[cluster].release(shard)
