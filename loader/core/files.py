"""Files: write them whole or not at all, read, hash and lock them.

A file is written under a temporary name in the same folder, flushed to disk (fsync), and then
renamed. So a reader sees either the old bytes or the new ones, never a mixture of both, even after
a power cut.
"""

import errno
import fcntl
import json
import os
import re
import resource
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from .errors import (
    ClimbError,
    InvalidDataError,
    LockedError,
    NoSpaceError,
    OpenFilesError,
    UsageError,
)
from .typed import parse_json, parse_line

HASH = "xxh3_128"
"""Name of the hash function for all files: 128-bit xxh3, written as 32 hex digits."""

_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{12}-(?P<name>.+)", re.DOTALL)
"""Name of a temporary file: ``.tmp-``, 12 hex digits, ``-``, and the final name."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = (
    "No space left on device",
    "Disk quota exceeded",
    "disk is full",
    "os error 28",
    " requested and ",
)
"""Texts in errors of numpy, safetensors, pyarrow and sqlite that mean a full disk. These errors
have no error number."""
COPY_FIRST = "copy it to this machine first, and name the copy (climb pull fetches shards)"
COPY_AFTER = "write to a path of this machine, and copy the result to the URL afterwards"
"""Remedies in messages if a user gives a URL where only a path is possible: for a file to read, and
for a file to write."""
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
"""The beginning of a URL. It has one slash only, because a `Path` turns two slashes into one."""
_REFUSED = (errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)
_NO_FILES = (errno.EMFILE, errno.ENFILE)


def is_url(path: str | Path) -> bool:
    """Whether ``path`` is a URL; a `Path` can be one if it was made from the text of a URL.

    >>> is_url("s3://bucket/name"), is_url(Path("s3://bucket/name")), is_url("/s3://bucket")
    (True, True, False)
    """
    return bool(_URL.match(str(path))) and (isinstance(path, Path) or "://" in path)


def refuse_url(path: str | Path, remedy: str) -> None:
    """Raise `UsageError` if ``path`` is a URL; its message ends with ``remedy``."""
    if is_url(path):
        url = _URL.sub(r"\1://", str(path), count=1).replace(":///", "://", 1)
        raise UsageError(f"{url} is a URL, and only a path is possible here; {remedy}")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading, in binary mode.

    A pipe or a device is refused, because reading it might never end.

    Raises:
        FileNotFoundError: There is no file at ``path``.
        InvalidDataError: ``path`` is a folder, a pipe or a device.
        UsageError: ``path`` is a URL.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        refuse_url(path, COPY_FIRST)
        if error.errno not in (errno.ENXIO, errno.ENODEV):
            raise
        raise _not_regular(path) from None  # a socket, or a missing device
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular(path)
    return os.fdopen(descriptor, "rb")


def _not_regular(path: Path) -> InvalidDataError:
    what = "a folder" if path.is_dir() else "a pipe, a socket or a device"
    return InvalidDataError(f"{path} is {what}, and not a regular file; put a file in its place")


def read_regular(path: Path, most: int | None = None) -> bytes:
    """Return the content of a regular file.

    If ``most`` is given, only the first ``most`` + 1 bytes are read. If the result has so many, the
    file is larger than ``most`` bytes.

    Raises the same errors as `open_regular`.
    """
    with naming(path), open_regular(path) as file:
        return file.read() if most is None else file.read(most + 1)


def hash_bytes(data: bytes | memoryview) -> str:
    """Return the hash of ``data``: xxh3-128 as 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(data)


def hash_file(path: Path) -> str:
    """Return the hash of the bytes of the file at ``path``: xxh3-128 as 32 hex digits."""
    digest = xxhash.xxh3_128()
    with naming(path), open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_json(value: object) -> str:
    """Return the hash of the JSON text of ``value``; it does not depend on the order of keys."""
    return hash_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


@contextmanager
def atomic_path(path: Path, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary path; the file that the block writes there becomes the file ``path``.

    If the block raises an error, the temporary file is removed, and ``path`` is not changed.
    ``size`` is the expected size of the file in bytes, for messages.

    Raises:
        NoSpaceError: The disk is full; nothing is left behind.
        UsageError: The system refuses to write there.
    """
    temporary = path.with_name(f".tmp-{secrets.token_hex(6)}-{path.name}")
    try:
        with writing(path, temporary, size):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add ``path`` to each `OSError` that is raised in the block and names no file.

    Raises:
        OpenFilesError: This process may open no more files.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_FILES:
            raise OpenFilesError(f"{path}: {too_many_files()}") from error
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def reading(path: Path | str, what: str) -> Iterator[None]:
    """Turn each error in the block, which reads the file ``path``, into a `ClimbError`.

    The message names ``path``. ``what`` is the kind of file that is expected, such as "part of a
    catalogue".

    Raises:
        UsageError: The system refuses to read the file, or the file is missing.
        InvalidDataError: The file is not a ``what``.
    """
    try:
        yield
    except ClimbError:
        raise
    except Exception as error:
        ours = disk_error(error, Path(path))
        raise ours or InvalidDataError(f"{path} is not a valid {what}: {error}") from error


@contextmanager
def writing(path: Path, temporary: Path | None = None, size: int | None = None) -> Iterator[None]:
    """Turn each disk error in the block, which writes the file ``path``, into a `ClimbError`.

    The message names ``path``. Other errors are raised unchanged. ``temporary`` is the file that is
    written before it is renamed to ``path``; ``size`` is its expected size in bytes.

    Raises:
        NoSpaceError: The disk is full.
        UsageError: The system refuses to write there.
    """
    refuse_url(path, COPY_AFTER)
    try:
        yield
    except ClimbError:
        raise
    except Exception as error:
        if ours := disk_error(error, path, temporary, size):
            raise ours from error
        raise


def disk_error(
    error: BaseException,
    path: Path | None = None,
    temporary: Path | None = None,
    size: int | None = None,
) -> ClimbError | None:
    """Return the `ClimbError` for an ``error`` of the disk or of too many open files; else None.

    ``path``, ``temporary`` and ``size`` are as in `writing`; they are used only in the message.
    """
    cause: BaseException | None = error
    while cause is not None:
        number = cause.errno if isinstance(cause, OSError) else None
        if number in _FULL or any(words in str(cause) for words in _FULL_WORDS):
            return NoSpaceError(_no_space(cause, path, temporary, size))
        if number in _NO_FILES:
            return OpenFilesError(f"{path}: {too_many_files()}" if path else too_many_files())
        if isinstance(cause, OSError) and (cause.filename or number in _REFUSED):
            return UsageError(f"{cause.filename or path or 'the system'}: {cause.strerror}")
        cause = cause.__cause__ or cause.__context__
    return None


def too_many_files() -> str:
    """Return the message, with the remedy, that this process may open no more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"this process has reached its limit of {soft:,} open files; raise the limit (ulimit -n), "
        f"which may be up to {hard:,}"
    )


def _no_space(
    cause: BaseException, path: Path | None, temporary: Path | None, size: int | None
) -> str:
    """Return the message, with the free space and the remedy, that the disk is full."""
    again = "free some, and run the same command again"
    if path is None:
        return f"no space left: {cause}; {again}"
    folder = next(each for each in path.absolute().parents if each.exists())
    written = temporary.stat().st_size if temporary and temporary.exists() else 0
    free = shutil.disk_usage(folder).free + written
    if isinstance(cause, OSError) and cause.errno == errno.EFBIG:
        return f"no space left to write {path}; {again}: no file may exceed {written:,} bytes here"
    if os.statvfs(folder).f_files and not os.statvfs(folder).f_favail:
        return f"no space left to write {path}; {again}: {folder} can hold no more files"
    if size is None:
        return f"no space left to write {path}; {again}: it needs more than the {free:,} bytes free"
    return f"no space left to write {path}; {again}: it needs {size:,} bytes, and {free:,} are free"


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with atomic_path(path, len(data)) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: object) -> None:
    """Write ``value`` to ``path`` as indented JSON, whole or not at all."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: object) -> bytes:
    """Return the bytes that `write_json` writes for ``value``."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    # A file name that is not UTF-8 has lone surrogates, for which JSON has escapes.
    return text.encode(errors="backslashreplace")


def read_json(path: Path) -> Any:
    """Return the JSON value in the file ``path``.

    Raises:
        InvalidDataError: The file is missing or is not JSON.
    """
    try:
        data = read_regular(path)
    except FileNotFoundError:
        raise InvalidDataError(f"there is no file {path}") from None
    return parse_json(data, str(path))


def append_line(path: Path, value: object, *, sync: bool = True) -> None:
    """Append ``value`` to the file ``path`` as one line of JSON.

    With ``sync``, the line is flushed to disk (fsync). If the last line of the file is incomplete
    because of a crash, it is removed first.

    Raises:
        NoSpaceError: The disk is full.
        UsageError: The system refuses to write there.
    """
    line = (json.dumps(value, separators=(",", ":")) + "\n").encode()
    with writing(path):
        _append(path, line, sync=sync)


def _append(path: Path, line: bytes, *, sync: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.truncate(_end_of_lines(file))
        file.write(line)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def _end_of_lines(file: BinaryIO, block: int = 1 << 16) -> int:
    """Return the offset, in bytes, at which the last complete line ends.

    The file is read backwards, in blocks, because a log may be long.
    """
    end = file.seek(0, os.SEEK_END)
    while end:
        start = file.seek(max(0, end - block))
        if (newline := file.read(end - start).rfind(b"\n")) >= 0:
            return start + newline + 1
        end = start
    return 0


def read_lines(path: Path) -> list[Any]:
    """Return the values that `append_line` wrote to the file ``path``; [] if there is no file.

    An incomplete last line is left out.

    Raises:
        InvalidDataError: A complete line is not JSON.
    """
    if not path.exists():
        return []
    data = read_regular(path)
    return [
        parse_line(line, f"{path}, line {number},")
        for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), start=1)
    ]


def is_temporary(path: Path, name: str = "") -> bool:
    """Whether ``path`` is a temporary file of `atomic_path`, by its name.

    With ``name``, only a temporary file of the file ``name`` counts. A link or a folder is never a
    temporary file.
    """
    match = _TEMPORARY.fullmatch(path.name)
    if match is None or name not in ("", match["name"]):
        return False
    return path.is_file() and not path.is_symlink()


def remove_temporaries(directory: Path, *folders: str) -> None:
    """Remove the temporary files that a killed process of climbstream left in ``directory``.

    ``directory`` must be one that climbstream fills. ``folders`` are glob patterns of folders in
    ``directory`` from which temporary files are also removed. Links are not followed.
    """
    root = directory.resolve()
    for folder in (root, *(path for pattern in folders for path in root.glob(pattern))):
        if folder.is_dir() and folder.resolve() == folder:
            for path in folder.iterdir():
                if is_temporary(path):
                    path.unlink(missing_ok=True)


def check_regular(path: Path, root: Path) -> None:
    """Check that ``path`` is a regular file in the folder ``root``, and that no link leads to it.

    Raises:
        InvalidDataError: ``path`` or a folder between ``root`` and ``path`` is a link, or ``path``
            is no regular file.
        FileNotFoundError: There is no file at ``path``.
    """
    place = root
    for part in path.relative_to(root).parts:
        place /= part
        mode = place.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise InvalidDataError(
                f"{place} is a link to {place.readlink()}; only files in {root} itself are "
                f"accepted: put the file there"
            )
    if not stat.S_ISREG(mode):
        raise InvalidDataError(f"{place} is not a regular file; remove it, or put the file there")


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Lock ``directory`` for this process until the block or the process ends.

    The directory is made if it does not exist. If it was made here, and the block leaves it empty,
    it is removed again.

    Raises:
        LockedError: Another process has the lock.
        UsageError: ``directory`` is a URL.
    """
    refuse_url(directory, COPY_AFTER)
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    # The directory itself is locked, so that no lock file is left in it.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LockedError(
                f"another process works on {directory}; wait for it, or choose another directory"
            ) from None
        try:
            yield
        finally:
            if is_new:
                with suppress(OSError):  # the directory has files
                    directory.rmdir()
    finally:
        os.close(descriptor)


def _sync_directory(directory: Path) -> None:
    """Fsync ``directory``, so that a rename in it survives a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def default_cache() -> Path:
    """Return the folder of the cache of shards.

    This is the folder in the environment variable CLIMBSTREAM_CACHE or, if that is not set,
    ``climbstream/shards`` in the user's cache folder.

    Raises:
        UsageError: The variable has a URL.
    """
    if folder := os.environ.get("CLIMBSTREAM_CACHE"):
        refuse_url(folder, "set CLIMBSTREAM_CACHE to a folder of this machine")
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "climbstream" / "shards"
