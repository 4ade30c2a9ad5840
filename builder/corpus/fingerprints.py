"""Fingerprints: they tell whether a file has changed.

The hash of a large file of this machine is remembered, so that a build that is continued does not
read all of its corpus once more. It holds as long as size, inode and both times of the file are
as they were. Of a file that was changed in the last minute nothing is remembered: its next change
might leave the times as they are, where clocks are coarse or the file is mapped into memory.
"""

import os
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from climbstream.loader.core.errors import ClimbError
from climbstream.loader.core.files import (
    append_line,
    default_cache,
    hash_bytes,
    hash_file,
    hash_json,
    read_lines,
)

_REMEMBERED = 16 << 20
"""Size from which on the hash of a file is remembered; a smaller one is hashed as fast."""
_SETTLED = 60.0
"""Seconds without a change after which a hash is remembered."""
_VERSIONS = ("ETag", "etag", "xet_hash", "blob_id", "md5Hash", "Content-MD5", "Digest")
"""Names that file systems use for the version of a remote file."""
_TIMES = ("LastModified", "Last-Modified", "last_modified", "mtime", "created")


def version_of(info: Mapping[str, Any]) -> str | None:
    """Return the version of the bytes of a remote file, if ``info`` of `fsspec` has one."""
    return next((str(info[key]) for key in _VERSIONS if info.get(key)), None)


def remote_fingerprint(name: str, info: Mapping[str, Any]) -> str:
    """Fingerprint the remote file ``name``, of which `fsspec` says ``info``.

    Without a version it is known by its address, size and time.
    """
    if version := version_of(info):
        return hash_json([version, info.get("size")])
    last = next((str(info[key]) for key in _TIMES if info.get(key)), None)
    return hash_json([name, info.get("size"), last])


class FileHashes:
    """Hashes of files of this machine; use one for all files of a command."""

    def __init__(self) -> None:
        self._remembered = lru_cache(maxsize=None)(_remembered)
        self._lock = Lock()

    def of(self, path: Path) -> str:
        """Return the hash of the bytes of ``path``, as `hash_file` does."""
        begun, before = time.time(), _state(path)
        if before[0] < _REMEMBERED:
            return hash_file(path)
        state, last = self._remembered(path.parent).get(path.name, (None, ""))
        if state == before:
            return last
        value = hash_file(path)
        if max(before[-2:]) < (begun - _SETTLED) * 1e9 and _state(path) == before:
            with self._lock:  # threads would overwrite each other's lines
                _remember(path, {"name": path.name, "state": before, "hash": value})
        return value


def _state(path: Path) -> list[int]:
    """Size, device, inode and times of ``path``; new bytes change one of them at least."""
    now = path.stat()
    return [now.st_size, now.st_dev, now.st_ino, now.st_mtime_ns, now.st_ctime_ns]


def _record(folder: Path) -> Path:
    """Return the file that remembers the hashes of the files in ``folder``."""
    return default_cache() / "sources" / f"{hash_bytes(os.fsencode(folder.absolute()))}.jsonl"


def _remembered(folder: Path) -> dict[str, tuple[list[int], str]]:
    """Return state and hash of the files in ``folder``, by name."""
    try:
        lines = read_lines(_record(folder))
        return {line["name"]: (line["state"], str(line["hash"])) for line in lines}
    except (ClimbError, OSError, KeyError, TypeError):
        return {}  # what cannot be read is made again


def _remember(path: Path, line: dict[str, Any]) -> None:
    try:
        append_line(_record(path.parent), line, sync=False)
    except (ClimbError, OSError):
        return  # it costs time, no more
