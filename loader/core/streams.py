"""Streams: standard output and error are always open, and end no work when nobody reads them."""

import io
import os
import sys
from typing import Any


class _Pipe(io.FileIO):
    """An open file; once nobody reads it, what is written to it goes nowhere."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(memoryview(data).cast("B"))


def keep_streams() -> None:
    """Make writes to the standard streams of this process safe after their reader has gone.

    One that was closed when the process began is opened to nowhere, lest the next file that is
    opened gets its number, and our messages.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name, number in (("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)
        if before is not None:
            before.flush()
        # A file name need not be UTF-8, and is written all the same.
        stream = io.TextIOWrapper(
            io.BufferedWriter(_Pipe(number, "w", closefd=False)),
            encoding=getattr(before, "encoding", "utf-8"),
            errors="backslashreplace",
            line_buffering=number == 2 or os.isatty(number),
        )
        setattr(sys, name, stream)
