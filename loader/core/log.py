"""Log: all messages of the library go through `logging`, under the names of its modules.

Settings of the logger ``climbstream`` apply to all messages; settings of ``climbstream.loader``
apply only to the messages of that package. Python shows warnings without any set-up. Messages of
level INFO are shown only if a program asks for them, as the command ``climb`` does with
`show_messages`.
"""

import logging
import os
import sys

from .console import say
from .visible_text import visible

ROOT = "climbstream"
ALL_RANKS = "CLIMBSTREAM_LOG_ALL_RANKS"
"""Environment variable that lets every rank of a job log all messages, not only errors."""


def get_logger(name: str) -> logging.Logger:
    """Return the logger of module ``name``; on ranks other than 0, it shows only errors."""
    logger = logging.getLogger(name)
    logger.addFilter(_filter)
    return logger


def _filter(record: logging.LogRecord) -> bool:
    """Return whether a message is logged: all are on rank 0, and errors on every rank.

    Characters that steer a terminal are escaped in the message.
    """
    if record.levelno < logging.ERROR and not speaks():
        return False
    record.msg, record.args = visible(record.getMessage()), None
    return True


def speaks() -> bool:
    """Whether this process logs messages that are equal on all ranks.

    Rank 0 does; other ranks do only if all ranks were asked to log.
    """
    return _rank() == 0 or bool(os.environ.get(ALL_RANKS))


def _rank() -> int:
    """Return the rank of this process in its distributed job; 0 if there is no such job."""
    if (distributed := sys.modules.get("torch.distributed")) is not None and (
        distributed.is_available() and distributed.is_initialized()
    ):
        return int(distributed.get_rank())
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdecimal() else 0


class _Messages(logging.Handler):
    """Writes messages to stderr, one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


class _Foreign(logging.Handler):
    """Writes warnings of other libraries to stderr, one line each, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] != ROOT:
            say(f"{record.name}: {' '.join(record.getMessage().split())}")


_messages, _foreign = _Messages(), _Foreign(logging.WARNING)


def show_messages() -> None:
    """Write the library's messages to stderr, from level INFO on; a second call changes nothing."""
    logger = logging.getLogger(ROOT)
    logger.setLevel(logging.INFO)
    logger.addHandler(_messages)


def show_warnings_of_others() -> None:
    """Write warnings of other libraries to stderr, one line each; a second call changes nothing."""
    logging.getLogger().addHandler(_foreign)
