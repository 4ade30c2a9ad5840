"""Retry: the tries and pauses of one request to a remote store, and what its errors say.

The errors may be those of any client: boto3, httpx, aiohttp, or an `AnswerError` of ours.
"""

import random
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from climbstream.loader.core.visible_text import visible

from .contact import FIRST_SECONDS, has_answered, is_unreachable, note_answer

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
_PASSING = (408, 416, 425, 429)
"""HTTP statuses below 500 after which another try may succeed. 416 is about a range of bytes, and
no range is ever asked for: a proxy that has cached another answer sends it."""
_MOST_SAID = 300
_SECRETS = re.compile(r"(?<=://)[^\s/@'\"]+@|\?[^\s'\"]*")
"""Parts of a URL that no message shows: user names, passwords and signatures."""


class AnswerError(OSError):
    """An answer of a server that is not the file that was asked for."""

    def __init__(self, message: str, status: int, headers: Any = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}


class Retry:
    """The tries of one request: each pause is twice the one before, or longer if the server asks.

    Each pause is shortened by a random part, up to half, so that ranks do not return together.
    """

    def __init__(self, seconds: float, place: str) -> None:
        """Begin tries of ``seconds`` in all; ``place`` is the beginning of the URL."""
        self._seconds, self._begin, self._place = seconds, time.monotonic(), place
        self.tries = 0
        """Number of tries that have failed."""

    def succeed(self) -> None:
        """Note that a try has succeeded."""
        note_answer(self._place)

    @property
    def waited(self) -> float:
        """Seconds since the first try began."""
        return time.monotonic() - self._begin

    @property
    def left(self) -> float:
        """Seconds that are left for all tries."""
        return self._seconds - self.waited

    def pause_after(self, error: Exception) -> float | None:
        """Count a try that ended in ``error``; return the seconds until the next, None: no more."""
        self.tries += 1
        if is_unreachable(error):
            if not has_answered(self._place):
                self._seconds = min(self._seconds, FIRST_SECONDS)
        elif not isinstance(error, TimeoutError):
            note_answer(self._place)
        pause = min(FIRST_PAUSE * 2.0 ** (self.tries - 1), LONGEST_PAUSE)
        pause *= random.uniform(0.5, 1)  # noqa: S311 - this is no secret
        pause = max(pause, asked_pause(error))
        return pause if pause < self.left else None


def status_of(error: Exception) -> int | None:
    """Return the HTTP status in an error of boto3, httpx or aiohttp; None if it has none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None) or getattr(error, "status", None)
        if status == 400 and response is None and getattr(error, "headers", None) is None:
            return None  # aiohttp reports so that it could not read an answer.
    return status if isinstance(status, int) else None


def is_refusal(status: int | None) -> bool:
    """Whether another try would end with the same status."""
    return status is not None and 400 <= status < 500 and status not in _PASSING


def asked_pause(error: Exception) -> float:
    """Return the pause, in seconds, that a server asked for; 0 if it asked for none."""
    headers = _headers(error)
    asked = headers.get("retry-after", "").strip()
    if re.fullmatch("[0-9]{1,18}", asked):
        return float(asked)
    if (until := _date(asked)) is None:
        return 0.0
    # Compare with the clock of the server, if the answer has it: ours may differ.
    now = _date(headers.get("date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _headers(error: Exception) -> dict[str, str]:
    """Return the headers of the answer behind ``error``, with their names in lower case."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders")
    else:
        headers = getattr(response, "headers", None) or getattr(error, "headers", None)
    if not isinstance(headers, Mapping):
        return {}
    return {str(name).lower(): str(value) for name, value in headers.items()}


def _date(text: str) -> datetime | None:
    """Read a date in the format of HTTP; None if it is none."""
    try:
        date = parsedate_to_datetime(text)
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def describe(error: Exception) -> str:
    """Return what ``error`` says as one short line without credentials."""
    name = "" if isinstance(error, AnswerError) else f"{type(error).__name__}: "
    text = " ".join(f"{name}{error}".split()).rstrip(": ")
    text = visible(without_secrets(text))
    return text if len(text) <= _MOST_SAID else f"{text[:_MOST_SAID]} …"


def without_secrets(text: str) -> str:
    """Return ``text`` without the credentials in its URLs."""
    return _SECRETS.sub("", text)
