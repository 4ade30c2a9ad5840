"""Agreement: all ranks apply the same changes of weights at the same step.

Ranks meet (that is, exchange messages) before they plan a step whose number is a multiple of
``every``. If a change is offered before one meeting, it takes effect at the following meeting.
So messages can travel while ranks serve the steps between the two meetings, and no rank has planned
past the step at which the change takes effect.

At every meeting, each rank sends 32 bytes to all ranks: its step, the size of the offered changes
(0 on ranks other than 0), and the hash of its weights log. So each rank notices if another rank has
a different log. If there are changes, rank 0 sends them in a second message, at the meeting at
which they take effect.

Only rank 0 reads requests of users. Every wait for other ranks has a time limit.
"""

import json
import time
from collections import deque
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from climbstream.loader.core.console import duration
from climbstream.loader.core.engines.task_timeout import Patience, task_timeout
from climbstream.loader.core.errors import IntegrityError, RemoteError, UsageError
from climbstream.loader.core.log import get_logger

from .update import EVERY, WeightsUpdate

logger = get_logger(__name__)

LARGEST = 1 << 20
"""Largest size of the changes of one meeting, in bytes; more changes wait for the next meeting."""

_TIMEOUT = 300.0
"""Default time limit of a wait for the other ranks, in seconds."""
_LOOK, _TICK = 10.0, 0.01
"""Longest and shortest time between two checks during a wait, in seconds."""
_NUMBER, _HASH = 8, 16
"""Number of bytes of a step or a size in a message, and number of bytes of a hash."""


class Agreement:
    """Lets all ranks of a job apply changes of weights at the same step.

    A `MixtureLoader` with an agreement makes all of the following calls itself. Every rank has the
    same `WeightsLog`, and runs this code before it plans ``step``::

        for change in agreement.meet(step, log.head):
            log.append(change.mixture, step, change.why, change.ramp)

    Rank 0 calls ``agreement.offer(change)`` whenever somebody asks for other weights.

    Ranks exchange changes, not records of the log: each rank makes the record when the change takes
    effect. So a cluster may be capped after the change was offered; in the log, the record of the
    cap is then before that of the change. A change that the log refuses is refused on all ranks. A
    job of one rank exchanges nothing.
    """

    def __init__(
        self,
        group: dist.ProcessGroup | None = None,
        *,
        every: int = EVERY,
        timeout: float | None = None,
    ) -> None:
        """Make an agreement of all ranks of a job; all ranks must call this at the same time.

        Args:
            group: A process group of the backend gloo that is used for nothing else. Default: a new
                group of all ranks, which needs no GPU, and whose messages are separate from those
                of the training.
            every: Number of steps from one meeting to the next; default: 16.
            timeout: Time limit of a wait for the other ranks, in seconds; default: the environment
                variable CLIMBSTREAM_TASK_TIMEOUT, or 300.

        Raises:
            UsageError: ``every`` or ``timeout`` is too small, or ``group`` is not one of gloo.
        """
        timeout = task_timeout(_TIMEOUT) if timeout is None else timeout
        if every < 1 or timeout <= 0:
            raise UsageError(
                f"every is {every} steps and timeout is {timeout:g} s; every must be 1 or more, "
                "and timeout above 0"
            )
        if group is not None and (backend := dist.get_backend(group)) != "gloo":
            raise UsageError(
                f"the group of an Agreement must be one of gloo, not of {backend}; leave out group"
            )
        self._timeout = timedelta(seconds=timeout)
        if group is None and dist.is_available() and dist.is_initialized():
            group = dist.new_group(backend="gloo", timeout=self._timeout)
        self._group = group
        self.every = every
        self.rank = dist.get_rank(group) if group else 0
        self.world_size = dist.get_world_size(group) if group else 1
        self._first = dist.get_global_rank(group, 0) if group else 0
        self._offered: deque[bytes] = deque()
        self._sent: list[bytes] = []
        self._met: int | None = None
        self._work: dist.Work | None = None
        self._notes: list[torch.Tensor] = []

    def __repr__(self) -> str:
        return f"Agreement(rank {self.rank} of {self.world_size}, every {self.every} steps)"

    def first_free(self, step: int) -> int:
        """Return the step at which a change takes effect if it is offered now.

        ``step`` is the next step to be served. If this change and those offered before it do not
        fit into one message, the change takes effect one meeting later.
        """
        if self.world_size == 1:
            return step
        asked = step if self._met is None else max(step, self._met + 1)
        return (-(-asked // self.every) + 1) * self.every

    @property
    def last_offered(self) -> WeightsUpdate | None:
        """The last change that was offered on this rank and is not in force, or None."""
        waiting = [*self._sent, *self._offered]
        return _read(_joined(waiting[-1:]))[0] if waiting else None

    def offer(self, change: WeightsUpdate) -> None:
        """Offer a change of weights to all ranks; only rank 0 may call this.

        Raises:
            UsageError: This is not rank 0, or the change is too large for a message.
        """
        if self.rank != 0:
            raise UsageError(
                f"weights were changed on rank {self.rank}; change them on rank 0, "
                "which tells the others"
            )
        data = json.dumps(change.to_json(), separators=(",", ":")).encode()
        if _length([data]) > LARGEST:
            raise UsageError(
                f"a change of {len(data):,} bytes is too large for the ranks to agree on, at most "
                f"{LARGEST - 2:,} are possible; give weight to fewer clusters, or rename them"
            )
        self._offered.append(data)

    def meet(self, step: int, head: str) -> list[WeightsUpdate]:
        """Return the changes that take effect at ``step``, the next step to be planned.

        If there is no meeting at this step, the result is [], and no rank waits. If there is only
        one rank, the result has all changes offered so far. ``head`` is the hash of the last record
        of the log, before these changes are appended.

        Raises:
            IntegrityError: Ranks are at different steps, or have different logs.
            RemoteError: The other ranks did not answer in time.
            UsageError: A meeting was left out, for example because the loader went to ``step``
                without `drain`.
        """
        if self.world_size == 1:
            changes = _read(_joined(self._offered))
            self._offered.clear()
            return changes
        if step % self.every or step == self._met:
            return []
        if self._met is not None and step != self._met + self.every:
            raise UsageError(
                f"the ranks met at step {self._met}, and must meet next at step "
                f"{self._met + self.every}, not at step {step}; drain the agreement before the "
                "loader goes to another step"
            )
        changes = self._receive(step) if self._met is not None else []
        self._send(step, head)
        return changes

    def drain(self) -> None:
        """Wait for the messages of the last meeting, so that none is left under way.

        Every rank must call this before it goes to another position, and before it ends. Changes
        that were offered but have not taken effect are offered again at the next meeting.

        Raises:
            IntegrityError: Ranks are at different steps, or have different logs.
            RemoteError: The other ranks did not answer in time.
        """
        if self._met is not None:
            self._compare()
        self._offered.extendleft(reversed(self._sent))
        self._sent, self._met = [], None

    def _send(self, step: int, head: str) -> None:
        """Begin to send this rank's step, size of changes, and hash of its log to all ranks."""
        while self._offered and _length([*self._sent, self._offered[0]]) <= LARGEST:
            self._sent.append(self._offered.popleft())
        length = _length(self._sent) if self._sent else 0
        note = step.to_bytes(_NUMBER) + length.to_bytes(_NUMBER) + bytes.fromhex(head)
        mine = _tensor(note.ljust(2 * _NUMBER + _HASH, b"\0"))
        self._notes = [torch.empty_like(mine) for _ in range(self.world_size)]
        self._met = step
        self._work = dist.all_gather(self._notes, mine, group=self._group, async_op=True)

    def _receive(self, step: int) -> list[WeightsUpdate]:
        """Return the changes that were offered at the last meeting; rank 0 sends them now."""
        length = self._compare()
        if not length:
            return []
        data = _tensor(_joined(self._sent)) if self.rank == 0 else torch.empty(length).byte()
        work = dist.broadcast(data, self._first, group=self._group, async_op=True)
        self._wait(work, f"the changes of weights that take effect at step {step}")
        self._sent = []
        return _read(data.numpy().tobytes())

    def _compare(self) -> int:
        """Compare the steps and hashes of all ranks; return the size of the changes, in bytes."""
        self._wait(self._work, f"the other ranks at step {self._met}")
        notes = [note.numpy().tobytes() for note in self._notes]
        steps = [int.from_bytes(note[:_NUMBER]) for note in notes]
        heads = [note[2 * _NUMBER :].hex() for note in notes]
        for rank, (step, head) in enumerate(zip(steps, heads, strict=True)):
            if step != steps[0]:
                raise IntegrityError(
                    f"all ranks must agree on weights at the same step, but rank 0 is at step "
                    f"{steps[0]}, and rank {rank} at step {step}; load the same state on all ranks"
                )
            if head != heads[0]:
                raise IntegrityError(
                    f"at step {step} rank 0 follows the weights log {heads[0]}, rank {rank} the "
                    f"log {head}; give all ranks the same state, and change weights on rank 0"
                )
        return int.from_bytes(notes[0][_NUMBER : 2 * _NUMBER])

    def _wait(self, work: dist.Work | None, what: str) -> None:
        """Wait for ``work``; a wait of a minute or more is logged.

        Raises:
            RemoteError: The wait failed, or lasted longer than the time limit.
        """
        begun, patience, timeout = time.monotonic(), Patience(), self._timeout.total_seconds()
        while work is not None:
            left = timeout - (time.monotonic() - begun)
            try:
                work.wait(timedelta(seconds=max(_TICK, min(_LOOK, left))))
                return
            except RuntimeError as error:
                waited = time.monotonic() - begun
                if work.is_completed() or waited >= timeout:
                    raise self._lost(what, error) from error
                if patience.over(waited):
                    logger.warning(
                        f"rank {self.rank} has waited for {what}, for {duration(waited)} so far; "
                        f"it gives up after {duration(timeout)}"
                    )

    def _lost(self, what: str, error: RuntimeError) -> RemoteError:
        """Return the error for a wait that failed because other ranks did not answer."""
        return RemoteError(
            f"rank {self.rank} waited at most {self._timeout.total_seconds():g} s for {what}; "
            f"one of the {self.world_size} ranks is late, stopped, or takes other steps "
            f"({str(error).splitlines()[0]})"
        )


def _joined(changes: Sequence[bytes] | deque[bytes]) -> bytes:
    """Join the JSON of several changes into one JSON list."""
    return b"[" + b",".join(changes) + b"]"


def _length(changes: Sequence[bytes]) -> int:
    """Return the size of ``_joined(changes)``, in bytes."""
    return sum(map(len, changes)) + max(0, len(changes) - 1) + 2


def _read(data: bytes) -> list[WeightsUpdate]:
    return [WeightsUpdate.from_json(value) for value in json.loads(data)]


def _tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
