"""Service: repeats calls to a server while the server fails temporarily."""

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
"""Seconds for which a call that fails is repeated."""
_SLOWEST = 100_000.0
"""Speed of the slowest connection that is waited for, in bytes per second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A server, and how to interpret the errors of its client."""

    name: str
    """Name of the server in messages."""
    place: str
    """Beginning of the URLs of the server."""
    stumble: Callable[[Exception], Exception | None]
    """Takes an error; returns the server's error that caused it, or None if the server did not."""
    check_refusal: Callable[[str, Exception, str], None]
    """Raises `RemoteError` if the server refused, and would refuse another try for the same reason.
    It takes the request in words, the error, and the error as one line of text."""

    def ask(
        self, what: str, call: Callable[[], T], patience: float = PATIENCE, *, size: int = 0
    ) -> T:
        """Return what ``call`` returns; repeat the call while the server fails temporarily.

        Because of the repeats, ``call`` may run several times. Each run may take as long as
        `task_timeout`, plus the time that ``size`` bytes need at 100 kB/s. If a run takes more than
        60 s, a warning is logged. ``what`` completes the message "SERVER did not …".

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
