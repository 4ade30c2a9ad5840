"""RowSource: the documents of one cluster, as rows."""

from pathlib import Path

import numpy as np

from climbstream.loader.core.permutation import derive_key, subkey
from climbstream.loader.formats.mds.index import Index
from climbstream.loader.formats.mds.reader import ShardView
from climbstream.loader.sampling.lanes import keep_part
from climbstream.loader.storage.store import Store

from .gather import ByteSpans, OpenShard
from .packing import PackedRows, count_shard_rows, pack_documents
from .shard_cache import ShardCache


class RowSource:
    """The rows of one cluster; holds no position."""

    def __init__(
        self,
        name: str,
        folder: Path | Store,
        index: Index,
        cache: ShardCache,
        *,
        seq_len: int,
        pack: str,
        seed: int,
        part: float = 1.0,
    ) -> None:
        self.name = name
        self._folder, self._index, self._cache = folder, index, cache
        self._seq_len, self._pack = seq_len, pack
        self._secret = np.uint64(derive_key(seed, name, "pack"))
        self._part = part
        self._whole = count_shard_rows(pack, index, seq_len)
        self.shard_rows = keep_part(self._whole, part, seed, name)
        """Rows that each shard gives in an epoch."""
        self.rows = sum(self.shard_rows)
        """Rows of one epoch."""

    def want(self, shard: int) -> None:
        """Begin to fetch a shard, unless it is here or on its way."""
        self._cache.want(self._folder, self._index.shards[shard])

    def release(self, shard: int) -> None:
        """Let go of a shard that will not be opened soon."""
        self._cache.release(self._index.shards[shard])

    def open(self, shard: int, epoch: int, pieces: ByteSpans | None = None) -> OpenShard:
        """Open a shard, packed as it is in ``epoch``; ``pieces``, if known, are of that packing.

        Raises:
            IntegrityError: The shard is missing, or its bytes are not those of the index.
        """
        if pieces is None:
            size = np.dtype(self._index.dtype).itemsize
            pieces = ByteSpans.of(*self.packed(shard, epoch), size)
        return OpenShard.of(self._cache.get(self._folder, self._index.shards[shard]), pieces)

    def packed(self, shard: int, epoch: int) -> tuple[ShardView, PackedRows]:
        """Say of which pieces of documents the rows of a shard are made in ``epoch``.

        Raises:
            IntegrityError: As of `open`.
        """
        entry = self._index.shards[shard]
        view = self._cache.view(self._folder, entry, self._index.dtype)
        # Of a part every epoch has the same rows: packed anew, they would hold other tokens.
        packing = epoch if self._part == 1 else 0
        # Compiled code returns a plain int, and takes none above 2**63.
        secret = np.uint64(subkey(np.uint64(subkey(self._secret, packing)), shard))
        rows = self._whole[shard]
        return view, pack_documents(self._pack, view.lengths, rows, self._seq_len, secret)
