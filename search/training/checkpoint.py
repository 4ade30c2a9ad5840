"""Checkpoints: tensors and plain values in one torch file, written atomically."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from climbstream.loader.core.files import atomic_path, reading
from climbstream.loader.core.typed import Finite, convert, located


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """All state that a run needs to resume; the fields are the keys of the file."""

    run: dict[str, Any]
    """Settings of the run; a run with other settings refuses the checkpoint."""
    model: dict[str, Any]
    tail: dict[str, Any]
    """State of the `WeightAverage`."""
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    loader: dict[str, Any]
    losses: list[Finite]
    """Loss of each step so far, in nats per token."""
    rule: dict[str, Any] | None = None
    """State of the `OnlineRule`; None if the run has no rule."""
    heard: dict[str, Any] | None = None
    """Losses that the rule has not received yet, measured since its last choice."""

    def save(self, path: Path) -> None:
        """Write the checkpoint to ``path``.

        Raises:
            NoSpaceError: The disk has too little free space for the checkpoint.
        """
        values = {name: getattr(self, name) for name in self.__slots__}
        save_tensors({name: value for name, value in values.items() if value is not None}, path)

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "Checkpoint":
        """Read a checkpoint that `save` wrote; its tensors are put on ``device``.

        Raises:
            InvalidDataError: The file is not a valid checkpoint; the message names the file and the
                invalid field.
        """
        return located(_from_values, load_tensors(path, device), str(path))


def _from_values(values: Any) -> Checkpoint:
    return convert(values, Checkpoint, "checkpoint of a run")


def save_tensors(state: Mapping[str, Any], path: Path) -> None:
    """Write ``state`` to ``path``.

    Raises:
        NoSpaceError: The disk has too little free space for ``state``.
    """
    # Errors of a Python file say why a write failed; errors of torch's own writer do not.
    with atomic_path(path, tensor_bytes(state)) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def load_tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a dictionary that `save_tensors` wrote; its tensors are put on ``device``.

    Raises:
        InvalidDataError: The file cannot be read by torch, or does not hold a dictionary.
    """
    with reading(path, "file of tensors"):
        state = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(
                f"it must hold a dictionary of tensors, but holds a {type(state).__name__}"
            )
    return state


def tensor_bytes(state: object) -> int:
    """Return the size in bytes of all tensors in ``state`` and in the containers inside it."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(map(tensor_bytes, state.values()))
    if isinstance(state, list | tuple):
        return sum(map(tensor_bytes, state))
    return 0
