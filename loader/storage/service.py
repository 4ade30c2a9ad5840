"""Service: a server whose client's calls are repeated while it fails for a moment."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from climbstream.loader.core.engines.task_timeout import task_timeout
from climbstream.loader.core.errors import RemoteError
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.waits import wait_for

from .retry import Retry, describe

logger = get_logger(__name__)

T = TypeVar("T")
PATIENCE = 300.0
"""Seconds for which a call is tried again."""
_SLOWEST = 100_000.0
"""Slowest connection that is waited for, in bytes a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A server, and what the errors of its client mean."""

    name: str
    """Its name in messages."""
    place: str
    """Beginning of its URLs."""
    stumble: Callable[[Exception], Exception | None]
    """Returns the error of the server behind an error; None if the server did not cause it."""
    check_refusal: Callable[[str, Exception, str], None]
    """Raises `RemoteError` if another try would be refused as well. It takes what was asked, the
    error, and the error as one line."""

    def ask(
        self, what: str, call: Callable[[], T], patience: float = PATIENCE, *, size: int = 0
    ) -> T:
        """Return what ``call`` returns, and repeat it when the server fails for a moment.

        So ``call`` may run twice. It may take the `task_timeout`, and beside that the time that
        ``size`` bytes need at 100 kB/s; a warning tells of a call that takes more than 60 s.

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
            if pause is None:
                raise RemoteError(
                    f"{self.name} did not {what} in {retry.waited:.1f} s: try {retry.tries} ended "
                    f"with {reason}; run the same command again later; it continues where it "
                    "stopped"
                )
            logger.warning(f"{what}: {reason}; again in {pause:.1f} s")
            time.sleep(pause)
