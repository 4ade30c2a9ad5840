"""UpdateRequest: other weights, as they are asked of a run through a file in its folder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import write_json
from climbstream.loader.formats.mixture import Mixture, check_weights, some_names

from .log import WeightsLog
from .update import WeightsUpdate

LOG = "weights.jsonl"
REQUEST = "weights.request.json"
"""Files in the folder of a run: what holds, and what is asked for."""

_NAMED = 30
"""Clusters that a message lists."""
_ROUNDING = 1e-9
"""Named weights that sum to 1 within this leave nothing to share."""


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """A change, and the record that was the last of the log when it was asked for."""

    change: WeightsUpdate
    after: str | None = None
    """Hash of that record. None: follow the change whatever came in between."""

    def to_json(self) -> dict[str, Any]:
        """Return the request as JSON values: those of its change, with ``after``."""
        return {**self.change.to_json(), **({} if self.after is None else {"after": self.after})}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what `to_json` gave, or any JSON of a mixture.

        Raises:
            InvalidDataError: It is no such object, or has a field that means nothing.
        """
        if not isinstance(value, dict) or "weights" not in value:
            return cls(WeightsUpdate.from_json(value))
        fields = dict(value)
        after = fields.pop("after", None)
        if not isinstance(after, str | None):
            raise InvalidDataError("'after' is the hash of a record of the weights log, a text")
        return cls(WeightsUpdate.from_json(fields), after)


def open_weights_log(run: Path) -> WeightsLog:
    """Read the weights log of the run in the folder ``run``.

    Raises:
        UsageError: It is no folder of a run.
        InvalidDataError: The log cannot be read.
        IntegrityError: Its chain of hashes is broken.
    """
    log = WeightsLog.open(run / LOG, write=False)
    if not log.records:
        raise UsageError(
            f"{run} is no run: it has no {LOG} with weights; name the folder in which the "
            "log of a running job lies, as climb train --out made it"
        )
    return log


def with_named_weights(
    log: WeightsLog, named: Mapping[str, float], *, only: bool = False
) -> Mixture:
    """Say what becomes of all weights when those of some clusters are ``named``.

    The others share what is left, in the proportion that they have by the last record. With
    ``only`` they get nothing, and what is named is scaled.

    Raises:
        UsageError: A cluster is not in the log, or is used up; the weights sum to more than 1, or
            to less with nobody to share the rest.
        InvalidDataError: A weight is no weight.
    """
    known = sorted({name for record in log.records for name in record.weights})
    if unknown := [name for name in named if name not in known]:
        raise UsageError(
            f"there is no cluster {some_names(unknown)} in the weights log; there are "
            f"{some_names(known, _NAMED)}"
        )
    last = log.records[-1]
    check_weights({**last.weights, **named})
    if capped := [name for name, weight in named.items() if weight > 0 and name in last.capped]:
        raise UsageError(
            f"{some_names(capped)} has used up its epochs and would get nothing; leave it out, "
            "or allow more epochs"
        )
    if only:
        return Mixture.of(named)
    total = math.fsum(named.values())
    others = {n: w for n, w in last.weights.items() if n not in named and n not in last.capped}
    theirs = math.fsum(others.values())
    if total > 1 + _ROUNDING:
        raise UsageError(
            f"the named weights sum to {total:.6g}, more than 1; say --only to scale them "
            "and give the others nothing"
        )
    rest = max(0.0, 1 - total)
    if rest > _ROUNDING and not theirs:
        raise UsageError(
            f"the named weights sum to {total:.6g}, and no other cluster has weight to share the "
            "rest; say --only to scale them"
        )
    shared = {name: w / theirs * rest for name, w in others.items() if rest > _ROUNDING}
    return Mixture.of({**shared, **named})


def write_request(run: Path, change: WeightsUpdate, after: str) -> Path:
    """Leave a request in the folder of ``run``, whole or not at all, and return its file."""
    path = run / REQUEST
    write_json(path, UpdateRequest(change, after).to_json())
    return path
