"""Signals that ask a command to stop: SIGINT, which is Ctrl-C, and SIGTERM.

The first signal unwinds the command, so that workers end and no half-written file is left. A second
signal ends the process at once. Either way, finished files stay whole.
"""

import os
import signal
import sys
import time
from types import FrameType
from typing import Any, Self

from .log import speaks

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAME = 2.0
"""Seconds within which a second signal counts as a repeat of the first. Repeats occur because a
terminal sends Ctrl-C to all processes, and torchrun then sends its processes the signal again."""
AGAIN = "stopped; run the same command again to go on"


class _First:
    """The first signal of this process; a later signal is a repeat of it, or ends the process."""

    def __init__(self) -> None:
        self._at: float | None = None

    def forget(self) -> None:
        """Forget the first signal, so that the next one counts as the first."""
        self._at = None

    def repeats(self, number: int) -> bool:
        """Whether signal ``number`` is a repeat of the first signal.

        A signal over 2 s after the first is no repeat: it ends the process here.
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
    """A signal asked this process to stop; the message says how to continue."""

    def __init__(self, number: int, message: str = AGAIN) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


def unwind_on_signals() -> None:
    """Set handlers by which the first signal raises `Stopped` in the main thread."""
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
    """Whether the code of ``frame`` is running because of an import."""
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
    """Notes a signal during its ``with`` block, so that the work can stop at a suitable point.

    A second signal ends the process at once. Only the main thread can note signals; in another
    thread the block has no effect.
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
