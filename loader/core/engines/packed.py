"""Packed values: bytes by which processes of one user send each other Python objects."""

from multiprocessing.reduction import ForkingPickler
from typing import Any


def pack(value: object) -> bytes:
    """Return ``value`` as bytes, as the processes of `multiprocessing` send it to each other."""
    return bytes(ForkingPickler.dumps(value))


def unpack(data: bytes | memoryview) -> Any:
    """Return what `pack` packed."""
    return ForkingPickler.loads(data)
