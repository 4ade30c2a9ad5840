"""Retry: what an error of a remote store says about another try, whichever client raised it."""

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
    """Return the seconds for which a server asked to be left alone; 0 if it did not."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    headers = headers or getattr(error, "headers", None) or {}
    asked = str(headers.get("Retry-After", "")) if hasattr(headers, "get") else ""
    return float(asked) if asked.isdigit() else 0.0
