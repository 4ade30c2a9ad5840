"""Metrics: write the numbers of a running job to a file, to TensorBoard, or to W&B."""

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
    """Log a warning that names the clusters that will be used up before the run ends.

    ``metrics`` is the result of `MixtureLoader.metrics`, and ``end`` the number of steps of the
    whole run. Nothing is logged if there are no such clusters.
    """
    early = {name: at for name, at in metrics["used_up_at"].items() if at < end}
    if early:
        which = ", ".join(f"{name} at step {at:,}" for name, at in early.items())
        logger.warning(
            f"step {metrics['step']:,}: max_epochs is reached by {which}, before the run ends at "
            f"step {end:,}, if weights change only as they are scheduled"
        )


def append_metrics(
    path: str | Path,
    metrics: Mapping[str, Any],
    *,
    loss: float | None = None,
    cluster_loss: Mapping[str, float] | None = None,
    heldout_loss: Mapping[str, float] | None = None,
) -> None:
    """Append a line of JSON with the metrics and the present time to a file.

    Only one process may write to the file.

    Args:
        path: The file; `climb monitor` reads the file ``metrics.jsonl`` in the folder of the run.
        metrics: The result of `MixtureLoader.metrics`.
        loss: Loss of the trainer, in nats per token.
        cluster_loss: Loss by name of cluster, in nats per token, as from `ClusterLoss.take`.
        heldout_loss: Loss on the batches of `MixtureLoader.heldout`, by name of cluster, in nats
            per token.
    """
    line = {**metrics, "time": time.time(), **_losses(loss, cluster_loss, heldout_loss)}
    append_line(Path(path), line, sync=False)


def _losses(
    loss: float | None,
    cluster_loss: Mapping[str, float] | None,
    heldout_loss: Mapping[str, float] | None,
) -> dict[str, Any]:
    """Return the losses that are given, as fields of a line of metrics."""
    fields: dict[str, Any] = {} if loss is None else {"loss": loss}
    if cluster_loss:
        fields["cluster_loss"] = dict(cluster_loss)
    if heldout_loss:
        fields["heldout_loss"] = dict(heldout_loss)
    return fields


def flatten(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return ``metrics`` as numbers by name, without nested dicts, as TensorBoard and W&B need it.

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
        """Write ``data``: numbers by name, as they are after ``step`` steps."""


class TensorBoardWriter:
    """Writes metrics as scalars of TensorBoard.

    If a run continues from a checkpoint, it makes a new writer for the same folder. TensorBoard
    then hides those points of earlier writers that are at or after the first step of the new one.

    Args:
        folder: Folder of the event files. A writer makes its file when it first writes metrics.

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
        """Write the numbers ``data`` of step ``step``, so that a later crash cannot lose them."""
        if self._events is None:
            self._events = self._tensorboard.SummaryWriter(self._folder, purge_step=step)
        for name, number in data.items():
            self._events.add_scalar(name, number, step)
        self._events.flush()

    def close(self) -> None:
        """Close the event file, if there is one."""
        if self._events is not None:
            self._events.close()


def write_metrics(
    metrics: Mapping[str, Any],
    *writers: Writer,
    loss: float | None = None,
    cluster_loss: Mapping[str, float] | None = None,
    heldout_loss: Mapping[str, float] | None = None,
) -> None:
    """Write ``metrics`` to each of ``writers``, as the numbers of step ``metrics["step"]``.

    ``metrics`` is the result of `MixtureLoader.metrics`; the job may add numbers of its own. The
    losses are those of `append_metrics`, in nats per token.

    >>> class Printer:
    ...     def log(self, data, step):
    ...         print(step, data)
    >>> write_metrics({"step": 3, "served": {"c00": 0.25, "c01": 0.75}}, Printer(), loss=2.5)
    3 {'served/c00': 0.25, 'served/c01': 0.75, 'loss': 2.5}
    """
    numbers = flatten({**metrics, **_losses(loss, cluster_loss, heldout_loss)})
    step = int(numbers.pop("step"))
    for writer in writers:
        writer.log(numbers, step=step)
