"""Locked files: functions to lock, write and map files that the processes of one node share."""

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
    """Raise this process's limit of open files to the largest that the system allows.

    This is needed because each lane may map a shard, and each mapped shard keeps a file open.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems refuse the hard limit that they report
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def claim(path: Path, flags: int) -> int | None:
    """Open and lock the file at ``path``; return its descriptor, or None if it could not be locked.

    The file cannot be locked while another process or thread has the lock. It counts as not locked
    if another process has renamed, replaced or removed it before the lock was set.
    """
    descriptor = os.open(path, flags, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A process that had the lock may have renamed or removed the file since it was opened.
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
    """Remove a file of the cache, unless a process on this node uses it.

    Returns True if there is no such file any more, and False if the file is in use.
    """
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
    """Lock ``directory`` while the block of a ``with`` statement runs.

    Processes have this lock only for a moment, so a long wait means that one of them hangs.

    Raises:
        LockedError: Another process has kept the lock for ``patience`` seconds.
    """
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
    """Reserve ``size`` bytes of disk for an open file, so that writing it cannot fill the disk."""
    os.ftruncate(descriptor, 0)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(descriptor, size)  # this file system cannot reserve space


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data`` to an open file, in as many calls as are needed."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def map_file(descriptor: int) -> NDArray[np.uint8]:
    """Map an open file into memory; return its bytes, uint8 ``[bytes]``, read-only.

    As long as the map exists, no process on this node removes the file from the cache.
    """
    # The map keeps a copy of the descriptor, and so keeps the lock. If this process wrote the file,
    # its exclusive lock becomes a shared lock. If locking fails, another process is removing the
    # file, but the map stays valid.
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    # A plain ndarray over the map: slices of np.memmap take twice as long.
    return np.frombuffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), np.uint8)


def identity_of(status: os.stat_result) -> tuple[int, ...]:
    """Return numbers that change if the file is written again or replaced by another file."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def touch(path: Path) -> None:
    """Set a file's access time to now, because many file systems do not record accesses."""
    with suppress(OSError):  # the file was evicted, or this user may only read the cache
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
