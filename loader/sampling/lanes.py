"""Lanes: the rows of all clusters, dealt to C lanes once for a run, and which row comes n-th.

The shards of a cluster are put into one keyed order, and their R rows are cut into C equal parts:
lane l owns rows l * R / C to (l + 1) * R / C. So a node that serves a few lanes reads few shards,
and lanes own equally many rows, within one. In each epoch a lane visits its shards, and the rows
of each shard, in another order. The n-th row of a lane is a pure function of (seed, cluster, lane,
n); finding it takes one search of the lane's shards.

All clusters lie in flat arrays, so that compiled code plans a batch without calling Python.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from climbstream.loader.core.permutation import derive_key, permutation, permute, shuffled, subkey


class Lanes(NamedTuple):
    """The rows of K clusters in C lanes; a lane is a list of runs of rows, each of one shard."""

    secrets: NDArray[np.uint64]
    """Key of each cluster, ``[K]``."""
    owned: NDArray[np.int64]
    """Rows of each lane, ``[K, C]``. Where there are fewer rows than lanes, lanes share rows, so
    that each has one."""
    heads: NDArray[np.int64]
    """First run of each cluster and lane, the run after its last, and the epoch whose order is in
    `orders` (-1: none yet), ``[K * C, 3]``."""
    runs: NDArray[np.int64]
    """Shard (counted within its cluster), first row within it, and rows: ``[runs, 3]``."""
    orders: NDArray[np.int64]
    """The runs in the order of an epoch: run, number of rows up to its end, and key of the order of
    its rows, as int64: ``[runs, 3]``. Compiled code fills it when it first needs an epoch."""

    @classmethod
    def deal(
        cls, names: Sequence[str], shard_rows: Sequence[Sequence[int]], lanes: int, seed: int
    ) -> Self:
        """Deal the rows of clusters ``names``, counted by shard in ``shard_rows``, to lanes."""
        secrets = np.array([derive_key(seed, name) for name in names], np.uint64)
        ends = np.cumsum([0, *map(len, shard_rows)])
        rows = np.array([n for shards in shard_rows for n in shards], np.int64)
        owned, heads, runs = _deal(rows, ends, secrets, lanes)
        return cls(secrets, owned, heads, runs, np.zeros_like(runs))


def keep_part(shard_rows: Sequence[int], part: float, seed: int, name: str) -> list[int]:
    """Return how many rows of each shard are served if only ``part`` of cluster ``name`` is.

    These are whole shards in a keyed order and the first rows of one more, so that few shards are
    fetched. A cluster that has a row serves at least one.
    """
    left = math.ceil(part * sum(shard_rows))
    kept = [0] * len(shard_rows)
    for shard in shuffled(len(shard_rows), seed, name, "part").tolist():
        kept[shard] = min(left, shard_rows[shard])
        left -= kept[shard]
    return kept


@njit(cache=True)
def locate(lanes: Any, cluster: Any, lane: Any, number: Any) -> Any:
    """Find the row that ``lane`` serves as its ``number``-th, from 0: (shard, row, epoch)."""
    owned, at = lanes.owned[cluster, lane], cluster * lanes.owned.shape[1] + lane
    secret = lanes.secrets[cluster]
    return find_row(secret, lane, number, owned, at, lanes.heads, lanes.runs, lanes.orders)


@njit(cache=True)
def find_row(
    secret: Any, lane: Any, number: Any, owned: Any, at: Any, heads: Any, runs: Any, orders: Any
) -> Any:
    """Like `locate`, in compiled code: the lane has ``owned`` rows, and its head is ``at``.

    Taking an array out of a tuple counts a reference, so loops take the arrays out once.
    """
    begin, end, epoch = heads[at, 0], heads[at, 1], heads[at, 2]
    position = number - epoch * owned
    if epoch < 0 or position < 0 or position >= owned:
        epoch, position = number // owned, number % owned
        _turn(subkey(subkey(secret, lane), epoch), begin, end, runs, orders)
        heads[at, 2] = epoch
    # The first run, in the order of the epoch, that ends after the position.
    low, high = begin, end - 1
    while low < high:
        middle = (low + high) // 2
        if orders[middle, 1] <= position:
            low = middle + 1
        else:
            high = middle
    run = orders[low, 0]
    rows = runs[run, 2]
    within = position - orders[low, 1] + rows
    row = runs[run, 1] + permute(within, rows, np.uint64(orders[low, 2]))
    return runs[run, 0], row, epoch


@njit(cache=True)
def next_runs(lanes: Any, consumed: Any, rates: Any, rank: Any, world_size: Any) -> Any:
    """Find the shards that the lanes of a rank turn to next, and the number of steps until then.

    ``consumed`` is int64 ``[K, C]``; ``rates``, float64 ``[K]``, the rows a step that one lane
    serves of a cluster, 0 for none. Returns the steps until then, float64 ``[n]``, and (cluster,
    shard), int64 ``[n, 2]``. A lane with a single shard never turns to another.
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
    """Put the runs ``begin`` to ``end`` of a lane in the order that ``secret`` keys."""
    total = np.int64(0)
    for i in range(end - begin):
        run = begin + permute(i, end - begin, secret)
        total += runs[run, 2]
        orders[begin + i, 0], orders[begin + i, 1] = run, total
        orders[begin + i, 2] = np.int64(subkey(secret, runs[run, 0]))


@njit(cache=True)
def _deal(rows: Any, ends: Any, secrets: Any, lanes: Any) -> Any:
    """Cut ``rows``, by shard (cluster k has shards ends[k] to ends[k + 1]), into equal parts.

    Returns what `Lanes` holds: owned, heads, runs.
    """
    clusters = len(secrets)
    # A run ends where a shard or a lane ends.
    runs = np.empty((len(rows) + clusters * lanes, 3), np.int64)
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
    """Choose for each row of a global batch its cluster, its lane, and its number within the two.

    Slot i of the batch belongs to lane ``(served + i) % C``, so all ranks get the same number of
    rows if the world size divides C and the batch. The rows of a cluster go to the lanes that have
    read the smallest part of what they own, so lanes stay within a few rows of each other.

    ``quotas`` is int64 ``[K]``; ``served`` counts the rows before this batch; ``lane_rows``, int64
    ``[K, C]``, is what each lane owns; ``consumed``, int64 ``[K, C]``, what it has served, and is
    updated in place; ``secret`` keys the order within the batch. Returns int64 ``[B, 3]``.
    """
    lanes = consumed.shape[1]
    rows = quotas.sum()
    begin = served % lanes
    room = np.full(lanes, rows // lanes)
    for i in range(rows % lanes):
        room[(begin + i) % lanes] += 1
    left = room.copy()
    result = np.empty((rows, 3), np.int64)
    # The most uneven clusters choose first, so that none drifts; the others fill the slots left.
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
            part, whole = np.int64(1), np.int64(0)  # (consumed + 1) and rows of `best`
            # The index wraps without a division or a branch: a division, or a wrongly predicted
            # branch, costs more than all else here.
            for _ in range(lanes):
                its_part, its_whole = done[lane] + 1, owned[lane]
                # The parts are compared by cross multiplication.
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
