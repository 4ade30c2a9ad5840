"""Bucket: list, write and delete the objects below a URL of S3; no object is ever replaced.

Each write asks S3 to refuse it if the object exists (``If-None-Match: *``), so two programs cannot
overwrite each other's objects. The metadata of each object contain the hash of its bytes.
"""

import mimetypes
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from climbstream.loader.core.errors import ClimbError, UsageError

from .retry import status_of
from .s3 import code_of, list_pages, look_at, open_client, open_service
from .service import PATIENCE

T = TypeVar("T")
LARGE = 64 << 20
"""Smallest size of a file that is sent in parts, in bytes."""
_PART, _MOST_PARTS = 16 << 20, 10_000
"""Smallest size of a part in bytes, and largest number of parts that S3 accepts."""
_SECONDS = 60.0
"""Time without any data after which a try has failed, in seconds."""
_DIGEST = "climbstream-xxh3-128"
"""Name of the hash in the metadata of an object."""
_NAME = re.compile(r"[a-z0-9A-Z][\w.-]{1,254}")
_THERE = 412
"""HTTP status if the object exists already."""
_NEEDED = "s3:ListBucket of the bucket, and s3:GetObject, s3:PutObject and s3:DeleteObject below it"


@dataclass(frozen=True, slots=True)
class Stored:
    """Size and hash of an object in a bucket."""

    size: int
    """Size in bytes."""
    digest: str | None
    """Hash of the bytes, from the metadata; None if another program wrote the object."""


class Bucket:
    """The objects below ``s3://BUCKET/PREFIX``; names of objects are relative to this URL."""

    def __init__(self, url: str, *, patience: float = PATIENCE) -> None:
        """Make a client for ``url``; no request is sent yet.

        ``patience`` is the time for which a request that fails is repeated, in seconds.

        Raises:
            UsageError: ``url`` names no bucket, boto3 is missing, or there are no credentials.
        """
        self.url = url.rstrip("/")
        self._bucket, _, key = self.url.removeprefix("s3://").partition("/")
        if not _NAME.fullmatch(self._bucket) or "?" in url or "//" in f"/{key}":
            raise UsageError(f"{url} names no place in a bucket; write s3://BUCKET/NAME")
        self._prefix = f"{key}/" if key else ""
        try:
            self._client = open_client(_SECONDS, to_write=True)
        except ImportError as error:
            raise UsageError(
                f"{url} cannot be written: {error}; run pip install 'climbstream[s3]'"
            ) from None
        self._service = open_service(self._bucket, _NEEDED)
        self._patience = patience

    def __str__(self) -> str:
        return self.url

    def list(self) -> dict[str, int]:
        """Return the size of each object in bytes, by name.

        Raises:
            RemoteError: The bucket does not exist, listing it is not allowed, or S3 failed.
        """
        sizes: dict[str, int] = {}
        where = {"Bucket": self._bucket, "Prefix": self._prefix}
        for page in list_pages(self._client, where, partial(self._ask, "list", "")):
            for entry in page.get("Contents", []):
                name = entry["Key"].removeprefix(self._prefix)
                if name:  # consoles make an object without a name to stand for the folder
                    sizes[name] = entry["Size"]
        return sizes

    def find(self, name: str) -> Stored | None:
        """Return the size and the hash of an object; None if it does not exist.

        Raises:
            RemoteError: S3 refused, or failed.
        """
        answer = self._ask("look at", name, partial(look_at, self._client, self._key(name)))
        if answer is None:
            return None
        return Stored(answer["ContentLength"], answer.get("Metadata", {}).get(_DIGEST))

    def put(self, name: str, content: bytes | Path, digest: str) -> bool:
        """Write an object unless it exists; return whether it was written.

        ``content`` is the bytes, or the path of a file; ``digest`` is their hash. If the result is
        False, the object exists, but this call may have written it: the answer of S3 may have been
        lost, and the request sent again. So compare ``digest`` with the hash that `find` returns.

        Raises:
            RemoteError: S3 refused, or failed.
        """
        about = {
            **self._key(name),
            "Metadata": {_DIGEST: digest},
            "ContentType": mimetypes.guess_type(name)[0] or "application/octet-stream",
        }
        if isinstance(content, bytes):
            return self._put_whole(name, lambda: BytesIO(content), len(content), about)
        if (size := content.stat().st_size) >= LARGE:
            return self._put_parts(name, content, size, about)
        return self._put_whole(name, lambda: content.open("rb"), size, about)

    def remove(self, name: str) -> None:
        """Delete an object, if it exists.

        Raises:
            RemoteError: S3 refused, or failed.
        """
        self._ask("delete", name, lambda: self._client.delete_object(**self._key(name)))

    def _put_whole(
        self, name: str, opened: Callable[[], BinaryIO], size: int, about: dict[str, Any]
    ) -> bool:
        """Write an object with one request; return whether it was written."""

        def put() -> bool:
            with opened() as body:
                return _unless_there(self._client.put_object, Body=body, **about)

        return self._ask("write", name, put, size)

    def _put_parts(self, name: str, path: Path, size: int, about: dict[str, Any]) -> bool:
        """Write an object in parts; return whether it was written.

        Each part is sent again if it fails. The object exists only after the last request, which
        joins the parts.
        """
        begun = self._ask("begin", name, lambda: self._client.create_multipart_upload(**about))
        upload = {**self._key(name), "UploadId": begun["UploadId"]}
        length = max(_PART, -(-size // _MOST_PARTS))
        written = False
        try:
            parts: list[dict[str, Any]] = []
            with path.open("rb") as file:
                while data := file.read(length):
                    parts.append(self._put_part(name, data, len(parts) + 1, upload))
            written = self._ask(
                "end",
                name,
                lambda: _unless_there(
                    self._client.complete_multipart_upload,
                    MultipartUpload={"Parts": parts},
                    **upload,
                ),
            )
            return written
        finally:
            if not written:
                with suppress(ClimbError):  # the first error is the one to report
                    self._ask("end", name, lambda: self._client.abort_multipart_upload(**upload))

    def _put_part(
        self, name: str, data: bytes, number: int, upload: dict[str, Any]
    ) -> dict[str, Any]:
        """Send one part; return the entry that names it in the request that joins the parts."""
        answer = self._ask(
            f"write part {number} of",
            name,
            lambda: self._client.upload_part(Body=data, PartNumber=number, **upload),
            len(data),
        )
        sums = {key: value for key, value in answer.items() if key.startswith("Checksum")}
        sums.pop("ChecksumType", None)
        return {"PartNumber": number, "ETag": answer["ETag"], **sums}

    def _key(self, name: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}{name}"}

    def _ask(self, verb: str, name: str, call: Callable[[], T], size: int = 0) -> T:
        place = f"{self.url}/{name}" if name else self.url
        return self._service.ask(f"{verb} {place}", call, self._patience, size=size)


def _unless_there(write: Callable[..., Any], **options: Any) -> bool:
    """Call ``write`` so that it replaces no object; return whether it wrote one."""
    try:
        write(IfNoneMatch="*", **options)
    except Exception as error:
        # NoSuchUpload means that an earlier try has ended the upload, but its answer was lost.
        if status_of(error) == _THERE or code_of(error) == "NoSuchUpload":
            return False
        raise
    return True
