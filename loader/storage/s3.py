"""S3: clients of boto3 that try each request once, and functions that interpret their errors."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from climbstream.loader.core.errors import RemoteError, UsageError

from .retry import describe, is_refusal, status_of
from .service import Service

_MOST_OF_AN_ERROR = 1 << 16
"""Largest number of bytes of an error message that are read; S3 sends a few hundred bytes."""
_BUSY = 409
"""HTTP status if another program is writing the object now."""


def open_client(seconds: float, *, to_write: bool = False) -> Any:
    """Return a client of boto3 whose calls try once, and wait ``seconds`` at most for data.

    If there are no credentials, requests are not signed, and only public objects can be read.

    Raises:
        ImportError: boto3 is not installed.
        UsageError: The settings of boto3 cannot be used; or ``to_write`` is set, and there are no
            credentials.
    """
    import boto3  # an extra
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=seconds,
        read_timeout=seconds,
        max_pool_connections=32,
        retries={"total_max_attempts": 1},  # the callers count the tries
    )
    try:
        session = boto3.Session()
        if session.get_credentials() is None:
            if to_write:
                raise UsageError(
                    "there are no credentials to write to S3 with: set AWS_PROFILE, or "
                    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in with `aws configure`"
                )
            config = config.merge(Config(signature_version=UNSIGNED))
        client = session.client("s3", config=config)
    except BotoCoreError as error:
        raise UsageError(f"S3 cannot be used as this machine is set up: {error}") from None
    _bound_errors(client)
    return client


def _bound_errors(client: Any) -> None:
    """Change a client of boto3 so that it reads only the first 64 KiB of an error message.

    Otherwise boto3 would read the whole message, however long it is.
    """
    from botocore.awsrequest import AWSResponse  # an extra

    class Beginning:
        """The first bytes of a body, with the method by which boto3 reads bodies."""

        def __init__(self, raw: Any) -> None:
            self._raw = raw

        def stream(self) -> Any:
            left = _MOST_OF_AN_ERROR
            while left > 0 and (block := self._raw.read(left)):
                left -= len(block)
                yield block
            self._raw.close()

    def send(request: Any, **_: Any) -> Any:
        request.stream_output = True  # else the whole body would be read before this code
        answer = client._endpoint.http_session.send(request)
        if answer.status_code < 300:
            return answer
        return AWSResponse(answer.url, answer.status_code, answer.headers, Beginning(answer.raw))

    client.meta.events.register("before-send.s3", send)


def open_service(bucket: str, needed: str) -> Service:
    """Return the service that repeats requests to ``bucket`` while S3 fails temporarily.

    ``needed`` names the permissions that the requests need, for the message if one is missing.
    """

    def check_refusal(what: str, error: Exception, reason: str) -> None:
        status = status_of(error)
        if code_of(error) == "NoSuchBucket":
            raise RemoteError(
                f"S3 cannot {what}: there is no bucket {bucket}; make it "
                f"(`aws s3 mb s3://{bucket}`), or name another"
            )
        if status in (401, 403):
            raise RemoteError(
                f"S3 refused to {what}: {reason}; use credentials that allow {needed}"
            )
        if status == 501 or (is_refusal(status) and status != _BUSY):
            raise RemoteError(f"S3 refused to {what}: {reason}")

    return Service(name="S3", place=f"s3://{bucket}", stumble=_stumble, check_refusal=check_refusal)


def look_at(client: Any, where: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return S3's description of an object; None if the object does not exist.

    ``where`` has the ``Bucket`` and the ``Key`` of the object.
    """
    try:
        answer: dict[str, Any] = client.head_object(**where)
        return answer
    except Exception as error:
        if status_of(error) == 404:
            return None
        raise


def list_pages(
    client: Any, where: Mapping[str, Any], ask: Callable[[Callable[[], Any]], Any]
) -> Iterator[Any]:
    """Yield the pages of a list of objects, as boto3 returns them.

    ``where`` has the options of `list_objects_v2`, such as ``Bucket`` and ``Prefix``. ``ask`` gets
    a function that sends one request. It calls this function, several times if necessary, and
    returns the page.
    """
    options = dict(where)
    while True:
        page = ask(partial(client.list_objects_v2, **options))
        yield page
        if not page.get("IsTruncated"):
            return
        options["ContinuationToken"] = page["NextContinuationToken"]


def code_of(error: Exception) -> str:
    """Return the code of S3 in ``error``, such as NoSuchBucket; "" if there is none."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _stumble(error: Exception) -> Exception | None:
    """Return ``error`` if S3 or the connection to it has caused it; else None.

    Raises:
        UsageError: The client is not set up correctly; for example, a login has expired.
    """
    from botocore import exceptions as of_client
    from botocore.parsers import ResponseParserError

    of_server: tuple[type[Exception], ...] = (
        of_client.ClientError,
        of_client.ConnectionError,
        of_client.HTTPClientError,
        ResponseParserError,
    )
    if isinstance(error, of_server):
        return error
    if isinstance(error, of_client.BotoCoreError):
        raise UsageError(
            f"S3 cannot be used as this machine is set up: {describe(error)}; check the "
            "credentials and the region of boto3"
        ) from None
    return None
