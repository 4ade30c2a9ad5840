"""StepCost: the FLOPs of one training step, and its measured time on this machine."""

import statistics
import time
from dataclasses import dataclass

import torch

from .distributed import ALONE
from .learner import Learner
from .online_mixing import row_means
from .settings import TrainSettings

_ENOUGH = 1.0
"""Least duration of a measurement, in seconds."""
_STEPS = 3
"""Least number of measured steps. The first step is not counted, because it allocates buffers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """FLOPs and time of one training step."""

    parameters: int
    """Number of parameters of the model."""
    flops: float
    """FLOPs of a step: 6 per token and parameter, plus the FLOPs of attention (Chowdhery et al.,
    arXiv 2204.02311, appendix B)."""
    seconds: float
    """Measured time of a step, in seconds: the median of several steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTask:
    """Settings of a step to measure; an engine passes them to `measure_step`."""

    settings: TrainSettings
    vocab_size: int
    threads: int | None = None
    """Number of threads of torch; None keeps the present number."""


def measure_step(task: StepTask) -> StepCost:
    """Count the FLOPs of a step, and measure the time of several steps on rows of random tokens.

    The steps run on the device of this process. The time of reading shards is not included, because
    the loader is many times as fast as any model.
    """
    before = torch.get_num_threads()
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    try:
        learner = Learner(task.settings, task.vocab_size, 0, ALONE)
        shape = (task.settings.batch_rows, task.settings.seq_len)
        batch = torch.randint(task.vocab_size, shape).to(learner.device)
        times: list[float] = []
        while len(times) < _STEPS or sum(times) < _ENOUGH:
            start = time.perf_counter()
            loss = row_means(learner.losses(batch)).mean()
            # The schedule ends with the last step of the run, so repeat the last step after it.
            learner.learn(loss, min(len(times), task.settings.steps - 1))
            loss.item()  # waits for the device
            times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    seconds, config = statistics.median(times[1:]), learner.model.config
    parameters = sum(weight.numel() for weight in learner.model.parameters())
    layers, width = (getattr(config, name, 0) for name in ("num_hidden_layers", "hidden_size"))
    tokens = task.settings.batch_rows * task.settings.seq_len
    a_token = 6 * parameters + 12 * layers * width * task.settings.seq_len
    return StepCost(parameters=parameters, flops=float(a_token * tokens), seconds=seconds)
