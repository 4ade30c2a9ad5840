"""WeightAverage: the mean of the model parameters over the last steps of a run."""

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
    """The running mean of the model parameters over the last steps of a run.

    With mean parameters, the scores of repeated runs of one mixture differ less than with the
    parameters of the last step (docs/decisions/proxies.md has the figures).
    """

    def __init__(self, model: "PreTrainedModel", settings: TrainSettings) -> None:
        self._weights = list(model.parameters())
        self._first = settings.steps - round(settings.average * settings.steps)
        self._count = 0
        self._means: list[torch.Tensor] = []

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Add the present parameters to the mean, if ``step`` is a step to average."""
        if step < self._first:
            return
        self._count += 1
        if not self._means:
            self._means = [weight.detach().clone() for weight in self._weights]
        for mean, weight in zip(self._means, self._weights, strict=True):
            mean.lerp_(weight, 1 / self._count)

    @torch.no_grad()
    def put(self) -> None:
        """Copy the mean into the model. If there is no mean, the model does not change."""
        for mean, weight in zip(self._means, self._weights[: len(self._means)], strict=True):
            weight.copy_(mean)

    def state_dict(self) -> dict[str, Any]:
        """Return the mean of each parameter, and the number of averaged steps."""
        return {"count": self._count, "means": self._means}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned.

        Raises:
            InvalidDataError: ``state`` is not a state that `state_dict` returns.
            ValueError: The state belongs to a model with parameters of other shapes.
        """
        saved = convert(state, _State, "mean of model parameters")
        shapes = [mean.shape for mean in saved.means]
        wanted = [weight.shape for weight in self._weights] if saved.count else []
        if shapes != wanted:
            raise ValueError("its mean of parameters is of another model")
        device = self._weights[0].device
        self._count, self._means = saved.count, [mean.to(device) for mean in saved.means]
