"""Destination: the place that a command makes a shard directory in, and what is there already."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from climbstream.loader.core.errors import UsageError
from climbstream.loader.formats.manifest import MANIFEST, Manifest

from .bucket import Effect, open_bucket


class Destination(Protocol):
    """A folder to work in, and the place where its files belong in the end."""

    @property
    def folder(self) -> Path:
        """Folder of this machine to work in."""

    def finished_at(self) -> str | Path | None:
        """Return the place of a finished directory; None: it is not finished."""

    def claim(self, plan: Mapping[str, Any], effect: Effect) -> None:
        """Let nobody begin another plan in the place; ``effect`` is that of `begin_or_resume`.

        Raises:
            InvalidDataError: Another plan was begun there.
            RemoteError: It cannot be written.
        """

    def finish(self) -> Manifest:
        """Bring all files to their place, and return the manifest.

        Raises:
            InvalidDataError: Other files lie there.
            IntegrityError: A file is not the one that was made.
            RemoteError: It cannot be written.
        """


@contextmanager
def open_destination(out: str | Path, scratch: str | Path | None = None) -> Iterator[Destination]:
    """Open ``out``, a folder, or an ``s3://`` URL whose directory is made below ``scratch`` first.

    Raises:
        UsageError: It is neither, or it cannot be used with these settings.
        InvalidDataError: A bucket holds other objects there.
        RemoteError: There is no such bucket, or it may not be read.
        LockedError: Another process works in the same folder of ``scratch``.
    """
    text = os.fspath(out)
    scheme, mark, rest = text.partition("://")
    if isinstance(out, Path) and text.startswith("s3:"):
        raise UsageError(f"{text} was made a path, which a URL is not; give s3://… as text")
    if mark and scheme == "s3":
        with open_bucket(text, None if scratch is None else Path(scratch)) as bucket:
            yield bucket
        return
    if mark and scheme != "file":
        remedy = "climb publish" if scheme == "hf" else "what copies files there"
        raise UsageError(
            f"{text} cannot be built in: --out is a folder or s3://BUCKET/NAME; build in a folder, "
            f"and then use {remedy}"
        )
    if scratch is not None:
        raise UsageError(f"--scratch is for an --out of s3://…; {text} is a folder itself")
    yield _Folder(Path(rest if mark else text).resolve())  # as processes elsewhere know it


class _Folder:
    """A folder of this machine: what is made there is where it belongs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def finished_at(self) -> Path | None:
        """Return the folder, if its directory is finished."""
        return self.folder if (self.folder / MANIFEST).exists() else None

    def claim(self, plan: Mapping[str, Any], effect: Effect) -> None:
        """Do nothing: the lock and the plan of the folder do that."""

    def finish(self) -> Manifest:
        """Return the manifest."""
        return Manifest.load(self.folder)
