"""BatchPlanner: plan many batches in one call, and list the rows of this rank in them.

To plan a batch means to choose its rows; no shard is read. One call plans many batches, because a
call from Python takes longer than the one or two microseconds in which compiled code plans a batch.
If weights change, the batches are planned again.

A visit is the reading of one shard by one lane (a virtual rank) in one epoch. Each planned row has
the index of its visit. So the code that copies rows opens a shard once per visit, and needs no
search for each row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.permutation import derive_key, mix
from climbstream.loader.formats.mixture import ONE

from .lanes import Lanes, assign_lanes, find_row
from .quotas import allocate_rows

NOBODY = -1
"""A rank that reads no lane: a planner for this rank plans batches, but lists no rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """The settings of a run that, with shards and weights, decide the order of its rows.

    Raises:
        UsageError: ``fraction`` is 0 or less, or above 1.
    """

    seed: int
    seq_len: int
    """Number of tokens of a row."""
    batch_rows: int
    """Number of rows of a batch, over all ranks; a resumed run may use another number."""
    lanes: int
    """Number of lanes (virtual ranks)."""
    pack: str
    """How documents become rows: one of `packing.PACKS`."""
    fraction: float = 1.0
    """Fraction of each cluster that is served, above 0 and at most 1."""

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise UsageError(
                f"fraction is {self.fraction}; it is the fraction of each cluster that is served, "
                "above 0 and at most 1"
            )


class Position(NamedTuple):
    """A position between two batches of a run.

    The position, the weights and the settings of the run determine all later rows.
    """

    step: int
    """Number of batches before this position."""
    served: int
    """Number of rows in all batches before this position."""
    consumed: NDArray[np.int64]
    """Number of rows served, by cluster and lane, ``[K, C]``."""
    credit: NDArray[np.int64]
    """Credit of each cluster: the number of rows by which it has received less than its share, in
    units of 1 / `ONE` of a row, ``[K]``. It is below 0 if the cluster has received more."""

    @classmethod
    def start(cls, clusters: int, lanes: int) -> Self:
        """Return the position before the first batch."""
        return cls(0, 0, np.zeros((clusters, lanes), np.int64), np.zeros(clusters, np.int64))


class PlannedSteps(NamedTuple):
    """The rows that a rank serves in steps that were planned together."""

    rows: NDArray[np.int64]
    """Three numbers for each row, ``[n, 3]``: its cluster, the index of its visit, and its number
    within the shard. Rows are in the order of steps, and all steps have the same number of rows."""
    visits: NDArray[np.int64]
    """Five numbers for each visit, ``[m, 5]``: cluster, lane, shard, epoch, and the index in `rows`
    of its first row."""
    planned: int
    """Number of steps that were planned."""
    quotas: NDArray[np.int64]
    """Number of rows of each cluster in each step, over all ranks, ``[planned, K]``."""
    marks: NDArray[np.uint64]
    """Hash of each step, ``[planned]``. It depends on the cluster, lane and number within the lane
    of each row of all ranks, and on the order of these rows."""
    after: Position
    """The position after these steps."""

    @classmethod
    def none(cls, position: Position) -> Self:
        """Return a plan without steps, at ``position``."""
        quotas = np.zeros((0, len(position.credit)), np.int64)
        rows, visits = np.zeros((0, 3), np.int64), np.zeros((0, 5), np.int64)
        return cls(rows, visits, 0, quotas, np.zeros(0, np.uint64), position)


class BatchPlanner(NamedTuple):
    """Plans the batches of one run for one rank."""

    lanes: Lanes
    batch_rows: int
    rank: int
    """Rank whose rows are listed; `NOBODY`: batches are planned, but no rows are listed."""
    world_size: int
    secret: np.uint64
    """Key of the order of rows within batches."""

    @classmethod
    def for_run(
        cls,
        shard_rows: Mapping[str, ArrayLike],
        run: RunSettings,
        rank: int = NOBODY,
        world_size: int = 1,
    ) -> Self:
        """Return the planner of a run. Loader and audit both use it, so they plan the same batches.

        Args:
            shard_rows: For each cluster, by name, the number of rows of each shard in an epoch.
            run: Settings of the run.
            rank: Rank whose rows are listed, or `NOBODY`.
            world_size: Number of ranks.
        """
        lanes = Lanes.deal([*shard_rows], [*shard_rows.values()], run.lanes, run.seed)
        secret = np.uint64(derive_key(run.seed, "order within a batch"))
        return cls(lanes, run.batch_rows, rank, world_size, secret)

    def plan(
        self, position: Position, weights: NDArray[np.int64], count: int, room: NDArray[np.int64]
    ) -> PlannedSteps:
        """Return a plan of at most ``count`` steps from ``position`` on.

        The plan ends before the first step that needs more rows of a cluster than ``room`` allows,
        so it may be empty. ``position`` is not changed.

        Args:
            position: Position before the first step.
            weights: Weights of the clusters, int64 ``[1 or count, K]``: one row for all steps or
                one row per step, each with sum `ONE`.
            count: Largest number of steps.
            room: Number of rows of each cluster that may still be served, int64 ``[K]``.
        """
        consumed, credit = position.consumed.copy(), position.credit.copy()
        rows, visits, quotas, marks, done = _plan(
            self.lanes,
            weights,
            self.batch_rows,
            count,
            position.step,
            position.served,
            consumed,
            credit,
            room.copy(),
            self.rank,
            self.world_size,
            self.secret,
        )
        served = position.served + done * self.batch_rows
        after = Position(position.step + done, served, consumed, credit)
        return PlannedSteps(rows, visits, done, quotas, marks, after)


@njit(cache=True)
def _plan(
    lanes: Any,
    weights: Any,
    batch_rows: Any,
    count: Any,
    step: Any,
    served: Any,
    consumed: Any,
    credit: Any,
    room: Any,
    rank: Any,
    world_size: Any,
    secret: Any,
) -> Any:
    """Plan at most ``count`` steps; return rows, visits, quotas, marks and the number of steps.

    `PlannedSteps` describes what is returned. ``consumed``, ``credit`` and ``room`` are updated in
    place.
    """
    secrets, owned, heads, runs, orders = lanes
    clusters, width = consumed.shape
    most = count * (batch_rows // world_size)
    rows, visits = np.empty((most, 3), np.int64), np.empty((most, 5), np.int64)
    drawn, marks = np.empty((count, clusters), np.int64), np.empty(count, np.uint64)
    current = np.full(clusters * width, -1)
    n, m, done = 0, 0, 0
    for done in range(count):
        shares = weights[min(done, len(weights) - 1)]
        quotas = allocate_rows(shares, batch_rows, credit)
        short = False
        for k in range(clusters):
            room[k] -= quotas[k]
            short |= room[k] < 0
        if short:
            for k in range(clusters):
                credit[k] += quotas[k] * ONE - shares[k] * batch_rows
            break
        key = secret + np.uint64((step + done) * width)
        table = assign_lanes(quotas, served + done * batch_rows, owned, consumed, key)
        mark = np.uint64(1)
        for i in range(batch_rows):
            cluster, lane = table[i, 0], table[i, 1]
            mark = mix(mark ^ np.uint64(((cluster * width + lane) << 44) + table[i, 2]))
            if lane % world_size != rank:
                continue
            at = cluster * width + lane
            shard, row, epoch = find_row(
                secrets[cluster], lane, table[i, 2], owned[cluster, lane], at, heads, runs, orders
            )
            visit = current[at]
            if visit < 0 or visits[visit, 2] != shard or visits[visit, 3] != epoch:
                visit = current[at] = m
                visits[m, 0], visits[m, 1], visits[m, 2] = cluster, lane, shard
                visits[m, 3], visits[m, 4] = epoch, n
                m += 1
            rows[n, 0], rows[n, 1], rows[n, 2] = cluster, visit, row
            n += 1
        drawn[done], marks[done] = quotas, mark
    else:
        done = count
    return rows[:n], visits[:m].copy(), drawn[:done], marks[:done], done
