"""Replay: plan the steps of a run again, from its ledger, its weights log and its shard indexes.

To plan a step means to choose the rows of its batch; no shard is read.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.console import counted
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.reading.row_source import epoch_rows
from climbstream.loader.sampling.epoch_limits import EpochLimits
from climbstream.loader.sampling.planner import BatchPlanner, PlannedSteps, Position
from climbstream.loader.weights.log import WeightsLog
from climbstream.loader.weights.request import open_weights_log

from .ledger import LEDGER, Line, Opening, read_ledger, segments

_AT_ONCE = 1024


class Replay:
    """Plans the steps of a run again, from its ledger, its weights log and its shard indexes.

    Args:
        run: Folder of the run, with weights log and ledger.
        shards: Folder or URL of the shards; default: the place that the ledger names.

    Raises:
        UsageError: ``run`` is no folder of a run.
        InvalidDataError: The run has no ledger, or ``shards`` are not the shards of the run.
        IntegrityError: The chain of hashes in the log or the ledger is broken.
    """

    def __init__(self, run: Path, shards: str | Path | None = None) -> None:
        self.run = run
        self.log = open_weights_log(run)
        self.lines: list[Line] = read_ledger(run / LEDGER)
        (first,) = (line for line in self.lines[:1] if isinstance(line, Opening))
        self.settings = state = first.state
        self.names = state.clusters
        self.shards = ShardDirectory(shards if shards is not None else first.shards)
        if self.shards.manifest.fingerprint != state.data:
            raise InvalidDataError(
                f"{self.shards} holds shards {self.shards.manifest.fingerprint:.8}, but the run "
                f"was served from shards {state.data:.8}; name those with --shards"
            )
        shard_rows = {name: epoch_rows(self.shards, name, state.run) for name in self.names}
        self.epoch_rows = np.array([rows.sum() for rows in shard_rows.values()], np.int64)
        self._planner = BatchPlanner.for_run(shard_rows, state.run)

    def __repr__(self) -> str:
        return f"Replay({str(self.run)!r}, {counted(self.steps, 'step')})"

    @property
    def steps(self) -> int:
        """Number of the last step that the ledger records."""
        return max(end for _, end in segments(self.lines))

    def room(self, opening: Opening, position: Position) -> NDArray[np.int64]:
        """Return how many rows of each cluster may be served after ``position``, int64 ``[K]``.

        The limits are the ``max_epochs`` of ``opening``.
        """
        return EpochLimits(opening.max_epochs, self.names, self.epoch_rows).room(position)

    def plan(
        self, opening: Opening, position: Position, count: int, log: WeightsLog
    ) -> Iterator[tuple[PlannedSteps, NDArray[np.int64]]]:
        """Plan ``count`` steps from ``position`` on; yield them in parts, as (steps, weights).

        A part has at most 1,024 steps; its weights, from ``log``, are int64 ``[steps, K]``. The
        plan ends early if a step would need more rows than ``max_epochs`` of ``opening`` allows.
        """
        planner = self._planner._replace(batch_rows=opening.state.batch_rows)
        end = position.step + count
        while position.step < end:
            count = min(_AT_ONCE, end - position.step)
            weights = log.table(position.step, count, self.names)
            steps = planner.plan(position, weights, count, self.room(opening, position))
            yield steps, np.broadcast_to(weights, (count, len(self.names)))
            if steps.planned < count:
                return
            position = steps.after

    def step(self, step: int) -> PlannedSteps:
        """Return the plan of step ``step``, with the rows of all ranks.

        The steps count from 1: after step N, `MixtureLoader.step` is N. If the run served the step
        several times, because it was resumed from an earlier step, the plan is that of the last
        time.

        Raises:
            UsageError: The step is not in the ledger.
        """
        done = step - 1
        openings = [o for o, end in segments(self.lines) if o.state.step <= done < end]
        if not openings:
            raise UsageError(
                f"step {step:,} is not in the ledger, whose last step is {self.steps:,}; the "
                "first batch of a run is step 1"
            )
        opening = openings[-1]
        position = opening.state.position()
        for steps, _ in self.plan(opening, position, done - position.step, self.log):
            position = steps.after
        planner = self._planner._replace(batch_rows=opening.state.batch_rows, rank=0)
        weights = self.log.table(done, 1, self.names)
        return planner.plan(position, weights, 1, self.room(opening, position))
