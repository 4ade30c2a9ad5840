"""Sources of updates: a file or a function that changes the weights of a running job.

Only rank 0 reads the sources, and it does not trust them. A file may be half written, huge or
deeply nested. A file may be a pipe that nobody writes to, or may name clusters that do not exist.
In each of these cases no error is raised, the weights are not changed, and the reason is logged
once.
"""

import math
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from climbstream.loader.core.errors import ClimbError, InvalidDataError, UsageError
from climbstream.loader.core.files import hash_bytes, read_regular
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.typed import parse_json
from climbstream.loader.formats.mixture import Mixture, read_weights

from .log import WeightsLog, WeightsRecord
from .request import UpdateRequest
from .update import WeightsUpdate

logger = get_logger(__name__)

LARGEST = 1 << 20
"""Largest size of a request, in bytes."""
_SETTLED = 2_000_000_000
"""Age of a time stamp, in ns, above which any later write is sure to change the time stamp."""
_REASON = 400
"""Length at which a logged reason is cut, in characters: a source must not flood a job's output."""

Check = Callable[[Mixture], None]
"""Function that raises `ClimbError` if a run cannot use the weights of a mixture."""


class WeightsSource(Protocol):
    """A place where users ask for weights during a run; rank 0 polls it before it plans steps."""

    def poll(self, step: int, log: WeightsLog) -> WeightsUpdate | None:
        """Return the change that was asked for since the last poll; None: there is no change.

        The change will take effect at ``step``, the next to be planned, or later.
        """


class WeightsFile:
    """A JSON file through which users ask for new weights; see `UpdateRequest`."""

    def __init__(self, path: Path, check: Check) -> None:
        self.path = path
        self._check = check
        self._seen: tuple[tuple[int, ...], str] | None = None
        self._looked = False

    def poll(self, _step: int, log: WeightsLog) -> WeightsUpdate | None:
        """Return the change that was asked for since the last poll; None: there is no change.

        If the file has not changed, a poll makes only one call of `stat`. A file that exists at the
        first poll may be old. So it is applied only if its ``after`` is the hash of the last record
        of ``log``, because such a file was written for this run while the job was down. A request
        for which ``log`` has a record was applied before, and is not applied again.
        """
        first, self._looked = not self._looked, True
        try:
            if (data := self._read_new()) is None:
                return None
            request = _parse(data)
            stale = request.after != log.head if first else request.after not in (None, log.head)
            if stale and (record := request.record(log)) is not None:
                logger.info(f"{self.path} was followed already, as record {record.v} of the log")
                return None
            if stale:
                raise _outdated(request, log)
            self._check(request.change.mixture)
            _check_left(request.change.mixture, log)
        except (ClimbError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            _say(f"{self.path} is not followed and the weights stay: {reason}")
            return None
        return request.change

    def _read_new(self) -> bytes | None:
        """Return the content of the file if it is new; None if it is not, or there is no file.

        Raises:
            InvalidDataError: The file is new, but too large or no regular file.
            OSError: The file is new, but cannot be read.
        """
        identity: tuple[int, ...] = ()
        data, fault = b"", None
        try:
            status = self.path.stat()
            identity = _identity(status)
            if self._seen and self._seen[0] == identity and _settled(status):
                return None
            data = _read(self.path, status)
        except (FileNotFoundError, NotADirectoryError):
            self._seen = None
            return None
        except (InvalidDataError, OSError) as error:
            fault = error
        # Two writes within one tick of the clock may have the same time stamp, so compare content.
        seen = identity, hash_bytes(repr(fault).encode() if fault else data)
        if seen == self._seen:
            return None
        self._seen = seen
        if fault:
            raise fault
        return data


class WeightsCallable:
    """A function that gets the step; returns new weights, or None to keep the present weights.

    If the function returns the same weights as in its last call, the weights are not changed.
    """

    def __init__(
        self, function: Callable[[int], Mixture | Mapping[str, float] | None], check: Check
    ) -> None:
        self._function = function
        self._check = check
        self._last = ""
        self._said: type[Exception] | None = None

    def poll(self, step: int, log: WeightsLog) -> WeightsUpdate | None:
        """Return the change that the function asks for at ``step``; None: no change.

        An error in the function is logged when it first occurs. The same error is logged again only
        after the function has returned weights, or has raised another type of error.
        """
        try:
            answer = self._function(step)
            if answer is None:
                return None
            mixture = _returned(answer)
            self._check(mixture)
            _check_left(mixture, log)
        except Exception as error:
            if type(error) is not self._said:
                said = str(error) if isinstance(error, ClimbError) else repr(error)
                _say(f"at step {step} the function for weights failed and the weights stay: {said}")
            self._said = type(error)
            return None
        self._said = None
        last = self._last or _fingerprint(log)
        self._last = mixture.fingerprint
        return WeightsUpdate(mixture, why="function") if self._last != last else None


def _returned(weights: Mixture | Mapping[str, float]) -> Mixture:
    """Return a mixture of the weights that a function for weights returned.

    Raises:
        UsageError: The weights do not sum to 1.
    """
    if isinstance(weights, Mixture):
        return weights
    try:
        return read_weights(weights, None, {})
    except UsageError:
        total = math.fsum(weights.values())
        raise UsageError(
            f"the weights that it returned sum to {total:.6g}, not to 1; return all of them, "
            "or Mixture.of(weights) to scale them"
        ) from None


def read_request(path: Path) -> UpdateRequest:
    """Return the request in the file ``path``; its content is not trusted.

    Raises:
        InvalidDataError: The file is no request.
        OSError: The file is missing, or cannot be read.
    """
    return _parse(_read(path, path.stat()))


def _outdated(request: UpdateRequest, log: WeightsLog) -> InvalidDataError:
    """Return the error for a request whose ``after`` is not the last record of ``log``."""
    if request.after is None:
        return InvalidDataError(
            "it lay there before the run began; write it anew if it is still wanted"
        )
    return InvalidDataError(
        f"it was asked for after record {request.after:.8} of the weights log, but the "
        f"last is {log.head:.8}; look at the weights in force, and ask again"
    )


def _check_left(mixture: Mixture, log: WeightsLog) -> None:
    """Raise `UsageError` if each cluster with weight in ``mixture`` is capped in ``log``."""
    if log.records:
        WeightsRecord.after(log.records[-1], mixture, log.records[-1].at_step, "")


def _fingerprint(log: WeightsLog) -> str:
    """Return the fingerprint of the weights in the last record of ``log``; "" if it is empty."""
    return Mixture.of(log.records[-1].weights).fingerprint if log.records else ""


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Return numbers that differ between two versions of a file."""
    who = (status.st_dev, status.st_ino, status.st_mode)
    # Time stamps of a folder or device are left out: they may change, but the fault stays the same.
    return (*who, status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else who


def _settled(status: os.stat_result) -> bool:
    """Whether the file is old enough that any later write would change its time stamp."""
    return not stat.S_ISREG(status.st_mode) or time.time_ns() - status.st_mtime_ns > _SETTLED


def _read(path: Path, status: os.stat_result) -> bytes:
    """Return the content of a regular file of at most `LARGEST` bytes.

    For other files, and for larger files, raise `InvalidDataError`. Files that are not regular are
    not opened.
    """
    if not stat.S_ISREG(status.st_mode):
        raise InvalidDataError("it is no regular file; write JSON to a file and rename it to this")
    # If the file is replaced with a pipe after the check, `read_regular` does not wait either.
    data = read_regular(path, LARGEST)
    if len(data) > LARGEST:
        raise InvalidDataError(
            f"it holds {max(status.st_size, len(data)):,} bytes; a request has at most {LARGEST:,}"
        )
    return data


def _parse(data: bytes) -> UpdateRequest:
    """Return the request in ``data``.

    Raises:
        InvalidDataError: ``data`` is no request.
    """
    return UpdateRequest.from_json(parse_json(data, "it"))


def _say(text: str) -> None:
    """Log ``text`` as one line; cut it, and replace characters that cannot be printed."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in text[: _REASON + 1])
    logger.warning(shown if len(shown) <= _REASON else shown[:_REASON] + " …")
