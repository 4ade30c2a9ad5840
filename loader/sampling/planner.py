"""PlannedSteps: the next batches, planned many at once, as rows of this rank.

Deciding a batch takes a microsecond or two in compiled code, and more than that to call from
Python; so steps are planned ahead in one call, and planned anew when weights change. Planning
touches no shard.

A visit is what a lane reads of one shard in one epoch. Rows name their visit, so whoever copies
them opens a shard when it is first visited, and looks nothing up for each row.
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
"""The rank that owns no lane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What fixes the order of rows for a whole run, beside the shards and the weights.

    Raises:
        UsageError: The fraction is none.
    """

    seed: int
    seq_len: int
    """Tokens of a row."""
    batch_rows: int
    """Rows of a batch, over all ranks; another number may be chosen when a run goes on."""
    lanes: int
    pack: str
    fraction: float = 1.0
    """Of each cluster that is served."""

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise UsageError(
                f"fraction is {self.fraction}; it is the fraction of each cluster that is served, "
                "above 0 and at most 1"
            )


class Position(NamedTuple):
    """Where a run is: all that decides the next batch, apart from weights and settings."""

    step: int
    """Batches before this one."""
    served: int
    """Rows of all those batches."""
    consumed: NDArray[np.int64]
    """Rows served by cluster and lane, ``[K, C]``."""
    credit: NDArray[np.int64]
    """Rows owed by cluster, ``[K]``, in units of row / `ONE`."""

    @classmethod
    def start(cls, clusters: int, lanes: int) -> Self:
        """Return the position before the first batch."""
        return cls(0, 0, np.zeros((clusters, lanes), np.int64), np.zeros(clusters, np.int64))


class PlannedSteps(NamedTuple):
    """Rows that a rank serves in the steps from a position on."""

    rows: NDArray[np.int64]
    """Cluster, visit, and row within the shard, ``[n, 3]``: step after step, equally many each."""
    visits: NDArray[np.int64]
    """Cluster, lane, shard, epoch, and the first of the rows that needs it, ``[m, 5]``."""
    planned: int
    """Steps that were planned."""
    quotas: NDArray[np.int64]
    """Rows of each cluster in each step, on all ranks together, ``[planned, K]``."""
    marks: NDArray[np.uint64]
    """Hash of the rows of each step, on all ranks together, ``[planned]``: cluster, lane and number
    of each, in their order."""
    after: Position
    """The position after them."""

    @classmethod
    def none(cls, position: Position) -> Self:
        """Return no steps, at ``position``."""
        quotas = np.zeros((0, len(position.credit)), np.int64)
        rows, visits = np.zeros((0, 3), np.int64), np.zeros((0, 5), np.int64)
        return cls(rows, visits, 0, quotas, np.zeros(0, np.uint64), position)


class BatchPlanner(NamedTuple):
    """What stays the same in a run, on one rank."""

    lanes: Lanes
    batch_rows: int
    rank: int
    """`NOBODY` plans whole batches, and lists the rows of none."""
    world_size: int
    secret: np.uint64
    """Keys the order within batches."""

    @classmethod
    def for_run(
        cls,
        shard_rows: Mapping[str, Sequence[int]],
        run: RunSettings,
        rank: int = NOBODY,
        world_size: int = 1,
    ) -> Self:
        """Return the planner of a run: the same batches for a loader and for who recomputes them.

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
        """Plan at most ``count`` steps from ``position`` on, which stays as it is.

        ``weights`` are int64 ``[1 or count, K]``, a row a step or one for all, each with sum `ONE`.
        ``room`` is int64 ``[K]``: rows that each cluster may still serve. Steps end before the one
        that would pass it, so none may be planned.
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
