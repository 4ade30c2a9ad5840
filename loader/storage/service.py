"""Service: calls a server, and repeats the call while the server fails temporarily."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from climbstream.loader.core.engines.task_timeout import task_timeout
from climbstream.loader.core.errors import RemoteError
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.waits import wait_for

from .contact import has_answered, is_unreachable
from .retry import Retry, describe

logger = get_logger(__name__)

T = TypeVar("T")
PATIENCE = 300.0
"""Time for which a call that fails is repeated, in seconds."""
_SLOWEST = 100_000.0
"""Lowest speed of a connection, in bytes per second; with a slower one, calls may be given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A server, and how to interpret the errors of its client."""

    name: str
    """Name of the server in messages."""
    place: str
    """The text with which the URLs of the server begin."""
    stumble: Callable[[Exception], Exception | None]
    """Function of an error. It returns the server's error behind this error, or None if the server
    did not cause the error."""
    check_refusal: Callable[[str, Exception, str], None]
    """Function that raises `RemoteError` if the server refused the request for good. Its arguments
    are the request in words, the error, and the error as one line of text."""

    def ask(
        self, what: str, call: Callable[[], T], patience: float = PATIENCE, *, size: int = 0
    ) -> T:
        """Return what ``call`` returns; repeat the call while the server fails temporarily.

        Args:
            what: The request in words, for messages such as "SERVER did not read FILE".
            call: Function that sends the request; it may be called several times.
            patience: Time for which the call is repeated, in seconds.
            size: Number of bytes that the call sends or receives. Each call may take as long as
                `task_timeout`, plus the time that these bytes need at 100 kB/s.

        Raises:
            RemoteError: The server refused, did not answer, or failed for ``patience`` seconds.
        """
        retry = Retry(patience, self.place)
        limit = task_timeout() + size / _SLOWEST
        while True:
            try:
                answer = wait_for(call, f"{self.name} to {what}", limit)
                retry.succeed()
                return answer
            except Exception as error:
                if (stumble := self.stumble(error)) is None:
                    raise
                pause, reason = retry.pause_after(stumble), describe(stumble)
                self.check_refusal(what, stumble, reason)
            if pause is None and is_unreachable(stumble) and not has_answered(self.place):
                raise RemoteError(
                    f"{self.name} cannot be reached: try {retry.tries}, after {retry.waited:.1f} "
                    f"s, ended with {reason}; check the network"
                )
            if pause is None:
                raise RemoteError(
                    f"{self.name} did not {what} in {retry.waited:.1f} s: try {retry.tries} ended "
                    f"with {reason}; run the same command again later"
                )
            logger.warning(f"{what}: {reason}; again in {pause:.1f} s")
            time.sleep(pause)
