"""Destination: the place, a folder or a bucket, in which a command makes a shard directory."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.files import COPY_AFTER, refuse_url
from climbstream.loader.formats.manifest import MANIFEST, Manifest

from .bucket import Effect, open_bucket


class Destination(Protocol):
    """A local folder to work in, and the place to which its files are brought at the end."""

    @property
    def folder(self) -> Path:
        """The local folder to work in."""

    def finished_at(self) -> str | Path | None:
        """Return the place of the finished shard directory; None if it is not finished."""

    def claim(self, plan: Mapping[str, Any], effect: Effect) -> None:
        """Reserve the place for ``plan``, so that no other plan can be begun there.

        ``effect`` is as in `begin_or_resume`.

        Raises:
            InvalidDataError: Another plan was begun in the place.
            RemoteError: The place cannot be written.
        """

    def finish(self) -> Manifest:
        """Bring all files to the place, and return the manifest.

        Raises:
            InvalidDataError: The place has other files.
            IntegrityError: The bytes of a file have changed since the file was made.
            RemoteError: The place cannot be written.
        """


@contextmanager
def open_destination(out: str | Path, scratch: str | Path | None = None) -> Iterator[Destination]:
    """Yield the destination ``out``, a folder or an ``s3://`` URL.

    If ``out`` is a URL, the directory is first made in a folder below ``scratch``, by default in
    the cache.

    Raises:
        UsageError: ``out`` is a URL of another kind; or ``out`` is a folder and ``scratch`` is set.
        InvalidDataError: Other objects are at the URL.
        RemoteError: The bucket does not exist, or may not be read.
        LockedError: Another process works in the folder below ``scratch``.
    """
    text = os.fspath(out)
    scheme, mark, rest = text.partition("://")
    if isinstance(out, Path):
        refuse_url(out, "give s3://BUCKET/NAME as text, not as a Path")
    if scratch is not None:
        refuse_url(scratch, COPY_AFTER)
    if mark and scheme == "s3":
        with open_bucket(text, None if scratch is None else Path(scratch)) as bucket:
            yield bucket
        return
    if mark and scheme != "file":
        remedy = "climb publish" if scheme == "hf" else "a program that writes there"
        raise UsageError(
            f"--out is a folder or s3://BUCKET/NAME, not {text}; build in a folder, and then copy "
            f"it with {remedy}"
        )
    if scratch is not None:
        raise UsageError(
            f"--scratch is for an --out of s3://…, and {text} is a folder; leave out --scratch"
        )
    yield _Folder(Path(rest if mark else text).resolve())  # absolute, so valid in all processes


class _Folder:
    """A local folder, in which the shard directory is made and stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def finished_at(self) -> Path | None:
        """Return the folder if it contains a finished shard directory; otherwise None."""
        return self.folder if (self.folder / MANIFEST).exists() else None

    def claim(self, plan: Mapping[str, Any], effect: Effect) -> None:
        """Do nothing, because the lock on the folder and the plan in it keep other plans out."""

    def finish(self) -> Manifest:
        """Return the manifest."""
        return Manifest.load(self.folder)
