"""Retry: counts the tries of a request to a remote store, and says how long to pause between them.

The functions in this module say what the errors of a request mean. An error may be one of boto3,
httpx or aiohttp, or an `AnswerError` of our own.
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
"""First pause between two tries and largest pause, in seconds."""
_PASSING = (408, 416, 425, 429)
"""HTTP statuses below 500 after which another try may succeed. Status 416 says that a range of
bytes is impossible. A request for a whole file has no range, so in that case the status comes from
a proxy that has cached the answer to another request."""
_MOST_SAID = 300
_JITTER = random.Random()  # noqa: S311 - this is no secret
"""The source of random pauses. It is not the module's own source, because a program may have seeded
that one, and a retry must not change the numbers that the program draws from it."""
_SECRETS = re.compile(r"(?<=://)[^\s/@'\"]+@|\?[^\s'\"]*")
"""Parts of a URL that must not be shown in messages: user names, passwords and signatures."""


class AnswerError(OSError):
    """The error if a server answers, but does not send the file that was asked for."""

    def __init__(self, message: str, status: int, headers: Any = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}


class Retry:
    """Counts the tries of one request, and says how long to pause before the next try.

    The first pause is 0.5 s, and each later one is twice the one before, up to 30 s. Each pause is
    then shortened at random, to no less than half, so that ranks do not all try again at the same
    time. If the server asks for a longer pause, the pause is as long as the server asks.
    """

    def __init__(self, seconds: float, place: str) -> None:
        """Begin to count the time; all tries together may take ``seconds``.

        ``place`` is the scheme and host of the URL.
        """
        self._seconds, self._begin, self._place = seconds, time.monotonic(), place
        self.tries = 0
        """Number of tries that have failed."""

    def succeed(self) -> None:
        """Note that a try has succeeded, so the server has answered."""
        note_answer(self._place)

    @property
    def waited(self) -> float:
        """Seconds since the first try began."""
        return time.monotonic() - self._begin

    @property
    def left(self) -> float:
        """Seconds that are left of the time for all tries."""
        return self._seconds - self.waited

    def pause_after(self, error: Exception) -> float | None:
        """Count a try that ended with ``error``; return the pause before the next try, in seconds.

        None: there should be no next try, because too little time is left.
        """
        self.tries += 1
        if is_unreachable(error):
            if not has_answered(self._place):
                self._seconds = min(self._seconds, FIRST_SECONDS)
        elif not isinstance(error, TimeoutError):
            note_answer(self._place)
        pause = min(FIRST_PAUSE * 2.0 ** (self.tries - 1), LONGEST_PAUSE)
        pause *= _JITTER.uniform(0.5, 1)
        pause = max(pause, asked_pause(error))
        return pause if pause < self.left else None


def status_of(error: Exception) -> int | None:
    """Return the HTTP status in an error of boto3, httpx or aiohttp; None if there is no status."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None) or getattr(error, "status", None)
        if status == 400 and response is None and getattr(error, "headers", None) is None:
            return None  # aiohttp uses status 400 if it could not read an answer.
    return status if isinstance(status, int) else None


def is_refusal(status: int | None) -> bool:
    """Whether ``status`` is an HTTP error below 500 after which another try would not help."""
    return status is not None and 400 <= status < 500 and status not in _PASSING


def asked_pause(error: Exception) -> float:
    """Return the pause that the server asked for, in seconds; 0 if it asked for none."""
    headers = _headers(error)
    asked = headers.get("retry-after", "").strip()
    if re.fullmatch("[0-9]{1,18}", asked):
        return float(asked)
    if (until := _date(asked)) is None:
        return 0.0
    # Compare with the server's time if the answer has it, because our clock may differ.
    now = _date(headers.get("date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _headers(error: Exception) -> dict[str, str]:
    """Return the headers of the answer that caused ``error``, by name in lower case; {} if none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders")
    else:
        headers = getattr(response, "headers", None) or getattr(error, "headers", None)
    if not isinstance(headers, Mapping):
        return {}
    return {str(name).lower(): str(value) for name, value in headers.items()}


def _date(text: str) -> datetime | None:
    """Return the time in ``text``, a date in HTTP's format; None if ``text`` is no such date."""
    try:
        date = parsedate_to_datetime(text)
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def describe(error: Exception) -> str:
    """Return the type and the message of ``error`` as one short line, without credentials."""
    name = "" if isinstance(error, AnswerError) else f"{type(error).__name__}: "
    text = " ".join(f"{name}{error}".split()).rstrip(": ")
    text = visible(without_secrets(text))
    return text if len(text) <= _MOST_SAID else f"{text[:_MOST_SAID]} …"


def without_secrets(text: str) -> str:
    """Return ``text`` without the credentials in its URLs."""
    return _SECRETS.sub("", text)
