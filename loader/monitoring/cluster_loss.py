"""ClusterLoss: the mean loss of each cluster, which a trainer adds to its metrics."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.typed import Finite, convert


@dataclass(frozen=True, slots=True)
class _State:
    sums: list[list[Finite]] | None
    """Two lists with one number per cluster: the sum of losses of rows, and the number of rows."""


class ClusterLoss:
    """Collects the losses of rows, and returns the mean loss of each cluster.

    Sums are kept on the device of the losses, so that a step need not wait for the device. Several
    threads may call `add` and `take`; each row counts in exactly one mean.

    >>> losses = ClusterLoss(["c00", "c01"])
    >>> losses.add(torch.tensor([0, 1, 0]), torch.tensor([2.0, 5.0, 4.0]))
    >>> losses.take(), losses.take()
    ({'c00': 3.0, 'c01': 5.0}, {})
    """

    # All instances share one lock, because an instance with its own lock could not be pickled. The
    # lock is held only for microseconds.
    _lock: ClassVar = threading.Lock()

    def __init__(self, names: Sequence[str]) -> None:
        """Begin without losses; ``names`` are the names of the clusters, `MixtureLoader.names`."""
        self._names = list(names)
        self._sums: torch.Tensor | None = None

    def __repr__(self) -> str:
        return f"ClusterLoss({len(self._names)} clusters)"

    def add(self, cluster_ids: torch.Tensor, losses: torch.Tensor) -> None:
        """Add the losses of the rows of a batch.

        Args:
            cluster_ids: The batch's field of this name: the cluster of each row, int64 ``[rows]``.
            losses: Mean loss of each row in nats per token, float ``[rows]``.
        """
        losses = losses.detach().to(torch.float64)
        both = torch.stack([losses, torch.ones_like(losses)])
        with self._lock:
            self._sums_on(losses.device).index_add_(1, cluster_ids.to(losses.device), both)

    def _sums_on(self, device: torch.device) -> torch.Tensor:
        """Return sums of losses and numbers of rows on ``device``, float64 ``[2, clusters]``."""
        if self._sums is None:
            self._sums = torch.zeros((2, len(self._names)), dtype=torch.float64, device=device)
        self._sums = self._sums.to(device)
        return self._sums

    def take(
        self, gather: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> dict[str, float]:
        """Return the mean loss, in nats per token, of each cluster since the last call, by name.

        Clusters that had no rows since the last call are left out.

        Args:
            gather: Function that returns the sum of a tensor over all ranks. If it is given, all
                ranks must call `take` at the same time. None: only rows of this rank count.
        """
        with self._lock:
            both, self._sums = self._sums, None
        if both is None:
            return {}
        sums, rows = (both if gather is None else gather(both)).tolist()
        return {n: s / c for n, s, c in zip(self._names, sums, rows, strict=True) if c}

    def state_dict(self) -> dict[str, Any]:
        """Return what was added since the last `take`, as JSON values for `load_state_dict`."""
        return {"sums": None if self._sums is None else self._sums.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``, which `state_dict` returned for the same clusters.

        Raises:
            InvalidDataError: The state is malformed, or has another number of clusters.
        """
        sums = convert(state, _State, "state of losses by cluster").sums
        if sums is not None and [len(row) for row in sums] != [len(self._names)] * 2:
            raise InvalidDataError(
                f"the state of losses is not that of {len(self._names)} clusters; name the "
                "clusters with which it was saved"
            )
        self._sums = None if sums is None else torch.tensor(sums, dtype=torch.float64)
