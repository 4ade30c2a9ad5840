"""Signals that ask a command to stop: SIGINT, which is Ctrl-C, and SIGTERM.

The first signal unwinds the command, so that workers end and no half-written file is left. The
second ends the process at once. Finished files stay whole in both cases, as after a kill.
"""

import os
import signal
import sys
import time
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAME = 2.0
"""Seconds in which a second signal counts as the first again: a terminal sends Ctrl-C to all
processes, and torchrun passes it on to them."""
AGAIN = "stopped; run the same command again to go on"


class _First:
    """The first signal of this process: a later one repeats it, or ends the process."""

    def __init__(self) -> None:
        self._at: float | None = None

    def forget(self) -> None:
        """Wait for a first signal again."""
        self._at = None

    def repeats(self, number: int) -> bool:
        """Whether signal ``number`` repeats the first; a second signal ends the process here."""
        now = time.monotonic()
        if self._at is None:
            self._at = now
            return False
        if now - self._at > _SAME:
            os._exit(128 + number)
        return True


_first = _First()


class Stopped(BaseException):
    """A signal asked this process to stop; the message says how to continue."""

    def __init__(self, number: int, message: str = AGAIN) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


def unwind_on_signals() -> None:
    """Make the first signal raise `Stopped`, in the main thread of a command."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _unwind)
    sys.unraisablehook = _exit_unraisable


def _unwind(number: int, frame: FrameType | None) -> None:
    if _first.repeats(number):
        return
    stopped = Stopped(number)
    if _imports(frame):
        # Code that is half imported may swallow an exception, or turn it into another.
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
    """Only notes a signal in its ``with`` block: the work itself stops at the next good point.

    A second signal ends the process at once. Threads other than the main one get no signals.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """Number of the signal that was received."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        _first.forget()
        for number in SIGNALS:
            try:
                self._before[number] = signal.signal(number, self._receive)
            except ValueError:
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if not _first.repeats(number):
            self.number = number
            os.write(2, b"\nstopping after this step; a second signal ends at once\n")
