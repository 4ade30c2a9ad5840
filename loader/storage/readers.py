"""Readers: functions that read a whole file at a URL, with boto3, the Hub's client or fsspec.

A reader gets the URL of a file and the largest size that the file may have. It does not trust the
server: it reads the answer in blocks and counts their bytes, and it reads only the beginning of an
error message. No reader follows a redirect from https to http. Only the reader for the Hub follows
redirects to another server, because the Hub stores its files on other servers.
"""

import re
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from climbstream.loader.core.errors import IntegrityError, RemoteError, UsageError

from .hub import PLACE, refuse_offline
from .retry import AnswerError, without_secrets
from .s3 import open_client

Reader = Callable[[str, int], bytes]
"""Function of a URL and of the largest size that the file may have, in bytes; it returns the
content of the file."""

_BLOCK = 1 << 20
_REDIRECTS, _MOST_REDIRECTS = (301, 302, 303, 307, 308), 10
_UNPACKED_BY_ITS_NAME = re.compile(r"\.zstd?$")


def reader_for(url: str, seconds: float) -> Reader:
    """Return the reader for files below ``url``; a request may take ``seconds`` at most.

    Raises:
        ImportError: A package that is needed for URLs of this kind is not installed.
        UsageError: URLs of this kind cannot be read.
    """
    scheme = urlsplit(url).scheme
    if scheme == "s3":
        return _s3(seconds)
    if scheme == "hf":
        return _hub(seconds)
    return _http(url, seconds) if scheme in ("http", "https") else _fsspec(url)


def too_large(name: str, size: int | None, most: int) -> IntegrityError:
    """Return the error for a file of more than ``most`` bytes; ``size`` None: it is unknown."""
    has = "more" if size is None else f"{size:,} bytes"
    return IntegrityError(
        f"{without_secrets(name)} has {has}, and such a file has at most {most:,} bytes"
    )


class _Body:
    """The body of an answer, to which blocks are added as they arrive."""

    def __init__(self, url: str, most: int, seconds: float, size: object = "") -> None:
        """Begin an empty body, for which ``most`` bytes and ``seconds`` are allowed.

        ``size`` is the size that the header of the answer states; it may be missing or wrong.

        Raises:
            IntegrityError: The header states more than ``most`` bytes.
        """
        self._url, self._most = url, most
        if re.fullmatch("[0-9]{1,18}", text := str(size)) and int(text) > most:
            raise too_large(url, int(text), most)
        self._end = time.monotonic() + seconds
        self._data = bytearray()

    def add(self, block: bytes) -> None:
        """Add the next block.

        Raises:
            IntegrityError: The body has more than ``most`` bytes.
            TimeoutError: The body did not end within ``seconds``.
        """
        self._data += block
        if len(self._data) > self._most:
            raise too_large(self._url, None, self._most)
        if time.monotonic() > self._end:
            raise TimeoutError("the answer did not end in time")

    def content(self, headers: Mapping[str, str]) -> bytes:
        """Return the content of the file; ``headers`` are those of the answer.

        Raises:
            ValueError: The body is a web page and not the file, or cannot be decompressed.
            IntegrityError: The decompressed content has more than ``most`` bytes.
        """
        data = self._unpack(headers.get("Content-Encoding", "").strip().lower())
        page = headers.get("Content-Type", "").lower().startswith("text/html")
        if page and data.lstrip()[:1] == b"<" and not self._url.endswith(".html"):
            raise ValueError("the answer is a web page, perhaps one to log in, and not the file")
        return data

    def _unpack(self, encoding: str) -> bytes:
        """Return the bytes of the file, decompressed if the server compressed them for sending."""
        if encoding in ("", "identity"):
            return bytes(self._data)
        if encoding == "zstd" and _UNPACKED_BY_ITS_NAME.search(self._url):
            return bytes(self._data)  # the file itself is stored compressed
        if encoding not in ("gzip", "x-gzip"):
            raise ValueError(f"the answer is compressed as {encoding!r}, which was not asked for")
        unpack = zlib.decompressobj(wbits=31)
        data = unpack.decompress(self._data, self._most + 1)
        if len(data) > self._most:
            raise too_large(self._url, None, self._most)
        if not unpack.eof:
            raise ValueError("the answer is compressed as 'gzip', and ends too early")
        return data


def _next_place(
    place: str, status: int, headers: Mapping[str, str], *, elsewhere: bool
) -> str | None:
    """Return the URL to which an answer redirects; None if the answer is the file itself.

    ``elsewhere`` says whether redirects to another server are allowed.

    Raises:
        AnswerError: The answer is neither a file nor a redirect.
        RemoteError: The answer redirects to another server, which is not allowed, or from https to
            http.
    """
    location = headers.get("Location")
    if status == 200:
        return None
    if status not in _REDIRECTS or location is None:
        reason = headers.get("X-Error-Message") or ("" if status >= 400 else "not the whole file")
        raise AnswerError(f"HTTP status {status}" + (reason and f", {reason}"), status, headers)
    target = urljoin(place, location)
    before, after = urlsplit(place), urlsplit(target)
    if before[:2] == after[:2]:
        return target
    downgrade = before.scheme == "https" and after.scheme == "http"
    if not elsewhere or downgrade or after.scheme not in ("http", "https"):
        raise RemoteError(
            f"{without_secrets(place)} leads to another server, {without_secrets(target)}, and was "
            "not followed; name that address if it is the right one"
        )
    return target


def _too_many_redirects(place: str) -> OSError:
    return OSError(f"more than {_MOST_REDIRECTS} redirects, the last to {place}")


def _http(url: str, seconds: float) -> Reader:
    """Return a reader of ``http://`` and ``https://`` URLs."""
    from aiohttp import ClientTimeout  # an extra
    from fsspec.asyn import sync  # imported only for remote files

    files = _file_system(
        url,
        # Ask for the bytes as they are stored, not compressed by the server.
        headers={"Accept-Encoding": "identity"},
        client_kwargs={"timeout": ClientTimeout(total=seconds), "auto_decompress": False},
    )

    async def get(url: str, most: int) -> bytes:
        session, place = await files.set_session(), str(files.encode_url(url))
        for _ in range(1 + _MOST_REDIRECTS):
            asked = session.get(files.encode_url(place), allow_redirects=False, **files.kwargs)
            async with asked as answer:
                if following := _next_place(place, answer.status, answer.headers, elsewhere=False):
                    place = following
                    continue
                body = _Body(url, most, seconds, answer.headers.get("Content-Length"))
                async for block in answer.content.iter_chunked(_BLOCK):
                    body.add(block)
                return body.content(answer.headers)
        raise _too_many_redirects(place)

    return lambda url, most: bytes(sync(files.loop, get, url, most))


def _hub(seconds: float) -> Reader:
    """Return a reader of URLs ``hf://datasets/OWNER/NAME@REVISION/PATH``.

    `HfFileSystem` of the Hub's client is not used, for three reasons: it lists the folder of each
    file first, trusts the size in that list, and does not limit the size of an answer.
    """
    from huggingface_hub import get_session, get_token, hf_hub_url  # an extra

    refuse_offline()

    def get(url: str, most: int) -> bytes:
        repo, revision, path = _hub_file(url)
        place = hf_hub_url(repo, path, repo_type="dataset", revision=revision)
        headers = {"Accept-Encoding": "identity"}
        if token := get_token():
            headers["Authorization"] = f"Bearer {token}"
        for _ in range(1 + _MOST_REDIRECTS):
            with get_session().stream(
                "GET", place, headers=headers, follow_redirects=False, timeout=seconds
            ) as answer:
                following = _next_place(place, answer.status_code, answer.headers, elsewhere=True)
                if following:
                    if urlsplit(following).netloc != urlsplit(place).netloc:
                        headers.pop("Authorization", None)  # the token is sent to the Hub alone
                    place = following
                    continue
                body = _Body(url, most, seconds, answer.headers.get("Content-Length"))
                for block in answer.iter_raw(_BLOCK):
                    body.add(block)
                return body.content(answer.headers)
        raise _too_many_redirects(place)

    return get


def _hub_file(url: str) -> tuple[str, str | None, str]:
    """Return data set, revision and path of the URL of a file on the Hub; no revision is None.

    Raises:
        UsageError: ``url`` is not the URL of a file of a data set.
    """
    if not (match := PLACE.fullmatch(url)) or not match[3]:
        raise UsageError(f"{url} is not a file of a data set; write hf://datasets/OWNER/NAME/PATH")
    return match[1], unquote(match[2]) if match[2] else None, match[3].lstrip("/")


def _s3(seconds: float) -> Reader:
    """Return a reader of URLs ``s3://BUCKET/KEY``; without credentials, only of public buckets."""
    client = open_client(seconds)

    def get(url: str, most: int) -> bytes:
        bucket, _, key = url.removeprefix("s3://").partition("/")
        answer = client.get_object(Bucket=bucket, Key=key)
        with closing(answer["Body"]) as stream:
            if (status := answer["ResponseMetadata"]["HTTPStatusCode"]) != 200:
                raise AnswerError(f"HTTP status {status}, not the whole file", status)
            body = _Body(url, most, seconds, answer.get("ContentLength"))
            while block := stream.read(_BLOCK):
                body.add(block)
        return body.content({"Content-Type": answer.get("ContentType", "")})

    return get


def _fsspec(url: str) -> Reader:
    """Return a reader of other URLs that fsspec knows: ``memory://``, ``gs://`` and so on."""
    files = _file_system(url)

    def get(url: str, most: int) -> bytes:
        with files.open(url) as file:
            if file.size > most:
                raise too_large(url, file.size, most)
            data: bytes = file.read()
            return data

    return get


def _file_system(url: str, **options: Any) -> Any:
    """Return the file system of fsspec for ``url``.

    Raises:
        UsageError: fsspec does not know URLs of this kind.
    """
    import fsspec  # imported only for remote files

    try:
        return fsspec.core.url_to_fs(url, **options)[0]
    except ValueError as error:
        raise UsageError(
            f"{without_secrets(url)} cannot be read: {error}; shards must be in a folder, or under "
            "s3://, hf:// or https://"
        ) from None
