"""EpochLimits: how many epochs a run may serve of each cluster, and what is left of them."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import UsageError
from climbstream.loader.formats.mixture import ONE

from .planner import Position

UNLIMITED = 1 << 62
"""Rows left of a cluster without a limit: more than any run serves."""


class EpochLimits:
    """The largest number of epochs of each cluster; fractions are allowed.

    Args:
        epochs: For all clusters, or by name for those that have a limit; None: there is none.
        names: Of all clusters.
        rows: Rows of an epoch of each, int64 ``[K]``.

    Raises:
        UsageError: A name is unknown, or a number of epochs is not possible.
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
        """Limits by name, of clusters that have one."""
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
        """Rows that each cluster may serve in the whole run, ``[K]``."""

    def room(self, position: Position) -> NDArray[np.int64]:
        """Rows that each cluster may still serve from ``position`` on, ``[K]``, or `UNLIMITED`."""
        if not self.epochs:
            return self._most
        left = np.maximum(self._most - position.consumed.sum(axis=1), 0)
        room: NDArray[np.int64] = np.where(self._most == UNLIMITED, UNLIMITED, left)
        return room

    def served(self, position: Position) -> dict[str, float]:
        """Epochs that each cluster has served before ``position``, by name."""
        epochs = position.consumed.sum(axis=1) / np.maximum(self._rows, 1)
        return dict(zip(self._names, epochs.tolist(), strict=True))

    def passed(self, position: Position, quotas: NDArray[np.int64]) -> dict[str, float]:
        """Epochs so far of the clusters that ``quotas`` more rows, ``[K]``, take past a limit."""
        served = self.served(position)
        over = quotas > self.room(position)
        return {name: served[name] for name, past in zip(self._names, over, strict=True) if past}


def forecast_ends(
    names: Sequence[str],
    step: int,
    room: NDArray[np.int64],
    credit: NDArray[np.int64],
    weights: NDArray[np.int64],
    batch_rows: int,
) -> dict[str, int]:
    """Say at which step each cluster will be used up if the weights stay as they are.

    ``room`` is int64 ``[K]``, rows that each may still serve; ``credit`` and ``weights``, int64
    ``[K]``, what each is owed and gets, in units of row / `ONE`. A cluster with weight is named
    with the first step that cannot have its rows, exact to the rounding of one row.
    """
    ends = {}
    for k, name in enumerate(names):
        if weights[k] > 0 and room[k] != UNLIMITED:
            left = int(room[k] + 1) * ONE - int(credit[k])
            ends[name] = step + max(0, math.ceil(left / (int(weights[k]) * batch_rows)) - 1)
    return ends
