"""Signals that ask a command to stop: SIGINT, which is Ctrl-C, and SIGTERM.

The first one unwinds the command, so that workers end and nothing half-written stays; the second
ends the process at once. Both leave what was done whole, as a kill does.
"""

import os
import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAME = 2.0
"""Seconds in which a second signal is the first one again: torchrun passes on what a terminal has
sent to all of its processes."""
AGAIN = "stopped; run the same command again to go on"


class _First:
    """The first signal of this process; what comes later is the same one again, or ends it."""

    def __init__(self) -> None:
        self._at: float | None = None

    def forget(self) -> None:
        """Wait for a first signal again."""
        self._at = None

    def repeats(self, number: int) -> bool:
        """Whether signal ``number`` is the first again; a second one ends the process here."""
        now = time.monotonic()
        if self._at is None:
            self._at = now
            return False
        if now - self._at > _SAME:
            os._exit(128 + number)
        return True


_first = _First()


class Stopped(BaseException):
    """A signal asked this process to stop; the message says where the work goes on."""

    def __init__(self, number: int, message: str = AGAIN) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


def unwind_on_signals() -> None:
    """Make the first signal raise `Stopped`, for the command of this process."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _unwind)
    sys.unraisablehook = _exit_unraisable


def _unwind(number: int, frame: FrameType | None) -> None:
    if _first.repeats(number):
        return
    stopped = Stopped(number)
    if _imports(frame):
        # Code that is imported half may swallow an exception, or make another of it.
        _exit(stopped)
    raise stopped


def _imports(frame: FrameType | None) -> bool:
    """Whether ``frame`` runs within an import."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _exit_unraisable(unraisable: Any) -> None:
    """End the process if the signal came where nothing can be raised, as in ``__del__``."""
    if isinstance(unraisable.exc_value, Stopped):
        _exit(unraisable.exc_value)
    sys.__unraisablehook__(unraisable)


def _exit(stopped: Stopped) -> None:
    os.write(2, f"\n{stopped}\n".encode())
    os._exit(stopped.exit_code)


class StopRequest:
    """In its ``with`` block a signal is remembered alone: the work stops where it is whole.

    A second signal ends the process at once. Outside of a main thread there are no signals.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """Of the signal that was received."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        _first.forget()
        for number in SIGNALS:
            try:
                self._before[number] = signal.signal(number, self._receive)
            except ValueError:
                break
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if not _first.repeats(number):
            self.number = number
            os.write(2, b"\nstopping after this step; a second signal ends at once\n")
