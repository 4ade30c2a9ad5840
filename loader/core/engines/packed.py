"""Packed values: Python objects as bytes, which processes of one user send to each other."""

from multiprocessing.reduction import ForkingPickler
from typing import Any


def pack(value: object) -> bytes:
    """Return ``value`` as bytes, as the processes of `multiprocessing` send it to each other."""
    return bytes(ForkingPickler.dumps(value))


def unpack(data: bytes) -> Any:
    """Return the object that `pack` turned into ``data``."""
    return ForkingPickler.loads(data)
