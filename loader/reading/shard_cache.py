"""ShardCache: decompressed shards on this node's disk, checked, and mapped into memory.

A file of the cache is named by the hash of its content, so that all runs and ranks of the node
share it. The first process that needs a shard fetches it into a temporary file, and then renames
this file. While it writes, the process has a lock on the temporary file (by flock; the system
releases the lock when the process ends). Other processes wait until the renamed file exists or the
lock is free. So a temporary file without a lock was left by a killed process.

Each memory map of a file keeps a shared lock on the file. So a process that makes room in the cache
can tell which files are in use on the node. There are no lock files, no server and no shared
memory.
"""

import errno
import math
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import (
    IntegrityError,
    LockedError,
    NoSpaceError,
    OpenFilesError,
    RemoteError,
    UsageError,
)
from climbstream.loader.core.files import default_cache, too_many_files
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.mds.compression import check_raw, unpack
from climbstream.loader.formats.mds.entry import ShardEntry
from climbstream.loader.formats.mds.reader import ShardView, parse_shard
from climbstream.loader.storage.store import Store

from .locked_files import (
    allocate,
    allow_files,
    claim,
    identity_of,
    locked,
    map_file,
    remove_unused,
    touch,
    write_all,
)

logger = get_logger(__name__)

_FOLDER = re.compile(r"[0-9a-f]{2}")
_OURS = re.compile(r"[0-9a-f]{32}\.mds")
_TEMPORARY = ".tmp-"
_LONGEST_PAUSE = 0.05


class _Fetch:
    """A shard that was asked for; ``result`` gets its map, or an error."""

    def __init__(self, folder: str | Path | Store, entry: ShardEntry) -> None:
        self.folder, self.entry = folder, entry
        self.doing = "waiting for its turn"  # what the fetch does now, for messages
        self.result: Future[NDArray[np.uint8]] = Future()


class ShardCache:
    """Returns raw shards as read-only memory maps; a node fetches and decompresses each one once.

    Any thread may call any method.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        limit: int | None = None,
        threads: int = 4,
        patience: float = 300.0,
    ) -> None:
        """Use the cache in the folder ``root``.

        Args:
            root: Folder of the cache; default: `default_cache`.
            limit: Largest size of all shards in the cache together, in bytes. To stay below it, the
                least recently used shards are removed. None: no limit.
            threads: Number of shards that are fetched at the same time; each is in memory then.
            patience: Longest time that `get` waits for a shard, in seconds.
        """
        self.root = root or default_cache()
        self._limit, self._threads, self._patience = limit, threads, patience
        self._lock = threading.Lock()
        self._wanted: dict[_Key, _Fetch] = {}
        self._queue: deque[_Fetch] = deque()
        self._workers: set[threading.Thread] = set()
        self._views: dict[_Key, ShardView] = {}
        self._parsed: set[_Key] = set()
        self._verified: dict[_Key, tuple[int, ...]] = {}
        self._room = math.inf if limit is None else 0
        """Number of bytes that this process may write before it checks the limit again."""
        self._swept = self._over = self._closed = False
        allow_files()

    def want(self, folder: str | Path | Store, entry: ShardEntry) -> None:
        """Begin to fetch shard ``entry`` of ``folder``, unless it is cached or being fetched.

        The call does not wait for the shard, and reports no error; `get` waits, and reports errors.
        """
        with self._lock:
            if not self._closed:
                self._begin(folder, entry)

    def get(self, folder: str | Path | Store, entry: ShardEntry) -> NDArray[np.uint8]:
        """Return shard ``entry`` of ``folder``, raw and verified, uint8 ``[bytes]``, read-only.

        Raises:
            IntegrityError: The shard is missing, or its bytes differ from the index.
            RemoteError: The store failed to read the shard, or did not read it in time.
            LockedError: Another process has begun to fetch the shard, and does not finish.
            NoSpaceError: The disk has no room for the shard.
            UsageError: The cache was closed.
        """
        with self._lock:
            if self._closed:
                raise UsageError(f"the cache {self.root} was closed; make another to read shards")
            fetch = self._begin(folder, entry)
            if fetch in self._queue:
                # A thread waits for this shard, so move it before the shards for which no thread
                # waits. One assignment does this, because a signal between a removal and an
                # insertion could drop the shard from the queue.
                self._queue = deque(
                    [fetch, *(other for other in self._queue if other is not fetch)]
                )
        try:
            return fetch.result.result(self._patience)
        except CancelledError:  # the shard was released meanwhile
            return self.get(folder, entry)
        except BaseException as error:
            if isinstance(error, TimeoutError) and not fetch.result.done():
                raise RemoteError(
                    f"{folder}: {entry.basename} has not arrived after {self._patience:.1f} s: "
                    f"{fetch.doing}; check that the store can be reached, then start again"
                ) from None
            with self._lock:  # so that the next call begins a new fetch
                if self._wanted.get(_key(entry)) is fetch:
                    del self._wanted[_key(entry)]
            raise

    def has(self, entry: ShardEntry) -> bool:
        """Whether the cache has a file of shard ``entry``; the file is not read."""
        return self._path(entry).exists()

    def view(self, folder: str | Path | Store, entry: ShardEntry, dtype: str) -> ShardView:
        """Return shard ``entry`` of ``folder``, mapped, and with the places of its documents.

        Raises:
            IntegrityError: The shard is missing, or its bytes differ from the index.
        """
        if (view := self._views.get(_key(entry))) is None:
            again = _key(entry) in self._parsed
            view = parse_shard(self.get(folder, entry), entry, dtype, again=again)
            self._views[_key(entry)] = view
            self._parsed.add(_key(entry))
        return view

    def release(self, entry: ShardEntry) -> None:
        """Release a shard that will not be read soon, so that it may be evicted."""
        with self._lock:
            self._views.pop(_key(entry), None)
            fetch = self._wanted.pop(_key(entry), None)
            if fetch is not None and fetch in self._queue:
                self._queue.remove(fetch)
                fetch.result.cancel()
        touch(self._path(entry))

    def close(self) -> None:
        """Release all shards; later calls of `get` raise `UsageError`."""
        with self._lock:
            self._closed = True
            for fetch in self._queue:
                fetch.result.cancel()
            for kept in (self._queue, self._wanted, self._views):
                kept.clear()

    # Threads that fetch.

    def _begin(self, folder: str | Path | Store, entry: ShardEntry) -> _Fetch:
        """Return the fetch of a shard; begin one if there is none. The caller has the lock."""
        if (fetch := self._wanted.get(_key(entry))) is None:
            fetch = _Fetch(folder, entry)
            # A shard that was in the cache before is most likely still there, and to look takes
            # less time than to start a thread.
            if (data := self._still_here(entry)) is not None:
                fetch.result.set_result(data)
            else:
                self._queue.append(fetch)
            # This line comes last, because a signal may interrupt the code anywhere, and each shard
            # in this dictionary must be fetched already or be in the queue.
            self._wanted[_key(entry)] = fetch
        if self._queue:
            self._start_worker()
        return fetch

    def _start_worker(self) -> None:
        """Start a thread that fetches shards, unless there are enough; the caller has the lock.

        Threads end when the queue is empty. So a cache that fetches nothing has no threads, and
        need not be closed.
        """
        # Threads that never began, because their start was interrupted, are not counted.
        self._workers = {worker for worker in self._workers if worker.is_alive()}
        if len(self._workers) >= self._threads:
            return
        worker = threading.Thread(target=self._work, name="climbstream-fetch", daemon=True)
        self._workers.add(worker)
        try:
            worker.start()
        except RuntimeError as error:
            if len(self._workers) == 1:
                raise UsageError(
                    f"{error}, and no thread fetches shards; allow this process more threads "
                    "(ulimit -u)"
                ) from error

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._workers.discard(threading.current_thread())
                    return
                fetch = self._queue.popleft()
            try:
                fetch.result.set_result(self._bring(fetch))
            except BaseException as error:
                fetch.result.set_exception(error)
            del fetch  # else its map would be kept until the next shard arrives

    def _bring(self, fetch: _Fetch) -> NDArray[np.uint8]:
        """Return a map of a shard; fetch the shard into the cache first if it is not there."""
        entry, begin, pause = fetch.entry, time.monotonic(), 0.001
        path = self._path(entry)
        temporary = path.with_name(f"{_TEMPORARY}{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sweep()
            while True:
                if (data := self._map_cached(path, entry)) is not None:
                    return data
                if (descriptor := claim(temporary, os.O_RDWR | os.O_CREAT)) is not None:
                    try:
                        return self._fill(fetch, path, temporary, descriptor)
                    finally:
                        os.close(descriptor)
                fetch.doing = "another process or thread has begun to fetch it"
                waited = time.monotonic() - begin
                # Give up slightly before `get` does, because this error says more than the error of
                # `get`.
                if waited >= self._patience - 2 * _LONGEST_PAUSE:
                    raise LockedError(
                        f"{fetch.folder}: waited {waited:.1f} s for {entry.basename}, but the "
                        f"process that writes {temporary} has not ended; stop that process, or "
                        "name another folder for the cache"
                    )
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise NoSpaceError(
                    f"no space left in {self.root} for the {entry.raw_bytes:,} bytes of "
                    f"{entry.basename}; free some, or name another folder for the cache"
                ) from error
            if error.errno == errno.EMFILE:
                raise OpenFilesError(
                    f"{len(self._wanted)} shards are in use: {too_many_files()}, or use fewer lanes"
                ) from error
            raise

    def _path(self, entry: ShardEntry) -> Path:
        return self.root / entry.raw_hash[:2] / f"{entry.raw_hash}.mds"

    def _map_cached(self, path: Path, entry: ShardEntry) -> NDArray[np.uint8] | None:
        """Return a map of a shard in the cache; None if it is not there or damaged.

        A damaged file is removed.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            data = map_file(descriptor)
            identity = identity_of(os.fstat(descriptor))
            if self._verified.get(_key(entry)) != identity:
                check_raw(data.data, entry)
                self._verified[_key(entry)] = identity
            touch(path)
        except (IntegrityError, ValueError):  # ValueError: an empty file cannot be mapped
            path.unlink(missing_ok=True)
            return None
        finally:
            os.close(descriptor)
        return data

    def _still_here(self, entry: ShardEntry) -> NDArray[np.uint8] | None:
        """Return a map of a shard in the cache; None if the file is missing or may have changed.

        The file is compared with the one that this process has verified before.
        """
        if (identity := self._verified.get(_key(entry))) is None:
            return None
        try:
            descriptor = os.open(self._path(entry), os.O_RDONLY)
        except OSError:  # it was evicted; any other fault is reported when the shard is fetched
            return None
        try:
            return map_file(descriptor) if identity_of(os.fstat(descriptor)) == identity else None
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def _fill(
        self, fetch: _Fetch, path: Path, temporary: Path, descriptor: int
    ) -> NDArray[np.uint8]:
        """Fetch a shard into ``temporary``, rename it to ``path``, and return a map of it.

        The caller has locked ``temporary``, which is open as ``descriptor``.
        """
        entry = fetch.entry
        try:
            # Another process may have fetched the shard before this one locked the temporary file.
            if (data := self._map_cached(path, entry)) is None:
                raw = self._fetch(fetch)
                # Reserve space only after the hash was checked: an index may have wrong sizes.
                self._reserve(fetch, descriptor)
                fetch.doing = f"writing {path}"
                write_all(descriptor, raw)
                del raw
                # The file is not fsynced, because its hash reveals damage by a power cut.
                temporary.rename(path)
                self._verified[_key(entry)] = identity_of(os.fstat(descriptor))
                return map_file(descriptor)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        temporary.unlink(missing_ok=True)
        return data

    def _fetch(self, fetch: _Fetch) -> bytes:
        """Return the raw bytes of a shard from its store; if they are damaged, read them again."""
        entry = fetch.entry
        store = Store.of(fetch.folder)
        fetch.doing = f"reading {store / entry.zip_basename}"
        for last in (False, True):
            try:
                return unpack(store.read(entry.zip_basename, entry.zip_bytes), entry)
            except FileNotFoundError:
                raise IntegrityError(
                    f"{store / entry.zip_basename} is missing; "
                    "build, pull or copy the directory again"
                ) from None
            except IntegrityError as error:
                if last:
                    raise IntegrityError(f"{store}: {error}") from None
        raise AssertionError("the loop ends by return or error")

    # Making room.

    def _reserve(self, fetch: _Fetch, descriptor: int) -> None:
        """Reserve disk space for a temporary file; remove other shards first if that is needed."""
        size = fetch.entry.raw_bytes
        with self._lock:
            if fits := size <= self._room:
                self._room -= size
        if fits:
            allocate(descriptor, size)
            return
        fetch.doing = f"waiting for another process to make room in {self.root}"
        with locked(self.root, self._patience):
            self._evict(size)
            allocate(descriptor, size)  # within the lock, so that other processes count it

    def _evict(self, size: int) -> None:
        """Remove the least recently used shards until ``size`` more bytes are within the limit.

        Listing 1,000 files takes 5 ms, so it is done seldom: if the limit allows many shards, 1/32
        of the limit is freed at once. After that, a process lists files again only when it has
        written 1/8 of the free room.
        """
        assert self._limit is not None
        ahead = self._limit // 32 // max(size, 1) * size
        with self._lock:
            wanted = {f"{fetch.entry.raw_hash}.mds" for fetch in self._wanted.values()}
        files = []
        for file in self._files():
            with suppress(FileNotFoundError):  # a temporary file was renamed meanwhile
                status = file.stat()
                files.append((status.st_atime_ns, status.st_size, file.name, file.path))
        spare = self._limit - size - sum(file_size for _, file_size, _, _ in files)
        goal = 0 if spare >= 0 else ahead
        for _, file_size, name, path in sorted(files):
            if spare >= goal:
                break
            if name not in wanted and remove_unused(Path(path)):
                spare += file_size
        with self._lock:
            self._room = max(0, spare) // 8
        if spare < 0 and not self._over:
            self._over = True
            logger.warning(
                f"the cache {self.root} passes its limit of {self._limit:,} bytes by {-spare:,}: "
                "all shards in it are in use; allow the cache more bytes, or use fewer lanes"
            )

    def _files(self) -> "Iterator[os.DirEntry[str]]":
        """Yield the shards and temporary files of the cache; skip other files in its folder."""
        # os.scandir, because a cache may have 10,000 shards, and pathlib takes 1.5 times as long.
        with os.scandir(self.root) as folders:
            for folder in folders:
                if not (_FOLDER.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False)):
                    continue
                with os.scandir(folder) as files:
                    for file in files:
                        name = file.name.removeprefix(_TEMPORARY)
                        if _OURS.fullmatch(name) and name.startswith(folder.name):
                            yield file

    def _sweep(self) -> None:
        """Remove temporary files that no process has locked; later calls do nothing."""
        with self._lock:
            swept, self._swept = self._swept, True
        if not swept:
            for file in self._files():
                if file.name.startswith(_TEMPORARY):
                    remove_unused(Path(file.path))


_Key = tuple[str, str]


def _key(entry: ShardEntry) -> _Key:
    # Both hashes are in the key: if one of them is wrong in an index, the key must not be that of
    # another shard.
    return entry.raw_hash, entry.zip_hash
