"""Lanes: the rows of all clusters, dealt to C lanes once for a run, and which row comes n-th.

The shards of a cluster are put into one keyed order, and their rows cut into C equal runs: lane l
owns rows l * R / C to (l + 1) * R / C. So a node that serves a few lanes touches few shards, and
every lane owns as many rows as any other, within one. Each epoch a lane visits its shards in
another order, and the rows of a shard too. Which row a lane serves n-th is a pure function of
(seed, cluster, lane, n), found in the time that it takes to search the lane's shards.

All clusters lie in flat arrays, so compiled code plans a batch without a look at Python.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .order import key, permutation, permute, subkey


class Lanes(NamedTuple):
    """K clusters in C lanes, each lane a list of runs: rows of one shard that it owns."""

    secrets: NDArray[np.uint64]
    """Key of each cluster, ``[K]``."""
    starts: NDArray[np.int64]
    """First run of each cluster and lane, ``[K * C + 1]``."""
    shard: NDArray[np.int64]
    """Shard of each run, counted within its cluster, ``[runs]``."""
    first: NDArray[np.int64]
    """First row of each run, counted within its shard."""
    rows: NDArray[np.int64]
    """Rows of each run."""
    owned: NDArray[np.int64]
    """Rows of each lane, ``[K, C]``. Where there are fewer rows than lanes, lanes share them, so
    that each owns one."""
    epoch: NDArray[np.int64]
    """Epoch that `order` and `ends` are for, ``[K * C]``; -1: none yet."""
    order: NDArray[np.int64]
    """Runs of each lane in the order of that epoch, ``[runs]``."""
    ends: NDArray[np.int64]
    """Rows up to and including each of them, ``[runs]``."""
    keys: NDArray[np.uint64]
    """Key of the order of rows in each of them, ``[runs]``."""

    @classmethod
    def deal(
        cls, names: Sequence[str], shard_rows: Sequence[Sequence[int]], lanes: int, seed: int
    ) -> Self:
        """Deal the rows of clusters ``names``, by shard in ``shard_rows``, to ``lanes`` lanes."""
        secrets = np.array([key(seed, name) for name in names], np.uint64)
        ends = np.cumsum([0, *map(len, shard_rows)])
        rows = np.array([n for shards in shard_rows for n in shards], np.int64)
        starts, shard, first, length, owned = _deal(rows, ends, secrets, lanes)
        epoch = np.full(len(starts) - 1, -1)
        order, ends = np.zeros_like(shard), np.zeros_like(shard)
        keys = np.zeros(len(shard), np.uint64)
        return cls(secrets, starts, shard, first, length, owned, epoch, order, ends, keys)


@njit(cache=True)
def locate(lanes: Any, cluster: Any, lane: Any, number: Any) -> Any:
    """Find the row that ``lane`` serves as its ``number``-th, from 0: (shard, row, epoch)."""
    rows = lanes.owned[cluster, lane]
    epoch, position = number // rows, number % rows
    at = cluster * lanes.owned.shape[1] + lane
    begin, end = lanes.starts[at], lanes.starts[at + 1]
    if lanes.epoch[at] != epoch:
        secret = subkey(subkey(lanes.secrets[cluster], lane), epoch)
        _turn(lanes, begin, end, secret)
        lanes.epoch[at] = epoch
    # First run, in the order of the epoch, that ends after the position.
    low, high = begin, end - 1
    while low < high:
        middle = (low + high) // 2
        if lanes.ends[middle] <= position:
            low = middle + 1
        else:
            high = middle
    run = lanes.order[low]
    within = position - lanes.ends[low] + lanes.rows[run]
    row = lanes.first[run] + permute(within, lanes.rows[run], lanes.keys[low])
    return lanes.shard[run], row, epoch


@njit(cache=True)
def next_runs(lanes: Any, consumed: Any, rates: Any, rank: Any, world_size: Any) -> Any:
    """Say which shards the lanes of a rank turn to next, and how soon.

    ``consumed`` is int64 ``[K, C]``; ``rates``, float64 ``[K]``, the rows a step that one lane
    serves of a cluster, 0 for none. Returns the steps until then, float64 ``[n]``, and (cluster,
    shard), int64 ``[n, 2]``; a lane that has nothing but one shard turns to none.
    """
    clusters, width = consumed.shape
    most = clusters * width
    soon, found, n = np.empty(most), np.empty((most, 2), np.int64), 0
    for k in range(clusters):
        for lane in range(rank, width, world_size):
            at = k * width + lane
            begin, end = lanes.starts[at], lanes.starts[at + 1]
            if rates[k] <= 0 or end - begin < 2:
                continue
            locate(lanes, k, lane, consumed[k, lane])
            position = consumed[k, lane] % lanes.owned[k, lane]
            low = begin
            while lanes.ends[low] <= position:
                low += 1
            if low + 1 < end:
                run = lanes.order[low + 1]
            else:
                secret = subkey(subkey(lanes.secrets[k], lane), lanes.epoch[at] + 1)
                run = begin + permute(np.int64(0), end - begin, secret)
            soon[n] = (lanes.ends[low] - position) / rates[k]
            found[n, 0], found[n, 1] = k, lanes.shard[run]
            n += 1
    return soon[:n], found[:n]


@njit(cache=True)
def _turn(lanes: Any, begin: Any, end: Any, secret: Any) -> None:
    """Put the runs ``begin`` to ``end`` of a lane in the order that ``secret`` keys."""
    total = np.int64(0)
    for i in range(end - begin):
        run = begin + permute(i, end - begin, secret)
        total += lanes.rows[run]
        lanes.order[begin + i] = run
        lanes.ends[begin + i] = total
        lanes.keys[begin + i] = subkey(secret, lanes.shard[run])


@njit(cache=True)
def _deal(rows: Any, ends: Any, secrets: Any, lanes: Any) -> Any:
    """Cut ``rows`` (by shard; those of cluster k are ends[k] to ends[k + 1]) into equal parts.

    Returns what `Lanes` holds: starts, shard, first, rows, owned.
    """
    clusters = len(secrets)
    # Each end of a shard or of a lane ends a run.
    most = len(rows) + clusters * lanes
    shard, first, length = (
        np.empty(most, np.int64),
        np.empty(most, np.int64),
        np.empty(most, np.int64),
    )
    starts = np.zeros(clusters * lanes + 1, np.int64)
    owned = np.zeros((clusters, lanes), np.int64)
    n = 0
    for k in range(clusters):
        theirs = rows[ends[k] : ends[k + 1]]
        order = permutation(len(theirs), secrets[k])
        total = theirs.sum()
        i, before = 0, np.int64(0)
        for lane in range(lanes):
            low = lane * total // lanes
            high = min(max((lane + 1) * total // lanes, low + 1), total)
            while i < len(order) and before + theirs[order[i]] <= low:
                before += theirs[order[i]]
                i += 1
            at, here = i, before
            while here < high:
                begin, end = max(low, here), min(high, here + theirs[order[at]])
                if begin < end:
                    shard[n], first[n], length[n] = order[at], begin - here, end - begin
                    n += 1
                here += theirs[order[at]]
                at += 1
            owned[k, lane] = high - low
            starts[k * lanes + lane + 1] = n
    return starts, shard[:n].copy(), first[:n].copy(), length[:n].copy(), owned
