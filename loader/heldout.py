"""Held-out text: documents that a build kept out of its shards, to measure models on."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

from .manifest import HELDOUT
from .storage import open_regular


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutDocument:
    """One document that is in no shard."""

    id: str
    text: str
    label: str
    """Known domain, if the corpus says one."""
    cluster: str
    """Name of the cluster that it would be in."""


def read_heldout(directory: Path) -> Iterator[HeldOutDocument]:
    """Read the held-out documents of a shard directory; none if it has none."""
    path = directory / HELDOUT
    if not path.exists():
        return
    with open_regular(path) as file:
        # Each append adds a frame.
        packed = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        for line in io.BufferedReader(packed):
            yield HeldOutDocument(**json.loads(line))
