"""First contact: a place that cannot be reached at all is given up soon, unless it once answered.

A name that does not resolve or a connection that is refused is most often a wrong address or a
machine without network, for which nobody should wait minutes. In the middle of a run it is a server
that starts anew, for which to wait is right.
"""

import errno
import os
import re
import socket

FIRST_SECONDS = 3.0
"""Seconds for all tries to reach a place that has never answered."""
_ANSWERED = "CLIMBSTREAM_ANSWERED"
"""Environment variable with the places that have answered, for the processes that start later."""
_NUMBERS = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH)
_TEXT = re.compile(rf"\[Errno ({'|'.join(map(str, _NUMBERS))})\]")
"""In an error that stands for several, as of all addresses of a name."""


def note_answer(place: str) -> None:
    """Note that ``place``, beginning of a URL, has answered, be it with an error."""
    if not has_answered(place):
        os.environ[_ANSWERED] = " ".join([*os.environ.get(_ANSWERED, "").split(), place])


def has_answered(place: str) -> bool:
    """Whether ``place`` has answered this process or one that started it."""
    return place in os.environ.get(_ANSWERED, "").split()


def is_unreachable(error: BaseException | None) -> bool:
    """Whether ``error``, of any client, comes of a name that does not resolve or a refusal."""
    while error is not None:
        if isinstance(error, socket.gaierror):
            return True
        if isinstance(error, OSError) and (error.errno in _NUMBERS or _TEXT.search(str(error))):
            return True
        error = error.__cause__ or error.__context__
    return False
