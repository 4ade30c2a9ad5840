"""First contact: tries at a server end soon if it has never answered, and go on longer if it has.

Before the first answer, a name that does not resolve or a refused connection most often means a
wrong address or no network. Nobody should wait minutes for that. After the first answer, the same
error most often means that the server restarts, and waiting helps.
"""

import errno
import os
import re
import socket

FIRST_SECONDS = 3.0
"""Seconds for all tries at a place that has never answered."""
_ANSWERED = "CLIMBSTREAM_ANSWERED"
"""Environment variable with the places that have answered; later processes inherit it."""
_NUMBERS = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH)
_TEXT = re.compile(rf"\[Errno ({'|'.join(map(str, _NUMBERS))})\]")
"""Finds the error number in the text of an error that joins several errors, one per address."""


def note_answer(place: str) -> None:
    """Note that ``place``, the beginning of a URL, has answered; an error is an answer as well."""
    if not has_answered(place):
        os.environ[_ANSWERED] = " ".join([*os.environ.get(_ANSWERED, "").split(), place])


def has_answered(place: str) -> bool:
    """Whether ``place`` has answered this process, or its parent before this process started."""
    return place in os.environ.get(_ANSWERED, "").split()


def is_unreachable(error: BaseException | None) -> bool:
    """Whether ``error``, of any client, means that a server cannot be reached.

    A server cannot be reached if the cause is a name that does not resolve, a refused connection,
    or a missing route.
    """
    while error is not None:
        if isinstance(error, socket.gaierror):
            return True
        if isinstance(error, OSError) and (error.errno in _NUMBERS or _TEXT.search(str(error))):
            return True
        error = error.__cause__ or error.__context__
    return False
