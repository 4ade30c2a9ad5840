"""S3 clients of boto3 that do not retry by themselves, and read only the beginning of an error."""

from typing import Any

from climbstream.loader.core.errors import UsageError

_MOST_OF_AN_ERROR = 1 << 16
"""Largest number of bytes that are read of an error message; S3 sends a few hundred."""


def open_client(seconds: float, *, to_write: bool = False) -> Any:
    """Return a client whose calls try once, and wait at most ``seconds`` for a byte.

    Without credentials, requests are not signed, and only public objects can be read.

    Raises:
        ImportError: boto3 is not installed.
        UsageError: The settings of boto3 cannot be used, or ``to_write`` is set and there are no
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
    """Make a client of boto3 read at most `_MOST_OF_AN_ERROR` bytes of the body of an error.

    Without this, boto3 reads the whole body, however long it is.
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
