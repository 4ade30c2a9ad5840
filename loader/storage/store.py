"""Store: reads the files of a folder on this machine or at a URL, such as a shard directory.

There are two time limits for reading a remote file: one for each try, and one for all tries
together.
"""

import errno
import mmap
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Self

from climbstream.loader.core.errors import IntegrityError, RemoteError, UsageError
from climbstream.loader.core.files import check_regular, naming, open_regular
from climbstream.loader.core.log import get_logger

from .readers import Reader, reader_for, too_large
from .retry import Retry, asked_pause, describe, is_refusal, status_of, without_secrets

logger = get_logger(__name__)

TRY_SECONDS = 60.0
"""Time limit of one try, in seconds: enough for a compressed shard of 8 MB at 140 kB/s."""
ALL_SECONDS = 240.0
"""Time limit of all tries together, in seconds. It is shorter than the limit of `ShardCache`, whose
callers then get the error of the store, which says more than that of the cache."""

MOST_BYTES = 1 << 30
"""Default of the largest size that a file may have, in bytes."""

_EXTRAS = {"s3": "s3", "hf": "hub", "http": "http", "https": "http"}
_CREDENTIALS = "check the address, and that your credentials may read it"
_OTHER = "check the address"
_REMEDIES: dict[int | None, str] = {
    401: _CREDENTIALS,
    403: _CREDENTIALS,
    407: "log in at the proxy between here and there",
}
"""Remedy that a message names, by the HTTP status of a refusal."""


@dataclass(frozen=True, slots=True)
class Store:
    """A folder to read from, on this machine or at a URL.

    ``store / "clusters"`` is the store of its subfolder ``clusters``.
    """

    name: str
    """Path or URL for messages, without credentials."""
    _place: str
    _get: Reader | None
    """Function that reads a remote file; None: the folder is on this machine."""
    _try_seconds: float
    _all_seconds: float
    _root: str | None = None
    """Folder on this machine in which links are refused; None: links are followed."""

    @classmethod
    def of(
        cls,
        place: "str | Path | Store",
        *,
        try_seconds: float = TRY_SECONDS,
        all_seconds: float = ALL_SECONDS,
    ) -> "Store":
        """Return the store of a path or URL; a store is returned unchanged.

        Args:
            place: A folder of this machine, a URL, or a store.
            try_seconds: Time limit of one try to read a remote file, in seconds.
            all_seconds: Time limit of all tries to read a remote file, with the pauses between
                them, in seconds.

        Raises:
            UsageError: URLs of this kind cannot be read, or a package that reads them is missing.
        """
        if isinstance(place, Store):
            return place
        if not isinstance(place, str | os.PathLike):
            raise UsageError(
                f"shards are in a folder or at a URL, named by text or a Path, not by {place!r}"
            )
        text = os.fspath(place)
        scheme, mark, rest = text.partition("://")
        if isinstance(place, Path) or not mark or scheme == "file":
            path = str(Path(rest if scheme == "file" else text))
            return cls(path, path, None, try_seconds, all_seconds)
        if "?" in text:
            raise UsageError(
                f"{without_secrets(text)} was given with a query; name the folder alone, and give "
                "credentials as the store's own client expects them"
            )
        text = text.rstrip("/")
        if scheme == "hf" and not rest.startswith("datasets/"):
            text = f"hf://datasets/{rest.rstrip('/')}"  # else it names a model
        try:
            get = reader_for(text, try_seconds)
        except ImportError as error:
            extra = _EXTRAS.get(scheme)
            remedy = (
                f"run pip install 'climbstream[{extra}]'"
                if extra
                else "install the package that this message names"
            )
            raise UsageError(f"{scheme}:// cannot be read: {error}; {remedy}") from None
        return cls(without_secrets(text), text, get, try_seconds, all_seconds)

    def __truediv__(self, part: str) -> Self:
        return replace(self, name=f"{self.name}/{part}", _place=f"{self._place}/{part}")

    def above(self, levels: int) -> Self:
        """Return the folder ``levels`` levels above this one."""
        if self._get is not None:
            name, place = self.name.rsplit("/", levels)[0], self._place.rsplit("/", levels)[0]
            return replace(self, name=name, _place=place)
        place = str(Path(self._place).absolute())
        for _ in range(levels):
            place = os.path.dirname(place)  # noqa: PTH120 - of the root, the root
        return replace(self, name=place, _place=place, _root=self._root and place)

    def elsewhere(self, url: str) -> "Store":
        """Return the store of ``url``, with the time limits of this one."""
        limits = {"try_seconds": self._try_seconds, "all_seconds": self._all_seconds}
        return Store.of(url, **limits)

    def for_large_files(self) -> "Store":
        """Return this store, but one try may take as long as all tries together.

        It is for files that are much larger than a shard, such as those of the catalogue.
        """
        if self._get is None:
            return self
        return Store.of(self._place, try_seconds=self._all_seconds, all_seconds=self._all_seconds)

    @property
    def folder_name(self) -> str:
        """The last part of the path or URL."""
        return self.name.rstrip("/").rpartition("/")[2]

    @property
    def folder(self) -> Path | None:
        """The folder on this machine; None if the store is remote."""
        return Path(self._place) if self._get is None else None

    def without_links(self) -> Self:
        """Return this store in a form that refuses links; a remote store is returned unchanged."""
        return self if self._get else replace(self, _root=self._place)

    def __str__(self) -> str:
        return self.name

    def read(self, name: str, most: int = MOST_BYTES) -> bytes:
        """Return the content of file ``name``, which has at most ``most`` bytes.

        Raises:
            FileNotFoundError: There is no such file.
            IntegrityError: The file is larger than ``most`` bytes.
            InvalidDataError: ``name`` is a folder, a pipe or a device; or this store refuses links
                (`without_links`), and ``name`` is a link or in a linked folder.
            RemoteError: The store refused, or failed until the time limit.
        """
        file = self / name
        if self._get is not None:
            return self._read_remote(file, self._get, most)
        with naming(Path(file._place)), file._open() as local:
            size = os.fstat(local.fileno()).st_size
            # A file may grow while it is read, and some files of the system report a size of 0.
            data = local.read(most + 1) if size <= most else b""
        if max(size, len(data)) > most:
            raise too_large(file.name, max(size, len(data)), most)
        return data

    def map(self, name: str, most: int = MOST_BYTES) -> memoryview:
        """Return the content of file ``name``, mapped into memory if the file is on this machine.

        All processes of a node that map the same file share its memory. While a file is mapped, it
        may be replaced or removed, but must not be cut short. A remote file is read into memory.

        Raises the same errors as `read`.
        """
        file = self / name
        if self._get is None:
            with naming(Path(file._place)), file._open() as local:
                if (size := os.fstat(local.fileno()).st_size) > most:
                    raise too_large(file.name, size, most)
                # Some file systems cannot map files, and no system maps an empty file.
                with suppress(OSError, ValueError):
                    return memoryview(mmap.mmap(local.fileno(), 0, access=mmap.ACCESS_READ))
        return memoryview(self.read(name, most))

    def _open(self) -> BinaryIO:
        """Open the local file that this store stands for."""
        if self._root is not None:
            check_regular(Path(self._place), Path(self._root))
        return open_regular(Path(self._place))

    def _read_remote(self, file: Self, get: Reader, most: int) -> bytes:
        """Return the content of ``file``; repeat the read while the store fails temporarily.

        Raises the same errors as `read`.
        """
        scheme, _, rest = file._place.partition("://")
        retry = Retry(self._all_seconds, f"{scheme}://{rest.partition('/')[0]}")
        while True:
            try:
                data = _within(
                    min(self._try_seconds, max(0.1, retry.left)), lambda: get(file._place, most)
                )
                retry.succeed()
                return data
            except (IntegrityError, RemoteError, UsageError):
                raise
            except Exception as error:
                pause, status, reason = retry.pause_after(error), status_of(error), describe(error)
                asked = asked_pause(error)
                missing = isinstance(error, FileNotFoundError) or status in (404, 410)
            if missing:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file.name)
            took = f"try {retry.tries}, after {retry.waited:.1f} s: {reason}"
            if is_refusal(status):
                raise RemoteError(f"{file} was refused at {took}; {_REMEDIES.get(status, _OTHER)}")
            if pause is None:
                wish = (
                    f", and asked for a pause of {asked:,.0f} s"
                    if asked > max(0.0, retry.left)
                    else ""
                )
                raise RemoteError(
                    f"{file} could not be read in {retry.waited:.1f} s: try {retry.tries}, the "
                    f"last, ended with {reason}{wish}; check that the store can be reached, then "
                    "start again"
                )
            if retry.tries >= 3:
                logger.warning(
                    f"{file}: try {retry.tries} ended with {reason}; the next is in {pause:.1f} s"
                )
            time.sleep(pause)


def _within(seconds: float, function: Callable[[], bytes]) -> bytes:
    """Return what ``function`` returns.

    The call runs in a thread of its own, because in some cases a client has no time limit for a
    whole request. After a timeout, the thread goes on.

    Raises:
        TimeoutError: The call takes longer than ``seconds``.
    """
    result: Future[bytes] = Future()

    def call() -> None:
        try:
            result.set_result(function())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=call, name="climbstream-read", daemon=True).start()
    try:
        return result.result(seconds)
    except TimeoutError:
        if result.done():
            raise
        raise TimeoutError(f"no answer within {seconds:.1f} s") from None
