"""Pull: copy a shard directory from the Hub or another store, all of it or what a mixture needs.

Every file is checked by a hash: that of a shard is in its index, those of indexes and other files
are in the manifest, which is copied last. Files that are here already are not fetched again. Of a
cluster without weight only the index is copied. So the manifest stays the same, and mixtures and
states fit; a loader that needs such a shard reports that it is missing.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.task_timeout import task_timeout
from climbstream.loader.core.errors import IntegrityError, InvalidDataError, NoSpaceError
from climbstream.loader.core.files import check_regular, hash_bytes, lock, write_bytes
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.threads import in_threads
from climbstream.loader.core.typed import parse_json
from climbstream.loader.core.workdir import begin_or_resume
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.grouping import GROUPINGS
from climbstream.loader.formats.manifest import (
    BESIDE,
    INDEX,
    KEPT_BACK,
    MANIFEST,
    MOST_BYTES,
    PULL,
    ClusterEntry,
    Manifest,
    cluster_folder,
    grouping_file,
    grouping_of,
    list_groupings,
    part_name,
    read_file,
    refuse_grouping,
)
from climbstream.loader.formats.mds.compression import check_packed
from climbstream.loader.formats.mds.index import ShardEntry
from climbstream.loader.formats.mixture import MIXTURE, Mixture
from climbstream.loader.storage.hub import hub_url, pin
from climbstream.loader.storage.store import ALL_SECONDS, Store

logger = get_logger(__name__)

_THREADS = 4
_SPARE = 64 << 20
"""Bytes of disk that stay free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a pull was asked for, and how much of it was fetched."""

    source: str
    """Place that was read, with the commit if it has commits."""
    clusters: tuple[str, ...]
    """Names of the clusters whose shards are here now."""
    shards: int
    bytes: int
    """Size of these shards, compressed, in bytes."""
    fetched: int
    """Bytes of them that had to be fetched."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


def pull(
    source: str, out: Path, mixture: Mixture | None = None, *, dry_run: bool = False
) -> Pulled:
    """Copy the shard directory ``source`` to ``out``: the clusters that ``mixture`` weighs, or all.

    ``source`` is a URL, a folder, or ``OWNER/NAME``, also with ``@REVISION``, of the Hub.

    Raises:
        InvalidDataError: ``source`` is no shard directory, ``out`` holds something else, or the
            mixture is for other clusters.
        IntegrityError: A file does not have the hash in the manifest or the index.
        RemoteError: The store refused a file, or did not send it.
        NoSpaceError: The disk has no room for it.
        LockedError: Another process works on ``out``.
    """
    place = source
    if source.startswith("hf://") or ("://" not in source and not Path(source).is_dir()):
        place = pin(hub_url(source))
    shards = ShardDirectory(Store.of(place, all_seconds=task_timeout(ALL_SECONDS)).without_links())
    refuse_grouping(shards.manifest, place, "pull")
    clusters = tuple(shards.names) if mixture is None else _weighed(shards, mixture)
    shards.load_indexes(clusters)
    wanted = [(name, shard) for name in clusters for shard in shards.index(name).shards]
    missing = [
        (name, shard)
        for name, shard in wanted
        if not _is_here(out, f"clusters/{name}/{shard.zip_basename}", shard.zip_hash)
    ]
    result = Pulled(
        source=place,
        clusters=clusters,
        shards=len(wanted),
        bytes=sum(shard.zip_bytes for _, shard in wanted),
        fetched=sum(shard.zip_bytes for _, shard in missing),
    )
    if dry_run:
        return result
    with lock(out):
        plan = {"pull": 1, "shards": shards.manifest.fingerprint}
        begin_or_resume(out, PULL, plan, folders=("clusters/*", "documents", f"{GROUPINGS}/*"))
        _check_room(out, result.fetched, len(missing))
        with Progress("pull", result.bytes, "bytes", result.bytes - result.fetched) as progress:
            _fetch_shards(shards, out, missing, progress)
        _copy_the_rest(shards, out, parts=mixture is None)
    return result


def _weighed(shards: ShardDirectory, mixture: Mixture) -> tuple[str, ...]:
    """Return the names of the clusters that ``mixture`` weighs, itself or by a group of them."""
    groups = _fitting(shards.store, shards.manifest, mixture)
    if misfit := groups.misfit(mixture):
        logger.warning(misfit)
    weights = groups.spread(mixture).weights
    return tuple(name for name in shards.names if weights[name] > 0)


def _fitting(store: Store, manifest: Manifest, mixture: Mixture) -> Manifest:
    """Return the manifest of those groups that ``mixture`` weighs, or else of the clusters."""
    names = list_groupings(store.folder, manifest)
    groupings = {name: Manifest.load(store / GROUPINGS / name) for name in names}
    name = grouping_of(mixture, manifest, groupings)
    return manifest if name is None else groupings[name]


def _check_room(out: Path, size: int, count: int) -> None:
    """Raise `NoSpaceError` unless ``out`` has room for ``count`` shards of ``size`` bytes."""
    free = shutil.disk_usage(out).free
    if size + _SPARE > free:
        raise NoSpaceError(
            f"{size:,} bytes of {count} shards are missing, and {out} has room for "
            f"{max(0, free - _SPARE):,}; free some, or give a mixture that needs fewer clusters"
        )


def _fetch_shards(
    shards: ShardDirectory, out: Path, missing: list[tuple[str, ShardEntry]], progress: Progress
) -> None:
    """Write the ``missing`` shards to ``out``, each after its bytes are checked."""

    def fetch(one: tuple[str, ShardEntry]) -> int:
        name, shard = one
        data = cluster_folder(shards.store, name).read(shard.zip_basename, shard.zip_bytes)
        check_packed(data, shard)
        write_bytes(cluster_folder(out, name) / shard.zip_basename, data)
        return len(data)

    for size in in_threads(fetch, missing, _THREADS):
        progress.add(size)


def _copy_the_rest(shards: ShardDirectory, out: Path, *, parts: bool) -> None:
    """Copy all other files, the manifest last; with ``parts`` the catalogue too.

    Raises:
        IntegrityError: The manifest is not the one that the pull began with.
    """
    store, manifest = shards.store, shards.manifest
    for cluster in manifest.clusters:
        # Copied and not written anew: the manifest has the hash of their bytes.
        _copy_index(store, out, cluster)
    catalogue = [part_name(part) for part in range(manifest.parts or 0)] if parts else []
    came = [name for name in (*BESIDE, *catalogue) if _copy_file(store, out, manifest, name)]
    if unchecked := [name for name in came if manifest.hash_of(name) is None]:
        logger.warning(f"not compared, as the manifest has no hash of it: {', '.join(unchecked)}")
    for name in list_groupings(store.folder, manifest):
        _copy_grouping(store, out, manifest, name)
    _copy_mixture(store, out, manifest)
    data = store.read(MANIFEST)
    if Manifest.from_json(parse_json(data, str(store / MANIFEST))) != manifest:
        raise IntegrityError(
            f"{store / MANIFEST} was replaced during the pull; run the same command again"
        )
    write_bytes(out / MANIFEST, data)


def _is_here(out: Path, name: str, expected: str) -> bool:
    """Whether file ``name`` of ``out`` has the expected hash.

    Raises:
        InvalidDataError: It is a link, or no regular file.
    """
    try:
        check_regular(out / name, out)
        return hash_bytes((out / name).read_bytes()) == expected
    except FileNotFoundError:
        return False


def _copy_index(store: Store, out: Path, cluster: ClusterEntry) -> None:
    """Copy the index of a cluster, unless it is here."""
    name = f"clusters/{cluster.name}/{INDEX}"
    if not _is_here(out, name, cluster.index_hash):
        data = cluster_folder(store, cluster.name).read(INDEX)
        if (got := hash_bytes(data)) != cluster.index_hash:
            raise IntegrityError(f"{store / name}: expected hash {cluster.index_hash}, got {got}")
        write_bytes(out / name, data)


def _copy_file(store: Store, out: Path, manifest: Manifest, name: str) -> bool:
    """Copy a file beside the shards, unless it is here; return whether there is such a file.

    Raises:
        IntegrityError: It has another hash, or is missing though publishing never omits it.
    """
    expected = manifest.hash_of(name)
    if expected is not None and _is_here(out, name, expected):
        return True
    try:
        data = read_file(store, manifest, name)
    except FileNotFoundError:
        if expected is None or name in KEPT_BACK:
            return False
        raise IntegrityError(f"{store / name} is missing; it was published in part") from None
    write_bytes(out / name, data)
    return True


def _copy_grouping(store: Store, out: Path, manifest: Manifest, name: str) -> None:
    """Copy a grouping, unless it is here.

    Raises:
        InvalidDataError: It is no grouping of these shards, or another one of its name is here.
        IntegrityError: It is missing, or its bytes are others than the manifest says.
    """
    path = grouping_file(name)
    try:
        data = store.read(path, MOST_BYTES)
    except FileNotFoundError:
        raise IntegrityError(f"{store / path} is missing; it was published in part") from None
    manifest.by_grouping(name, data, str(store / GROUPINGS / name))
    if _is_here(out, path, hash_bytes(data)):
        return
    if (out / path).exists():
        raise InvalidDataError(
            f"{out / path} groups the clusters in another way than {store / path}, and runs may "
            "follow it; rename or remove its folder"
        )
    write_bytes(out / path, data)


def _copy_mixture(store: Store, out: Path, manifest: Manifest) -> None:
    """Copy the mixture that was published with the shards, if there is one.

    It is of their clusters, or of the groups of a grouping that lies beside them.

    Raises:
        InvalidDataError: It is no mixture, or a mixture of other clusters.
    """
    try:
        data = store.read(MIXTURE)
    except FileNotFoundError:
        return
    path = store / MIXTURE
    try:
        mixture = Mixture.from_json(parse_json(data, str(path)))
        groups = _fitting(store, manifest, mixture)
        mixture.array(groups.names)
    except InvalidDataError as error:
        raise InvalidDataError(f"{path}: {error}") from None
    write_bytes(out / MIXTURE, data)
