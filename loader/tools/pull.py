"""Pull: copy a shard directory from the Hub or another store, or only what a mixture needs of it.

Every file is checked by a hash. Hashes of shards are in the index of their cluster; hashes of
indexes and other files are in the manifest, which is copied last. Files that were copied before are
not fetched again. Of a cluster without weight, only the index is copied. The copy therefore has the
indexes of all clusters, and the manifest of the source. So mixtures and loader states that
were made for the source are also valid for the copy. A loader that needs a shard that was not
copied reports that the shard is missing.

A publication with very many shards is divided: the shards of a cluster are in several folders, and
perhaps in several data sets. The copy is not divided: all shards of a cluster are in one folder.
In this case only, the manifest of the copy differs from that of the source: it names no folders.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from climbstream.loader.core.console import Progress, counted
from climbstream.loader.core.engines.task_timeout import task_timeout
from climbstream.loader.core.errors import (
    IntegrityError,
    InvalidDataError,
    NoSpaceError,
    UsageError,
)
from climbstream.loader.core.files import check_regular, hash_bytes, json_bytes, lock, write_bytes
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.threads import in_threads
from climbstream.loader.core.typed import parse_json
from climbstream.loader.core.workdir import begin_or_resume, read_plan
from climbstream.loader.formats.directory import REQUESTS, ShardDirectory
from climbstream.loader.formats.grouping import GROUPINGS
from climbstream.loader.formats.manifest import (
    BESIDE,
    COLUMNS,
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
    load_index,
    part_name,
    read_file,
    refuse_grouping,
    shard_folder,
)
from climbstream.loader.formats.mds.compression import check_packed
from climbstream.loader.formats.mds.entry import ShardEntry
from climbstream.loader.formats.mds.index import Index
from climbstream.loader.formats.mixture import MIXTURE, Mixture
from climbstream.loader.formats.shard_columns import read_columns
from climbstream.loader.storage.hub import hub_url, pin
from climbstream.loader.storage.store import ALL_SECONDS, Store

logger = get_logger(__name__)

_THREADS = 4
_SPARE = 64 << 20
"""Number of bytes of disk that are left free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """The result of a pull: which shards were asked for, and how much had to be fetched."""

    source: str
    """Path or URL of the source; a URL of the Hub includes the commit."""
    clusters: tuple[str, ...]
    """Names of the clusters whose shards were asked for."""
    shards: int
    bytes: int
    """Compressed size of all shards that were asked for, in bytes."""
    fetched: int
    """How many of these `bytes` had to be fetched."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


def pull(
    source: str, out: Path, mixture: Mixture | None = None, *, dry_run: bool = False
) -> Pulled:
    """Copy the shard directory ``source`` to the folder ``out``.

    Args:
        source: A URL, a folder, or ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` on the Hub.
        out: Folder of the copy.
        mixture: Copy only shards of clusters that have weight in this mixture; None: copy all.
        dry_run: Copy nothing, and return what would be copied.

    Raises:
        UsageError: ``out`` is in the folder ``source``.
        InvalidDataError: ``source`` is not a shard directory, ``out`` has other contents, or the
            mixture is for other clusters.
        IntegrityError: A file differs from its hash in the manifest or the index.
        RemoteError: The store refused a file, or could not read it.
        NoSpaceError: The disk has no room for the missing shards.
        LockedError: Another process works on ``out``.
    """
    place = source
    if source.startswith("hf://") or ("://" not in source and not Path(source).is_dir()):
        place = pin(hub_url(source))
    shards = ShardDirectory(Store.of(place, all_seconds=task_timeout(ALL_SECONDS)).without_links())
    refuse_grouping(shards.manifest, place, "pull")
    if shards.local is not None and out.resolve().is_relative_to(shards.local.resolve()):
        raise UsageError(f"{out} is in {place}, which is copied; name a folder outside of it")
    clusters = tuple(shards.names) if mixture is None else _weighed(shards, mixture)
    indexes = _read_indexes(shards, clusters)
    wanted = [
        (name, number, shard)
        for name, index in indexes.items()
        for number, shard in enumerate(index.shards)
    ]
    missing = [
        (name, number, shard)
        for name, number, shard in wanted
        if not _is_here(out, f"clusters/{name}/{shard.zip_basename}", shard.zip_hash)
    ]
    result = Pulled(
        source=place,
        clusters=clusters,
        shards=len(wanted),
        bytes=sum(shard.zip_bytes for _, _, shard in wanted),
        fetched=sum(shard.zip_bytes for _, _, shard in missing),
    )
    if dry_run:
        return result
    with lock(out):
        plan = {"pull": 1, "shards": shards.manifest.fingerprint}
        _check_version(out, place, plan)
        begin_or_resume(out, PULL, plan, folders=("clusters/*", "documents", f"{GROUPINGS}/*"))
        _check_room(out, result.fetched, len(missing))
        with Progress("pull", result.bytes, "bytes", result.bytes - result.fetched) as progress:
            _fetch_shards(shards, out, missing, progress)
        published = _copy_the_rest(shards, out, indexes, parts=mixture is None)
        if mixture and published and published.fingerprint != mixture.fingerprint:
            logger.info(
                f"{out / MIXTURE} is the mixture that was published with the shards, and not the "
                "one that chose what was fetched"
            )
    return result


def _check_version(out: Path, place: str, plan: Mapping[str, Any]) -> None:
    """Raise `InvalidDataError` if ``out`` is a copy of other shards, or of another version."""
    before = read_plan(out / PULL) if (out / PULL).exists() else plan
    if before.get("shards") != plan["shards"]:
        raise InvalidDataError(
            f"{out} is a copy of the shards {before.get('shards')}, and {place} has the shards "
            f"{plan['shards']}: another version, to which documents were added, or other shards. "
            f"A copy is not brought up to date: pull this version into a new folder, or name the "
            f"version of {out}, as OWNER/NAME@REVISION"
        )


def _read_indexes(shards: ShardDirectory, names: Sequence[str]) -> dict[str, Index]:
    """Return the indexes of the clusters ``names``, from their ``index.json``.

    `ShardDirectory.index` may read ``shards.columns`` instead; the copy has both files, so both
    are checked.
    """

    def read(name: str) -> tuple[str, Index]:
        return name, load_index(shards.store, shards.manifest, shards.cluster(name))

    indexes = dict(in_threads(read, names, REQUESTS if shards.local is None else 1))
    return {name: indexes[name] for name in names}


def _weighed(shards: ShardDirectory, mixture: Mixture) -> tuple[str, ...]:
    """Return the names of clusters that have weight in ``mixture``, directly or by their group."""
    groups = _fitting(shards.store, shards.manifest, mixture)
    if misfit := groups.misfit(mixture):
        logger.warning(misfit)
    weights = groups.spread(mixture).weights
    return tuple(name for name in shards.names if weights[name] > 0)


def _fitting(store: Store, manifest: Manifest, mixture: Mixture) -> Manifest:
    """Return the manifest of the grouping that ``mixture`` is for; else ``manifest``."""
    names = list_groupings(store.folder, manifest)
    groupings = {name: Manifest.load(store / GROUPINGS / name) for name in names}
    name = grouping_of(mixture, manifest, groupings)
    return manifest if name is None else groupings[name]


def _check_room(out: Path, size: int, count: int) -> None:
    """Raise `NoSpaceError` if ``out`` lacks room for ``count`` shards, ``size`` bytes in total."""
    free = shutil.disk_usage(out).free
    if size + _SPARE > free:
        raise NoSpaceError(
            f"{counted(size, 'byte')} of {counted(count, 'shard')} must be fetched, and {out} has "
            f"room for {max(0, free - _SPARE):,}; free some, or give a mixture that needs fewer "
            "clusters"
        )


def _fetch_shards(
    shards: ShardDirectory,
    out: Path,
    missing: list[tuple[str, int, ShardEntry]],
    progress: Progress,
) -> None:
    """Fetch the ``missing`` shards, check the bytes of each, and write it to ``out``.

    A shard is given as name of the cluster, number of the shard, and entry of the index.
    """

    def fetch(one: tuple[str, int, ShardEntry]) -> int:
        name, number, shard = one
        folder = shard_folder(shards.store, shards.manifest, name, number)
        data = folder.read(shard.zip_basename, shard.zip_bytes)
        check_packed(data, shard)
        write_bytes(cluster_folder(out, name) / shard.zip_basename, data)
        return len(data)

    for size in in_threads(fetch, missing, _THREADS):
        progress.add(size)


def _copy_the_rest(
    shards: ShardDirectory, out: Path, indexes: Mapping[str, Index], *, parts: bool
) -> Mixture | None:
    """Copy all files but the shards, the manifest last; the catalogue only with ``parts``.

    Returns the mixture that was published with the shards; None if there is none. ``indexes`` are
    those of the clusters whose shards were copied.

    Raises:
        IntegrityError: The manifest was replaced since the pull began, or ``shards.columns`` lists
            other shards than an index.
    """
    store, manifest = shards.store, shards.manifest
    for cluster in manifest.clusters:
        # Indexes are copied byte for byte, because the manifest has the hash of their bytes.
        _copy_index(store, out, cluster)
    catalogue = [part_name(part) for part in range(manifest.parts or 0)] if parts else []
    large = store.for_large_files()
    came = [name for name in (*BESIDE, *catalogue) if _copy_file(large, out, manifest, name)]
    _check_columns(out, manifest, indexes)
    if unchecked := [name for name in came if manifest.hash_of(name) is None]:
        logger.warning(f"not compared, as the manifest has no hash of it: {', '.join(unchecked)}")
    for name in list_groupings(store.folder, manifest):
        _copy_grouping(store, out, manifest, name)
    published = _copy_mixture(store, out, manifest)
    data = store.read(MANIFEST)
    if Manifest.from_json(parse_json(data, str(store / MANIFEST))) != manifest:
        raise IntegrityError(
            f"{store / MANIFEST} was replaced during the pull; run the same command again"
        )
    if manifest.shard_folders:  # the copy has all shards of a cluster in one folder
        data = json_bytes(manifest.undivided.to_json())
    write_bytes(out / MANIFEST, data)
    return published


def _check_columns(out: Path, manifest: Manifest, indexes: Mapping[str, Index]) -> None:
    """Raise `IntegrityError` if ``shards.columns`` lists other shards than an index."""
    columns = read_columns(Store.of(out), manifest, out)
    for name, index in indexes.items():
        if columns and (columns.get(name),) != index.parts:
            raise IntegrityError(
                f"{out / COLUMNS} lists other shards of cluster {name} than its {INDEX}; the "
                "source is damaged: build, pull or copy it again"
            )


def _is_here(out: Path, name: str, expected: str) -> bool:
    """Whether file ``name`` exists in ``out`` and has the hash ``expected``.

    Raises:
        InvalidDataError: The file is a link, or no regular file.
    """
    try:
        check_regular(out / name, out)
        return hash_bytes((out / name).read_bytes()) == expected
    except FileNotFoundError:
        return False


def _copy_index(store: Store, out: Path, cluster: ClusterEntry) -> None:
    """Copy the index of a cluster, unless ``out`` has it."""
    name = f"clusters/{cluster.name}/{INDEX}"
    if not _is_here(out, name, cluster.index_hash):
        data = cluster_folder(store, cluster.name).read(INDEX)
        if (got := hash_bytes(data)) != cluster.index_hash:
            raise IntegrityError(f"{store / name}: expected hash {cluster.index_hash}, got {got}")
        write_bytes(out / name, data)


def _copy_file(store: Store, out: Path, manifest: Manifest, name: str) -> bool:
    """Copy a file beside the shards, unless ``out`` has it; return whether there is such a file.

    Raises:
        IntegrityError: The file differs from its hash, or is missing although the manifest has its
            hash and a publisher may not leave it out.
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
    """Copy the grouping ``name``, unless ``out`` has it.

    Raises:
        InvalidDataError: The file is no grouping of these shards, or ``out`` has another grouping
            with this name.
        IntegrityError: The file is missing, or differs from the manifest's hash.
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
            "use it; rename or remove its folder"
        )
    write_bytes(out / path, data)


def _copy_mixture(store: Store, out: Path, manifest: Manifest) -> Mixture | None:
    """Copy and return the mixture that was published with the shards; None if there is none.

    The mixture is for the clusters of the shards, or for the groups of one of their groupings.

    Raises:
        InvalidDataError: The file is no mixture, or a mixture for other clusters.
    """
    try:
        data = store.read(MIXTURE)
    except FileNotFoundError:
        return None
    path = store / MIXTURE
    try:
        mixture = Mixture.from_json(parse_json(data, str(path)))
        groups = _fitting(store, manifest, mixture)
        mixture.array(groups.names)
    except InvalidDataError as error:
        raise InvalidDataError(f"{path}: {error}") from None
    write_bytes(out / MIXTURE, data)
    return mixture
