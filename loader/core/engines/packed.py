"""Packed: Python objects as bytes, to send them to other processes of the same user."""

from multiprocessing.reduction import ForkingPickler
from typing import Any


def pack(value: object) -> bytes:
    """Return ``value`` as bytes, pickled as `multiprocessing` does between processes."""
    return bytes(ForkingPickler.dumps(value))


def unpack(data: bytes | memoryview) -> Any:
    """Return the object that `pack` turned into ``data``."""
    return ForkingPickler.loads(data)
