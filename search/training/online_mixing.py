"""Online rules: weights that follow the losses of the clusters during training.

The interface is small: every few steps a rule gets the loss of each cluster and returns weights.
`train_model` passes them to the loader, so they are in the weights log and hold from the next step
on.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch


class OnlineRule(ABC):
    """Chooses weights from losses; your own rule overrides `follow`, and more if needed."""

    every: int = 10
    """Steps between two choices."""

    def measure(self, batch: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        """Return one number a row for the rule, float ``[rows]``; default: its mean loss.

        Args:
            batch: Tokens, int64 ``[rows, seq_len]``.
            losses: Nats of each next token, as `token_losses` returns them.
        """
        del batch
        return row_means(losses)

    @abstractmethod
    def follow(self, losses: dict[str, float]) -> Mapping[str, float] | None:
        """Return the weights from the next step on, or None to keep the present ones.

        Args:
            losses: Mean of what `measure` returned since the last choice, by cluster; a cluster
                without rows is left out.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the memory of the rule as JSON values; default: nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to the state that `state_dict` gave; by default there is none."""
        if state:
            raise TypeError(f"{type(self).__name__} has a state: it must say how it is loaded")


def token_losses(logits: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """Return nats of the token after each, float32 ``[rows, seq_len]``; 0 for the last.

    Args:
        logits: ``[rows, seq_len, vocabulary]``.
        batch: The tokens that they are for, int64 ``[rows, seq_len]``.
    """
    following = torch.nn.functional.pad(batch[:, 1:], (0, 1), value=-100)
    losses = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), following.flatten(), reduction="none"
    )
    return losses.view(batch.shape)


def row_means(losses: torch.Tensor) -> torch.Tensor:
    """Return the mean of each row of `token_losses`, ``[rows]``, without its last token."""
    return losses.sum(dim=1) / (losses.shape[1] - 1)
