"""Streams: keep standard output and error open, and writable after their reader has gone."""

import io
import os
import sys
from typing import Any


class _Pipe(io.FileIO):
    """An open file, such as a pipe; after its reader has gone, writes to it are discarded."""

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

    A stream that was closed when the process began is opened to the null device. Otherwise the next
    opened file would get the number of that stream, and our messages would be written to the file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it takes the lowest free number
    for name, number in (("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)
        if before is not None:
            before.flush()
        # With backslashreplace, file names that are not UTF-8 can be written.
        stream = io.TextIOWrapper(
            io.BufferedWriter(_Pipe(number, "w", closefd=False)),
            encoding=getattr(before, "encoding", "utf-8"),
            errors="backslashreplace",
            line_buffering=number == 2 or os.isatty(number),
        )
        setattr(sys, name, stream)
