"""ShardDirectory: shards in a folder or at a URL; it is opened once, and passed to all readers."""

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import IntegrityError, InvalidDataError, UsageError
from climbstream.loader.core.files import default_cache
from climbstream.loader.core.tabular import Tabular
from climbstream.loader.core.threads import in_threads
from climbstream.loader.storage.store import Store

from .clusters import ClusterInfo, load_clusters
from .documents import documents_of
from .grouping import base_of
from .heldout import HeldOutDocument, parse_heldout, read_heldout
from .manifest import (
    COLUMNS,
    HELDOUT,
    TOKENIZER,
    ClusterEntry,
    Manifest,
    check_counts,
    left_out_by_pull,
    load_index,
    read_file,
    shard_folder,
)
from .mds.entry import ShardColumns
from .mds.index import Index
from .mixture import some_names
from .shard_columns import REMEDY, read_columns
from .tokenizer import no_tokenizer, parse_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


REQUESTS = 64
"""Number of indexes that are read from a URL at the same time."""


class ShardDirectory(Tabular):
    """Shards in one folder or at one URL.

    Only the manifest, which lists the clusters, is read when the directory is opened. Indexes,
    tokenizer and descriptions of clusters are read at first use, and kept. The indexes come from
    the file ``shards.columns`` or, if there is no such file, from the ``index.json`` of each
    cluster. The folder of a `Grouping` can be opened as a shard directory whose clusters are the
    groups. A `ShardDirectory` can be pickled: the process that unpickles it gets the manifest, and
    reads the rest itself.

    Args:
        place: A folder, a URL, or the `Store` of a folder or URL.

    Raises:
        InvalidDataError: There is no manifest, or it cannot be read.
        RemoteError: The manifest could not be read from the store.
    """

    def __init__(self, place: str | Path | Store) -> None:
        self._place = place
        self.store = Store.of(place)
        self.manifest = Manifest.load(self.store)
        self._indexes: dict[str, Index] = {}
        self._columns: Mapping[str, ShardColumns] | None = None

    @classmethod
    def open(cls, place: "str | Path | Store | ShardDirectory") -> "ShardDirectory":
        """Return the shard directory at ``place``; a `ShardDirectory` is returned unchanged.

        Raises:
            InvalidDataError: There is no shard directory at ``place``.
            RemoteError: The manifest could not be read from the store.
        """
        return place if isinstance(place, ShardDirectory) else cls(place)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._place, self.manifest)

    def __repr__(self) -> str:
        return (
            f"ShardDirectory({self}, {len(self.names)} clusters, {self.manifest.tokens:,} tokens)"
        )

    def __str__(self) -> str:
        return str(self.store)

    @property
    def names(self) -> list[str]:
        """Names of the clusters, in the order of the manifest."""
        return self.manifest.names

    @property
    def address(self) -> str:
        """Absolute path or URL of the shards, which is valid in any process."""
        if self.local is not None:
            return str(self.local.resolve())
        return str(self._place).rstrip("/")

    @property
    def local(self) -> Path | None:
        """The folder; None if the shards are at a URL."""
        return self.store.folder

    def cluster(self, name: str) -> ClusterEntry:
        """Return the manifest's entry of cluster ``name``.

        Raises:
            UsageError: There is no such cluster.
        """
        if (entry := self._by_name.get(name)) is None:
            raise UsageError(f"{self} has no cluster {name!r}; it has {', '.join(self.names)}")
        return entry

    @cached_property
    def _by_name(self) -> dict[str, ClusterEntry]:
        return {entry.name: entry for entry in self.manifest.clusters}

    @property
    def base(self) -> Store:
        """Store that has the shards: `store` or, for a grouping, the directory that is grouped."""
        return base_of(self.store) if self.manifest.members else self.store

    def locate(self, name: str, shard: int) -> tuple[str, int]:
        """Return (cluster, number): which cluster has a shard, and the shard's number in it.

        ``shard`` is the position of the shard in the `index` of ``name``, a cluster or a group. For
        a cluster, the result is (``name``, ``shard``). For a group, it is the cluster of the group
        that has the shard, and the position of the shard in the index of this cluster.
        """
        entries = self._entries(name)
        ends = [*accumulate((len(self._index(entry).shards) for entry in entries), initial=0)]
        part = bisect_right(ends, shard) - 1
        return entries[part].name, shard - ends[part]

    def folder(self, name: str, shard: int) -> Store:
        """Return the folder that has a shard of cluster ``name``; ``shard`` is as in `locate`."""
        return shard_folder(self.base, self.manifest, *self.locate(name, shard))

    def index(self, name: str) -> Index:
        """Return the index of cluster ``name``, checked against the manifest.

        Raises:
            IntegrityError: The bytes or counts of the index differ from the manifest.
            RemoteError: The index could not be read from the store.
        """
        indexes = [self._index(entry) for entry in self._entries(name)]
        if len(indexes) == 1:
            return indexes[0]
        return Index(self.manifest.dtype, tuple(part for index in indexes for part in index.parts))

    def _entries(self, name: str) -> tuple[ClusterEntry, ...]:
        """Return the entries of the clusters that make up cluster or group ``name``."""
        return self.manifest.members.get(name) or (self.cluster(name),)

    def _index(self, entry: ClusterEntry) -> Index:
        if entry.name not in self._indexes:
            self._indexes[entry.name] = self._read_index(entry)
        return self._indexes[entry.name]

    def _read_index(self, entry: ClusterEntry) -> Index:
        if not (columns := self._read_columns()):
            return load_index(self.base, self.manifest, entry)
        if entry.name not in columns:
            raise IntegrityError(f"{self.base / COLUMNS} lacks cluster {entry.name}; {REMEDY}")
        index = Index(self.manifest.dtype, (columns[entry.name],))
        check_counts(index, entry, f"{self.base / COLUMNS}, cluster {entry.name},")
        return index

    def _read_columns(self, cache_dir: Path | None = None) -> Mapping[str, ShardColumns]:
        if self._columns is None:
            cache = default_cache() if cache_dir is None else cache_dir
            self._columns = read_columns(self.base, self.manifest, cache)
        return self._columns

    def load_indexes(self, names: Sequence[str], cache_dir: Path | None = None) -> None:
        """Read and check the indexes of the clusters ``names``, so that `index` need not wait.

        If the shards are at a URL, a large ``shards.columns`` is kept in ``cache_dir``; default:
        `default_cache`. If there is no such file, each index needs a request, and up to 64 are read
        at the same time.

        Raises:
            IntegrityError: Bytes or counts of an index differ from the manifest.
            RemoteError: An index could not be read from the store.
        """
        columns = self._read_columns(cache_dir)
        entries = [entry for name in names for entry in self._entries(name)]
        threads = 1 if columns or self.local is not None else REQUESTS
        for _ in in_threads(self._index, entries, threads):
            pass

    def check_pulled(self, names: Iterable[str], remedy: str = "") -> None:
        """Check that a pull with a mixture left out none of the clusters or groups ``names``.

        ``names`` is read only if the pull left out any cluster. ``remedy``, the end of the message,
        says what the user can do instead of fetching them.

        Raises:
            InvalidDataError: A cluster was left out.
        """
        left_out = {*left_out_by_pull(self.store, self.manifest)}
        if not left_out:
            return
        entries = [entry.name for name in names for entry in self._entries(name)]
        if missing := [name for name in entries if name in left_out]:
            raise InvalidDataError(
                f"{self} does not have the shards of {some_names(missing)}, because climb pull "
                f"--mixture did not fetch them. Fetch them: climb pull SOURCE {self.base}{remedy}"
            )

    def documents(
        self, name: str, shards: Sequence[int] | None = None
    ) -> Iterator[list[NDArray[Any]]]:
        """Yield the documents of cluster ``name``: one list per shard.

        A document is an array of its tokens, uint16 or uint32 ``[n]``.

        Args:
            name: Name of the cluster.
            shards: Which shards to read, by their positions in `index`; default: all.

        Raises:
            IntegrityError: The bytes of a shard differ from the index.
            RemoteError: A shard could not be read from the store.
        """
        entries = self.index(name).shards
        for number in range(len(entries)) if shards is None else shards:
            folder = self.folder(name, number)
            yield from documents_of(folder, [entries[number]], self.manifest.dtype)

    def clusters(self) -> list[ClusterInfo]:
        """Return the descriptions of the clusters; [] if none are stored, as for a grouping.

        Raises:
            InvalidDataError: The file of descriptions cannot be read.
        """
        return self._clusters

    def words(self) -> dict[str, str]:
        """Return typical words of each cluster, by name; for a group, the names of its clusters.

        Raises:
            InvalidDataError: The descriptions of the clusters cannot be read.
        """
        members = {
            group: some_names([entry.name for entry in entries])
            for group, entries in self.manifest.members.items()
        }
        return {info.name: info.words for info in self.clusters()} | members

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row per cluster, as a dict: counts, share of tokens, words, and mean scores.

        Scores are from 0 to 5, and higher is better. So ``advertisement`` is 5 for text without
        advertising; commands and reports call it ad-free.

        Raises:
            InvalidDataError: The descriptions of the clusters cannot be read.
        """
        described = {info.name: info for info in self.clusters()}
        scores = list(dict.fromkeys(name for info in described.values() for name in info.quality))
        shares, words = self.manifest.token_shares.weights, self.words()
        return [
            {
                "cluster": entry.name,
                "documents": entry.documents,
                "tokens": entry.tokens,
                "share": shares.get(entry.name, 0.0),
                "words": words.get(entry.name, ""),
                **{
                    name: info.quality.get(name) if (info := described.get(entry.name)) else None
                    for name in scores
                },
            }
            for entry in self.manifest.clusters
        ]

    def tokenizer(self) -> "Tokenizer":
        """Return the tokenizer of the shards.

        Raises:
            UsageError: There is no tokenizer. For example, an import of tokens has none.
            InvalidDataError: The tokenizer cannot be read.
        """
        return self._tokenizer

    def heldout(self) -> Iterator[HeldOutDocument]:
        """Yield the documents that the build held out, if any.

        If the shards are at a URL, the file of these documents is fetched at first use, and kept in
        memory in compressed form.

        Raises:
            InvalidDataError: A line is no held-out document.
            IntegrityError: The file cannot be decompressed, or differs from the manifest.
            RemoteError: The file could not be read from the store.
        """
        groups = {m.name: group for group, ms in self.manifest.members.items() for m in ms}
        folder = self.base.folder
        documents = self._remote_heldout() if folder is None else read_heldout(folder)
        for document in documents:
            yield replace(document, cluster=groups.get(document.cluster, document.cluster))

    def _remote_heldout(self) -> Iterator[HeldOutDocument]:
        if data := self._heldout_bytes:
            yield from parse_heldout(io.BytesIO(data), self.base / HELDOUT)

    def read(self, name: str) -> bytes:
        """Return the content of file ``name``, checked by its hash if the manifest has one.

        Raises:
            FileNotFoundError: There is no such file.
            IntegrityError: The hash of the file differs from the one in the manifest.
            RemoteError: The file could not be read from the store.
        """
        return read_file(self.store, self.manifest, name)

    @cached_property
    def _heldout_bytes(self) -> bytes:
        try:
            return self.read(HELDOUT)
        except FileNotFoundError:
            return b""  # no document was held out, or the file was not published

    @cached_property
    def _clusters(self) -> list[ClusterInfo]:
        return [] if self.manifest.members else load_clusters(self.store)

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        try:
            data = self.read(TOKENIZER)
        except FileNotFoundError:
            raise no_tokenizer(self) from None
        return parse_tokenizer(data, f"{self}/{TOKENIZER}")

    @property
    def token_size(self) -> int:
        """Number of bytes of a token in the shards: 2 or 4."""
        return np.dtype(self.manifest.dtype).itemsize


def _reopen(place: str | Path | Store, manifest: Manifest) -> ShardDirectory:
    """Return the directory that another process has pickled, without reading its manifest."""
    directory = ShardDirectory.__new__(ShardDirectory)
    directory._place, directory.store, directory.manifest = place, Store.of(place), manifest
    directory._indexes, directory._columns = {}, None
    return directory
