"""Checkpoints: tensors and plain values in one file of torch, whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from climbstream.loader.core.files import atomic_path, reading


def save_tensors(state: Mapping[str, Any], path: Path) -> None:
    """Write ``state`` to ``path``.

    Raises:
        NoSpaceError: The disk has no room for it.
    """
    # Python's file says why a write fails; torch's own does not.
    with atomic_path(path, tensor_bytes(state)) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def load_tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save_tensors` wrote, to ``device``.

    Raises:
        InvalidDataError: It is no such file.
    """
    with reading(path, "checkpoint of this climbstream"):
        state = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}")
    return state


def tensor_bytes(state: object) -> int:
    """Return the bytes of all tensors in ``state``, however deep."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(map(tensor_bytes, state.values()))
    if isinstance(state, list | tuple):
        return sum(map(tensor_bytes, state))
    return 0
