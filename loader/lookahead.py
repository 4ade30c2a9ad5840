"""Lookahead: the steps that are planned ahead, how far they are served, and what follows them.

What decides a batch is read when it is planned, so a change of weights throws the rest of a plan
away, which is cheap, and plans anew from the position after the last batch.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.audit.ledger import Ledger
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.mixture import ONE
from climbstream.loader.reading.open_shards import OpenShards
from climbstream.loader.sampling.epoch_limits import EpochLimits
from climbstream.loader.sampling.lanes import next_runs
from climbstream.loader.sampling.planner import BatchPlanner, PlannedSteps, Position
from climbstream.loader.sampling.quotas import allocate_rows
from climbstream.loader.weights.controller import WeightsController

logger = get_logger(__name__)

ON_EXHAUSTED = ("renormalise", "stop", "error")
_SHARDS_AHEAD = 8
"""Shards that are asked for before a lane turns to them."""
_MOST_STEPS = 256
"""Steps that are planned at once."""
_MOST_ROWS = 4096
"""Rows, or weights of clusters, that are planned at once: so planning anew takes under 1 ms."""
_FIRST_STEPS = 16
"""Steps of the first plan after a change, whose batch waits for it; each later one has twice as
many as the one before."""


@dataclass(slots=True)
class Cursor:
    """The steps that are planned, and how far they are served.

    A new plan is a new cursor, put in place by one assignment: whoever is interrupted, by Ctrl-C
    or a signal, leaves the old one or the new one.
    """

    start: Position
    steps: PlannedSteps
    weights: NDArray[np.int64]
    """What they follow, as `BatchPlanner.plan` takes it."""
    row: int = 0
    """Rows of this rank that were served."""
    ready: int = 0
    """Rows whose shards are open."""
    rows: NDArray[np.int64] = field(init=False)
    """Those of the steps: a look into a named tuple costs a batch 20 ns."""
    clusters: NDArray[np.int64] = field(init=False)
    """Cluster of each of the rows."""
    end: int = field(init=False)
    """Rows that are planned."""

    def __post_init__(self) -> None:
        self.rows = self.steps.rows
        self.clusters = self.rows[:, 0].copy()
        self.end = len(self.rows)

    @classmethod
    def at(cls, position: Position) -> Self:
        """Return the cursor of no steps, at ``position``."""
        return cls(position, PlannedSteps.none(position), np.zeros((1, 0), np.int64))


class Lookahead:
    """Plans the steps of one rank ahead, and knows the position after each batch.

    Args:
        planner: Of this rank.
        weights: What the steps follow, and what else may change it.
        limits: How often each cluster may be gone through.
        shards: Those that lanes read from.
        ledger: Gets what is served; None: nobody does.
        on_exhausted: What to do when clusters are used up; one of `ON_EXHAUSTED`.
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
        """Batches served."""
        cursor = self.cursor
        return cursor.start.step + cursor.row // self._rows_each

    def position(self) -> Position:
        """Return the position after the last batch that was served."""
        cursor = self.cursor
        if (done := cursor.row // self._rows_each) == cursor.steps.planned:
            return cursor.steps.after
        # Planned again as far as it was served: no trace is kept of every step.
        room = self._limits.room(cursor.start)
        return self._planner.plan(cursor.start, cursor.weights, done, room).after

    def note_served(self) -> None:
        """Give the ledger the steps that were served of those that are planned."""
        cursor = self.cursor
        if self._ledger is not None and (done := cursor.row // self._rows_each):
            steps = cursor.steps
            self._ledger.add(
                cursor.start.step, steps.quotas[:done], steps.marks[:done], self._weights.log
            )

    def check_not_planning(self) -> None:
        """Raise `UsageError` if the caller is the function for weights."""
        if self._planning:
            raise UsageError(
                f"the function for weights of step {self.step} moves the loader on; it may return "
                "weights and look at the loader, no more"
            )

    def extend(self) -> Cursor:
        """Plan the steps after those that are planned; return the cursor before the first of them.

        Raises:
            StopIteration: Clusters are used up, and ``on_exhausted`` is ``stop``.
            UsageError: They are, and it is ``error``; or the function for weights asks for a batch.
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
        """Plan at most ``count`` steps, and at least one, from ``position`` on."""
        count = min(count, max(1, _MOST_ROWS // max(self._planner.batch_rows, len(self._names))))
        weights, count = self._weights.ahead(position.step, count)
        room = self._limits.room(position)
        while not (steps := self._planner.plan(position, weights, count, room)).planned:
            self._exhaust(position, weights[0])
            weights = self._weights.log.table(position.step, count, self._names)
        self._shards.begin(steps)
        return Cursor(position, steps, weights)

    def _want_next_shards(self) -> None:
        """Ask for the shards that lanes turn to next, the soonest first."""
        cursor, planner = self.cursor, self._planner
        rates = cursor.weights[-1] * (planner.batch_rows / ONE / planner.lanes.owned.shape[1])
        consumed = cursor.steps.after.consumed
        soon, shards = next_runs(planner.lanes, consumed, rates, planner.rank, planner.world_size)
        for cluster, shard in shards[np.argsort(soon)[:_SHARDS_AHEAD]].tolist():
            self._shards.want(cluster, shard)

    def _exhaust(self, position: Position, weights: NDArray[np.int64]) -> None:
        """Do what ``on_exhausted`` says of clusters whose next rows would pass ``max_epochs``."""
        quotas = allocate_rows(weights, self._planner.batch_rows, position.credit.copy())
        over = self._limits.passed(position, quotas)
        what = ", ".join(f"{name} after {epochs:.3f} epochs" for name, epochs in over.items())
        if self._on_exhausted == "error":
            raise UsageError(
                f"step {position.step} would take more than max_epochs of {what}; "
                "raise max_epochs, change the weights, or let on_exhausted be renormalise or stop"
            )
        if self._on_exhausted == "stop" or not self._weights.cap(
            [*over], position.step, f"max_epochs: {what}"
        ):
            logger.warning(f"step {position.step}: the data ends, for want of {what}")
            raise StopIteration
        logger.warning(f"step {position.step}: no more of {what}; the others share its weight")
