"""Log: all messages of the library go through Python's `logging`, under the names of its modules.

So a program can set the level of the logger ``climbstream`` for all messages, or of
``climbstream.loader`` for messages of this package. Python itself shows warnings. Messages of level
INFO are shown only if a program asks for them; the command ``climb`` does so with `show_messages`.
"""

import logging
import os
import sys

from .console import say
from .visible_text import visible

ROOT = "climbstream"
ALL_RANKS = "CLIMBSTREAM_LOG_ALL_RANKS"
"""Environment variable that, if set, lets all ranks of a job log all messages, not only errors."""


def get_logger(name: str) -> logging.Logger:
    """Return the logger of module ``name``, which logs only errors on ranks other than 0."""
    logger = logging.getLogger(name)
    logger.addFilter(_filter)
    return logger


def _filter(record: logging.LogRecord) -> bool:
    """Whether a message is logged: rank 0 logs all messages, and every rank logs errors.

    Characters in the message that control a terminal are replaced by escapes.
    """
    if record.levelno < logging.ERROR and not speaks():
        return False
    record.msg, record.args = visible(record.getMessage()), None
    return True


def speaks() -> bool:
    """Whether this process should log messages that would be the same on all ranks.

    Rank 0 should; other ranks only if the variable `ALL_RANKS` is set.
    """
    return _rank() == 0 or bool(os.environ.get(ALL_RANKS))


def _rank() -> int:
    """Return the rank of this process in a distributed job; 0 if it is in no such job."""
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
    """Let messages of this library of level INFO or above appear on stderr.

    A second call changes nothing.
    """
    logger = logging.getLogger(ROOT)
    logger.setLevel(logging.INFO)
    logger.addHandler(_messages)


def show_warnings_of_others() -> None:
    """Let warnings of other libraries appear on stderr, one line each.

    A second call changes nothing.
    """
    logging.getLogger().addHandler(_foreign)
