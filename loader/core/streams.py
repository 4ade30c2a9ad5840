"""Streams: make writing to standard output and standard error safe, even if nobody reads them."""

import io
import os
import sys
from typing import Any


class _Pipe(io.FileIO):
    """An open file, such as a pipe. If the reader of a pipe has ended, writes are discarded."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(memoryview(data).cast("B"))


def keep_streams() -> None:
    """Make writing to standard output and standard error safe.

    If the reader of a stream has ended, as in ``climb … | head``, later writes are discarded and
    raise no error. A standard stream that was closed when the process began is opened to the null
    device. Otherwise the next file that is opened would get the number of that stream, and messages
    would be written into the file.
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
        # With backslashreplace, names of files that are not valid UTF-8 can be written.
        stream = io.TextIOWrapper(
            io.BufferedWriter(_Pipe(number, "w", closefd=False)),
            encoding=getattr(before, "encoding", "utf-8"),
            errors="backslashreplace",
            line_buffering=number == 2 or os.isatty(number),
        )
        setattr(sys, name, stream)
