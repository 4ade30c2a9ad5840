"""Sources of updates: how the outside world changes the weights of a running job.

Only rank 0 looks. What a source holds is not to be trusted: it may be torn, huge, nested deeply,
a pipe that nobody writes to, weights for clusters that are not there. Whatever it is, nothing is
raised, the weights stay as they are, and the reason is said once.
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
"""Bytes of a request."""
_SETTLED = 2_000_000_000
"""Age of a time stamp, in ns, from which on another write would have given another one."""
_REASON = 400
"""Characters of a reason: a source must not fill the output of a job."""

Check = Callable[[Mixture], None]
"""Raises `ClimbError` if the weights cannot be followed."""


class WeightsSource(Protocol):
    """Where weights are asked for while a run goes on; rank 0 looks there before it plans steps."""

    def poll(self, step: int, log: WeightsLog) -> WeightsUpdate | None:
        """Return the change that is newly asked for before step ``step``; ``log`` holds so far."""


class WeightsFile:
    """A file of JSON in which other weights are asked for; see `UpdateRequest`."""

    def __init__(self, path: Path, check: Check) -> None:
        self.path = path
        self._check = check
        self._seen: tuple[tuple[int, ...], str] | None = None
        self._looked = False

    def poll(self, _step: int, log: WeightsLog) -> WeightsUpdate | None:
        """Return the change that is newly asked for; one `stat` while the file stays the same.

        What lay there at the first look is followed only if it names the last record of ``log``
        as the one it comes after: then it was asked of this run while nobody looked.
        """
        first, self._looked = not self._looked, True
        try:
            if (data := self._read_new()) is None:
                return None
            request = _parse(data)
            self._check_order(request, log, first=first)
            self._check(request.change.mixture)
            _check_left(request.change.mixture, log)
        except (ClimbError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            _say(f"{self.path} is not followed and the weights stay: {reason}")
            return None
        return request.change

    def _check_order(self, request: UpdateRequest, log: WeightsLog, *, first: bool) -> None:
        """Raise `InvalidDataError` if the request was made for another state of affairs."""
        if first and request.after != log.head:
            raise InvalidDataError(
                "it lay there before the run began; write it anew if it is still wanted"
            )
        if request.after is not None and request.after != log.head:
            raise InvalidDataError(
                f"it was asked for after record {request.after:.8} of the weights log, but the "
                f"last is {log.head:.8}; look at the weights in force, and ask again"
            )

    def _read_new(self) -> bytes | None:
        """Return what the file holds, if that is new; None if it is not, or there is no file.

        Raises:
            InvalidDataError: It is new, and no file, or too large.
            OSError: It is new, and cannot be read.
        """
        identity: tuple[int, ...] = ()
        data, fault = b"", None
        try:
            found = self.path.stat()
            identity = _identity(found)
            if self._seen and self._seen[0] == identity and _settled(found):
                return None
            data = _read(self.path, found)
        except (FileNotFoundError, NotADirectoryError):
            self._seen = None
            return None
        except (InvalidDataError, OSError) as error:
            fault = error
        # Two writes within one tick of the clock can differ in nothing but what they wrote.
        seen = identity, hash_bytes(repr(fault).encode() if fault else data)
        if seen == self._seen:
            return None
        self._seen = seen
        if fault:
            raise fault
        return data


class WeightsCallable:
    """A function of the step that returns other weights, or None to let them be.

    Weights that it returned the last time are no change.
    """

    def __init__(
        self, function: Callable[[int], Mixture | Mapping[str, float] | None], check: Check
    ) -> None:
        self._function = function
        self._check = check
        self._last = ""
        self._said: type[Exception] | None = None

    def poll(self, step: int, log: WeightsLog) -> WeightsUpdate | None:
        """Return the change that the function wants at ``step``.

        An error in it is said when it first occurs, and again only after it has returned weights
        or failed in another way.
        """
        try:
            given = self._function(step)
            if given is None:
                return None
            mixture = _returned(given)
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
    """Read what a function returned.

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
    """Read the request at ``path``, whoever wrote it.

    Raises:
        InvalidDataError: It is none.
        OSError: It cannot be read, or is not there.
    """
    return _parse(_read(path, path.stat()))


def _check_left(mixture: Mixture, log: WeightsLog) -> None:
    """Raise `UsageError` if only clusters that have used up their epochs have weight."""
    if log.records:
        WeightsRecord.after(log.records[-1], mixture, log.records[-1].at_step, "")


def _fingerprint(log: WeightsLog) -> str:
    """Fingerprint of what was last asked for: after a restart that is what is in force."""
    return Mixture.of(log.records[-1].weights).fingerprint if log.records else ""


def _identity(found: os.stat_result) -> tuple[int, ...]:
    """Return what tells one version of a file from another."""
    who = (found.st_dev, found.st_ino, found.st_mode)
    # The time stamps of a folder or device change while it stays as useless as it was.
    return (*who, found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else who


def _settled(found: os.stat_result) -> bool:
    """Whether a later write would show in the time stamp."""
    return not stat.S_ISREG(found.st_mode) or time.time_ns() - found.st_mtime_ns > _SETTLED


def _read(path: Path, found: os.stat_result) -> bytes:
    """Read a regular file of at most `LARGEST` bytes; nothing else is as much as opened."""
    if not stat.S_ISREG(found.st_mode):
        raise InvalidDataError("it is no regular file; write JSON to a file and rename it to this")
    # Should it become a pipe between the two, it is still not waited for.
    data = read_regular(path, LARGEST)
    if len(data) > LARGEST:
        raise InvalidDataError(
            f"it holds {max(found.st_size, len(data)):,} bytes; a request has at most {LARGEST:,}"
        )
    return data


def _parse(data: bytes) -> UpdateRequest:
    """Read the request in ``data``.

    Raises:
        InvalidDataError: It is none.
    """
    return UpdateRequest.from_json(parse_json(data, "it"))


def _say(text: str) -> None:
    """Say ``text``, whatever characters a stranger put into it."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in text[: _REASON + 1])
    logger.warning(shown if len(shown) <= _REASON else shown[:_REASON] + " …")
