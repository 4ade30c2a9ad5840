"""ShardCache: decompressed shards on this node's disk, checked, and mapped into memory.

A file of the cache is named by the hash of its content, so that runs and ranks share it without
knowing of each other: whoever needs a shard first writes it under a temporary name and renames.
"""

import mmap
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import IntegrityError
from .mds import ShardEntry, ShardView, check_raw, decompress, parse_shard
from .storage import write_bytes


def default_cache() -> Path:
    """Folder of the cache: ``$CLIMBSTREAM_CACHE``, or the user's cache folder."""
    if given := os.environ.get("CLIMBSTREAM_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "climbstream" / "shards"


class ShardCache:
    """Gives raw shards as memory maps; decompresses each once a node."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_cache()
        self._views: dict[str, ShardView] = {}

    def view(self, folder: Path, entry: ShardEntry, dtype: str) -> ShardView:
        """Return shard ``entry`` of ``folder``, mapped and parsed.

        Raises:
            IntegrityError: The shard is missing, or its bytes are not those of the index.
        """
        if (view := self._views.get(entry.raw_hash)) is None:
            data = self._cached(entry)
            if data is None:
                self._fill(folder / entry.zip_basename, entry)
                data = _map(self._path(entry))
            view = self._views[entry.raw_hash] = parse_shard(data, entry, dtype)
        return view

    def _path(self, entry: ShardEntry) -> Path:
        return self.root / entry.raw_hash[:2] / f"{entry.raw_hash}.mds"

    def _cached(self, entry: ShardEntry) -> NDArray[np.uint8] | None:
        """Map the shard if it lies in the cache whole; drop it there if it has gone bad."""
        path = self._path(entry)
        try:
            data = _map(path)
            check_raw(data.data, entry)
        except FileNotFoundError:
            return None
        except (IntegrityError, ValueError):  # ValueError: an empty file cannot be mapped
            path.unlink(missing_ok=True)
            return None
        return data

    def _fill(self, source: Path, entry: ShardEntry) -> None:
        try:
            packed = source.read_bytes()
        except FileNotFoundError:
            raise IntegrityError(
                f"{source} is missing; build, pull or copy the directory again"
            ) from None
        try:
            write_bytes(self._path(entry), decompress(packed, entry))
        except IntegrityError as error:
            raise IntegrityError(f"{source.parent}: {error}") from None


def _map(path: Path) -> NDArray[np.uint8]:
    # A plain ndarray over the map: slices of np.memmap cost twice as much.
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
