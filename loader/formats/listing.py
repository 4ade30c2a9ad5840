"""The files that make up a shard directory, with their hashes."""

import os
from collections.abc import Collection
from pathlib import Path

from .manifest import (
    BESIDE,
    INDEX,
    KEPT_BACK,
    MANIFEST,
    Manifest,
    load_index,
    part_name,
    part_paths,
)


def list_files(
    directory: Path, manifest: Manifest, *, without: Collection[str] = ()
) -> dict[str, str | None]:
    """Return the hash of each file, by its path in ``directory``; None if the manifest has no hash.

    Files of groupings are left out. A file of `BESIDE` is left out if it is in ``without``, or if
    it does not exist and the manifest does not require it.
    """
    parts = len(part_paths(directory)) if manifest.parts is None else manifest.parts
    files: dict[str, str | None] = {}
    for name in (*BESIDE, *map(part_name, range(parts))):
        needed = manifest.hash_of(name) is not None and name not in KEPT_BACK
        if name not in without and (needed or os.path.lexists(directory / name)):
            files[name] = manifest.hash_of(name)
    for cluster in manifest.clusters:
        folder = f"clusters/{cluster.name}"
        files[f"{folder}/{INDEX}"] = cluster.index_hash
        for shard in load_index(directory, manifest, cluster).shards:
            files[f"{folder}/{shard.zip_basename}"] = shard.zip_hash
    return {**files, MANIFEST: None}
