"""Writers: metrics in TensorBoard, Weights & Biases, or wherever else a job looks at its numbers.

write_metrics({**loader.metrics(), "loss": loss}, TensorBoardWriter("run"), wandb.init())
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from climbstream.loader.core.errors import UsageError

from .metrics import flatten


class Writer(Protocol):
    """What metrics are written to: a run of W&B is one as it is, and so is `TensorBoardWriter`."""

    def log(self, data: dict[str, Any], step: int) -> object:
        """Take up ``data``, numbers by name, as they stand after ``step`` steps."""


class TensorBoardWriter:
    """Writes numbers as scalars of TensorBoard.

    A run that goes on from a checkpoint has a new writer: of what was written to ``folder`` before,
    TensorBoard shows no more what is of its first step or later.

    Args:
        folder: Where event files go, one for each writer that logs anything.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = str(folder)
        self._events: Any = None
        try:
            self._tensorboard = importlib.import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise UsageError(
                f"TensorBoard cannot be written to: {error}; pip install 'climbstream[tensorboard]'"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def log(self, data: dict[str, Any], step: int) -> None:
        """Write ``data``, and flush, so that what was logged outlives a crash of the job."""
        if self._events is None:
            self._events = self._tensorboard.SummaryWriter(self._folder, purge_step=step)
        for name, number in data.items():
            self._events.add_scalar(name, number, step)
        self._events.flush()

    def close(self) -> None:
        """Close the file."""
        if self._events is not None:
            self._events.close()


def write_metrics(metrics: Mapping[str, Any], *writers: Writer) -> None:
    """Write ``metrics``, those of a loader and what a job adds to them, to each of ``writers``.

    >>> class Printer:
    ...     def log(self, data, step):
    ...         print(step, data)
    >>> write_metrics({"step": 3, "served": {"c00": 0.25, "c01": 0.75}, "loss": 2.5}, Printer())
    3 {'served/c00': 0.25, 'served/c01': 0.75, 'loss': 2.5}
    """
    numbers = flatten(metrics)
    step = int(numbers.pop("step"))
    for writer in writers:
        writer.log(numbers, step=step)
