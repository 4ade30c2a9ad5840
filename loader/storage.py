"""Files that are there whole or not at all, hashes, and locks.

Whatever is written goes to a temporary name beside its place, is fsynced, and is renamed:
a reader sees the old bytes or the new ones, never a mixture, also after a power cut.
"""

import errno
import fcntl
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from .errors import InvalidDataError, LockedError, NoSpaceError
from .typed import parse_json, parse_line

HASH = "xxh3_128"
"""The hash of everything on disk: 128-bit xxh3, as 32 hex digits."""

_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{12}-(?P<name>.+)", re.DOTALL)
"""Name of a temporary file: ``.tmp-``, 12 hex digits, ``-``, and the name it will have."""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read; a pipe or device, which might never end, is not waited for.

    Raises:
        FileNotFoundError: There is none.
        InvalidDataError: It is a folder, a pipe or a device.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ENODEV):
            raise
        raise _not_regular(path) from None  # a socket, or a device that is not there
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular(path)
    return os.fdopen(descriptor, "rb")


def _not_regular(path: Path) -> InvalidDataError:
    what = "a folder" if path.is_dir() else "a pipe, a socket or a device"
    return InvalidDataError(f"{path} is {what}, and no regular file; put a file in its place")


def read_regular(path: Path, most: int | None = None) -> bytes:
    """Return the content of a regular file, and of one longer than ``most`` a byte more than that.

    Raises:
        As of `open_regular`.
    """
    with open_regular(path) as file:
        return file.read() if most is None else file.read(most + 1)


def hash_bytes(data: bytes | memoryview) -> str:
    """Hash of ``data``: xxh3-128 as 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(data)


def hash_file(path: Path) -> str:
    """Hash of the bytes of the file at ``path``: xxh3-128 as 32 hex digits."""
    digest = xxhash.xxh3_128()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_json(value: object) -> str:
    """Hash of ``value`` as canonical JSON: independent of the order of keys."""
    return hash_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block ends well.

    Raises:
        NoSpaceError: The disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{secrets.token_hex(6)}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(
                f"no space left to write {path}; free some, and run the same command again"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: object) -> None:
    """Write ``value`` to ``path`` as indented JSON, whole or not at all."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    # Of a lone surrogate, as in a file name that is not UTF-8, this makes its escape in JSON.
    write_bytes(path, text.encode(errors="backslashreplace"))


def read_json(path: Path) -> Any:
    """Read JSON from ``path``.

    Raises:
        InvalidDataError: The file is missing or is not JSON.
    """
    try:
        data = read_regular(path)
    except FileNotFoundError:
        raise InvalidDataError(f"there is no file {path}") from None
    return parse_json(data, str(path))


def append_line(path: Path, value: object, *, sync: bool = True) -> None:
    """Append ``value`` as one line of JSON to ``path``, and fsync, unless ``sync`` is False.

    A last line that a crash cut short is overwritten.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(value, separators=(",", ":")) + "\n").encode()
    with path.open("a+b") as file:
        file.truncate(_end_of_lines(file))
        file.write(line)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def _end_of_lines(file: BinaryIO, block: int = 1 << 16) -> int:
    """Return where the last whole line ends, read from the back: a log may be long."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = file.seek(max(0, end - block))
        if (found := file.read(end - start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0


def read_lines(path: Path) -> list[Any]:
    """Read what `append_line` wrote, without a last line that was cut short; [] if none was.

    Raises:
        InvalidDataError: A whole line is not JSON.
    """
    if not path.exists():
        return []
    data = read_regular(path)
    return [
        parse_line(line, f"{path}, line {number},")
        for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), start=1)
    ]


def is_temporary(path: Path, name: str = "") -> bool:
    """Whether ``path`` is a temporary file of `atomic_path`, of the file ``name`` if that is given.

    A link or a folder is none, whatever its name.
    """
    match = _TEMPORARY.fullmatch(path.name)
    if match is None or name not in ("", match["name"]):
        return False
    return path.is_file() and not path.is_symlink()


def remove_temporaries(directory: Path, *folders: str) -> None:
    """Remove the temporary files that a killed process of ours left in ``directory``.

    Call it only for a directory that is known to be ours. ``folders`` are glob patterns of the
    folders below it in which we write too; other folders, and what a link leads to, are not
    looked into.
    """
    root = directory.resolve()
    for folder in (root, *(path for pattern in folders for path in root.glob(pattern))):
        if folder.is_dir() and folder.resolve() == folder:
            for path in folder.iterdir():
                if is_temporary(path):
                    path.unlink(missing_ok=True)


def check_regular(path: Path, root: Path) -> None:
    """See that ``path`` is a regular file below the folder ``root``, and that no link leads to it.

    Raises:
        InvalidDataError: It or a folder on the way is a link, or it is no regular file.
        FileNotFoundError: It is not there.
    """
    place = root
    for part in path.relative_to(root).parts:
        place /= part
        mode = place.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise InvalidDataError(
                f"{place} is a link to {place.readlink()}; only what lies in {root} itself is "
                "taken: put the file there"
            )
    if not stat.S_ISREG(mode):
        raise InvalidDataError(f"{place} is no regular file; remove it, or put the file there")


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Hold ``directory`` for this process alone; the lock falls with the process.

    Raises:
        LockedError: Another process holds it.
    """
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
        yield
    finally:
        os.close(descriptor)


def _sync_directory(directory: Path) -> None:
    """Make a rename in ``directory`` last through a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def default_cache() -> Path:
    """Folder of the cache: ``$CLIMBSTREAM_CACHE``, or the user's cache folder."""
    if given := os.environ.get("CLIMBSTREAM_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "climbstream" / "shards"
