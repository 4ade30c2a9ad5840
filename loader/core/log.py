"""Log: what the library says goes through `logging`, under the names of its modules.

``logging.getLogger("climbstream")`` silences or routes all of it, ``climbstream.loader`` a part.
Warnings are seen without any set-up, as Python shows them; what merely informs is seen where
somebody asks for it, as the command ``climb`` does by `show_messages`.
"""

import logging
import os
import sys

from .console import say
from .visible_text import visible

ROOT = "climbstream"
ALL_RANKS = "CLIMBSTREAM_LOG_ALL_RANKS"
"""Variable of the environment that lets every rank of a job speak, and not the first alone."""


def get_logger(name: str) -> logging.Logger:
    """Return the logger of module ``name``: on one rank of a job, and harmless to a terminal."""
    logger = logging.getLogger(name)
    logger.addFilter(_filter)
    return logger


def _filter(record: logging.LogRecord) -> bool:
    """Keep messages of rank 0, and errors of all; escape characters that would steer a terminal."""
    if record.levelno < logging.ERROR and _rank() != 0 and not os.environ.get(ALL_RANKS):
        return False
    record.msg, record.args = visible(record.getMessage()), None
    return True


def _rank() -> int:
    """Return the rank of this process in its job; 0 without a job."""
    if (distributed := sys.modules.get("torch.distributed")) is not None and (
        distributed.is_available() and distributed.is_initialized()
    ):
        return int(distributed.get_rank())
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdecimal() else 0


class _Messages(logging.Handler):
    """Writes messages to stderr, a line each, as they are."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


class _Foreign(logging.Handler):
    """Writes warnings of other libraries to stderr, one line each: what led to them is theirs."""

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
    """Write warnings of other libraries to stderr, without tracebacks; twice is as once."""
    logging.getLogger().addHandler(_foreign)
