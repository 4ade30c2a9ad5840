"""Lanes: deal the rows of each cluster to C lanes once per run, and find the n-th row of a lane.

A lane is a virtual rank: each rank reads one or several whole lanes. If the run resumes on another
number of ranks, the number of lanes and the order of rows stay the same.

The shards of a cluster are put into one pseudo-random order, which depends on the seed. Their R
rows are cut into C parts of nearly equal size: lane l owns the rows from l * R / C up to (l + 1) *
R / C. So a node that serves a few lanes reads few shards, and the numbers of rows of any two lanes
differ by at most one. In each epoch, a lane reads its shards in a new order, and the rows of each
shard in a new order. The n-th row of a lane depends only on the shards, the seed, the cluster, the
lane and n. A binary search over the shards of the lane finds this row.

The data of all clusters are in flat arrays, so that compiled code can plan a batch without calling
Python.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from climbstream.loader.core.permutation import derive_key, permutation, permute, shuffled, subkey


class Lanes(NamedTuple):
    """The rows of K clusters in C lanes.

    Each lane has a list of runs for each cluster. A run is consecutive rows of one shard.
    """

    secrets: NDArray[np.uint64]
    """Key of each cluster, from which its pseudo-random orders are derived, ``[K]``."""
    owned: NDArray[np.int64]
    """Number of rows of each cluster in each lane, ``[K, C]``. If a cluster has fewer rows than
    there are lanes, several lanes own the same row, so that each lane has one row."""
    heads: NDArray[np.int64]
    """Three numbers for each cluster and lane, ``[K * C, 3]``: the index of its first run, the
    index after its last run, and the epoch whose order is in `orders` (-1: none yet)."""
    runs: NDArray[np.int32]
    """Three numbers for each run, ``[runs, 3]``: its shard (counted within the cluster), its first
    row within the shard, and its number of rows. These are int32, because every rank keeps the runs
    of all lanes, and a corpus may have a million shards."""
    orders: NDArray[np.int64]
    """The runs of each lane in the order of one epoch, ``[runs, 3]``. The three numbers are the
    index of a run, the number of rows of the lane up to the end of this run, and the key of the
    order of the run's rows. Compiled code replaces the entries of a lane when the lane needs
    another epoch."""

    @classmethod
    def deal(
        cls, names: Sequence[str], shard_rows: Sequence[ArrayLike], lanes: int, seed: int
    ) -> Self:
        """Deal the rows of clusters to lanes.

        Args:
            names: Names of the K clusters; their pseudo-random orders depend on these.
            shard_rows: For each cluster, the number of rows of each of its shards, ``[n]``.
            lanes: Number of lanes.
            seed: Seed of the run.
        """
        secrets = np.array([derive_key(seed, name) for name in names], np.uint64)
        each = [np.asarray(rows, np.int64) for rows in shard_rows]
        ends = np.cumsum([0, *map(len, each)])
        rows = np.concatenate(each)
        owned, heads, runs = _deal(rows, ends, secrets, lanes)
        # Unlike `zeros_like`, `zeros` takes no memory for the lanes of other ranks.
        return cls(secrets, owned, heads, runs, np.zeros(runs.shape, np.int64))


def keep_part(
    shard_rows: NDArray[np.int64], part: float, seed: int, name: str
) -> NDArray[np.int64]:
    """Return how many rows of each shard are served if ``part`` of a cluster's rows is served.

    ``part`` is a fraction. Shards are taken in a pseudo-random order: all rows of the first shards,
    and then the first rows of one more shard. So only few shards are fetched. At least one row of a
    cluster is served, unless the cluster has no rows. The result is int64 ``[n]``.
    """
    order = shuffled(len(shard_rows), seed, name, "part")
    rows = shard_rows[order]
    before = np.cumsum(rows) - rows
    kept = np.empty_like(shard_rows)
    kept[order] = np.clip(math.ceil(part * int(rows.sum())) - before, 0, rows)
    return kept


@njit(cache=True)
def locate(lanes: Any, cluster: Any, lane: Any, number: Any) -> Any:
    """Return (shard, row within the shard, epoch) of row ``number`` of ``lane`` in ``cluster``.

    The rows of this cluster that the lane serves are numbered from 0; the numbers go on from one
    epoch to the next.
    """
    owned, at = lanes.owned[cluster, lane], cluster * lanes.owned.shape[1] + lane
    secret = lanes.secrets[cluster]
    return find_row(secret, lane, number, owned, at, lanes.heads, lanes.runs, lanes.orders)


@njit(cache=True)
def find_row(
    secret: Any, lane: Any, number: Any, owned: Any, at: Any, heads: Any, runs: Any, orders: Any
) -> Any:
    """Return what `locate` returns, but take the arrays of `Lanes` as separate arguments.

    ``secret`` is the key of the cluster, ``owned`` the number of rows of the lane, and ``at`` the
    index of the lane in ``heads``. Compiled code that calls this function in a loop takes the
    arrays out of the tuple once, before the loop, because numba counts a reference at each access,
    which takes time.
    """
    begin, end, epoch = heads[at, 0], heads[at, 1], heads[at, 2]
    position = number - epoch * owned
    if epoch < 0 or position < 0 or position >= owned:
        epoch, position = number // owned, number % owned
        _turn(subkey(subkey(secret, lane), epoch), begin, end, runs, orders)
        heads[at, 2] = epoch
    # Find the first run, in the order of the epoch, that ends after the position.
    low, high = begin, end - 1
    while low < high:
        middle = (low + high) // 2
        if orders[middle, 1] <= position:
            low = middle + 1
        else:
            high = middle
    run = orders[low, 0]
    rows = np.int64(runs[run, 2])
    within = position - orders[low, 1] + rows
    row = runs[run, 1] + permute(within, rows, np.uint64(orders[low, 2]))
    return np.int64(runs[run, 0]), row, epoch


@njit(cache=True)
def next_runs(lanes: Any, consumed: Any, rates: Any, rank: Any, world_size: Any) -> Any:
    """Return (steps, shards): which shard each lane of a rank needs next, and in how many steps.

    ``steps`` is float64 ``[n]``; ``shards`` has (cluster, shard), int64 ``[n, 2]``. Two kinds of
    lanes are left out: lanes of a cluster with rate 0, and lanes with a single shard, which never
    need another one.

    Args:
        lanes: The lanes of all ranks.
        consumed: Number of rows that each lane has served of each cluster, int64 ``[K, C]``.
        rates: Number of rows of each cluster that one lane serves per step, float64 ``[K]``.
        rank: Rank whose lanes are looked at.
        world_size: Number of ranks.
    """
    clusters, width = consumed.shape
    most = clusters * width
    soon, shards, n = np.empty(most), np.empty((most, 2), np.int64), 0
    for k in range(clusters):
        for lane in range(rank, width, world_size):
            at = k * width + lane
            begin, end = lanes.heads[at, 0], lanes.heads[at, 1]
            if rates[k] <= 0 or end - begin < 2:
                continue
            locate(lanes, k, lane, consumed[k, lane])
            position = consumed[k, lane] % lanes.owned[k, lane]
            low = begin
            while lanes.orders[low, 1] <= position:
                low += 1
            if low + 1 < end:
                run = lanes.orders[low + 1, 0]
            else:
                secret = subkey(subkey(lanes.secrets[k], lane), lanes.heads[at, 2] + 1)
                run = begin + permute(np.int64(0), end - begin, secret)
            soon[n] = (lanes.orders[low, 1] - position) / rates[k]
            shards[n, 0], shards[n, 1] = k, lanes.runs[run, 0]
            n += 1
    return soon[:n], shards[:n]


@njit(cache=True)
def _turn(secret: Any, begin: Any, end: Any, runs: Any, orders: Any) -> None:
    """Write a lane's runs, ``begin`` to ``end`` - 1, to ``orders`` in the order of an epoch.

    The order is determined by the key ``secret``.
    """
    total = np.int64(0)
    for i in range(end - begin):
        run = begin + permute(i, end - begin, secret)
        total += runs[run, 2]
        orders[begin + i, 0], orders[begin + i, 1] = run, total
        orders[begin + i, 2] = np.int64(subkey(secret, np.int64(runs[run, 0])))


@njit(cache=True)
def _deal(rows: Any, ends: Any, secrets: Any, lanes: Any) -> Any:
    """Cut the rows of each cluster into one part per lane; return owned, heads and runs of `Lanes`.

    ``rows`` is the number of rows of each shard. Cluster k has the shards from index ends[k] up to,
    but without, ends[k + 1].
    """
    clusters = len(secrets)
    # A run ends where a shard or a lane ends.
    runs = np.empty((len(rows) + clusters * lanes, 3), np.int32)
    heads = np.full((clusters * lanes, 3), -1)
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
            heads[k * lanes + lane, 0] = n
            while i < len(order) and before + theirs[order[i]] <= low:
                before += theirs[order[i]]
                i += 1
            at, here = i, before
            while here < high:
                begin, end = max(low, here), min(high, here + theirs[order[at]])
                if begin < end:
                    runs[n, 0], runs[n, 1], runs[n, 2] = order[at], begin - here, end - begin
                    n += 1
                here += theirs[order[at]]
                at += 1
            owned[k, lane] = high - low
            heads[k * lanes + lane, 1] = n
    return owned, heads, runs[:n].copy()


@njit(cache=True)
def assign_lanes(quotas: Any, served: Any, lane_rows: Any, consumed: Any, secret: Any) -> Any:
    """Return (cluster, lane, number) of each row of a global batch of B rows, int64 ``[B, 3]``.

    ``number`` is the row's number within its cluster and lane, as for `locate`. A batch has B slots
    for rows, and slot i belongs to lane ``(served + i) % C``. So all ranks get the same number of
    rows if the world size divides both C and B.

    This function chooses the cluster for each slot. Of the lanes that have a free slot, a row of a
    cluster goes to the one that has read the smallest fraction of its own rows of the cluster. So
    the lanes of a cluster stay within a few rows of each other.

    Args:
        quotas: Number of rows of each cluster in the batch, int64 ``[K]``.
        served: Number of rows in all batches before this one.
        lane_rows: Number of rows that each lane owns, int64 ``[K, C]``.
        consumed: Number of rows that each lane has served, int64 ``[K, C]``; updated in place.
        secret: Key of the pseudo-random order of rows within the batch.
    """
    lanes = consumed.shape[1]
    rows = quotas.sum()
    begin = served % lanes
    room = np.full(lanes, rows // lanes)
    for i in range(rows % lanes):
        room[(begin + i) % lanes] += 1
    left = room.copy()
    result = np.empty((rows, 3), np.int64)
    # Clusters whose lanes have read the most different fractions choose slots first, so that these
    # differences do not grow; the other clusters fill the slots that are left.
    clusters = np.flatnonzero(quotas)
    spread = np.empty(len(clusters), np.float64)
    for i in range(len(clusters)):
        k = clusters[i]
        least, most = np.inf, -np.inf
        for lane in range(lanes):
            epochs = consumed[k, lane] / lane_rows[k, lane] if lane_rows[k, lane] else 0.0
            least, most = min(least, epochs), max(most, epochs)
        spread[i] = (most - least) * lane_rows[k].sum()
    for k in clusters[np.argsort(-spread, kind="mergesort")]:
        done, owned, first = consumed[k], lane_rows[k], k % lanes
        for _ in range(quotas[k]):
            best, lane = -1, first
            part, whole = np.int64(1), np.int64(0)  # rows consumed plus 1, and rows, of lane `best`
            # `lane` goes round without a division or a branch, because a division or a wrongly
            # predicted branch would take most of the time here.
            for _ in range(lanes):
                its_part, its_whole = done[lane] + 1, owned[lane]
                # The fractions its_part / its_whole and part / whole are compared without division.
                better = (left[lane] > 0) & (its_part * whole < part * its_whole)
                best = lane if better else best
                part = its_part if better else part
                whole = its_whole if better else whole
                lane = lane + 1 if lane + 1 < lanes else 0
            turn = permute(room[best] - left[best], room[best], secret + np.uint64(best))
            slot = best - begin + (lanes if best < begin else 0) + turn * lanes
            result[slot, 0], result[slot, 1], result[slot, 2] = k, best, consumed[k, best]
            consumed[k, best] += 1
            left[best] -= 1
    return result
