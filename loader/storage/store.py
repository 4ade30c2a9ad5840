"""Store: where a shard directory lies, a folder or a URL, and how bytes are read from there.

``s3://`` is read by boto3, every other URL (``hf://``, ``https://``, ``memory://`` and so on) by
fsspec. A remote read has a deadline for each try and one for all of them together; between tries it
waits, twice as long each time, and by chance a bit less, so that ranks do not come back in step.
"""

import errno
import itertools
import os
import random
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

from climbstream.loader.core.console import say
from climbstream.loader.core.errors import IntegrityError, RemoteError, UsageError
from climbstream.loader.core.files import check_regular, naming, open_regular

from .retry import is_refusal, pause_after, status_of

TRY_SECONDS = 60.0
"""A shard of 8 MB, compressed, comes within this at 140 kB/s."""
ALL_SECONDS = 240.0
"""Less than a cache's patience, so that what ends a wait is the reason for it."""

MOST_BYTES = 1 << 30
"""Of a file of which nothing else is known."""

_REDIRECTS, _MOST_REDIRECTS = (301, 302, 303, 307, 308), 10

_EXTRAS = {"s3": "s3", "hf": "hub", "http": "http", "https": "http"}
_SECRETS = re.compile(r"(?<=://)[^\s/@'\"]+@|\?[^\s'\"]*")
"""What a URL may hold that is nobody's business: who reads it, and signatures."""


@dataclass(frozen=True, slots=True)
class Store:
    """A folder to read from, on this machine or remote; ``store / "clusters"`` is one below it."""

    name: str
    """What messages call it: the path or URL, without credentials."""
    _place: str
    _get: "Callable[[str, int], bytes] | None"
    """Reads a remote object of at most so many bytes; None: the folder is local."""
    _try_seconds: float
    _all_seconds: float
    _root: str | None = None
    """A local folder below which no link is followed; None: links are."""

    @classmethod
    def of(
        cls,
        place: "str | Path | Store",
        *,
        try_seconds: float = TRY_SECONDS,
        all_seconds: float = ALL_SECONDS,
    ) -> "Store":
        """Make the store of a path or URL; a store is returned as it is.

        Args:
            place: A folder of this machine, or a URL.
            try_seconds: How long one try to read a remote object may take.
            all_seconds: How long all tries to read it may take, with the pauses between them.

        Raises:
            UsageError: The URL is of a kind that cannot be read, or not without another package.
        """
        if isinstance(place, Store):
            return place
        text = os.fspath(place)
        scheme, mark, rest = text.partition("://")
        if isinstance(place, Path) or not mark or scheme == "file":
            path = str(Path(rest if scheme == "file" else text))
            return cls(path, path, None, try_seconds, all_seconds)
        if "?" in text:
            raise UsageError(
                f"{_public(text)} was given with a query; name the folder alone, and give "
                "credentials as the store's own client expects them"
            )
        text = text.rstrip("/")
        if scheme == "hf" and not rest.startswith("datasets/"):
            text = f"hf://datasets/{rest.rstrip('/')}"  # shards are no model, as it would be else
        try:
            get = _s3(try_seconds) if scheme == "s3" else _fsspec(text, try_seconds)
        except ImportError as error:
            extra = _EXTRAS.get(scheme)
            remedy = f"pip install 'climbstream[{extra}]'" if extra else "install what it names"
            raise UsageError(f"{scheme}:// cannot be read: {error}; {remedy}") from None
        return cls(_public(text), text, get, try_seconds, all_seconds)

    def __truediv__(self, part: str) -> Self:
        return replace(self, name=f"{self.name}/{part}", _place=f"{self._place}/{part}")

    @property
    def folder(self) -> Path | None:
        """The folder, if it is on this machine."""
        return Path(self._place) if self._get is None else None

    def without_links(self) -> Self:
        """Return the store, as one that refuses to read below it what a link leads to."""
        return self if self._get else replace(self, _root=self._place)

    def __str__(self) -> str:
        return self.name

    def read(self, name: str, most: int = MOST_BYTES) -> bytes:
        """Return the content of file ``name``, which has at most ``most`` bytes.

        Raises:
            FileNotFoundError: There is no such file; a store is not asked twice.
            IntegrityError: It is larger; no more than that is read.
            InvalidDataError: It is a folder, a pipe or a device; or a link leads to it, in a store
                `without_links`.
            RemoteError: The store did not give it, within the deadlines or for good.
        """
        file = self / name
        if self._get is None:
            if self._root is not None:
                check_regular(Path(file._place), Path(self._root))
            with naming(Path(file._place)), open_regular(Path(file._place)) as local:
                size = os.fstat(local.fileno()).st_size
                # It may grow while it is read, and some files of the system say 0.
                data = local.read(most + 1) if size <= most else b""
            if max(size, len(data)) > most:
                raise _too_large(file.name, max(size, len(data)), most)
            return data
        get, place = self._get, file._place
        begin = time.monotonic()
        for tries in itertools.count(1):
            left = begin + self._all_seconds - time.monotonic()
            try:
                return _within(min(self._try_seconds, left), lambda: get(place, most))
            except (IntegrityError, RemoteError):
                raise
            except Exception as error:
                trouble, status = error, status_of(error)
            if isinstance(trouble, FileNotFoundError) or status in (404, 410):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file.name)
            said = _public(f"{type(trouble).__name__}: {trouble}")
            waited = time.monotonic() - begin
            if is_refusal(status):
                raise RemoteError(
                    f"{file} was refused at try {tries}, after {waited:.1f} s: {said}; "
                    "check the address, and that your credentials may read it"
                )
            part = random.uniform(0.5, 1)  # noqa: S311 - this is no secret
            pause = pause_after(tries, trouble, part)
            if waited + pause >= self._all_seconds:
                raise RemoteError(
                    f"{file} could not be read in {waited:.1f} s: try {tries}, the last, ended "
                    f"with {said}; see that the store can be reached, then start again"
                )
            if tries >= 3:
                say(f"{file}: try {tries} ended with {said}; the next is in {pause:.1f} s")
            time.sleep(pause)
        raise AssertionError("the loop ends by return or error")


def _too_large(name: str, size: int | None, most: int) -> IntegrityError:
    has = "more" if size is None else f"{size:,} bytes"
    return IntegrityError(f"{_public(name)} has {has}, and such a file has at most {most:,} bytes")


def _within(seconds: float, function: Callable[[], bytes]) -> bytes:
    """Call ``function``; raise TimeoutError after ``seconds``, and leave it to itself then.

    No client keeps a deadline for a whole request in every case, so it runs in a thread.
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


def _s3(seconds: float) -> Callable[[str, int], bytes]:
    """Make a reader of ``s3://BUCKET/KEY``; without credentials, of public buckets."""
    import boto3  # noqa: PLC0415 - an extra
    from botocore import UNSIGNED  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    config = Config(
        connect_timeout=seconds,
        read_timeout=seconds,
        max_pool_connections=32,
        retries={"total_max_attempts": 1},  # the tries are counted here
    )
    try:
        session = boto3.Session()
        if session.get_credentials() is None:
            config = config.merge(Config(signature_version=UNSIGNED))
        client = session.client("s3", config=config)
    except BotoCoreError as error:
        raise UsageError(f"S3 cannot be used as this machine is set up: {error}") from None

    def get(url: str, most: int) -> bytes:
        bucket, _, key = url.removeprefix("s3://").partition("/")
        answer = client.get_object(Bucket=bucket, Key=key)
        if answer["ContentLength"] > most:
            answer["Body"].close()
            raise _too_large(url, answer["ContentLength"], most)
        data: bytes = answer["Body"].read()
        return data

    return get


def _fsspec(url: str, seconds: float) -> Callable[[str, int], bytes]:
    """Make a reader of what lies under ``url``."""
    import fsspec  # noqa: PLC0415 - only what is remote needs it

    options: dict[str, Any] = {}
    if url.startswith("http"):
        from aiohttp import ClientTimeout  # noqa: PLC0415 - an extra

        # Bytes as they are stored, not as a server may pack them for the way.
        options["headers"] = {"Accept-Encoding": "identity"}
        options["client_kwargs"] = {"timeout": ClientTimeout(total=seconds)}
    try:
        files = fsspec.core.url_to_fs(url, **options)[0]
    except ValueError as error:
        raise UsageError(
            f"{_public(url)} cannot be read: {error}; "
            "shards lie in a folder, or under s3://, hf:// or https://"
        ) from None

    def get(url: str, most: int) -> bytes:
        with files.open(url) as file:
            if file.size > most:
                raise _too_large(url, file.size, most)
            data: bytes = file.read()
            return data

    async def get_http(url: str, most: int) -> bytes:
        # What a server says of a size may be missing or a lie.
        session, place = await files.set_session(), files.encode_url(url)
        for _ in range(1 + _MOST_REDIRECTS):
            async with session.get(place, allow_redirects=False, **files.kwargs) as answer:
                if answer.status in _REDIRECTS and "Location" in answer.headers:
                    place = _follow(str(place), answer.headers["Location"])
                    continue
                answer.raise_for_status()
                if answer.status != 200:
                    raise OSError(
                        f"the whole file was asked for, and the answer is {answer.status}"
                    )
                data = bytearray()
                async for block in answer.content.iter_chunked(1 << 20):
                    data += block
                    if len(data) > most:
                        raise _too_large(url, None, most)
                return bytes(data)
        raise OSError(f"more than {_MOST_REDIRECTS} redirects, the last to {place}")

    if url.startswith("http"):
        return lambda url, most: fsspec.asyn.sync(files.loop, get_http, url, most)
    return get


def _follow(place: str, location: str) -> str:
    """Return the place that a redirect leads to.

    Raises:
        RemoteError: It leads to another server: the address that was named is the one to trust.
    """
    led = urljoin(place, location)
    if urlsplit(led)[:2] != urlsplit(place)[:2]:
        raise RemoteError(
            f"{_public(place)} leads to another server, {_public(led)}, and was not followed; "
            "name that address if it is the right one"
        )
    return led


def _public(text: str) -> str:
    """Return ``text`` without the credentials in its URLs."""
    return _SECRETS.sub("", text)
