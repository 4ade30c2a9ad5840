"""Files that processes of one node share: claimed by flock, allocated, written, mapped."""

import errno
import fcntl
import mmap
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import LockedError


def allow_files() -> None:
    """Raise the limit of open files: a mapped shard keeps one open, and each lane maps one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems refuse the hard limit that they name
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def claim(path: Path, flags: int) -> int | None:
    """Open and lock the file at ``path`` for this thread; None: another has or had the lock."""
    descriptor = os.open(path, flags, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The one who had the lock may have renamed or removed the file since it was opened.
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError | FileNotFoundError):
            return None
        raise
    os.close(descriptor)
    return None


def remove_unused(path: Path) -> bool:
    """Remove a file of the cache unless a process on this node uses it; return if it is gone."""
    try:
        if (descriptor := claim(path, os.O_RDONLY)) is None:
            return False
        try:
            path.unlink()
        finally:
            os.close(descriptor)
    except FileNotFoundError:  # another process removed it first
        pass
    return True


@contextmanager
def locked(directory: Path, patience: float) -> Iterator[None]:
    """Hold a lock on ``directory``; wait for other processes, which hold it only for a moment."""
    descriptor, begin = os.open(directory, os.O_RDONLY), time.monotonic()
    try:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if (waited := time.monotonic() - begin) >= patience:
                raise LockedError(
                    f"another process has been making room in {directory} for {waited:.1f} s; "
                    "stop it, or name another folder for the cache"
                )
            time.sleep(0.002)
        yield
    finally:
        os.close(descriptor)


def allocate(descriptor: int, size: int) -> None:
    """Reserve ``size`` bytes of disk for a file, so that writing it cannot run out of space."""
    os.ftruncate(descriptor, 0)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(descriptor, size)  # this file system cannot reserve space


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``, in as many calls as that takes."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def map_file(descriptor: int) -> NDArray[np.uint8]:
    """Map a file, read-only; no process on this node evicts it as long as the map lives."""
    # The map holds a copy of the descriptor, which shares the lock. A writer's lock turns into a
    # shared one. If it is not had at once, an eviction is under way, which a map outlives.
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    # A plain ndarray over the map: slices of np.memmap cost twice as much.
    return np.frombuffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), np.uint8)


def identity_of(status: os.stat_result) -> tuple[int, ...]:
    """Return what tells a file from another that has the same name later."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def touch(path: Path) -> None:
    """Set the file's time of access to now: many disks are mounted so that reading does not."""
    with suppress(OSError):  # it was evicted, or this user may only read the cache
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
