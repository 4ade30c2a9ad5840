"""StepCost: what one step of training costs, counted and measured on this machine."""

import statistics
import time
from dataclasses import dataclass

import torch

from .distributed import ALONE
from .learner import Learner
from .online_mixing import row_means
from .settings import TrainSettings

_ENOUGH = 1.0
"""Seconds of a measurement, and"""
_STEPS = 3
"""least number of steps; the first is not counted, as it allocates buffers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """What a step costs."""

    parameters: int
    flops: float
    """6 for each token and parameter, and those of attention (Chowdhery et al., arXiv 2204.02311,
    appendix B)."""
    seconds: float
    """Measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTask:
    """The settings of a step to measure, as a task of an engine."""

    settings: TrainSettings
    vocab_size: int
    threads: int | None = None
    """Number of threads of torch; None: as it is."""


def measure_step(task: StepTask) -> StepCost:
    """Count the FLOPs of a step, and time some steps on rows of random tokens.

    Steps run on the device of this process. The time includes no reading of shards: the loader is
    many times as fast as any model.
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
            # A schedule has no more steps than its run.
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
