"""WeightsController: the weights of a run, and all ways to change them during the run.

The weights log alone determines which weights are in force at a step. A change comes from a
schedule, from a method call of the user's code, from a source (file or function) that rank 0 polls,
or from a cluster that is used up. It is logged before its step is planned. If there are several
ranks, all of them log it at the same step; see `Agreement`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.log import get_logger
from climbstream.loader.formats.mixture import Mixture

from .agreement import Agreement
from .log import WeightsLog, WeightsRecord
from .schedule import Schedule
from .sources import WeightsSource
from .update import WeightsUpdate

logger = get_logger(__name__)

_START = ("start", "schedule")
"""Reason in the first record of a log, if a mixture begins the log, and if a schedule does."""


class WeightsController:
    """Keeps the weights log of a run on one rank.

    Args:
        rows: Number of rows of each cluster in an epoch, by name, in the order of the manifest; a
            cluster with 0 rows must have weight 0.
        log: The weights log, with all changes so far.
        why_none: What a cluster without rows lacks, for messages, such as "no shard of 64 tokens".
        longest: For each cluster, by name, the largest ``seq_len`` in tokens with which it has a
            row; for messages.
        agreement: Makes all ranks change weights at the same step. None: there is one rank, or all
            ranks make the same calls.
    """

    def __init__(
        self,
        rows: Mapping[str, int],
        log: WeightsLog,
        *,
        why_none: str,
        longest: Mapping[str, int],
        agreement: Agreement | None = None,
    ) -> None:
        self.names = list(rows)
        self.log = log
        self._rows, self._why_none, self._longest = rows, why_none, longest
        self._agreement = agreement
        self._schedule: Schedule | None = None
        self._given: Mixture | None = None
        self._sources: list[WeightsSource] = []

    def begin(self, start: Mixture | Schedule | None, default: Callable[[], Mixture]) -> None:
        """Begin the log with ``start`` or, if ``start`` is None, with ``default()``.

        If the log has records already, nothing is added. All its weights are checked, and it must
        have begun with ``start``, if given.

        Raises:
            InvalidDataError: A weight above 0 is for an unknown cluster, or for one without a row;
                or the log began with weights other than ``start``.
        """
        if isinstance(start, Schedule):
            self._schedule = start
            for _, change in start.changes:
                self.check(change.mixture)
            start = start.changes[0][1].mixture
        self._given = start
        if not self.log.records:
            start = default() if start is None else start
            self.check(start)
            self.log.append(start, 0, _START[self._schedule is not None])
            return
        first = Mixture.of(self.log.records[0].weights)
        if start is not None and start.fingerprint != first.fingerprint:
            raise InvalidDataError(
                "the weights log begins with other weights than were given; "
                "leave weights out to follow the log, or name another log"
            )
        for record in self.log.records:
            self.check(Mixture.of(record.weights))

    def rehearsal(self) -> "WeightsController":
        """Return a copy with the same log and schedule that can be changed without any effect.

        The copy has no sources and no agreement, and writes no file.
        """
        copy = WeightsController(
            self._rows,
            WeightsLog(tuple(self.log.records)),
            why_none=self._why_none,
            longest=self._longest,
        )
        copy._schedule = self._schedule
        return copy

    def is_settled(self, step: int) -> bool:
        """Whether weights stay the same from ``step`` on, by the log and the schedule."""
        last = self.log.records[-1]
        later = None if self._schedule is None else self._schedule.after(step)
        return later is None and step >= last.at_step + last.steps

    def open(self, sources: Iterable[WeightsSource]) -> None:
        """Add ``sources`` of changes, which `ahead` polls; only rank 0 may call this."""
        self._sources += sources

    def check(self, mixture: Mixture) -> None:
        """Raise `InvalidDataError` unless each cluster with weight is known and has a row."""
        weights = mixture.array(self.names)
        for (name, rows), weight in zip(self._rows.items(), weights, strict=True):
            if weight > 0 and not rows:
                raise InvalidDataError(
                    f"cluster {name} has weight {weight:.3g} but {self._why_none}; "
                    "give it weight 0, or choose a smaller seq_len, at most "
                    f"{self._longest[name]:,}"
                )

    def ahead(self, step: int, count: int) -> tuple[NDArray[np.int64], int]:
        """Return (weights, n): the weights of n steps from ``step`` on, with n from 1 to ``count``.

        The weights are int64 ``[1 or n, K]`` in the order of `names`, as in `WeightsLog.table`. All
        changes from sources, other ranks and the schedule that concern these steps are included.

        Raises:
            IntegrityError: Ranks have different logs, or are at different steps.
            RemoteError: Another rank did not answer in time.
        """
        if self._agreement is not None:
            every = self._agreement.every
            count = min(count, every - step % every)
            for source in self._sources:
                if (change := source.poll(step, self.log)) is not None:
                    self._agreement.offer(change)
            for change in self._agreement.meet(step, self.log.head):
                self._follow(change, step)
        if self._schedule is not None:
            self._schedule.extend(self.log, step, step + 1)
            if (later := self._schedule.after(step)) is not None:
                # Stop before the next scheduled change, which is logged only at its own step,
                # because a cluster may be capped before it.
                count = min(count, later - step)
        return self.log.table(step, count, self.names), count

    def last_asked(self) -> dict[str, float]:
        """Return the weights that were asked for last, in force or not, without capped clusters."""
        last = self.log.records[-1]
        offered = self._agreement.last_offered if self._agreement is not None else None
        weights = offered.mixture.weights if offered else last.weights
        return {name: w for name, w in weights.items() if name not in last.capped}

    def change(self, change: WeightsUpdate, step: int, at_step: int | None) -> int:
        """Change the weights; return the first step for which the change is in force.

        ``step`` is the next step to be served. ``at_step`` is the step that the user chose for the
        change; None: the earliest possible.

        Raises:
            UsageError: The step ``at_step`` was already served, is before a change in the log, or
                was chosen although several ranks must agree on the step.
            InvalidDataError: A weight above 0 is for an unknown cluster, or for one without a row.
        """
        self.check(change.mixture)
        if self._agreement is not None and self._agreement.world_size > 1:
            if at_step is not None:
                raise UsageError(
                    f"step {at_step} was named for a change, but the ranks agree on the step; "
                    "leave at_step out, or give changes that are known beforehand as a Schedule"
                )
            self._agreement.offer(change)
            return self._agreement.first_free(step)
        at_step = step if at_step is None else at_step
        if at_step < step:
            raise UsageError(
                f"weights were asked for step {at_step}, but {step} steps are served; "
                f"name step {step} or later"
            )
        self.log.append(change.mixture, at_step, change.why, change.ramp)
        return at_step

    def cap(self, names: Sequence[str], step: int, why: str) -> bool:
        """Cap the clusters ``names``, so that they get no rows from ``step`` on; return True.

        If no other cluster has weight, nothing is changed, and the result is False.
        """
        left = {n for n, w in self.log.mixture(step).weights.items() if w > 0} - {*names}
        if not left:
            return False
        self.log.cap(names, step, why)
        return True

    def adopt(self, records: tuple[WeightsRecord, ...], step: int) -> None:
        """Continue with ``records``, the weights records in a state that was saved at ``step``.

        If the log is in memory, the records replace it. If it is in a file, the file must have the
        same records; it may have later ones, which were added after the state was saved.

        Raises:
            InvalidDataError: The log in the file differs from the records.
        """
        if self._agreement is not None:
            self._agreement.drain()
        for record in records:
            self.check(Mixture.of(record.weights))
        if self.log.path is None:
            self.log = WeightsLog(records)
            self._warn_of_other_start(records[0])
            return
        hashes = [record.hash for record in self.log.records]
        for record in records:
            if hashes[record.v : record.v + 1] != [record.hash]:
                raise InvalidDataError(
                    f"the state was saved under weights {record.v} ({record.hash[:8]}), which the "
                    f"log {self.log.path} does not hold; name the log of that run"
                )
        if (ours := self.log.at(step)).v != records[0].v:
            raise InvalidDataError(
                f"the state was saved at step {step} under weights {records[0].v}, but in the log "
                f"{self.log.path} weights {ours.v} are in force from step {ours.at_step} on; "
                "continue from a state before this step, or name another log"
            )

    def _warn_of_other_start(self, first: WeightsRecord) -> None:
        """Warn if the log of a loaded state began with other weights than this loader was given.

        ``first`` is the first record in the state. The weights with which the log began are known
        only from record 0, which has them, and from record 1, which has the hash of record 0. So if
        ``first`` is a later record, there is no warning.
        """
        if self._given is None or first.v > 1:
            return
        begins = [WeightsRecord.after(None, self._given, 0, why) for why in _START]
        if (first.hash if first.v == 0 else first.prev) not in [begin.hash for begin in begins]:
            logger.warning(
                f"the state continues with its own weights, {Mixture.of(first.weights)}, and not "
                f"with the weights that were given, {self._given}; to use these, call set_weights "
                "after load_state_dict"
            )

    def _follow(self, change: WeightsUpdate, step: int) -> None:
        """Append to the log a change on which the ranks agreed, or warn that the log refuses it.

        All ranks refuse the same changes, because they have the same log.
        """
        try:
            self.check(change.mixture)
            self.log.append(change.mixture, step, change.why, change.ramp)
        except (UsageError, InvalidDataError) as error:
            logger.warning(
                f"a change of weights for step {step} is refused and the weights stay: {error}"
            )
