"""DoReMi: raise the weights of clusters with a high excess loss (arXiv 2305.10429, Alg. 1).

The excess loss is the loss of the model in training minus the loss of a reference model.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from climbstream.loader import Mixture
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.typed import Count, Finite, convert

from .online_mixing import OnlineRule, row_means, token_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class _State:
    weights: dict[str, Finite]
    excess: dict[str, Finite]
    total: dict[str, Finite]
    choices: Count


class DoReMi(OnlineRule):
    """Rule that raises the weights of clusters with a high excess loss; `average` is the result.

    The method is Group DRO with smoothed exponentiated gradient. Two things differ from the paper:

    - Here the weights decide which rows the loader serves. In the paper, the weights scale the
      losses.
    - Here the weights start at the prior and are smoothed towards the prior. In the paper, they
      start at uniform weights and are smoothed towards these. So here, without excess loss, the
      weights stay at the prior.
    """

    def __init__(
        self,
        reference: "PreTrainedModel",
        prior: Mixture,
        *,
        every: int = 10,
        rate: float = 1.0,
        smoothing: float = 1e-3,
    ) -> None:
        """Make a rule whose excess losses are relative to ``reference``.

        Args:
            reference: Model that was trained on ``prior``. It has the same vocabulary as the model
                to train, and is on the same device.
            prior: Weights at the start. A cluster with weight 0 keeps weight 0.
            every: Number of steps between choices of weights. The paper chooses at each step, with
                larger batches.
            rate: Learning rate of the exponentiated gradient; 1 in the paper.
            smoothing: Share of the prior in each choice of weights; 1e-3 in the paper.
        """
        self.every = every
        self._reference = reference.eval()
        self._prior = {name: w for name, w in prior.weights.items() if w > 0}
        self._rate, self._smoothing = rate, smoothing
        self._weights = dict(self._prior)
        self._excess: dict[str, float] = {}
        self._total = dict.fromkeys(self._prior, 0.0)
        self._choices = 0

    @torch.no_grad()
    def measure(self, batch: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        """Return the mean excess loss of each row, ``[rows]``.

        Before the mean is taken, negative excess losses of tokens are set to 0.
        """
        reference_losses = token_losses(self._reference(input_ids=batch).logits, batch)
        return row_means((losses.detach() - reference_losses).clamp(min=0))

    def follow(self, losses: dict[str, float]) -> Mapping[str, float]:
        """Return new weights, which are higher for clusters with a high excess loss.

        ``losses`` is the mean excess loss by cluster since the last choice of weights. If a cluster
        had no rows since then, its previous excess loss is used.
        """
        self._excess |= losses
        # A cluster that had no rows yet gets the mean excess loss of the other clusters.
        unseen = math.fsum(self._excess.values()) / max(1, len(self._excess))
        powers = {name: self._rate * self._excess.get(name, unseen) for name in self._prior}
        largest = max(powers.values())
        raised = {n: w * math.exp(powers[n] - largest) for n, w in self._weights.items()}
        total = math.fsum(raised.values())
        self._weights = {
            name: (1 - self._smoothing) * w / total + self._smoothing * self._prior[name]
            for name, w in raised.items()
        }
        self._total = {name: t + self._weights[name] for name, t in self._total.items()}
        self._choices += 1
        return self._weights

    @property
    def average(self) -> Mixture:
        """The mean of all chosen weights; the prior if no weights were chosen yet."""
        return Mixture.of(self._total if self._choices else self._prior)

    def state_dict(self) -> dict[str, Any]:
        """Return the weights, the sum and number of all chosen weights, and the excess losses."""
        return {
            "weights": self._weights,
            "excess": dict(self._excess),
            "total": self._total,
            "choices": self._choices,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned.

        Raises:
            InvalidDataError: ``state`` is not a state of DoReMi, or has other clusters than the
                prior.
        """
        saved = convert(state, _State, "state of DoReMi")
        clusters = self._prior.keys()
        if saved.weights.keys() != clusters or saved.total.keys() != clusters:
            raise InvalidDataError("the state of DoReMi is of other clusters")
        self._weights, self._total = saved.weights, saved.total
        self._excess, self._choices = saved.excess, saved.choices
