"""Verify: recompute all hashes and counts of a shard directory; compare shards with the catalogue.

The catalogue lists all documents and where they are. The directory may be at a URL. Files are read
one at a time, without the cache, and are not stored.
"""

import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.console import Progress
from climbstream.loader.core.errors import ClimbError, RemoteError
from climbstream.loader.formats.catalogue import read_parts, row_groups
from climbstream.loader.formats.grouping import GROUPINGS
from climbstream.loader.formats.manifest import (
    BESIDE,
    COLUMNS,
    DOCUMENTS,
    INDEX,
    KEPT_BACK,
    MANIFEST,
    MOST_BYTES,
    PULL,
    ClusterEntry,
    Manifest,
    cluster_folder,
    grouping_file,
    is_partial,
    list_groupings,
    load_index,
    part_name,
    read_file,
    refuse_grouping,
    shard_folder,
)
from climbstream.loader.formats.mds.compression import decompress
from climbstream.loader.formats.mds.entry import ShardColumns, ShardEntry, check
from climbstream.loader.formats.mds.reader import parse_shard
from climbstream.loader.formats.mixture import MIXTURE
from climbstream.loader.formats.shard_columns import parse_columns
from climbstream.loader.storage.store import Store


@dataclass(slots=True)
class Verdict:
    """The result of a check: what was read, and which faults were found."""

    shards: int = 0
    documents: int = 0
    tokens: int = 0
    """Numbers of shards, documents and tokens that could be read."""
    faults: list[str] = field(default_factory=list)
    """One text per fault; empty: all is right."""
    unexpected: list[str] = field(default_factory=list)
    """Files and folders (with ``/`` at the end) that do not belong in a shard directory; they are
    not faults."""
    not_pulled: list[str] = field(default_factory=list)
    """Folders of clusters and of the catalogue that a pull with a mixture left out; they are not
    faults."""


def verify_directory(directory: str | Path | Store, *, content: bool = True) -> Verdict:
    """Check all files of a shard directory, a folder or a URL, and return all faults.

    If ``content`` is False, shards and the catalogue are not read: only the sizes of shards are
    compared with the indexes. ``directory`` must then be a folder.

    If ``directory`` was filled by a pull with a mixture, it has no catalogue, and no shards of
    clusters without weight. These are not checked. If all shards of another cluster were lost after
    the pull, this cluster is not checked either, because it looks as if the pull had left it out.

    Raises:
        InvalidDataError: ``directory`` is not a shard directory.
        UsageError: ``directory`` is a grouping, which has no shards.
        RemoteError: A file could not be read from the store, so it could not be checked.
    """
    store = Store.of(directory).without_links()
    manifest = Manifest.load(store)
    refuse_grouping(manifest, directory, "verify")
    check = _Check(store, manifest, content=content)
    check.files()
    work = ("verify", manifest.tokens, "tokens") if content else ("check sizes", None, "shards")
    with Progress(*work) as progress:
        for cluster in manifest.clusters:
            with _noting(check.verdict, f"cluster {cluster.name}"):
                check.cluster(cluster, progress)
    check.catalogue()
    check.groupings()
    return check.verdict


class _Check:
    """A check of a shard directory, part by part; `verdict` has what was found so far."""

    def __init__(self, store: Store, manifest: Manifest, *, content: bool) -> None:
        self._store, self._manifest, self._content = store, manifest, content
        self._partial = is_partial(store.folder)
        self.verdict = Verdict(not_pulled=[f"{DOCUMENTS}/"] if self._partial else [])
        self._lengths: dict[tuple[str, int], NDArray[np.int64]] = {}
        parts = map(part_name, range(manifest.parts or 0))
        self._expected = {MANIFEST, PULL, *BESIDE, MIXTURE, *parts}
        self._unread: list[str] = []
        """Folders of clusters whose index cannot be read, so their shards are not known."""
        self._columns: Mapping[str, ShardColumns] = {}

    def files(self) -> None:
        """Check the files beside the shards."""
        store, manifest, verdict = self._store, self._manifest, self.verdict
        with _noting(verdict, COLUMNS):
            self._columns = _read_columns(store, manifest)
            verdict.faults += [
                f"{COLUMNS}: it lists a cluster {name}, and the manifest does not"
                for name in self._columns.keys() - {*manifest.names}
            ]
        for name in BESIDE:
            if name != COLUMNS:
                with _noting(verdict, name):
                    _check_file(store, manifest, name)
        with _noting(verdict, MIXTURE), suppress(FileNotFoundError):
            store.read(MIXTURE)

    def cluster(self, cluster: ClusterEntry, progress: Progress) -> None:
        """Check the index and the shards of a cluster."""
        store, manifest, verdict = self._store, self._manifest, self.verdict
        index = f"clusters/{cluster.name}/{INDEX}"
        self._expected.add(index)
        self._unread.append(f"clusters/{cluster.name}/")
        shards = load_index(store, manifest, cluster).shards
        self._unread.pop()  # no error was raised
        with _noting(verdict, COLUMNS):
            if self._columns and self._columns.get(cluster.name) != shards:
                verdict.faults.append(
                    f"{COLUMNS}: it lists other shards of cluster {cluster.name} than its {INDEX}; "
                    f"remove {COLUMNS}, and {INDEX} is read in its place"
                )
        self._expected.update(_paths(manifest, cluster, shards))
        folder = cluster_folder(store, cluster.name).folder
        if self._partial and folder and shards and not _any_here(folder, shards):
            verdict.not_pulled.append(f"clusters/{cluster.name}/")
            return
        for number, entry in enumerate(shards):
            with _noting(verdict, f"cluster {cluster.name}"):
                self._shard(cluster.name, number, entry)
                progress.add(entry.tokens if self._content else 1)

    def _shard(self, cluster: str, number: int, entry: ShardEntry) -> None:
        place = shard_folder(self._store, self._manifest, cluster, number)
        if self._content:
            self._lengths[cluster, number] = _read_lengths(place, entry, self._manifest)
        else:
            _check_size(place, entry)
        self.verdict.shards += 1
        self.verdict.documents += entry.samples
        self.verdict.tokens += entry.tokens

    def catalogue(self) -> None:
        """Check the counts of the stages, and compare the catalogue with the shards."""
        with _noting(self.verdict, "stages of the manifest"):
            self.verdict.faults += _broken_stages(self._manifest)
        if self._content and not self._partial:
            with _noting(self.verdict, "catalogue"):
                broken = _broken_documents(self._store, self._manifest, self._lengths)
                self.verdict.faults += broken

    def groupings(self) -> None:
        """Check the groupings, and list the files that nothing names."""
        store, manifest = self._store, self._manifest
        for name in list_groupings(store.folder, manifest):
            with _noting(self.verdict, f"grouping {name}"):
                data = store.read(grouping_file(name), MOST_BYTES)
                manifest.by_grouping(name, data, str(store / GROUPINGS / name))
                self._expected.add(grouping_file(name))
        if store.folder is not None and manifest.parts is not None:
            unknown = tuple(self._unread)
            self.verdict.unexpected += [
                path
                for path in _unexpected(store.folder, self._expected)
                if not path.startswith(unknown)
            ]


def _read_lengths(folder: Store, entry: ShardEntry, manifest: Manifest) -> NDArray[np.int64]:
    """Read and check a shard; return the number of tokens of each document."""
    raw = decompress(folder.read(entry.zip_basename, entry.zip_bytes), entry)
    return parse_shard(np.frombuffer(raw, np.uint8), entry, manifest.dtype).lengths


def _check_size(folder: Store, entry: ShardEntry) -> None:
    """Raise `IntegrityError` if the file of a shard, in a local folder, has a wrong size."""
    if folder.folder is not None:
        size = (folder.folder / entry.zip_basename).stat().st_size
        check(entry.zip_basename, "bytes", entry.zip_bytes, size)


def _paths(
    manifest: Manifest, cluster: ClusterEntry, shards: Sequence[ShardEntry]
) -> Iterator[str]:
    """Yield the paths of those ``shards`` of a cluster that are in the directory itself.

    In a divided publication, each folder of shards has an index, whose path is yielded too.
    """
    for number, entry in enumerate(shards):
        data_set, folder = manifest.place_of(cluster.name, number)
        if not data_set:
            yield from (f"{folder}/{INDEX}", f"{folder}/{entry.zip_basename}")


def _any_here(folder: Path, shards: Sequence[ShardEntry]) -> bool:
    """Whether one of ``shards`` is in ``folder``."""
    return any(os.path.lexists(folder / shard.zip_basename) for shard in shards)


def _unexpected(root: Path, expected: set[str]) -> Iterator[str]:
    """Yield the paths in ``root`` that are not among ``expected``.

    Of a folder without any expected file, only the path of the folder is yielded, with ``/`` at the
    end.
    """
    parents = {str(parent) for name in expected for parent in Path(name).parents}
    for path, folders, files in os.walk(root):
        place = Path(path).relative_to(root)
        for name in sorted(folders):
            if str(place / name) not in parents:
                yield f"{place / name}/"
        folders[:] = sorted(name for name in folders if str(place / name) in parents)
        inside = (str(place / name) for name in sorted(files))
        yield from (name for name in inside if name not in expected)


def _check_file(store: Store, manifest: Manifest, name: str) -> None:
    """Read file ``name`` of the directory, and check it.

    It may be missing if a publisher may keep it private, or if the manifest has no hash of it.

    Raises the same errors as `read_file`.
    """
    try:
        read_file(store, manifest, name)
    except FileNotFoundError:
        if name not in KEPT_BACK and manifest.hash_of(name) is not None:
            raise


def _read_columns(store: Store, manifest: Manifest) -> dict[str, ShardColumns]:
    """Return the shards of each cluster from ``shards.columns``; {} if this file is not listed.

    Raises:
        FileNotFoundError: The manifest lists the file, but the file is missing.
    """
    listed = manifest.hash_of(COLUMNS) is not None
    try:
        data = memoryview(read_file(store, manifest, COLUMNS))
    except FileNotFoundError:
        if listed:
            raise
        return {}
    return parse_columns(data, store / COLUMNS) if listed else {}


@contextmanager
def _noting(verdict: Verdict, what: str) -> Iterator[None]:
    """Add any error in the block to the faults; damaged bytes cause errors of many types.

    ``what`` says in the fault what was checked.
    """
    try:
        yield
    except (ModuleNotFoundError, RemoteError):
        raise  # a missing package or an unreachable store is no fault of the directory
    except FileNotFoundError as error:
        verdict.faults.append(f"{what}: {error.filename} is missing")
    except Exception as error:
        readable = isinstance(error, ClimbError | OSError)
        verdict.faults.append(f"{what}: {error if readable else repr(error)}")


def _broken_stages(manifest: Manifest) -> Iterator[str]:
    """Yield a fault for each stage of the build in which output and input differ.

    Dropped documents and bytes count as output.
    """
    before = None
    for stage in manifest.conservation:
        for unit in ("documents", "bytes"):
            if unit not in stage["in"]:
                continue
            out = stage["out"][unit] + sum(size[unit] for size in stage["dropped"].values())
            if out != stage["in"][unit]:
                yield f"stage {stage['stage']}: {stage['in'][unit]} {unit} in, {out} accounted for"
            if before and before["out"].get(unit) != stage["in"][unit]:
                yield f"stage {stage['stage']} begins with other {unit} than the one before ended"
        before = stage
    if before and before["out"].get("tokens") != manifest.tokens:
        yield f"{before['out'].get('tokens')} tokens left the build, {manifest.tokens} are listed"


def _broken_documents(
    store: Store, manifest: Manifest, lengths: Mapping[tuple[str, int], NDArray[np.int64]]
) -> Iterator[str]:
    """Yield a fault for each document that is not where the catalogue says, and for wrong counts.

    ``lengths`` has, for each shard that could be read, by (cluster, shard), the number of tokens of
    each document, int64 ``[n]``.
    """
    listed: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    rows_seen = {place: np.zeros(len(held), np.bool_) for place, held in lengths.items()}
    read = 0
    for name, data, fault in read_parts(store, manifest):
        read += 1
        if fault:
            yield f"catalogue: {fault}"
        if not data:
            continue
        try:
            for row in _read_rows(data):
                why = row["why"] or ""
                listed[why] += 1
                sizes[why] += row["bytes"] or 0  # after an import of tokens, bytes are unknown
                place = (row["cluster"], row["shard"])
                if why or place not in lengths:
                    continue  # a missing shard is a fault already
                held = lengths[place]
                if not 0 <= row["row"] < len(held) or held[row["row"]] != row["tokens"]:
                    yield (
                        f"document {row['id']} of {row['tokens']} tokens is not row {row['row']} "
                        f"of shard {row['shard']} of cluster {row['cluster']}"
                    )
                else:
                    rows_seen[place][row["row"]] = True
        except (OSError, ValueError, LookupError) as error:
            yield f"catalogue: {store / name} cannot be read: {error}"
    if manifest.parts is not None and read < manifest.parts:
        yield f"catalogue: {read} of {manifest.parts} parts are in {store / DOCUMENTS}"
    if not read:
        if manifest.conservation and manifest.parts is None:
            yield f"catalogue: {store} holds no {part_name(0)}"
        return
    for (name, number), seen in rows_seen.items():
        if not seen.all():
            yield (
                f"shard {number} of cluster {name} holds {len(seen)} documents, "
                f"the catalogue lists {seen.sum()}"
            )
    if manifest.conservation:
        yield from _other_counts(manifest, {"documents": listed, "bytes": sizes})


def _read_rows(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the rows of a part of the catalogue; one row group at a time is in memory."""
    columns = ["id", "cluster", "why", "shard", "row", "tokens", "bytes"]
    for table in row_groups(io.BytesIO(data), columns):
        yield from table.to_pylist()


def _other_counts(manifest: Manifest, listed: Mapping[str, Counter[str]]) -> Iterator[str]:
    """Yield a fault for each count of the build that is not the same in manifest and catalogue.

    ``listed`` has the counts in the catalogue: for each unit, documents or bytes, the count of each
    reason for which documents were dropped. Reason "" is for documents that were kept.
    """
    last = manifest.conservation[-1]["out"]
    for unit, counts in listed.items():
        if unit not in last:
            continue
        counted: Counter[str] = Counter()
        for stage in manifest.conservation:
            if stage["stage"] != "read":  # the catalogue lists no bad records
                counted.update({why: size.get(unit, 0) for why, size in stage["dropped"].items()})
        dropped = Counter({why: count for why, count in counts.items() if why})
        if counted != dropped:
            yield (
                f"dropped {unit}: the manifest counts {dict(counted)}, "
                f"the catalogue lists {dict(dropped)}"
            )
        if last[unit] != counts[""]:
            yield f"{last[unit]} {unit} left the last stage, the catalogue lists {counts['']}"
