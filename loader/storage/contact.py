"""Contact: whether a server has ever answered, which decides how long requests are repeated.

Some errors mean that a server cannot be reached, such as a refused connection. If the server has
never answered, the cause is most often a wrong address or no network, so tries end after 3 s. If
the server has answered before, it is most often restarting, so tries go on for longer.
"""

import errno
import os
import re
import socket

FIRST_SECONDS = 3.0
"""Time for all tries at a server that has never answered, in seconds."""
_ANSWERED = "CLIMBSTREAM_ANSWERED"
"""Environment variable that lists the servers that have answered; child processes inherit it."""
_NUMBERS = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH)
_TEXT = re.compile(rf"\[Errno ({'|'.join(map(str, _NUMBERS))})\]")
"""Finds the number of an error in a text. If a host has several addresses, a client joins the
errors of all addresses into one text."""


def note_answer(place: str) -> None:
    """Note that the server at ``place``, the beginning of a URL, has answered.

    An error that the server itself sent is also an answer.
    """
    if not has_answered(place):
        os.environ[_ANSWERED] = " ".join([*os.environ.get(_ANSWERED, "").split(), place])


def has_answered(place: str) -> bool:
    """Whether the server at ``place`` has answered.

    Answers to this process count, and answers to its parent before this process was started.
    """
    return place in os.environ.get(_ANSWERED, "").split()


def is_unreachable(error: BaseException | None) -> bool:
    """Whether ``error`` means that a server cannot be reached.

    Examples are a host name that does not resolve, a refused connection, and a missing route.
    The error may come from any client, and may be the cause or context of another error.
    """
    while error is not None:
        if isinstance(error, socket.gaierror):
            return True
        if isinstance(error, OSError) and (error.errno in _NUMBERS or _TEXT.search(str(error))):
            return True
        error = error.__cause__ or error.__context__
    return False
