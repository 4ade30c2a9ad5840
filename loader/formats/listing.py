"""Listing: the files that make up a shard directory, with their hashes."""

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
    """Return the hash of each file of a shard directory, by its path in ``directory``.

    The hash is None if the manifest does not have it. Three kinds of files are left out: files of
    groupings, the files that ``without`` names, and optional files that do not exist. A file beside
    the shards is optional if the manifest has no hash of it, or if it is in `KEPT_BACK`.
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
