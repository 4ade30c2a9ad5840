"""Metrics: where a run stands, as numbers by name."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.console import say
from climbstream.loader.core.files import append_line
from climbstream.loader.formats.mixture import ONE

METRICS = "metrics.jsonl"
"""File in the folder of a run."""


def forecast_ends(
    names: Sequence[str],
    step: int,
    room: NDArray[np.int64],
    credit: NDArray[np.int64],
    weights: NDArray[np.int64],
    batch_rows: int,
) -> dict[str, int]:
    """Say at which step clusters will be used up if the weights stay as they are.

    ``room`` is int64 ``[K]``, rows that each may still serve; ``credit`` and ``weights``, int64
    ``[K]``, what each is owed and gets, in units of row / `ONE`. A cluster with weight is named
    with the first step that cannot have its rows, exact to the rounding of one row.
    """
    ends = {}
    for k, name in enumerate(names):
        # Unlimited is 2**62 or so.
        if weights[k] > 0 and room[k] < 1 << 60:
            left = int(room[k] + 1) * ONE - int(credit[k])
            ends[name] = step + max(0, math.ceil(left / (int(weights[k]) * batch_rows)) - 1)
    return ends


def say_ends(metrics: Mapping[str, Any], end: int) -> None:
    """Say on stderr which clusters will be used up before step ``end``, the last of a run."""
    early = {name: at for name, at in metrics["used_up_at"].items() if at < end}
    if early:
        which = ", ".join(f"{name} at step {at:,}" for name, at in early.items())
        say(
            f"step {metrics['step']:,}: by these weights max_epochs of {which} is used up, before "
            f"the run ends at {end:,}"
        )


def append_metrics(
    path: str | Path,
    metrics: Mapping[str, Any],
    *,
    loss: float | None = None,
    cluster_loss: Mapping[str, float] | None = None,
) -> None:
    """Append a line to the metrics of a run, with the time; one process writes.

    Args:
        path: ``metrics.jsonl`` in the folder of the run, where `climb monitor` looks.
        metrics: What `MixtureLoader.metrics` gave.
        loss: Of the trainer, nats a token.
        cluster_loss: The same by name of cluster, as `ClusterLoss.take` gives it.
    """
    line = {**metrics, "time": time.time()}
    if loss is not None:
        line["loss"] = loss
    if cluster_loss:
        line["cluster_loss"] = dict(cluster_loss)
    append_line(Path(path), line, sync=False)


def flatten(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Give the numbers of ``metrics`` one level of names, as TensorBoard and W&B take them.

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
