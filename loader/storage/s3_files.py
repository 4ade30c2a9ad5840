"""S3Files: a file system of fsspec for S3 that reads with boto3.

fsspec has its own file system for S3, s3fs. It is not used, because s3fs fixes the versions of
libraries that boto3 also needs.
"""

import os
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, TypeVar

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem, make_path_posix
from fsspec.spec import AbstractBufferedFile

from climbstream.loader.core.errors import RemoteError, UsageError

from .hub import refuse_offline
from .retry import status_of
from .s3 import list_pages, look_at, open_client, open_service

T = TypeVar("T")
_SECONDS = 60.0
"""Time without any data after which a try has failed, in seconds."""
_BLOCK = 8 << 20
"""Number of bytes that one request reads."""
_NEEDED = "s3:ListBucket of the bucket, and s3:GetObject below it"
_CHANGED = 412
"""HTTP status if the object was replaced since it was opened."""


def file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of fsspec for ``url``, a URL or path, and the path of ``url`` in it.

    A path may contain ``::`` and ``file:``, although these have a special meaning in fsspec.

    Raises:
        UsageError: ``url`` is in S3, and boto3 is missing or cannot be used. Or ``url`` is on the
            Hub, and HF_HUB_OFFLINE is set.
        ValueError: fsspec does not know URLs of this kind.
        ImportError: A library that fsspec needs for URLs of this kind is not installed.
    """
    if os.path.lexists(url):
        return LocalFileSystem(), make_path_posix(url).rstrip("/") or "/"
    if "://" not in url:
        return LocalFileSystem(), LocalFileSystem._strip_protocol(url)
    if url.startswith("s3://"):
        return S3Files(), S3Files._strip_protocol(url)
    if url.startswith("hf://"):
        refuse_offline()
    system, path = fsspec.core.url_to_fs(url)
    return system, path


class S3Files(AbstractFileSystem):  # type: ignore[misc]
    """A read-only file system of the objects of all buckets; paths are ``BUCKET/KEY``."""

    protocol = "s3"

    @cached_property
    def client(self) -> Any:
        """The client of boto3.

        Raises:
            UsageError: boto3 is not installed or cannot be used.
        """
        try:
            return open_client(_SECONDS)
        except ImportError as error:
            raise UsageError(
                f"S3 cannot be read: {error}; run pip install 'climbstream[s3]'"
            ) from None

    def ask(self, what: str, path: str, call: Callable[[], T], size: int = 0) -> T:
        """Return what ``call`` returns; repeat the call while S3 fails temporarily.

        ``call`` sends a request about ``path``. ``what`` is its verb for messages, such as "list".
        ``size`` is the number of bytes that the call receives.

        Raises:
            RemoteError: S3 refused, or failed.
        """
        bucket = path.partition("/")[0]
        return open_service(bucket, _NEEDED).ask(f"{what} s3://{path}", call, size=size)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return facts about an object or a folder: name, type, size and, for an object, ETag.

        Raises:
            FileNotFoundError: There is no object and no folder at ``path``.
            RemoteError: S3 refused, or failed.
        """
        path = self._strip_protocol(path)
        bucket, _slash, key = path.partition("/")
        if key and (found := self._head(path, bucket, key)):
            return found
        if self._pages(path, f"{key}/" if key else "", MaxKeys=1)[0]:
            return {"name": path, "type": "directory", "size": 0}
        raise FileNotFoundError(f"s3://{path} does not exist")

    def exists(self, path: str, **_: Any) -> bool:
        """Whether ``path`` is an object or a folder.

        Raises:
            RemoteError: S3 refused, or failed.
        """
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Return the objects and folders in ``path``, each as a dict like that of `info`.

        If ``detail`` is false, only names are returned.

        Raises:
            FileNotFoundError: There is no such folder or object.
            RemoteError: S3 refused, or failed.
        """
        path = self._strip_protocol(path)
        key = path.partition("/")[2]
        files, folders = self._pages(path, f"{key}/" if key else "", Delimiter="/")
        entries = files + [{"name": f, "type": "directory", "size": 0} for f in folders]
        entries = entries or [self.info(path)]
        return entries if detail else [entry["name"] for entry in entries]

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **more: Any,
    ) -> Any:
        """Return all objects below ``path``, in the form of `AbstractFileSystem.find`."""
        path = self._strip_protocol(path)
        if maxdepth is not None or withdirs:
            return super().find(path, maxdepth=maxdepth, withdirs=withdirs, detail=detail, **more)
        key = path.partition("/")[2]
        files, _ = self._pages(path, f"{key}/" if key else "")
        if not files and key and (itself := self._head(path, *path.split("/", 1))):
            files = [itself]
        found = {entry["name"]: entry for entry in sorted(files, key=lambda entry: entry["name"])}
        return found if detail else list(found)

    def _head(self, path: str, bucket: str, key: str) -> dict[str, Any] | None:
        """Return the facts of `info` about an object; None if it does not exist."""
        where = {"Bucket": bucket, "Key": key}
        answer = self.ask("look at", path, partial(look_at, self.client, where))
        return None if answer is None else _info(path, answer["ContentLength"], answer["ETag"])

    def _pages(
        self, path: str, prefix: str, **options: Any
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the objects whose keys begin with ``prefix``, as `info` does, and the folders.

        ``options`` are further options of `list_objects_v2`.
        """
        bucket = path.partition("/")[0]
        files: list[dict[str, Any]] = []
        folders: list[str] = []
        where = {"Bucket": bucket, "Prefix": prefix, **options}
        for page in list_pages(self.client, where, partial(self.ask, "list", path)):
            files += [
                _info(f"{bucket}/{entry['Key']}", entry["Size"], entry["ETag"])
                for entry in page.get("Contents", [])
                if not entry["Key"].endswith("/")  # such an object stands for a folder
            ]
            folders += [
                f"{bucket}/{entry['Prefix'].rstrip('/')}"
                for entry in page.get("CommonPrefixes", [])
            ]
            if "MaxKeys" in options:  # the caller only asks whether there is any object
                break
        return files, folders

    def _open(self, path: str, mode: str = "rb", **_: Any) -> "_S3File":
        if mode != "rb":
            raise UsageError(f"s3://{path} cannot be opened for writing: sources are only read")
        return _S3File(self, path, mode, block_size=_BLOCK, cache_type="readahead")


class _S3File(AbstractBufferedFile):  # type: ignore[misc]
    """An object that is read in ranges of bytes."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        """Return the bytes from offset ``start`` to ``end`` - 1.

        Raises:
            RemoteError: S3 refused or failed, or the object was replaced since it was opened.
        """
        bucket, _, key = self.path.partition("/")

        def get() -> bytes | None:
            try:
                answer = self.fs.client.get_object(
                    Bucket=bucket,
                    Key=key,
                    Range=f"bytes={start}-{end - 1}",
                    IfMatch=self.details["ETag"],
                )
            except Exception as error:
                if status_of(error) == _CHANGED:
                    return None
                raise
            return bytes(answer["Body"].read())

        data = self.fs.ask("read", self.path, get, end - start)
        if data is None:
            raise RemoteError(
                f"s3://{self.path} was replaced while it was read; run the command again when "
                "nobody writes to it"
            )
        return bytes(data)


def _info(path: str, size: int, etag: str) -> dict[str, Any]:
    return {"name": path, "type": "file", "size": size, "ETag": etag}
