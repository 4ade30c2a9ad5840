"""Signals: what a command does on SIGINT (Ctrl-C) and SIGTERM, which ask it to stop.

The first signal raises an exception, so that worker processes are ended and half-written files are
removed. A second signal ends the process at once. In both cases, finished files stay whole.
"""

import os
import signal
import sys
import time
from functools import partial
from types import FrameType
from typing import Any, Self

from .log import speaks

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAME = 2.0
"""Time after the first signal, in seconds, within which another signal counts as the same one. One
Ctrl-C can cause several signals: a terminal sends it to all processes, and torchrun then sends its
processes a signal again."""
AGAIN = "stopped; run the same command again to continue"
DRY = "stopped; a dry run saves nothing, so it begins from the start if you run it again"


class _First:
    """Remembers the first signal of this process, to tell later signals from it."""

    def __init__(self) -> None:
        self._at: float | None = None
        self.raised: Stopped | None = None
        """The exception that was raised for the first signal."""

    def forget(self) -> None:
        """Forget the first signal, so that the next one counts as the first."""
        self._at = self.raised = None

    def repeats(self, number: int) -> bool:
        """Whether signal ``number`` is the same as the first signal, and was only sent again.

        A signal more than 2 s after the first ends the process here.
        """
        now = time.monotonic()
        if self._at is None:
            self._at = now
            return False
        if now - self._at > _SAME:
            os._exit(128 + number)
        return True


_first = _First()


class Stopped(BaseException):
    """The exception for a signal that asks this process to stop; its message says how to go on."""

    def __init__(self, number: int, message: str = AGAIN) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


def unwind_on_signals(message: str = AGAIN) -> None:
    """Set handlers of signals, so that the first signal raises `Stopped` in the main thread.

    ``message`` is the message of the exception.
    """
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, partial(_unwind, message))
    sys.unraisablehook = _exit_unraisable


def raised_stop() -> Stopped | None:
    """Return the `Stopped` that the first signal raised; None if no signal has raised one.

    Code of other libraries may turn the exception into another one: NumPy raises `TypeError` if a
    signal comes while it compares structured arrays.
    """
    return _first.raised


def _unwind(message: str, number: int, frame: FrameType | None) -> None:
    if _first.repeats(number):
        return
    stopped = Stopped(number, message)
    if _imports(frame):
        # Code that runs during an import may catch the exception, or turn it into another one.
        _exit(stopped)
    _first.raised = stopped
    raise stopped


def _imports(frame: FrameType | None) -> bool:
    """Whether the code of ``frame`` is running because of an import."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _exit_unraisable(unraisable: Any) -> None:
    """End the process if `Stopped` was raised where Python cannot raise, such as in ``__del__``."""
    if isinstance(unraisable.exc_value, Stopped):
        _exit(unraisable.exc_value)
    sys.__unraisablehook__(unraisable)


def _exit(stopped: Stopped) -> None:
    os.write(2, f"\n{stopped}\n".encode())
    os._exit(stopped.exit_code)


class StopRequest:
    """Notes a signal that comes during a ``with`` block, so that the work can choose where to stop.

    A second signal ends the process at once. Only the main thread can get signals, so the block has
    no effect in another thread.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """Number of the signal that was received; None: no signal was received."""
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
            if speaks():
                os.write(2, b"\nstopping after this step; a second signal ends at once\n")
