"""Online rules: change the weights during training according to the losses of the clusters.

Every few steps, a rule receives the loss of each cluster and returns weights. `train_model` passes
these weights to the loader. The loader records them in the weights log and uses them from the next
step.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch


class OnlineRule(ABC):
    """Base class of rules that choose weights from losses during training.

    A subclass must override `follow`. The other methods have defaults.
    """

    every: int = 10
    """Number of steps between two choices of weights."""

    def measure(self, batch: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        """Return one number per row, float ``[rows]``; by default the mean loss of the row.

        `follow` receives the means of these numbers by cluster.

        Args:
            batch: Tokens, int64 ``[rows, seq_len]``.
            losses: Loss in nats at each token, as `token_losses` returns it.
        """
        del batch
        return row_means(losses)

    @abstractmethod
    def follow(self, losses: dict[str, float]) -> Mapping[str, float] | None:
        """Return the weights to use from the next step; None keeps the present weights.

        Args:
            losses: By cluster, the mean of the values that `measure` returned since the last
                choice. A cluster that had no rows since then is missing.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the rule as JSON values; by default an empty dictionary."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned; by default the state must be empty."""
        if state:
            raise TypeError(f"{type(self).__name__} has a state: it must say how it is loaded")


def token_losses(logits: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """Return the loss in nats of predicting the next token, at each token.

    Args:
        logits: ``[rows, seq_len, vocabulary]``.
        batch: The tokens that the model read, int64 ``[rows, seq_len]``.

    Returns:
        float32 ``[rows, seq_len]``. The value at the last token of a row is 0, because that token
        has no next token.
    """
    following = torch.nn.functional.pad(batch[:, 1:], (0, 1), value=-100)
    losses = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), following.flatten(), reduction="none"
    )
    return losses.view(batch.shape)


def row_means(losses: torch.Tensor) -> torch.Tensor:
    """Return the mean of each row of `token_losses`, ``[rows]``, without the last token."""
    return losses.sum(dim=1) / (losses.shape[1] - 1)
