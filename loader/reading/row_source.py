"""RowSource: opens the shards of one cluster, with their documents packed into rows."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.permutation import derive_key, subkey
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.mds.entry import ShardEntry
from climbstream.loader.formats.mds.reader import ShardView
from climbstream.loader.formats.mixture import Mixture
from climbstream.loader.sampling.lanes import keep_part
from climbstream.loader.sampling.planner import RunSettings
from climbstream.loader.storage.store import Store

from .gather import ByteSpans, OpenShard
from .packing import PackedRows, count_shard_rows, pack_documents
from .shard_cache import ShardCache

logger = get_logger(__name__)

_RECENT = 64
"""Number of shards of a cluster whose folder and index entry are kept in memory."""


def epoch_rows(shards: ShardDirectory, name: str, run: RunSettings) -> NDArray[np.int64]:
    """Return how many rows each shard of cluster ``name`` has in an epoch of the run, ``[n]``."""
    rows = count_shard_rows(run.pack, shards.index(name), run.seq_len)
    return keep_part(rows, run.fraction, run.seed, name)


def served_shares(shards: ShardDirectory, seq_len: int, pack: str = "concat") -> Mixture:
    """Return a mixture in which each cluster's weight is its share of the tokens.

    A cluster that has no row of ``seq_len`` tokens gets no weight, and is named in a warning.

    Raises:
        InvalidDataError: No cluster has such a row; the message says how long a row may be.
    """
    tokens = {
        cluster.name: cluster.tokens
        for cluster in shards.manifest.clusters
        if count_shard_rows(pack, shards.index(cluster.name), seq_len).any()
    }
    if not tokens:
        longest = max(shards.index(name).shard_tokens.max(initial=0) for name in shards.names)
        raise InvalidDataError(
            f"no shard of {shards} has {seq_len:,} tokens, which a row needs; choose a smaller "
            f"seq_len, at most {longest:,}"
        )
    if small := [name for name in shards.names if name not in tokens]:
        logger.warning(
            f"clusters left out, because none of their shards has {seq_len} tokens: "
            f"{', '.join(small)}"
        )
    return Mixture.of(tokens)


class RowSource:
    """Opens the shards of one cluster, packed into rows as in a given epoch.

    It has no position: any shard can be opened in any epoch.

    Args:
        shards: The shard directory.
        name: Name of the cluster.
        run: Settings of the run.
        cache: Cache through which shards are read.
    """

    def __init__(
        self, shards: ShardDirectory, name: str, run: RunSettings, cache: ShardCache
    ) -> None:
        self.name = name
        self._shards, self._cache = shards, cache
        self._index = shards.index(name)
        self._entries = self._index.shards
        # Cached, because making an entry and a folder takes as long as copying dozens of rows.
        self._located = lru_cache(_RECENT)(self._locate)
        self._run = run
        self._secret = np.uint64(derive_key(run.seed, name, "pack"))
        self._whole = count_shard_rows(run.pack, self._index, run.seq_len)
        self.shard_rows = keep_part(self._whole, run.fraction, run.seed, name)
        """Number of rows of each shard that are served in an epoch."""
        self.rows = int(self.shard_rows.sum())
        """Number of rows of the cluster in an epoch."""
        self.tokens = int(self._index.shard_tokens.sum())
        """Number of tokens of the cluster."""
        self.left_out = self.tokens - int(self._whole.sum()) * run.seq_len
        """Number of these tokens for which packing has no room in an epoch; without padding."""
        self.longest = int(self._index.shard_tokens.max(initial=0))
        """Number of tokens of the largest shard. With a larger ``seq_len``, there is no row."""

    def is_cached(self) -> bool:
        """Whether the cache has all shards of the cluster, so that their folder is not read."""
        return all(self._cache.has(entry) for entry in self._entries)

    def want(self, shard: int) -> None:
        """Begin to fetch a shard into the cache, unless it is there or being fetched already."""
        self._cache.want(*self._located(shard))

    def release(self, shard: int) -> None:
        """Let the cache drop a shard from memory, because it will not be opened soon."""
        self._cache.release(self._located(shard)[1])

    def open(self, shard: int, epoch: int, pieces: ByteSpans | None = None) -> OpenShard:
        """Return a shard from which `gather` can copy rows, packed as in ``epoch``.

        ``pieces`` is the packing of the shard in ``epoch``, if the caller has kept it. None: the
        packing is computed.

        Raises:
            IntegrityError: The shard is missing, or its bytes differ from the index.
        """
        if pieces is None:
            size = np.dtype(self._index.dtype).itemsize
            pieces = ByteSpans.of(*self.packed(shard, epoch), size)
        return OpenShard.of(self._cache.get(*self._located(shard)), pieces)

    def packed(self, shard: int, epoch: int) -> tuple[ShardView, PackedRows]:
        """Return a shard, and its rows in ``epoch`` as pieces of documents.

        Raises:
            IntegrityError: The shard is missing, or its bytes differ from the index.
        """
        run = self._run
        view = self._cache.view(*self._located(shard), self._index.dtype)
        # A run with a fraction below 1 serves the same rows in every epoch, so it needs the same
        # packing in every epoch: another packing would put other tokens into these rows.
        packing = epoch if run.fraction == 1 else 0
        # Converted, because compiled code returns a plain int, but accepts none of 2**63 or more.
        secret = np.uint64(subkey(np.uint64(subkey(self._secret, packing)), shard))
        rows = int(self._whole[shard])
        return view, pack_documents(run.pack, view.lengths, rows, run.seq_len, secret)

    def _locate(self, shard: int) -> tuple[Store, ShardEntry]:
        """Return the folder of a shard, and its entry in the index."""
        return self._shards.folder(self.name, shard), self._entries[shard]
