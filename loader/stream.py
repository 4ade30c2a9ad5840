"""TokenStream: the rows of one cluster, dealt to lanes.

The shards of a cluster are put into one keyed order, and their rows into C equal runs: lane l owns
rows l * R / C to (l + 1) * R / C. So a node that serves a few lanes touches few shards, and every
lane owns as many rows as any other, within one. Each epoch a lane visits its shards in another
order, and the rows of a shard too. Which row comes n-th is a pure function of
(seed, cluster, lane, n).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .cache import ShardCache
from .mds import Index
from .order import key, mix, permute, shuffled
from .pack import concat_rows, copy_tokens


class RowAddress(NamedTuple):
    """Where a row lies."""

    shard: int
    """Number of the shard in the index."""
    first_token: int
    """Its first token, counted in the shard."""
    epoch: int
    """How often the lane has been through its rows before."""


class _Run(NamedTuple):
    """Rows of one shard that a lane owns."""

    shard: int
    first_row: int
    rows: int


class TokenStream:
    """The rows of one cluster; holds no position."""

    def __init__(
        self,
        name: str,
        folder: Path,
        index: Index,
        cache: ShardCache,
        *,
        seq_len: int,
        lanes: int,
        seed: int,
    ) -> None:
        self.name = name
        self._folder, self._index, self._cache = folder, index, cache
        self._seq_len, self._seed = seq_len, seed
        shard_rows = [concat_rows(shard.tokens, seq_len) for shard in index.shards]
        self.rows = sum(shard_rows)
        """Rows of one epoch."""
        order = shuffled(len(shard_rows), seed, name, "shards")
        self._lanes = [_lane_runs(shard_rows, order, lane, lanes) for lane in range(lanes)]
        self.lane_rows = np.array([sum(r.rows for r in runs) for runs in self._lanes], np.int64)
        """Rows that each lane owns, int64 ``[C]``. Where there are fewer rows than lanes, lanes
        share them, so that each owns one."""
        self._epochs: dict[int, tuple[int, list[_Run], NDArray[np.int64]]] = {}

    def locate(self, lane: int, number: int) -> RowAddress:
        """Find the row that ``lane`` serves as its ``number``-th, from 0."""
        epoch, position = divmod(number, int(self.lane_rows[lane]))
        runs, ends = self._epoch(lane, epoch)
        i = int(np.searchsorted(ends, position, side="right"))
        run = runs[i]
        secret = np.uint64(key(self._seed, self.name, "rows", lane, epoch, run.shard))
        within = position - int(ends[i]) + run.rows
        row = run.first_row + int(permute(within, run.rows, secret))
        # The same for all lanes of a shard, else their rows would overlap.
        spare = self._index.shards[run.shard].tokens % self._seq_len
        turn = np.uint64(key(self._seed, self.name, "shift", epoch, run.shard))
        shift = int(mix(turn)) % (spare + 1)
        return RowAddress(run.shard, shift + row * self._seq_len, epoch)

    def read(self, address: RowAddress, out: NDArray[np.int64]) -> None:
        """Copy the row at ``address`` into ``out``, int64 ``[seq_len]``."""
        dtype = self._index.dtype
        view = self._cache.view(self._folder, self._index.shards[address.shard], dtype)
        size = np.dtype(dtype).itemsize
        copy_tokens(view.data, view.starts, view.ends, address.first_token, size, out)

    def _epoch(self, lane: int, epoch: int) -> tuple[list[_Run], NDArray[np.int64]]:
        """Return the runs of a lane in the order of ``epoch``, and where each ends."""
        if (known := self._epochs.get(lane)) is None or known[0] != epoch:
            order = shuffled(len(self._lanes[lane]), self._seed, self.name, "runs", lane, epoch)
            runs = [self._lanes[lane][i] for i in order]
            known = (epoch, runs, np.cumsum([run.rows for run in runs]))
            self._epochs[lane] = known
        return known[1], known[2]


def _lane_runs(
    shard_rows: list[int], order: NDArray[np.int64], lane: int, lanes: int
) -> list[_Run]:
    """Cut the rows of all shards, in ``order``, into ``lanes`` equal parts; return one of them."""
    total = sum(shard_rows)
    first, end = lane * total // lanes, (lane + 1) * total // lanes
    end = min(max(end, first + 1), total)
    runs, before = [], 0
    for shard in order:
        rows = shard_rows[shard]
        low, high = max(first, before), min(end, before + rows)
        if low < high:
            runs.append(_Run(int(shard), low - before, high - low))
        before += rows
    return runs
