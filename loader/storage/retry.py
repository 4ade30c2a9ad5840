"""Retry: what an error of a remote store says about another try, whichever client raised it."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
_PASSING = (408, 425, 429)
"""Statuses of HTTP below 500 that may be others a moment later."""


def status_of(error: Exception) -> int | None:
    """Return the HTTP status that an error of boto3, httpx or aiohttp speaks of."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None) or getattr(error, "status", None)
        if status == 400 and response is None and getattr(error, "headers", None) is None:
            return None  # aiohttp says so of an answer that it could not read
    return status if isinstance(status, int) else None


def is_refusal(status: int | None) -> bool:
    """Whether another try would end in the same status."""
    return status is not None and 400 <= status < 500 and status not in _PASSING


def pause_after(tries: int, error: Exception, part: float = 1.0) -> float:
    """Return the seconds to wait after so many tries, of which the last ended in ``error``.

    Twice as long each time, of which ``part`` is taken; and no less than the server asks for.
    """
    pause = part * min(FIRST_PAUSE * 2.0 ** (tries - 1), LONGEST_PAUSE)
    return max(pause, _asked_pause(error))


def _asked_pause(error: Exception) -> float:
    """Return the seconds for which a server asked to be left alone; 0 if it did not.

    What lies beyond a caller's deadline ends its tries at once.
    """
    headers = getattr(getattr(error, "response", None), "headers", None)
    headers = headers or getattr(error, "headers", None) or {}
    if not hasattr(headers, "get"):
        return 0.0
    asked = str(headers.get("Retry-After", "")).strip()
    if re.fullmatch("[0-9]{1,18}", asked):
        return float(asked)
    if (until := _date(asked)) is None:
        return 0.0
    # By the clock of the server, if it says what that shows: ours may differ.
    now = _date(headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _date(text: Any) -> datetime | None:
    """Read a date as HTTP writes them; None if it is none."""
    try:
        date = parsedate_to_datetime(str(text))
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
