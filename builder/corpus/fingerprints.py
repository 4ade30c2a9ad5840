"""Fingerprints: hashes by which a command recognises that a file of the corpus has changed.

Local files are hashed by tasks of the engine, so that all nodes share the reading. The process of
the command hashes the files itself if starting workers would take longer.

The hash of a large local file is stored in the cache, so that a build that is continued does not
read its whole corpus again. The stored hash is used as long as five facts about the file are the
same: its size, its device, its inode, the time of its last change, and the time of the last change
of its inode.

If a file was changed less than a minute before it was read, its hash is not stored. The file may
change once more in this minute, and its times may stay the same: clocks may be coarse, or the file
may be mapped into memory.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Self

from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.engines.local import cores
from climbstream.loader.core.errors import ClimbError, InvalidDataError
from climbstream.loader.core.files import (
    append_line,
    default_cache,
    hash_bytes,
    hash_file,
    hash_json,
    read_lines,
)

_REMEMBERED = 16 << 20
"""Minimum size in bytes of a file whose hash is stored; smaller files are hashed quickly."""
_SETTLED = 60.0
"""The hash of a file is stored only if its last change was at least this number of seconds ago."""
_TASK, _MOST = 256 << 20, 256
"""Maximum numbers of bytes and of files for one task; a file with more bytes is a task of its
own."""
_VERSIONS = ("ETag", "etag", "xet_hash", "blob_id", "md5Hash", "Content-MD5", "Digest")
"""Keys under which file systems of `fsspec` state a hash or version of a file's content."""
_TIMES = ("LastModified", "Last-Modified", "last_modified", "mtime", "created")


def version_of(info: Mapping[str, Any]) -> str | None:
    """Return the version of a remote file from its ``info`` of `fsspec`; None if none is stated."""
    return next((str(info[key]) for key in _VERSIONS if info.get(key)), None)


def remote_fingerprint(name: str, info: Mapping[str, Any]) -> str:
    """Return the fingerprint of the remote file ``name``, from its ``info`` of `fsspec`.

    The fingerprint is a hash of the version and the size of the file. If no version is stated, it
    is a hash of the file's name, its size and the time of its last change.
    """
    if version := version_of(info):
        return hash_json([version, info.get("size")])
    last = next((str(info[key]) for key in _TIMES if info.get(key)), None)
    return hash_json([name, info.get("size"), last])


@dataclass(frozen=True, slots=True)
class Facts:
    """The state of a file just before its bytes are read."""

    state: list[int]
    begun: float
    """Time at which the state was determined, in seconds since 1970."""

    @classmethod
    def of(cls, path: Path) -> Self:
        """Determine the state of the file ``path``."""
        return cls(begun=time.time(), state=_state(path))

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self.state[0]


class FileHashes:
    """The cache of hashes of local files; a command uses one object for all its files."""

    def __init__(self) -> None:
        self._remembered = lru_cache(maxsize=None)(_remembered)
        self._lock = Lock()

    def of(self, path: Path) -> str:
        """Return the hash of the bytes of ``path``, as `hash_file` does."""
        facts = Facts.of(path)
        if known := self.known(path, facts):
            return known
        value = hash_file(path)
        self.note(path, facts, value)
        return value

    def known(self, path: Path, facts: Facts) -> str:
        """Return the stored hash of ``path``; "" if no hash is stored for the state ``facts``."""
        if facts.size < _REMEMBERED:
            return ""
        state, last = self._remembered(path.parent).get(path.name, (None, ""))
        return last if state == facts.state else ""

    def note(self, path: Path, facts: Facts, value: str) -> None:
        """Store ``value``, the hash of ``path``; the file was read after ``facts`` were determined.

        The hash is not stored if the file is small, was changed less than a minute before
        ``facts`` were determined, or has been changed since.
        """
        settled = max(facts.state[-2:]) < (facts.begun - _SETTLED) * 1e9
        if facts.size >= _REMEMBERED and settled and _state(path) == facts.state:
            with self._lock:  # threads would overwrite each other's lines
                _remember(path, {"name": path.name, "state": facts.state, "hash": value})


def hash_files(names: Sequence[str], engine: Engine | None = None) -> dict[str, str]:
    """Return the hash of each local file, by name; store the hashes of large files.

    Tasks of ``engine`` read the files; without an engine, threads of this process do.

    Raises:
        InvalidDataError: A file cannot be opened.
    """
    facts = {name: _facts_of(name) for name in names}
    results = _hash_here(names) if engine is None else _hash_by_tasks(facts, engine)
    hashes, found = FileHashes(), {}
    for name, value in results:
        hashes.note(Path(name), facts[name], value)
        found[name] = value
    return found


def _hash_here(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    threads = ThreadPoolExecutor(cores())
    try:
        yield from zip(names, threads.map(_hash, names), strict=True)
    finally:
        threads.shutdown(cancel_futures=True)


def _hash_by_tasks(facts: Mapping[str, Facts], engine: Engine) -> Iterator[tuple[str, str]]:
    sizes = {name: facts[name].size for name in facts}
    with Progress("hash sources", sum(sizes.values()), "bytes") as progress:
        for group, values in engine.run(_hash_group, _groups(sizes)):
            yield from zip(group, values, strict=True)
            progress.add(sum(sizes[name] for name in group))


def _groups(sizes: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """Yield the files of each task; the largest are first, so that the last tasks are short."""
    group: list[str] = []
    size = 0
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        group.append(name)
        size += sizes[name]
        if size >= _TASK or len(group) == _MOST:
            yield tuple(group)
            group, size = [], 0
    if group:
        yield tuple(group)


def _hash_group(names: Sequence[str]) -> list[str]:
    return [_hash(name) for name in names]


def _hash(name: str) -> str:
    try:
        return hash_file(Path(name))
    except OSError as error:
        raise unopened(name, error) from None


def _facts_of(name: str) -> Facts:
    try:
        return Facts.of(Path(name))
    except OSError as error:
        raise unopened(name, error) from None


def unopened(name: str, error: OSError) -> InvalidDataError:
    """Return the error to raise if the file ``name`` cannot be opened."""
    return InvalidDataError(f"{name} cannot be opened: {error.strerror}")


def _state(path: Path) -> list[int]:
    """Return size, device, inode and times of ``path``: one of them changes if the bytes do."""
    now = path.stat()
    return [now.st_size, now.st_dev, now.st_ino, now.st_mtime_ns, now.st_ctime_ns]


def _record(folder: Path) -> Path:
    """Return the path of the file that stores the hashes of the files in ``folder``."""
    return default_cache() / "sources" / f"{hash_bytes(os.fsencode(folder.absolute()))}.jsonl"


def _remembered(folder: Path) -> dict[str, tuple[list[int], str]]:
    """Return the stored state and hash of each file in ``folder``, by name of the file."""
    try:
        lines = read_lines(_record(folder))
        return {line["name"]: (line["state"], str(line["hash"])) for line in lines}
    except (ClimbError, OSError, KeyError, TypeError):
        return {}  # the files are then hashed again


def _remember(path: Path, line: dict[str, Any]) -> None:
    try:
        append_line(_record(path.parent), line, sync=False)
    except (ClimbError, OSError):
        return  # the file is then hashed again by the next command
