"""Online rules: weights that follow the losses of the clusters while a model trains on them.

The interface is small: the loss of each cluster goes in, weights come out, every so many steps.
`train_model` puts them into the loader, so that they stand in its weights log and hold from the
next step on.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch


class OnlineRule(ABC):
    """Chooses weights from losses; a rule of your own overrides `follow`, and more if it must."""

    every: int = 10
    """Steps between one choice and the next."""

    def measure(self, batch: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        """Return what the rule is told of each row, float ``[rows]``; default: its mean loss.

        Args:
            batch: Tokens, int64 ``[rows, seq_len]``.
            losses: Nats of each token to come, as `token_losses` gives them.
        """
        del batch
        return row_means(losses)

    @abstractmethod
    def follow(self, losses: dict[str, float]) -> Mapping[str, float] | None:
        """Return the weights from the next step on, or None to let them be.

        Args:
            losses: The mean of what was measured, by cluster, since the last choice; a cluster
                without rows is left out.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what the rule remembers, as JSON values; default: nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to the state that `state_dict` gave; default: there is none."""
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
    """Return the mean of each row of `token_losses`, ``[rows]``; the last predicts nothing."""
    return losses.sum(dim=1) / (losses.shape[1] - 1)
