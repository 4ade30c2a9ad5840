"""Job: the processes that train one model together. torchrun starts them, or there is only one.

All ranks read the same shards and the same folder of the run. Only rank 0 writes to this folder.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from climbstream.loader.core.engines.task_timeout import task_timeout
from climbstream.loader.core.errors import RemoteError
from climbstream.loader.core.waits import wait_for
from climbstream.loader.weights.agreement import Agreement

_ended_groups: list[dist.ProcessGroup | None] = []
"""Process groups of jobs that have ended. They are kept until the process ends: a model wrapped for
several ranks has a reference to its group, and if this reference were the last one, its release
could wait for a thread of the group that waits for Python's lock, which the release holds."""


@dataclass(frozen=True, slots=True)
class Job:
    """The rank of this process in its job, and the communication with the other ranks."""

    rank: int = 0
    world_size: int = 1

    def agreement(self) -> Agreement | None:
        """Return the `Agreement` of the ranks on changes of weights; None for a single rank.

        All ranks must change the weights at the same step.
        """
        return Agreement(timeout=task_timeout()) if self.world_size > 1 else None

    def spread(self, model: nn.Module) -> nn.Module:
        """Return ``model``, wrapped so that gradients are averaged over all ranks."""
        return nn.parallel.DistributedDataParallel(model) if self.world_size > 1 else model

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of the ``values`` of all ranks."""
        if self.world_size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def of_first(self, value: Any) -> Any:
        """Return the ``value`` of rank 0 on every rank, after all ranks have made this call."""
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        dist.barrier()
        return values[0]


ALONE = Job()
"""The job of a single rank."""


def is_first() -> bool:
    """Return whether this process is rank 0 or the only process; only such a process logs."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def join_job() -> Iterator[Job]:
    """Join the job that torchrun's environment variables describe, and yield it.

    Without these variables, yield a job of one rank.

    Raises:
        RemoteError: Another rank did not start or did not respond within the `task_timeout`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield ALONE
        return
    rank, ranks, seconds = os.environ.get("RANK"), os.environ["WORLD_SIZE"], task_timeout()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        wait_for(
            lambda: dist.init_process_group(backend, timeout=timedelta(seconds=seconds)),
            f"all {ranks} ranks to start; this is rank {rank}",
            seconds,
        )
        try:
            yield Job(dist.get_rank(), dist.get_world_size())
        finally:
            _ended_groups.append(dist.group.WORLD)
            dist.destroy_process_group()
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise RemoteError(
            f"rank {rank} of {ranks} lost another rank, or waited {seconds:g} s for it "
            f"(--task-timeout SECONDS sets this limit): {str(error).splitlines()[0]}; read the "
            "messages of the other ranks, and run the same command again; it continues where it "
            "stopped"
        ) from error
