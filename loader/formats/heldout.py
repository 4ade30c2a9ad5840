"""Held-out text: documents that a build kept out of its shards, to evaluate models on them."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from climbstream.loader.core.errors import IntegrityError
from climbstream.loader.core.files import open_regular
from climbstream.loader.core.typed import convert, located, parse_json

from .manifest import HELDOUT

FEW_ITEMS = 30
"""Smallest number of held-out documents, or of other items, with which models can be compared. With
fewer items, a bootstrap over them is unreliable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutDocument:
    """A document that was held out, so it is in no shard."""

    id: str
    text: str
    label: str
    """Domain of the document, if the corpus names one; else ""."""
    cluster: str
    """Name of the cluster to which the document belongs by its content."""


def read_heldout(directory: Path) -> Iterator[HeldOutDocument]:
    """Yield the held-out documents of the shard directory ``directory``, if it has any.

    Raises:
        InvalidDataError: A line is no held-out document.
        IntegrityError: The file cannot be decompressed.
    """
    path = directory / HELDOUT
    if not path.exists():
        return
    with open_regular(path) as file:
        yield from parse_heldout(file, path)


def parse_heldout(file: BinaryIO, place: object) -> Iterator[HeldOutDocument]:
    """Yield the held-out documents in ``file``; errors name ``place``, the file's path or URL.

    Raises:
        InvalidDataError: A line is no held-out document.
        IntegrityError: The file cannot be decompressed.
    """
    # The file may have several zstd frames: each append to the directory adds one.
    packed = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    try:
        for number, line in enumerate(io.BufferedReader(packed), start=1):
            where = f"{place}, line {number}"
            value = parse_json(line, where)
            yield located(_read, value, where)
    except zstandard.ZstdError as error:
        raise IntegrityError(f"{place} cannot be decompressed: {error}") from None


def _read(value: object) -> HeldOutDocument:
    return convert(value, HeldOutDocument, "held-out document")
