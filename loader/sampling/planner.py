"""BatchPlanner: the next batches, planned many at once, as rows of this rank.

Compiled code plans a batch in a microsecond or two, and the call from Python takes longer than
that. So one call plans many steps, and they are planned anew when weights change. Planning reads
no shard.

A visit is what a lane reads of one shard in one epoch. Each row names its visit, so the code that
copies rows opens a shard at its first visit, and looks nothing up for each row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.permutation import derive_key, mix
from climbstream.loader.formats.mixture import ONE

from .lanes import Lanes, assign_lanes, find_row
from .quotas import allocate_rows

NOBODY = -1
"""A rank that owns no lane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """The settings that fix the order of rows for a whole run, beside the shards and the weights.

    Raises:
        UsageError: ``fraction`` is not above 0 and at most 1.
    """

    seed: int
    seq_len: int
    """Tokens of a row."""
    batch_rows: int
    """Rows of a batch, over all ranks; a run that is resumed may choose another number."""
    lanes: int
    pack: str
    fraction: float = 1.0
    """Fraction of each cluster that is served."""

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise UsageError(
                f"fraction is {self.fraction}; it is the fraction of each cluster that is served, "
                "above 0 and at most 1"
            )


class Position(NamedTuple):
    """The place of a run: with weights and settings, it decides the next batch."""

    step: int
    """Number of batches before this one."""
    served: int
    """Number of rows of all those batches."""
    consumed: NDArray[np.int64]
    """Rows served by cluster and lane, ``[K, C]``."""
    credit: NDArray[np.int64]
    """Rows owed by cluster, ``[K]``, in units of row / `ONE`."""

    @classmethod
    def start(cls, clusters: int, lanes: int) -> Self:
        """Return the position before the first batch."""
        return cls(0, 0, np.zeros((clusters, lanes), np.int64), np.zeros(clusters, np.int64))


class PlannedSteps(NamedTuple):
    """The rows that a rank serves in the steps from a position on."""

    rows: NDArray[np.int64]
    """Cluster, visit, and row within the shard, ``[n, 3]``; all steps have equally many."""
    visits: NDArray[np.int64]
    """Cluster, lane, shard, epoch, and the first row that needs the visit, ``[m, 5]``."""
    planned: int
    """Number of steps that were planned."""
    quotas: NDArray[np.int64]
    """Rows of each cluster in each step, on all ranks together, ``[planned, K]``."""
    marks: NDArray[np.uint64]
    """Hash of the rows of each step over all ranks, ``[planned]``: of the cluster, lane and number
    of each row, in order."""
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
    """Rank whose rows are listed; with `NOBODY`, batches are planned and no rows are listed."""
    world_size: int
    secret: np.uint64
    """Key of the order within batches."""

    @classmethod
    def for_run(
        cls,
        shard_rows: Mapping[str, Sequence[int]],
        run: RunSettings,
        rank: int = NOBODY,
        world_size: int = 1,
    ) -> Self:
        """Return the planner of a run: loader and audit get the same batches.

        Args:
            shard_rows: Rows that each shard of each cluster gives in an epoch, by cluster.
            run: Its settings.
            rank: Whose rows are listed.
            world_size: Number of ranks.
        """
        lanes = Lanes.deal([*shard_rows], [*shard_rows.values()], run.lanes, run.seed)
        secret = np.uint64(derive_key(run.seed, "order within a batch"))
        return cls(lanes, run.batch_rows, rank, world_size, secret)

    def plan(
        self, position: Position, weights: NDArray[np.int64], count: int, room: NDArray[np.int64]
    ) -> PlannedSteps:
        """Plan at most ``count`` steps from ``position`` on; ``position`` is not changed.

        ``weights`` are int64 ``[1 or count, K]``, a row a step or one for all, each with sum `ONE`.
        ``room`` is int64 ``[K]``: rows that each cluster may still serve. The plan ends before a
        step that would pass it, so it may be empty.
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
    """Plan steps; ``consumed``, ``credit`` and ``room`` are updated in place."""
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
