"""Documents: read the documents of finished shards, one shard at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.formats.mds.compression import decompress
from climbstream.loader.formats.mds.entry import ShardEntry
from climbstream.loader.formats.mds.reader import ShardView, parse_shard
from climbstream.loader.storage.store import Store


def read_shard(folder: Path | Store, entry: ShardEntry, dtype: str) -> ShardView:
    """Return one shard, with the places of its documents, after checking it against ``entry``.

    ``folder`` is the folder of its cluster; ``dtype`` is the type of a token.

    Raises:
        IntegrityError: The bytes of the shard differ from ``entry``.
        RemoteError: The shard could not be read from the store.
    """
    raw = decompress(Store.of(folder).read(entry.zip_basename, entry.zip_bytes), entry)
    return parse_shard(np.frombuffer(raw, np.uint8), entry, dtype)


def documents_of(
    folder: Path | Store, shards: Sequence[ShardEntry], dtype: str
) -> Iterator[list[NDArray[Any]]]:
    """Yield the documents of each of ``shards`` in ``folder``: one list per shard.

    A document is an array of its tokens, of type ``dtype``, ``[n]``.

    Raises the same errors as `read_shard`.
    """
    for entry in shards:
        view = read_shard(folder, entry, dtype)
        yield [view.document(row, dtype) for row in range(entry.samples)]
