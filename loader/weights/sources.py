"""Sources of updates: a file or a function through which users change weights of a running job.

Only rank 0 reads the sources, and it does not trust them. For example, a file may be half written,
huge or deeply nested, may be a pipe that nobody writes to, or may name clusters that do not exist.
In such cases no error is raised, the weights stay the same, and the reason is logged once.
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
from .request import REQUEST, UpdateRequest
from .update import WeightsUpdate

logger = get_logger(__name__)

LARGEST = 1 << 20
"""Largest size of a request, in bytes."""
_SETTLED = 2_000_000_000
"""Age of a file's time stamp, in nanoseconds, above which any new write would change the stamp."""
_REASON = 400
"""Largest length of a logged reason, in characters: a source must not flood the output of a job."""

Check = Callable[[Mixture], None]
"""Function that raises `ClimbError` if a run cannot use the weights of a mixture."""


class WeightsSource(Protocol):
    """Interface of a source of changes; rank 0 polls its sources before it plans steps."""

    def poll(self, step: int, log: WeightsLog) -> WeightsUpdate | None:
        """Return the change that was asked for since the last poll; None if there is none.

        ``step`` is the next step to be planned; the change takes effect at this step or later.
        """


class WeightsFile:
    """A JSON file through which users ask for new weights; it contains an `UpdateRequest`.

    Args:
        path: The file, which need not exist.
        check: Function that refuses weights which the run cannot use.
    """

    def __init__(self, path: Path, check: Check) -> None:
        self.path = path
        self._check = check
        self._seen: tuple[tuple[int, ...], str] | None = None
        self._looked = False

    def poll(self, _step: int, log: WeightsLog) -> WeightsUpdate | None:
        """Return the change that was asked for since the last poll; None if there is none.

        A request is applied only once: if ``log`` has a record of it, the result is None. A file
        that exists at the first poll may be left from another run. So its request is applied only
        if ``after`` is the hash of the last record of ``log``, which shows that it was written for
        this run while the job was down. A request that cannot be applied is logged.

        If the file has not changed, a poll costs only one call of `stat`.
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
        """Return the content of the file if it is new; None if it is not new, or missing.

        Raises:
            InvalidDataError: The file is new, and too large or no regular file.
            OSError: The file is new, and cannot be read.
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
        # Compare the content too: two writes in quick succession may have the same time stamp.
        seen = identity, hash_bytes(repr(fault).encode() if fault else data)
        if seen == self._seen:
            return None
        self._seen = seen
        if fault:
            raise fault
        return data


class WeightsCallable:
    """A function of the user that returns new weights, or None to keep the present weights.

    Its argument is the number of the next step. If it returns the same weights as the last time,
    the weights are not changed.

    Args:
        function: The function.
        check: Function that refuses weights which the run cannot use.
    """

    def __init__(
        self, function: Callable[[int], Mixture | Mapping[str, float] | None], check: Check
    ) -> None:
        self._function = function
        self._check = check
        self._last = ""
        self._said: type[Exception] | None = None

    def poll(self, step: int, log: WeightsLog) -> WeightsUpdate | None:
        """Return the change that the function asks for at ``step``; None if it asks for none.

        An error in the function is logged, and the weights stay the same. An error of the same type
        as the last one is logged again only if the function has returned weights in between.
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
    """Return, as a mixture, the ``weights`` that the user's function returned.

    Raises:
        UsageError: The weights do not sum to 1.
        InvalidDataError: A weight is invalid.
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
    """Return the request in the file ``path``.

    Raises:
        InvalidDataError: The file is no request.
        OSError: The file is missing, or cannot be read.
    """
    return _parse(_read(path, path.stat()))


def waiting_change(run: Path, log: WeightsLog) -> WeightsUpdate | None:
    """Return the change that was requested of the run in the folder ``run`` and is not in ``log``.

    None: there is no such change, or the file of requests cannot be read.
    """
    try:
        request = read_request(run / REQUEST)
    except (ClimbError, OSError):
        return None
    return request.change if request.after == log.head else None


def _outdated(request: UpdateRequest, log: WeightsLog) -> InvalidDataError:
    """Return the error for a request that does not fit the last record of ``log``."""
    if request.after is None:
        return InvalidDataError(
            "it was there before the run began; write it again if it is still wanted"
        )
    return InvalidDataError(
        f"it was asked for after record {request.after:.8} of the weights log, but the "
        f"last is {log.head:.8}; look at the weights in force, and ask again"
    )


def _check_left(mixture: Mixture, log: WeightsLog) -> None:
    """Raise `UsageError` if all clusters with weight in ``mixture`` are capped in ``log``."""
    if log.records:
        WeightsRecord.after(log.records[-1], mixture, log.records[-1].at_step, "")


def _fingerprint(log: WeightsLog) -> str:
    """Return the fingerprint of the weights in the last record of ``log``; "" if it is empty."""
    return Mixture.of(log.records[-1].weights).fingerprint if log.records else ""


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Return numbers that differ between two versions of a file."""
    who = (status.st_dev, status.st_ino, status.st_mode)
    # The time stamp of a folder or device is left out: a change of it must not log the fault again.
    return (*who, status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else who


def _settled(status: os.stat_result) -> bool:
    """Whether the file is so old that any new write would change its time stamp."""
    return not stat.S_ISREG(status.st_mode) or time.time_ns() - status.st_mtime_ns > _SETTLED


def _read(path: Path, status: os.stat_result) -> bytes:
    """Return the content of the file ``path``.

    Raises:
        InvalidDataError: The file is no regular file, and is not opened; or it has more than
            `LARGEST` bytes.
        OSError: The file cannot be read.
    """
    if not stat.S_ISREG(status.st_mode):
        raise InvalidDataError(
            "it is not a regular file; write JSON to a file and rename it to this"
        )
    # The file may become a pipe after this check; `read_regular` does not wait for a pipe.
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
    """Log ``text`` as one line of at most 400 characters, without characters that do not print."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in text[: _REASON + 1])
    logger.warning(shown if len(shown) <= _REASON else shown[:_REASON] + " …")
