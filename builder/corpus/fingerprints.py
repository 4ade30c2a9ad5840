"""Fingerprints: they tell whether a file has changed.

Tasks of an engine hash local files, so that all machines read them. Only where it would take longer
to start workers does the process of the command hash files itself.

The hash of a large file of this machine is remembered, so that a build that is continued does not
read all of its corpus once more. It holds as long as size, inode and both times of the file are
as they were. Of a file that was changed in the last minute nothing is remembered: its next change
might leave the times as they are, where clocks are coarse or the file is mapped into memory.
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
"""Size from which on the hash of a file is remembered; a smaller one is hashed as fast."""
_SETTLED = 60.0
"""Seconds without a change after which a hash is remembered."""
_TASK, _MOST = 256 << 20, 256
"""Bytes and files of a task, at most; a file that has more bytes is a task of its own."""
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


@dataclass(frozen=True, slots=True)
class Facts:
    """What was known of a file before its bytes were read."""

    state: list[int]
    begun: float
    """When the file was looked at, in seconds."""

    @classmethod
    def of(cls, path: Path) -> Self:
        """Look at ``path``."""
        return cls(begun=time.time(), state=_state(path))

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.state[0]


class FileHashes:
    """Hashes of files of this machine; use one for all files of a command."""

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
        """Return the hash that is remembered of ``path``; "" if none is."""
        if facts.size < _REMEMBERED:
            return ""
        state, last = self._remembered(path.parent).get(path.name, (None, ""))
        return last if state == facts.state else ""

    def note(self, path: Path, facts: Facts, value: str) -> None:
        """Remember the hash of ``path``, which was read after its ``facts`` were looked at."""
        settled = max(facts.state[-2:]) < (facts.begun - _SETTLED) * 1e9
        if facts.size >= _REMEMBERED and settled and _state(path) == facts.state:
            with self._lock:  # threads would overwrite each other's lines
                _remember(path, {"name": path.name, "state": facts.state, "hash": value})


def hash_files(names: Sequence[str], engine: Engine | None = None) -> dict[str, str]:
    """Hash files of this machine, and remember it; return the hash of each.

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
    """Cut files into tasks, the largest first: the last ones should not be long."""
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
    """Return the error that the file ``name`` cannot be opened."""
    return InvalidDataError(f"{name} cannot be opened: {error.strerror}")


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
