"""Metrics: write the state of a run, as numbers by name, to a file, TensorBoard or W&B."""

import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.files import append_line
from climbstream.loader.core.log import get_logger

logger = get_logger(__name__)

METRICS = "metrics.jsonl"
"""Name of the file of metrics in the folder of a run."""


def say_ends(metrics: Mapping[str, Any], end: int) -> None:
    """Log which clusters will be used up before ``end``, the last step of the run."""
    early = {name: at for name, at in metrics["used_up_at"].items() if at < end}
    if early:
        which = ", ".join(f"{name} at step {at:,}" for name, at in early.items())
        logger.warning(
            f"step {metrics['step']:,}: by these weights max_epochs of {which} is used up, before "
            f"the run ends at {end:,}"
        )


def append_metrics(
    path: str | Path,
    metrics: Mapping[str, Any],
    *,
    loss: float | None = None,
    cluster_loss: Mapping[str, float] | None = None,
    heldout_loss: Mapping[str, float] | None = None,
) -> None:
    """Append a line with the metrics and the time to a file; only one process may write to it.

    Args:
        path: The file; `climb monitor` reads ``metrics.jsonl`` in the folder of the run.
        metrics: The result of `MixtureLoader.metrics`.
        loss: Loss of the trainer, in nats per token.
        cluster_loss: Loss by name of cluster, in nats per token, as from `ClusterLoss.take`.
        heldout_loss: Loss on the batches of `MixtureLoader.heldout`, by name of cluster, in nats
            per token.
    """
    line = {**metrics, "time": time.time()}
    if loss is not None:
        line["loss"] = loss
    if cluster_loss:
        line["cluster_loss"] = dict(cluster_loss)
    if heldout_loss:
        line["heldout_loss"] = dict(heldout_loss)
    append_line(Path(path), line, sync=False)


def flatten(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Flatten ``metrics`` to one level of names, as TensorBoard and W&B need them.

    >>> flatten({"step": 3, "served": {"c00": 0.25, "c01": 0.75}})
    {'step': 3, 'served/c00': 0.25, 'served/c01': 0.75}
    """
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{key}": number for key, number in value.items()}
        else:
            flat[name] = value
    return flat


class Writer(Protocol):
    """Interface of a writer of metrics; a run of W&B and a `TensorBoardWriter` are writers."""

    def log(self, data: dict[str, Any], step: int) -> object:
        """Write ``data``, the numbers by name after ``step`` steps."""


class TensorBoardWriter:
    """Writes metrics as scalars of TensorBoard.

    A run that continues from a checkpoint makes a new writer in the same folder. From the first
    step of the new writer on, TensorBoard then hides the points of earlier writers.

    Args:
        folder: Folder of the event files; each writer that logs anything makes one file.

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

    def __repr__(self) -> str:
        return f"TensorBoardWriter({self._folder!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def log(self, data: dict[str, Any], step: int) -> None:
        """Write ``data``, and flush the file, so that a crash of the job loses nothing."""
        if self._events is None:
            self._events = self._tensorboard.SummaryWriter(self._folder, purge_step=step)
        for name, number in data.items():
            self._events.add_scalar(name, number, step)
        self._events.flush()

    def close(self) -> None:
        """Close the event file, if there is one."""
        if self._events is not None:
            self._events.close()


def write_metrics(metrics: Mapping[str, Any], *writers: Writer) -> None:
    """Write the ``metrics`` of a loader and its job to each of ``writers``, under their ``step``.

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
