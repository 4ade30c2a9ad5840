"""Pull: bring a shard directory here from the Hub or another store, or what a mixture needs of it.

Every file is checked by the hash that stands above it: shards by their index, indexes by the
manifest, which comes last. What is here already is not fetched again. Where a cluster has no
weight, its index comes and its shards do not: the manifest stays what it was, so mixtures and
states fit, and whoever asks for such a shard is told that it is missing.
"""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .clusters import CLUSTERS
from .errors import IntegrityError, NoSpaceError
from .heldout import HELDOUT
from .hub import hub_url, pin
from .manifest import INDEX, MANIFEST, TOKENIZER, Manifest, cluster_folder, load_index
from .mds import check_packed
from .mixture import MIXTURE, Mixture
from .plan import begin_or_continue
from .progress import Progress, say
from .storage import hash_bytes, lock, write_bytes
from .store import Store

PLAN = "pull.json"
BESIDE = (TOKENIZER, CLUSTERS, "centroids.npy", "model.npz", "report.html")
"""Files that go where a shard directory goes, if they are there."""
_THREADS = 4
_SPARE = 64 << 20
"""Bytes of disk that are left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What was asked for, and what of it was fetched."""

    source: str
    """With the commit, where there are commits."""
    clusters: tuple[str, ...]
    """Those whose shards are here."""
    shards: int
    bytes: int
    """Of these shards, compressed."""
    fetched: int
    """Bytes of them that were not here."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


def pull(
    source: str, out: Path, mixture: Mixture | None = None, *, dry_run: bool = False
) -> Pulled:
    """Bring the shard directory ``source`` to ``out``: what ``mixture`` weighs, or all.

    ``source`` is a URL, a folder, or ``OWNER/NAME``, also with ``@REVISION``, of the Hub.

    Raises:
        InvalidDataError: ``source`` is no shard directory, ``out`` holds something else, or the
            mixture is for other clusters.
        IntegrityError: Bytes are not those that the manifest or an index names.
        RemoteError: The store did not give something.
        NoSpaceError: The disk has no room for it.
        LockedError: Another process works on ``out``.
    """
    place = source
    if source.startswith("hf://") or ("://" not in source and not Path(source).is_dir()):
        place = pin(hub_url(source))
    store = Store.of(place)
    manifest = Manifest.load(store)
    if mixture and (misfit := manifest.misfit(mixture)):
        say(misfit)
    weights = mixture.array(manifest.names) if mixture else [1.0] * len(manifest.names)
    weighed = [c for c, weight in zip(manifest.clusters, weights, strict=True) if weight > 0]
    indexes = {c.name: load_index(store, manifest, c) for c in manifest.clusters}
    wanted = [
        (cluster.name, shard) for cluster in weighed for shard in indexes[cluster.name].shards
    ]
    missing = [
        (name, shard)
        for name, shard in wanted
        if not _is_here(cluster_folder(out, name) / shard.zip_basename, shard.zip_hash)
    ]
    size = sum(shard.zip_bytes for _, shard in missing)
    result = Pulled(
        source=place,
        clusters=tuple(cluster.name for cluster in weighed),
        shards=len(wanted),
        bytes=sum(shard.zip_bytes for _, shard in wanted),
        fetched=size,
    )
    if dry_run:
        return result
    with lock(out):
        plan = {"pull": 1, "shards": manifest.fingerprint}
        begin_or_continue(out, PLAN, plan, folders=("clusters/*", "documents"))
        free = shutil.disk_usage(out).free
        if size + _SPARE > free:
            raise NoSpaceError(
                f"{size:,} bytes of {len(missing)} shards are missing, and {out} has room for "
                f"{max(0, free - _SPARE):,}; free some, or give a mixture that needs fewer clusters"
            )

        def fetch(name: str, shard: Any) -> int:
            data = cluster_folder(store, name).read(shard.zip_basename, shard.zip_bytes)
            check_packed(data, shard)
            write_bytes(cluster_folder(out, name) / shard.zip_basename, data)
            return len(data)

        with (
            Progress("pull", result.bytes, "bytes", result.bytes - size) as progress,
            _threads() as start,
        ):
            for future in as_completed([start(fetch, *one) for one in missing]):
                progress.add(future.result())
        for cluster in manifest.clusters:
            # Not indexes as they were parsed: their bytes are what the manifest has the hash of.
            _copy(store, out, f"clusters/{cluster.name}/{INDEX}", cluster.index_hash)
        for name in (*BESIDE, MIXTURE, HELDOUT):
            expected = manifest.tokenizer_hash if name == TOKENIZER else None
            _copy(store, out, name, expected or None, optional=not expected)
        if mixture is None:
            for part in range(manifest.parts or 0):
                _copy(store, out, f"documents/part-{part:05d}.parquet", None, optional=True)
        _copy(store, out, MANIFEST, None)
    return result


@contextmanager
def _threads() -> Iterator[Callable[..., Any]]:
    """Give a function that starts work in threads; an error ends what has not begun."""
    executor = ThreadPoolExecutor(_THREADS, "climbstream-pull")
    try:
        yield executor.submit
    finally:
        executor.shutdown(cancel_futures=True)


def _is_here(path: Path, expected: str) -> bool:
    """Whether the file at ``path`` has the hash that is expected of it."""
    try:
        return hash_bytes(path.read_bytes()) == expected
    except FileNotFoundError:
        return False


def _copy(
    store: Store, out: Path, name: str, expected: str | None, *, optional: bool = False
) -> None:
    """Copy a small file, unless it is here with the hash that is expected."""
    if expected is not None and _is_here(out / name, expected):
        return
    try:
        data = store.read(name)
    except FileNotFoundError:
        if optional:
            return
        raise IntegrityError(f"{store / name} is missing; it was published in part") from None
    if expected is not None and hash_bytes(data) != expected:
        raise IntegrityError(f"{store / name} has the hash {hash_bytes(data)}, not {expected}")
    write_bytes(out / name, data)
