"""EpochLimits: how many epochs of each cluster a run may serve, and how many rows are left."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import UsageError
from climbstream.loader.formats.mixture import ONE

from .planner import Position

UNLIMITED = 1 << 62
"""Number of rows that a cluster without a limit has left: more than any run serves."""


class EpochLimits:
    """The largest number of epochs of each cluster in a run.

    Args:
        epochs: Largest number of epochs, which may be a fraction: one number for all clusters, or
            numbers by name for clusters that have a limit. None: there are no limits.
        names: Names of all K clusters.
        rows: Number of rows in an epoch of each cluster, int64 ``[K]``.

    Raises:
        UsageError: A name is unknown, or a number of epochs is not between 0 and 1e9.
    """

    def __init__(
        self,
        epochs: float | Mapping[str, float] | None,
        names: Sequence[str],
        rows: NDArray[np.int64],
    ) -> None:
        if epochs is None:
            epochs = {}
        elif not isinstance(epochs, Mapping):
            epochs = dict.fromkeys(names, epochs)
        if unknown := [name for name in epochs if name not in names]:
            raise UsageError(
                f"max_epochs names {', '.join(unknown)}; the clusters are {', '.join(names)}"
            )
        if bad := {name: most for name, most in epochs.items() if not 0 < most < 1e9}:
            raise UsageError(f"max_epochs is {bad}; it must be above 0 and below 1e9")
        self.epochs = {name: float(most) for name, most in epochs.items()}
        """Largest number of epochs by name, for clusters that have a limit."""
        self._names, self._rows = names, rows
        self._most = np.array(
            [
                min(int(self.epochs[name] * count), UNLIMITED - 1)
                if name in self.epochs
                else UNLIMITED
                for name, count in zip(names, rows.tolist(), strict=True)
            ],
            np.int64,
        )
        """Number of rows of each cluster that the whole run may serve, int64 ``[K]``."""

    def room(self, position: Position) -> NDArray[np.int64]:
        """Return how many rows of each cluster may be served after ``position``, int64 ``[K]``.

        The number is `UNLIMITED` for clusters without a limit.
        """
        if not self.epochs:
            return self._most
        left = np.maximum(self._most - position.consumed.sum(axis=1), 0)
        room: NDArray[np.int64] = np.where(self._most == UNLIMITED, UNLIMITED, left)
        return room

    def served(self, position: Position) -> dict[str, float]:
        """Return the number of epochs of each cluster that were served before ``position``."""
        epochs = position.consumed.sum(axis=1) / np.maximum(self._rows, 1)
        return dict(zip(self._names, epochs.tolist(), strict=True))

    def passed(self, position: Position, quotas: NDArray[np.int64]) -> dict[str, float]:
        """Return the clusters that a step would take over their limit, with their epochs so far.

        ``position`` is the position before the step, and ``quotas``, int64 ``[K]``, the number of
        rows of each cluster in the step. The result has the number of epochs served so far, by name
        of cluster.
        """
        served = self.served(position)
        over = quotas > self.room(position)
        return {name: served[name] for name, past in zip(self._names, over, strict=True) if past}


def estimate_steps(
    weights: NDArray[np.int64], rows: int, count: int, left: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], int]:
    """Return which clusters are used up first, bool ``[K]``, and the number of steps before that.

    The number is at most ``count``.
    Quotas are not rounded to whole rows here, so the number of steps may differ from that of
    `count_steps`. A call with the same weights for all steps takes no longer if ``count`` is large.

    Args:
        weights: Weights of the K clusters in units of 1 / `ONE`: one row for all steps, int64
            ``[1, K]``, or one row per step.
        rows: Number of rows of a batch, over all ranks.
        count: Largest number of steps.
        left: Number of rows of each cluster that may still be served, minus the rows owed to it
            because earlier quotas were rounded, float64 ``[K]``; updated in place.
    """
    rates = weights * (rows / ONE)
    if len(rates) == 1:
        never = np.full_like(left, np.inf)
        possible = np.ceil(np.divide(left + 1, rates[0], out=never, where=rates[0] > 0)) - 1
        done = min(count, max(0, int(possible.min())))
        left -= done * rates[0]
        return possible <= done, done
    served = rates.cumsum(axis=0)
    over = (served >= left + 1) & (weights > 0)
    done = int(over.any(axis=1).argmax()) if over.any() else count
    left -= served[done - 1] if done else 0
    return over[min(done, count - 1)], done
