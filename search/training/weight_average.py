"""The mean of the weights over the last steps of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from climbstream.loader.core.typed import Count, convert

from .settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class _State:
    count: Count
    means: list[Any]


class WeightAverage:
    """The running mean of the weights over the last steps: it varies less than the last weights.

    docs/decisions/proxies.md says how much less it varies between runs of one mixture.
    """

    def __init__(self, model: "PreTrainedModel", settings: TrainSettings) -> None:
        self._weights = list(model.parameters())
        self._first = settings.steps - round(settings.average * settings.steps)
        self._count = 0
        self._means: list[torch.Tensor] = []

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Count the weights after ``step`` in, if it is one of the last."""
        if step < self._first:
            return
        self._count += 1
        if not self._means:
            self._means = [weight.detach().clone() for weight in self._weights]
        for mean, weight in zip(self._means, self._weights, strict=True):
            mean.lerp_(weight, 1 / self._count)

    @torch.no_grad()
    def put(self) -> None:
        """Put the mean into the model, if there is one."""
        for mean, weight in zip(self._means, self._weights[: len(self._means)], strict=True):
            weight.copy_(mean)

    def state_dict(self) -> dict[str, Any]:
        """Return the mean, and the number of steps that it is over."""
        return {"count": self._count, "means": self._means}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to the state that `state_dict` gave.

        Raises:
            InvalidDataError: ``state`` is no such state.
            ValueError: It is of another model.
        """
        saved = convert(state, _State, "mean of weights")
        shapes = [mean.shape for mean in saved.means]
        wanted = [weight.shape for weight in self._weights] if saved.count else []
        if shapes != wanted:
            raise ValueError("its mean of weights is of another model")
        device = self._weights[0].device
        self._count, self._means = saved.count, [mean.to(device) for mean in saved.means]
