"""Learner: a model with its optimizer and learning rate schedule, trained batch by batch."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from climbstream.loader.core.engines.local import own_device

from .base_model import load_base
from .distributed import Job
from .model import make_model
from .online_mixing import token_losses
from .settings import TrainSettings
from .weight_average import WeightAverage

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Learner:
    """One model on the device of this process (`own_device`), with its optimizer and schedule.

    On a GPU the model computes in bfloat16. Model parameters, sums of losses, and the state of the
    optimizer stay in float32.
    """

    def __init__(self, settings: TrainSettings, vocab_size: int, seed: int, job: Job) -> None:
        self.device = torch.device(own_device())
        self.model = first_model(settings, vocab_size, seed)
        # The `to` method of a pretrained model is wrapped, which hides the types of its arguments.
        torch.nn.Module.to(self.model, self.device)
        self._spread = job.spread(self.model)
        self._average = WeightAverage(self.model, settings)
        self._optimizer = AdamW(
            self.model.parameters(), settings.learning_rate, (0.9, 0.95), weight_decay=0.1
        )
        self._schedule = LambdaLR(self._optimizer, settings.rate)

    def losses(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the loss in nats at each token of ``batch``, float32 ``[rows, seq_len]``.

        See `token_losses`.
        """
        with self._precision():
            logits = self._spread(input_ids=batch).logits
        return token_losses(logits, batch)

    @torch.no_grad()
    def measure(self, batch: torch.Tensor) -> torch.Tensor:
        """Return what `losses` returns, without gradients and without the other ranks."""
        self.model.eval()
        with self._precision():
            logits = self.model(input_ids=batch).logits
        self.model.train()
        return token_losses(logits, batch)

    def learn(self, loss: torch.Tensor, step: int) -> None:
        """Do the optimizer step with number ``step`` (from 0), with the gradient of ``loss``."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()
        self._average.add(step)

    def finish(self) -> "PreTrainedModel":
        """Return the trained model, with averaged parameters if ``settings.average`` is above 0."""
        self._average.put()
        return self.model

    def state_dict(self) -> dict[str, Any]:
        """Return all state that changes from step to step; `Checkpoint` stores it."""
        return {
            "model": self.model.state_dict(),
            "tail": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any], step: int) -> None:
        """Restore the state that `state_dict` returned after ``step`` steps.

        Raises:
            ValueError: The state belongs to another model, or its parts contradict each other.
                torch may raise other errors.
        """
        self.model.load_state_dict(state["model"])
        self._average.load_state_dict(state["tail"])
        before = _constants(self._optimizer)
        self._optimizer.load_state_dict(state["optimizer"])
        rates = list(self._schedule.base_lrs)
        self._schedule.load_state_dict(state["schedule"])
        if (self._schedule.last_epoch, self._schedule.base_lrs) != (step, rates):
            raise ValueError(f"its schedule is not that of step {step}")
        self._check_optimizer(before)

    def _check_optimizer(self, constants: list[dict[str, Any]]) -> None:
        """Raise `ValueError` unless the loaded optimizer state matches this model and this step.

        ``constants`` are the `_constants` of the optimizer before the state was loaded.
        """
        if _constants(self._optimizer) != constants:
            raise ValueError("its optimizer has other settings")
        for group, factor in zip(
            self._optimizer.param_groups, self._schedule.lr_lambdas, strict=True
        ):
            rate = group["initial_lr"] * factor(self._schedule.last_epoch)
            if not math.isclose(group["lr"], rate):
                raise ValueError(f"its learning rate is {group['lr']}, and should be {rate}")
        for weight, moments in self._optimizer.state.items():
            shapes = {name: value.shape for name, value in moments.items()}
            wanted = dict.fromkeys(("exp_avg", "exp_avg_sq"), weight.shape)
            if shapes != {"step": torch.Size([]), **wanted}:
                raise ValueError("its optimizer is of another model")

    def _precision(self) -> AbstractContextManager[object]:
        gpu = self.device.type == "cuda"
        return torch.autocast("cuda", torch.bfloat16) if gpu else nullcontext()


def first_model(settings: TrainSettings, vocab_size: int, seed: int) -> "PreTrainedModel":
    """Return the model at step 0: the base model, or a new model of the size in ``settings``.

    Raises:
        UsageError: No model size has the name in ``settings``, or `load_base` refused the base
            model: it has fewer than ``vocab_size`` ids, or cannot read rows of
            ``settings.seq_len`` tokens.
    """
    if settings.base is not None:
        return load_base(settings.base, vocab_size, settings.seq_len)
    return make_model(settings.model, vocab_size, settings.seq_len, seed)


def _constants(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return, for each parameter group of an optimizer, the settings that no step changes."""
    return [
        {name: value for name, value in group.items() if name not in ("params", "lr")}
        for group in optimizer.param_groups
    ]
