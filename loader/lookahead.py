"""Lookahead: plans steps ahead, counts how many are served, and handles used-up clusters.

To plan a step means to choose the rows of its batch; rows are copied later. A cluster is used up
when its next rows would exceed ``max_epochs``. A plan depends on the weights and on ``max_epochs``.
After a change of weights, planned steps that were not served are discarded, and steps are planned
again. One call of the planner takes less than 1 ms.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.audit.ledger import Ledger
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.mixture import ONE
from climbstream.loader.reading.open_shards import OpenShards
from climbstream.loader.sampling.epoch_limits import UNLIMITED, EpochLimits, estimate_steps
from climbstream.loader.sampling.lanes import next_runs
from climbstream.loader.sampling.planner import BatchPlanner, PlannedSteps, Position
from climbstream.loader.sampling.quotas import allocate_rows, count_steps
from climbstream.loader.weights.controller import WeightsController

logger = get_logger(__name__)

ON_EXHAUSTED = ("renormalise", "stop", "error")
_SHARDS_AHEAD = 8
"""Largest number of shards that are fetched before a lane needs them."""
_MOST_STEPS = 256
"""Largest number of steps in one plan."""
_MOST_ROWS = 4096
"""Largest number of rows in one plan, and largest product of its number of steps and the number of
clusters. With these limits, planning takes less than 1 ms."""
_COUNTED_WEIGHTS = 1 << 18
"""Largest product of steps and clusters in the table of weights of one call of a forecast."""
_MOST_ENDS = 32
"""Number of used-up clusters after which `Lookahead.used_up_at` ends: each takes up to 30 ms."""
_FIRST_STEPS = 16
"""Number of steps of the first plan after a change. The number is small, because the next batch
waits for this plan. Each later plan has twice as many steps as the plan before."""


@dataclass(slots=True)
class Cursor:
    """The planned steps of this rank, and how many rows of these steps were served.

    Each plan gets a new cursor, and one assignment replaces the old cursor. So after an interrupt
    by Ctrl-C or a signal, either the old or the new cursor is in place, never a mixture of both.
    """

    start: Position
    steps: PlannedSteps
    weights: NDArray[np.int64]
    """Integer weights of the K clusters in these steps, as for `BatchPlanner.plan`: one row for all
    steps, int64 ``[1, K]``, or one row per step."""
    row: int = 0
    """Number of this rank's planned rows that were served."""
    ready: int = 0
    """Number of planned rows, counted from the first, whose shards are open."""
    rows: NDArray[np.int64] = field(init=False)
    """The same array as ``steps.rows``; reading it from the named tuple would take 20 ns more."""
    clusters: NDArray[np.int64] = field(init=False)
    """Cluster of each planned row."""
    end: int = field(init=False)
    """Number of planned rows."""

    def __post_init__(self) -> None:
        self.rows = self.steps.rows
        self.clusters = self.rows[:, 0].copy()
        self.end = len(self.rows)

    @classmethod
    def at(cls, position: Position) -> Self:
        """Return a cursor without steps, at ``position``."""
        return cls(position, PlannedSteps.none(position), np.zeros((1, 0), np.int64))


class Lookahead:
    """Plans the steps of one rank ahead, and knows the position after the last batch served.

    Args:
        planner: Planner of the steps of this rank.
        weights: Controller of the weights of each step.
        limits: Largest number of epochs of each cluster.
        shards: The shards that lanes read from.
        ledger: Ledger of the steps that are served; None: they are not recorded.
        on_exhausted: What to do when a cluster is used up; one of `ON_EXHAUSTED`.
    """

    def __init__(
        self,
        planner: BatchPlanner,
        weights: WeightsController,
        limits: EpochLimits,
        shards: OpenShards,
        *,
        ledger: Ledger | None,
        on_exhausted: str,
    ) -> None:
        self._planner, self._weights, self._limits = planner, weights, limits
        self._shards, self._ledger, self._on_exhausted = shards, ledger, on_exhausted
        self._names = weights.names
        self._rows_each = planner.batch_rows // planner.world_size
        self._planning = False
        self.go_to(Position.start(*planner.lanes.owned.shape))

    def go_to(self, position: Position) -> None:
        """Continue from ``position``, and drop the planned steps."""
        self.cursor = Cursor.at(position)
        self._next_steps = _FIRST_STEPS

    @property
    def step(self) -> int:
        """Number of batches that were served."""
        cursor = self.cursor
        return cursor.start.step + cursor.row // self._rows_each

    def position(self) -> Position:
        """Return the position after the last batch that was served."""
        cursor = self.cursor
        if (done := cursor.row // self._rows_each) == cursor.steps.planned:
            return cursor.steps.after
        # The served steps are planned again, because positions are not stored for every step.
        room = self._limits.room(cursor.start)
        return self._planner.plan(cursor.start, cursor.weights, done, room).after

    def end(self) -> int | None:
        """Return the first step that cannot be served, because clusters are used up.

        None: the data never ends. Only weights in the log and in the schedule are considered, not
        changes that are asked for later.
        """
        position = self.position()
        credit, room = position.credit.copy(), self._limits.room(position).copy()

        def count(table: NDArray[np.int64], most: int) -> tuple[NDArray[np.bool_], int]:
            quotas, done = count_steps(table, self._planner.batch_rows, most, credit, room)
            return quotas > room, int(done)

        return self._forecast(position, count, len(self._names))[1]

    def used_up_at(self) -> dict[str, int]:
        """Return an estimate of the first step for which each cluster is used up, by name.

        The estimate does not round quotas to whole rows. As in `end`, only weights in the log and
        in the schedule are considered. Clusters that are not used up before the data ends are left
        out. If more than 32 clusters are used up, only the first 32 are named, and those that are
        used up at the same step as the last of these.
        """
        position = self.position()
        left = self._limits.room(position) - position.credit / ONE

        def count(table: NDArray[np.int64], most: int) -> tuple[NDArray[np.bool_], int]:
            return estimate_steps(table, self._planner.batch_rows, most, left)

        return self._forecast(position, count, _MOST_ENDS)[0]

    def _forecast(
        self,
        position: Position,
        count_steps: Callable[[NDArray[np.int64], int], tuple[NDArray[np.bool_], int]],
        most: int,
    ) -> tuple[dict[str, int], int | None]:
        """Return the step at which each cluster is used up, by name, and the step of `end`.

        ``count_steps`` gets a table of weights and the number of steps from ``position`` on; it
        returns which clusters are used up, and after how many of these steps. If ``most`` clusters
        are used up before the data ends, the step of `end` is None.
        """
        block = max(1, _COUNTED_WEIGHTS // len(self._names))
        step, weights, ends = position.step, self._weights.rehearsal(), dict[str, int]()
        limited = self._limits.room(position) != UNLIMITED
        while True:
            table, count = weights.ahead(step, block)
            if weights.is_settled(step):
                if not limited[table[0] > 0].any():
                    return ends, None
                count = UNLIMITED  # the weights of `table`, which has one row, never change
            over, done = count_steps(table, count)
            step += done
            if done < count:
                names = [name for name, used_up in zip(self._names, over, strict=True) if used_up]
                ends |= dict.fromkeys(names, step)
                if self._on_exhausted != "renormalise" or not weights.cap(
                    names, step, "max_epochs"
                ):
                    return ends, step
                if len(ends) >= most:
                    return ends, None

    def note_served(self) -> None:
        """Record in the ledger the planned steps that were served so far."""
        cursor = self.cursor
        if self._ledger is not None and (done := cursor.row // self._rows_each):
            steps = cursor.steps
            self._ledger.add(
                cursor.start.step, steps.quotas[:done], steps.marks[:done], self._weights.log
            )

    def check_not_planning(self) -> None:
        """Raise `UsageError` if this method is called while steps are being planned.

        Planning calls the user's function for weights. This function may read the loader, but must
        not change its position.
        """
        if self._planning:
            raise UsageError(
                f"the function for weights of step {self.step} moves the loader on; it may only "
                f"return weights and read the loader"
            )

    def extend(self) -> Cursor:
        """Plan the steps that follow the present plan; return a cursor at the first of them.

        Raises:
            StopIteration: A cluster is used up, and ``on_exhausted`` is ``stop``; or all clusters
                with weight are used up.
            UsageError: A cluster is used up, and ``on_exhausted`` is ``error``; or the function for
                weights has asked this loader for a batch.
        """
        self.check_not_planning()
        self._planning = True
        try:
            self.note_served()
            steps = min(self._next_steps, _MOST_STEPS)
            self.cursor = self._plan(self.cursor.steps.after, steps)
            self._next_steps = 2 * steps
            self._want_next_shards()
        finally:
            self._planning = False
        return self.cursor

    def _plan(self, position: Position, count: int) -> Cursor:
        """Plan 1 to ``count`` steps from ``position`` on; return a cursor before the first step."""
        count = min(count, max(1, _MOST_ROWS // max(self._planner.batch_rows, len(self._names))))
        weights, count = self._weights.ahead(position.step, count)
        room = self._limits.room(position)
        while not (steps := self._planner.plan(position, weights, count, room)).planned:
            self._exhaust(position, weights[0])
            weights = self._weights.log.table(position.step, count, self._names)
        self._shards.begin(steps)
        return Cursor(position, steps, weights)

    def _want_next_shards(self) -> None:
        """Begin to fetch up to 8 shards that lanes will need next, in the order of need.

        Shards of the present plan are left out, because `_plan` fetches them.
        """
        cursor, planner = self.cursor, self._planner
        rates = cursor.weights[-1] * (planner.batch_rows / ONE / planner.lanes.owned.shape[1])
        consumed = cursor.steps.after.consumed
        soon, shards = next_runs(planner.lanes, consumed, rates, planner.rank, planner.world_size)
        for cluster, shard in shards[np.argsort(soon)[:_SHARDS_AHEAD]].tolist():
            self._shards.want(cluster, shard)

    def _exhaust(self, position: Position, weights: NDArray[np.int64]) -> None:
        """Do what ``on_exhausted`` says for the clusters that are used up at ``position``.

        ``weights``, int64 ``[K]``, are the weights of the step at ``position``. If this method
        returns, the used-up clusters are capped in the weights log, so they get no more rows.

        Raises:
            StopIteration: The data ends at this step.
            UsageError: ``on_exhausted`` is ``error``.
        """
        quotas = allocate_rows(weights, self._planner.batch_rows, position.credit.copy())
        over = self._limits.passed(position, quotas)
        what = ", ".join(f"{name} after {epochs:.3f} epochs" for name, epochs in over.items())
        if self._on_exhausted == "error":
            self._write_ledger()
            raise UsageError(
                f"step {position.step} would take more than max_epochs of {what}; raise "
                "max_epochs, change the weights, or set on_exhausted to renormalise or stop"
            )
        stop = self._on_exhausted == "stop"
        if stop or not self._weights.cap([*over], position.step, f"max_epochs: {what}"):
            self._write_ledger()
            others = "set on_exhausted to renormalise" if stop else "give weight to other clusters"
            message = (
                f"step {position.step}: the data ends, because there is no more of {what}; to go "
                f"on, raise max_epochs, or {others}"
            )
            logger.warning(message)
            raise StopIteration(message)
        logger.warning(
            f"step {position.step}: no more of {what}; the other clusters share its weight"
        )

    def _write_ledger(self) -> None:
        """Write the steps that were served to the ledger, because no further steps follow."""
        if self._ledger is not None:
            self._ledger.write(self._weights.log)
