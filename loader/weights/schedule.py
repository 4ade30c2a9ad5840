"""Schedule: changes of weights that are known before a run begins."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import read_json
from climbstream.loader.core.typed import check_version
from climbstream.loader.formats.mixture import Mixture, read_weights

from .log import WeightsLog
from .update import WeightsUpdate

Entry = tuple[int, Mixture | Mapping[str, float]] | tuple[int, Mixture | Mapping[str, float], int]
"""One change: (step, weights) or, if weights change linearly, (step, weights, number of steps)."""

_WHY = "schedule"
_MOST_STEP = 1 << 53


@dataclass(frozen=True, slots=True)
class Schedule:
    """Changes of the weights, each with its step; the first change is at step 0.

    A change is written to the weights log when its step is planned, not at the start of the run. So
    between the steps of the schedule, weights may also be changed in other ways.

    >>> cosmos = Schedule.of([(0, {"web": 0.75, "code": 0.25}), (1000, {"code": 1}, 500)])
    >>> [(step, change.ramp) for step, change in cosmos.changes]
    [(0, 0), (1000, 500)]
    """

    changes: tuple[tuple[int, WeightsUpdate], ...]
    """Step and change, in ascending order of the steps."""

    version: ClassVar[int] = 1

    def __repr__(self) -> str:
        steps = ", ".join(
            f"step {step}" + (f" ramp {change.ramp}" if change.ramp else "")
            for step, change in self.changes
        )
        return f"Schedule({steps})"

    @classmethod
    def of(cls, entries: Iterable[Entry], *, others: str | None = None) -> Self:
        """Return a schedule of ``entries``.

        Args:
            entries: ``(step, weights)`` or ``(step, weights, ramp)`` for each change, in ascending
                order of the steps. A ramp is a linear change; ``ramp`` is its number of steps.
            others: What is left for clusters without a weight in an entry. None: nothing, and the
                weights of each entry must sum to 1. ``scale``: nothing; the named weights are
                scaled to sum 1. ``keep``: the rest, in proportion to their weights in the entry
                before.

        Raises:
            UsageError: The entries are not in the order of steps; or the first is not for step 0,
                or has a ramp; or weights do not sum to 1, and ``others`` is None.
            InvalidDataError: An entry is malformed, or a weight is invalid.
        """
        read: list[tuple[int, WeightsUpdate]] = []
        for number, entry in enumerate(entries):
            now = read[-1][1].mixture.weights if read else {}
            read.append(_read(number, entry, others, now))
        changes = tuple(read)
        if not changes:
            raise UsageError("a schedule needs an entry; name weights for step 0")
        if changes[0][0] != 0 or changes[0][1].ramp:
            raise UsageError(
                f"a schedule begins with weights set for step 0, not with step {changes[0][0]} "
                f"and a ramp of {changes[0][1].ramp} steps"
            )
        for number, ((before, _), (step, _)) in enumerate(pairwise(changes), start=1):
            if step <= before:
                raise UsageError(
                    f"entry {number} of the schedule is for step {step}, entry {number - 1} for "
                    f"step {before}; put them in order, one entry per step"
                )
        return cls(changes)

    def to_json(self) -> dict[str, Any]:
        """Return the schedule as JSON values."""
        entries = [
            {"step": step, "weights": change.mixture.weights, "ramp": change.ramp}
            for step, change in self.changes
        ]
        return {"version": self.version, "schedule": entries}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the value that `to_json` returned; ``ramp`` may be left out.

        Raises:
            InvalidDataError: ``value`` is no schedule, or has an unknown version.
            UsageError: The changes are not in the order of steps, or the first change is not for
                step 0, or has a ramp.
        """
        fields = check_version(value, cls.version, "schedule")
        try:
            entries = [
                (one["step"], one["weights"], one.get("ramp", 0)) for one in fields["schedule"]
            ]
        except (KeyError, TypeError, AttributeError):
            raise InvalidDataError(
                "this is not a valid schedule: it must be "
                '{"version": 1, "schedule": [{"step": 0, "weights": {...}}, ...]}, with "ramp", '
                "a number of steps, in each entry whose weights change gradually"
            ) from None
        return cls.of(entries, others="scale")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the file of a schedule.

        Raises:
            InvalidDataError: The file does not exist, or cannot be read as a schedule.
        """
        value = read_json(Path(path))
        try:
            return cls.from_json(value)
        except (InvalidDataError, UsageError) as error:
            raise InvalidDataError(f"{path}: {error}") from None

    def after(self, step: int) -> int | None:
        """Return the first step after ``step`` at which a change begins; None if there is none."""
        return next((at for at, _ in self.changes if at > step), None)

    def extend(self, log: WeightsLog, start: int, end: int) -> None:
        """Append to ``log`` the changes that begin in steps ``start`` to ``end`` - 1.

        A change that the log already has, as after a restart, is not appended again.

        Raises:
            UsageError: The log lacks a change, and cannot get it because it has a record for a
                later step. Or only capped clusters would have weight.
        """
        for step, change in self.changes:
            if start <= step < end and not _holds(log, step, change):
                log.append(change.mixture, step, change.why, change.ramp)


def _read(
    number: int, entry: Entry, others: str | None, now: Mapping[str, float]
) -> tuple[int, WeightsUpdate]:
    """Return the step and the change of entry ``number``.

    ``others`` is as in `Schedule.of`; ``now`` are the weights of the entry before.

    Raises:
        UsageError: The weights do not sum to 1, and ``others`` is None.
        InvalidDataError: The entry is malformed, or a weight is invalid.
    """
    try:
        step, weights, *ramp = entry
        if type(step) is not int or not 0 <= step < _MOST_STEP or len(ramp) > 1:
            raise InvalidDataError(
                "an entry is (step, weights) or (step, weights, steps of the ramp), step from 0 "
                f"to below {_MOST_STEP:,}"
            )
        mixture = read_weights(weights, others, now)
        return step, WeightsUpdate(mixture, ramp[0] if ramp else 0, _WHY)
    except (InvalidDataError, TypeError, ValueError) as error:
        raise InvalidDataError(f"entry {number} of the schedule: {error}") from None
    except UsageError as error:
        raise UsageError(f"entry {number} of the schedule: {error}") from None


def _holds(log: WeightsLog, step: int, change: WeightsUpdate) -> bool:
    """Whether ``log`` has a record of ``change`` for ``step``."""
    if not log.records or step < log.records[0].at_step:
        return False
    wanted = {name: w for name, w in change.mixture.weights.items() if w > 0}
    return any(
        (r.at_step, r.why, r.steps) == (step, change.why, change.ramp)
        and {name: w for name, w in r.weights.items() if w > 0} == wanted
        for r in log.since(max(log.records[0].at_step, step - 1))
    )
