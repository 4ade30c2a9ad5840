"""Waits: log calls and steps that take over 60 s, and give up a call after a time limit."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Self, TypeVar

from .console import duration
from .engines.task_timeout import Patience
from .errors import RemoteError
from .log import get_logger

logger = get_logger(__name__)

T = TypeVar("T")

_TICK = 1.0
"""Longest time between two checks of whether the time limit has passed, in seconds."""


def wait_for(call: Callable[[], T], what: str, timeout: float) -> T:
    """Return what ``call`` returns; a wait of over 60 s is logged.

    The call runs in a thread of its own, so that signals are handled meanwhile. After a timeout,
    this thread goes on until the process ends.

    Args:
        call: Function to call.
        what: What is waited for, for messages, such as "the Hub to list files".
        timeout: Longest time to wait, in seconds.

    Raises:
        RemoteError: The call did not return in ``timeout`` seconds.
    """
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=run, name="climbstream-wait", daemon=True).start()
    begun, patience = time.monotonic(), Patience()
    while (waited := time.monotonic() - begun) < timeout:
        try:
            value, error = answers.get(timeout=min(_TICK, timeout - waited))
        except queue.Empty:
            if patience.over(time.monotonic() - begun):
                logger.warning(_told(what, time.monotonic() - begun, timeout))
            continue
        if error is not None:
            raise error
        result: T = value
        return result
    raise RemoteError(
        f"waited {duration(timeout)} for {what}; run the same command again to continue where it "
        "stopped, or allow more time with --task-timeout SECONDS"
    )


def _told(what: str, waited: float, timeout: float) -> str:
    return (
        f"waiting for {what}, for {duration(waited)} so far; the wait ends with an error after "
        f"{duration(timeout)} (--task-timeout)"
    )


class SlowStepWatch:
    """Logs each step of a ``with`` block that takes over 60 s.

    A thread watches the steps. It never ends a step, because each wait in a step has a time limit
    of its own.
    """

    def __init__(self, what: str) -> None:
        """Make a watch; ``what`` is a likely cause of a slow step, for messages."""
        self._what = what
        self._step = "the first step"
        self._begun = time.monotonic()
        self._ended = threading.Event()

    def begin(self, step: str) -> None:
        """Note that the step called ``step`` begins now."""
        self._step, self._begun = step, time.monotonic()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="climbstream-watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _watch(self) -> None:
        begun, patience = self._begun, Patience()
        while not self._ended.wait(_TICK):
            if self._begun != begun:
                begun, patience = self._begun, Patience()
            if patience.over(seconds := time.monotonic() - begun):
                logger.warning(
                    f"{self._step} has taken {duration(seconds)} so far; maybe {self._what}"
                )
