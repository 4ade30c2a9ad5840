"""MixtureLoader: batches of tokens, by weights that may change while it runs.

A row is ``seq_len`` tokens of one cluster. A global batch is ``batch_rows`` rows for one optimizer
step. Every rank plans the same whole batches (`BatchPlanner`) and copies only its own rows of them,
so ranks agree without talking, and a state from one world size continues on another. Rows are
copied when they are asked for: a change of weights throws away a plan, which is cheap, and never a
batch.
"""

import functools
import operator
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, NoReturn, ParamSpec, Self, TypeVar
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray

from climbstream.loader.audit.ledger import Ledger, Opening
from climbstream.loader.core.console import say
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.permutation import derive_key
from climbstream.loader.core.typed import short
from climbstream.loader.formats.manifest import Manifest, cluster_folder, load_index
from climbstream.loader.formats.mixture import ONE, Mixture
from climbstream.loader.reading.collator import Batch, Collator
from climbstream.loader.reading.gather import count_padding
from climbstream.loader.reading.open_shards import OpenShards
from climbstream.loader.reading.packing import PACKS
from climbstream.loader.reading.row_source import RowSource
from climbstream.loader.reading.shard_cache import ShardCache
from climbstream.loader.sampling.epoch_limits import EpochLimits, forecast_ends
from climbstream.loader.sampling.lanes import Lanes, next_runs
from climbstream.loader.sampling.planner import BatchPlanner, PlannedSteps, Position
from climbstream.loader.sampling.quotas import allocate_rows
from climbstream.loader.storage.hub import pin
from climbstream.loader.storage.store import Store
from climbstream.loader.weights.agreement import Agreement
from climbstream.loader.weights.controller import WeightsController
from climbstream.loader.weights.log import WeightsLog
from climbstream.loader.weights.schedule import Schedule
from climbstream.loader.weights.sources import WeightsCallable, WeightsFile
from climbstream.loader.weights.update import WeightsUpdate

from .state import LoaderState

EXHAUSTED = ("renormalise", "stop", "error")
_SHARDS_AHEAD = 8
"""Shards that are asked for before a lane turns to them."""
_AHEAD = 256
"""Steps that are planned at once, at most,"""
_PLANNED = 4096
"""and of many rows or clusters as few as make this many, so that planning anew takes under 1 ms;"""
_AT_FIRST = 16
"""the first time so many, then twice as many each time: the batch after a change waits for them."""

WeightsFunction = Callable[[int], Mixture | Mapping[str, float] | None]
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class _Cursor:
    """The steps that are planned, and how far they are served.

    A new plan is a new cursor, put in place by one assignment: whoever is interrupted, by Ctrl-C
    or a signal, leaves the old one or the new one.
    """

    start: Position
    steps: PlannedSteps
    weights: NDArray[np.int64]
    """What they follow, as `BatchPlanner.plan` takes it."""
    row: int = 0
    """Rows of this rank that were served."""
    ready: int = 0
    """Rows whose shards are open."""
    rows: NDArray[np.int64] = field(init=False)
    """Those of the steps: a look into a named tuple costs a batch 20 ns."""
    clusters: NDArray[np.int64] = field(init=False)
    """Cluster of each of the rows."""
    end: int = field(init=False)
    """Rows that are planned."""

    def __post_init__(self) -> None:
        self.rows = self.steps.rows
        self.clusters = self.rows[:, 0].copy()
        self.end = len(self.rows)

    @classmethod
    def at(cls, position: Position) -> Self:
        """Return the cursor of no steps, at ``position``."""
        none = np.zeros(0, np.int64)
        return cls(position, PlannedSteps.none(position), none[None])


class _ForkLock:
    """The lock of a loader in a process that was forked from its own: nobody gets it."""

    def __enter__(self) -> NoReturn:
        raise UsageError(
            f"this MixtureLoader was made before process {os.getpid()} was forked: its threads are "
            "missing here, and its batches would be served twice; make a loader in the process "
            "that uses it, and a DataLoader with num_workers=0"
        )

    def __exit__(self, *_: object) -> None: ...


_LOADERS: "WeakSet[MixtureLoader]" = WeakSet()


def _refuse_after_fork() -> None:
    for loader in _LOADERS:
        loader._lock = _ForkLock()


os.register_at_fork(after_in_child=_refuse_after_fork)


def _one_at_a_time(
    method: Callable[Concatenate["MixtureLoader", P], R],
) -> Callable[Concatenate["MixtureLoader", P], R]:
    """Let ``method`` wait until no other thread is in the loader."""

    @functools.wraps(method)
    def call(self: "MixtureLoader", /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:
            return method(self, *args, **kwargs)

    return call


class MixtureLoader:
    """An endless iterator of batches: dicts of torch tensors with this rank's rows.

    ``input_ids`` is ``[rows, seq_len]``; ``cluster_ids``, int64 ``[rows]``, is the position of each
    row's cluster in ``names``; rows = batch_rows / world_size. `Collator` says what else there
    may be. The order of rows is a pure function of the shards, the seed, ``lanes``, ``pack`` and
    the weights, never of rank, threads or cache.

    Any thread may call anything: a call waits for the one before it. Each batch is returned once,
    to whichever thread asked for it; `state_dict` speaks of the last one that was returned to any.
    A loader cannot be pickled, copied, or used in a process that was forked after it was made.
    """

    def __init__(
        self,
        directory: str | Path | Store,
        weights: Mixture | Mapping[str, float] | str | Path | Schedule | None = None,
        *,
        seq_len: int,
        batch_rows: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        lanes: int = 8,
        pack: str = "concat",
        part: float = 1.0,
        fields: Sequence[str] = (),
        segments: int = 64,
        dtype: torch.dtype = torch.int64,
        pin_memory: bool = False,
        max_epochs: float | Mapping[str, float] | None = None,
        exhausted: str = "renormalise",
        log: str | Path | None = None,
        served: str | Path | None = None,
        weights_file: str | Path | None = None,
        weights_function: WeightsFunction | None = None,
        agreement: Agreement | None = None,
        cache: str | Path | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        """Open a shard directory.

        Args:
            directory: What `climb build` made: a folder, or a URL (``s3://``, ``hf://``,
                ``https://``).
            weights: A mixture, weights by name, the file of a mixture, or a `Schedule` of several;
                default: token shares, or what ``log`` holds.
            seq_len: Tokens of a row.
            batch_rows: Rows of a global batch, over all ranks.
            rank: Which rank this is, from 0.
            world_size: Number of ranks; divides ``lanes`` and ``batch_rows``.
            seed: Keys every order.
            lanes: Into how many parts each cluster is dealt; fixed for a run, a multiple of every
                world size that it will ever have.
            pack: How documents become rows: ``concat``, ``bfd`` or ``bos``; see `pack`.
            part: Of each cluster that is served, the same rows again and again: so a short run may
                repeat small clusters as often as a long one will. Above 0, at most 1.
            fields: What batches hold besides: ``labels``, ``position_ids``, ``cu_seqlens``.
            segments: Documents of a row that ``cu_seqlens`` has room for.
            dtype: Of tokens: ``torch.int64`` or ``torch.int32``.
            pin_memory: Whether batches lie in pinned memory.
            max_epochs: How often each cluster may be gone through, or by name; a part of 1 too.
            exhausted: When a cluster has used that up: ``renormalise`` spreads its weight over the
                others, ``stop`` ends the iteration, ``error`` raises.
            log: File of the weights log; default: kept in memory and in the state alone.
            served: File of the ledger of what is served, which `climb audit` recomputes; rank 0
                writes it, in blocks of steps.
            weights_file: File in which other weights may be asked for while it runs, as
                `climb weights` does; rank 0 looks at it every `Agreement.every` steps.
            weights_function: Function that returns other weights, or None to let them be; called
                on rank 0, as often, with the number of the next step.
            agreement: How several ranks hear of changes at the same step; needed with more than
                one rank for a file or a function, and for `set_weights` on rank 0 alone.
            cache: Folder for decompressed shards; default: the user's cache folder.
            cache_bytes: Bytes that they may take there; default: no limit.

        Raises:
            UsageError: Numbers that do not fit each other; the message lists those that do.
            InvalidDataError: No shard directory; a mixture for other clusters; a cluster with
                weight but without one row of tokens.
            RemoteError: A store did not give what was asked.
        """
        self._lock: threading.RLock | _ForkLock = threading.RLock()
        _LOADERS.add(self)
        _check_numbers(seq_len, batch_rows, rank, world_size, lanes)
        _check_choice("packing", pack, PACKS)
        if not 0 < part <= 1:
            raise UsageError(f"part is {part}; it is a part of each cluster, above 0 and at most 1")
        _check_choice("way to be exhausted", exhausted, EXHAUSTED)
        # A name of the Hub is what it is now, also when it is read again later.
        self.directory = Store.of(pin(directory) if isinstance(directory, str) else directory)
        self.manifest = Manifest.load(self.directory)
        self.names = self.manifest.names
        self.rank, self.world_size = rank, world_size
        # Plain integers, also if they came as those of numpy: they go into the state.
        self.seq_len, self.batch_rows = operator.index(seq_len), operator.index(batch_rows)
        self.seed, self.lanes = operator.index(seed), operator.index(lanes)
        self.pack, self.part, self.exhausted = pack, float(part), exhausted
        self._rows_each = self.batch_rows // world_size
        self._maker = Collator(
            self._rows_each,
            self.seq_len,
            np.dtype(self.manifest.dtype).itemsize,
            self.manifest.eos_id or 0,
            fields=fields,
            segments=segments,
            dtype=dtype,
            pin_memory=pin_memory,
        )
        store = ShardCache(Path(cache) if cache is not None else None, limit=cache_bytes)
        self._streams = [
            RowSource(
                cluster.name,
                cluster_folder(self.directory, cluster.name),
                load_index(self.directory, self.manifest, cluster),
                store,
                seq_len=self.seq_len,
                pack=pack,
                seed=self.seed,
                part=self.part,
            )
            for cluster in self.manifest.clusters
        ]
        epoch_rows = np.array([stream.rows for stream in self._streams], np.int64)
        self._allowance = EpochLimits(max_epochs, self.names, epoch_rows)
        self._planner = BatchPlanner(
            Lanes.deal(self.names, [s.shard_rows for s in self._streams], self.lanes, self.seed),
            self.batch_rows,
            rank,
            world_size,
            np.uint64(derive_key(self.seed, "order within a batch")),
        )
        self._shelf = OpenShards(self._streams, self.lanes)
        # Rank 0 writes the log; the others read it and make the same records in memory.
        history = WeightsLog.open(Path(log), write=rank == 0) if log else WeightsLog()
        live = weights_file is not None or weights_function is not None
        self._course = WeightsController(
            {stream.name: stream.rows for stream in self._streams},
            history,
            why_none=f"no shard of {self.seq_len} tokens",
            agreement=self._agree(agreement, live=live),
        )
        start = _start(weights)
        if rank == 0 and isinstance(start, Mixture) and (misfit := self.manifest.misfit(start)):
            say(misfit)
        self._course.begin(start, self._default_mixture)
        if rank == 0 and weights_file is not None:
            self._course.open([WeightsFile(Path(weights_file), self._course.check)])
        if rank == 0 and weights_function is not None:
            self._course.open([WeightsCallable(weights_function, self._course.check)])
        self._ledger: Ledger | None = None
        self._since, self._waited, self._padding = 0, 0.0, 0
        self._planning = False
        self._go_to(Position.start(len(self.names), self.lanes))
        self._ledger = Ledger(Path(served)) if served is not None and rank == 0 else None
        self._open_ledger()

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return self

    def __next__(self) -> Batch:
        with self._lock:
            cursor = self._cursor
            if (begin := cursor.row) == cursor.end:
                cursor, begin = self._plan_ahead(), 0
            end = begin + self._rows_each
            if end > cursor.ready:
                began = time.perf_counter()
                cursor.ready = self._shelf.prepare(end)
                self._waited += time.perf_counter() - began
            addresses, rows = self._shelf.addresses, cursor.rows
            batch = self._maker.make(addresses, rows, begin, cursor.clusters)
            if self.pack == "bos":
                self._padding += count_padding(
                    addresses, rows, begin, self._rows_each, self.seq_len
                )
            # Last, so that a batch that fails is not counted.
            cursor.row = end
            return batch

    def __getstate__(self) -> NoReturn:
        raise UsageError(
            "a MixtureLoader cannot be copied or sent to another process; make one there, and give "
            "it the state_dict of this one"
        )

    @property
    def step(self) -> int:
        """Batches returned: the number of the next one, from 0."""
        cursor = self._cursor
        return cursor.start.step + cursor.row // self._rows_each

    @property
    @_one_at_a_time
    def mixture(self) -> Mixture:
        """The weights that the next batch will follow."""
        return self._course.log.mixture(self.step)

    @property
    @_one_at_a_time
    def served(self) -> dict[str, int]:
        """Tokens served of each cluster, on all ranks together."""
        rows = self._position().consumed.sum(axis=1) * self.seq_len
        return dict(zip(self.names, rows.tolist(), strict=True))

    @property
    @_one_at_a_time
    def epochs(self) -> dict[str, float]:
        """How often each cluster has been gone through, on all ranks together."""
        return self._allowance.served(self._position())

    @property
    def joined(self) -> int:
        """Documents of this rank's rows that ``cu_seqlens`` had no room for; see ``segments``."""
        return self._maker.joined

    @_one_at_a_time
    def metrics(self) -> dict[str, Any]:
        """Return where the run stands, as JSON values; shares are by name of cluster.

        ``step``, ``tokens``, ``target`` (weights of the next batch), ``served`` (shares of all
        tokens so far), ``epochs``, ``weights`` (number of the record in force) and ``used_up_at``
        (for clusters with ``max_epochs``: the step, by these weights) are of all ranks together
        and of the whole run. Of this rank, and only from step ``since`` on, where this loader began
        or loaded a state, are ``wait_seconds`` (for shards: fetched, checked, packed), ``padding``
        (tokens), and of the shards that were opened ``cut`` (documents) and ``dropped`` (tokens).
        """
        position = self._position()
        rows = position.consumed.sum(axis=1)
        integers = self._course.log.table(position.step, 1, self.names)[0]
        target, served = integers / ONE, rows / max(1, position.served)
        return {
            "step": position.step,
            "tokens": position.served * self.seq_len,
            "target": dict(zip(self.names, target.tolist(), strict=True)),
            "served": dict(zip(self.names, served.tolist(), strict=True)),
            "epochs": self.epochs,
            "weights": self._course.log.at(position.step).v,
            "used_up_at": forecast_ends(
                self.names,
                position.step,
                self._allowance.room(position),
                position.credit,
                integers,
                self.batch_rows,
            ),
            "since": self._since,
            "wait_seconds": self._waited,
            "padding": int(self._padding),
            "cut": self._shelf.cut,
            "dropped": self._shelf.dropped,
        }

    @_one_at_a_time
    def set_weights(
        self,
        weights: Mixture | Mapping[str, float],
        *,
        ramp: int = 0,
        why: str = "",
        at_step: int | None = None,
    ) -> int:
        """Change the weights, at once or in a straight line over ``ramp`` steps.

        With an `Agreement` rank 0 alone calls this, and all ranks follow at the step that is
        returned. Without one, every rank calls it with the same arguments after the same step.

        Args:
            weights: By name; scaled to sum 1.
            ramp: Steps until they are reached.
            why: For the log.
            at_step: First step that they hold for; default: as soon as can be.

        Returns:
            The step from which on they hold.

        Raises:
            UsageError: ``at_step`` has been served, lies before a change that is logged, or is
                not to be chosen.
            InvalidDataError: The weights do not fit the clusters.
        """
        mixture = weights if isinstance(weights, Mixture) else Mixture.of(weights)
        position = self._position()
        self._write_down()
        at_step = self._course.change(WeightsUpdate(mixture, ramp, why), position.step, at_step)
        self._go_to(position)
        return at_step

    @_one_at_a_time
    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch returned, as JSON values; see `LoaderState`."""
        self.flush()
        return self._state().to_json()

    @_one_at_a_time
    def flush(self) -> None:
        """Write down in the ledger what was served so far: `state_dict` does it too."""
        self._write_down()
        if self._ledger is not None:
            self._ledger.write(self._course.log)

    def _state(self) -> LoaderState:
        """Return the state after the last batch returned."""
        position = self._position()
        return LoaderState(
            step=position.step,
            served=position.served,
            seed=self.seed,
            seq_len=self.seq_len,
            batch_rows=self.batch_rows,
            lanes=self.lanes,
            pack=self.pack,
            data=self.manifest.fingerprint,
            clusters=self.names,
            consumed=position.consumed.tolist(),
            credit=position.credit.tolist(),
            weights=[record.to_json() for record in self._course.log.since(position.step)],
            part=self.part,
        )

    @_one_at_a_time
    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go to the position of ``state``, from any world size; also after iteration began.

        Raises:
            InvalidDataError: It belongs to other shards or settings, named in the message, or the
                weights log has another history.
            UsageError: The function for weights calls it.
        """
        self._check_not_planning()
        value = LoaderState.from_json(state)
        for name, ours in (
            ("data", self.manifest.fingerprint),
            ("clusters", self.names),
            ("seed", self.seed),
            ("seq_len", self.seq_len),
            ("lanes", self.lanes),
            ("pack", self.pack),
            ("part", self.part),
        ):
            if (theirs := getattr(value, name)) != ours:
                if name == "data" and theirs in self.manifest.earlier:
                    raise InvalidDataError(
                        f"the state is of these shards as they were with fingerprint {theirs}; "
                        "documents were appended since, and rows are in another order now. "
                        "Begin a new run with the weights of the model, or go on with a copy of "
                        "the shards from before"
                    )
                raise InvalidDataError(
                    f"the state was saved with {name}={short(theirs)}, this loader has "
                    f"{name}={short(ours)}; "
                    "make the loader with the state's"
                )
        self.flush()
        self._course.adopt(value.records(), value.step)
        consumed, credit = np.array(value.consumed, np.int64), np.array(value.credit, np.int64)
        self._go_to(Position(value.step, value.served, consumed, credit))
        self._since, self._waited, self._padding = value.step, 0.0, 0
        self._shelf.cut = self._shelf.dropped = 0
        self._open_ledger()
        return self

    def _open_ledger(self) -> None:
        """Begin the ledger here, or go on in it."""
        if self._ledger is not None:
            where = str(self.directory)
            where = where if "://" in where else str(Path(where).absolute())
            self._ledger.open(
                Opening(shards=where, max_epochs=self._allowance.epochs, state=self._state())
            )

    def _write_down(self) -> None:
        """Give the ledger the steps that were served of those that are planned."""
        cursor = self._cursor
        if self._ledger is not None and (done := cursor.row // self._rows_each):
            steps = cursor.steps
            self._ledger.add(
                cursor.start.step, steps.quotas[:done], steps.marks[:done], self._course.log
            )

    def _go_to(self, position: Position) -> None:
        """Go on from ``position``; what was planned is forgotten."""
        self._cursor = _Cursor.at(position)
        self._ahead = _AT_FIRST

    def _position(self) -> Position:
        """Return the position after the last batch returned."""
        cursor = self._cursor
        if (done := cursor.row // self._rows_each) == cursor.steps.planned:
            return cursor.steps.after
        # Planned again as far as it was served: no trace is kept of every step.
        room = self._allowance.room(cursor.start)
        return self._planner.plan(cursor.start, cursor.weights, done, room).after

    def _check_not_planning(self) -> None:
        """Raise `UsageError` if the caller is the function for weights."""
        if self._planning:
            raise UsageError(
                f"the function for weights of step {self.step} moves the loader on; it may return "
                "weights and look at the loader, no more"
            )

    def _plan_ahead(self) -> _Cursor:
        """Plan the next steps, and return the cursor before the first of them.

        Raises:
            StopIteration: Clusters are used up, and ``exhausted`` is ``stop``.
            UsageError: They are, and it is ``error``; or the function for weights asks for a batch.
        """
        self._check_not_planning()
        self._planning = True
        try:
            self._write_down()
            position = self._cursor.steps.after
            ahead = min(self._ahead, _AHEAD)
            count = min(ahead, max(1, _PLANNED // max(self.batch_rows, len(self.names))))
            weights, count = self._course.ahead(position.step, count)
            while not (
                steps := self._planner.plan(
                    position, weights, count, self._allowance.room(position)
                )
            ).planned:
                self._exhaust(position, weights[0])
                weights = self._course.log.table(position.step, count, self.names)
            self._shelf.begin(steps)
            self._cursor = _Cursor(position, steps, weights)
            self._ahead = 2 * ahead
            self._look_ahead()
        finally:
            self._planning = False
        return self._cursor

    def _look_ahead(self) -> None:
        """Ask for the shards that lanes turn to next, the soonest first."""
        cursor = self._cursor
        rates = cursor.weights[-1] * (self.batch_rows / ONE / self.lanes)
        soon, found = next_runs(
            self._planner.lanes, cursor.steps.after.consumed, rates, self.rank, self.world_size
        )
        for cluster, shard in found[np.argsort(soon)[:_SHARDS_AHEAD]].tolist():
            self._streams[cluster].want(shard)

    def _exhaust(self, position: Position, weights: NDArray[np.int64]) -> None:
        """Deal with clusters whose next rows would pass ``max_epochs``; see ``exhausted``."""
        quotas = allocate_rows(weights, self.batch_rows, position.credit.copy())
        over = self._allowance.passed(position, quotas)
        what = ", ".join(f"{name} after {epochs:.3f} epochs" for name, epochs in over.items())
        if self.exhausted == "error":
            raise UsageError(
                f"step {position.step} would take more than max_epochs of {what}; "
                "raise max_epochs, change the weights, or let exhausted be renormalise or stop"
            )
        if self.exhausted == "stop" or not self._course.cap(
            [*over], position.step, f"max_epochs: {what}"
        ):
            say(f"step {position.step}: the data ends, for want of {what}")
            raise StopIteration
        say(f"step {position.step}: no more of {what}; the others share its weight")

    def _agree(self, agreement: Agreement | None, *, live: bool) -> Agreement | None:
        """Check that the ranks of ``agreement`` are those of this loader; make one if need be.

        Raises:
            UsageError: They are others, or there are several ranks and no agreement.
        """
        if agreement is None and live:
            if self.world_size > 1:
                raise UsageError(
                    f"{self.world_size} ranks cannot follow a file or a function without an "
                    "agreement: give every rank agreement=Agreement()"
                )
            return Agreement()
        if agreement and (agreement.rank, agreement.world_size) != (self.rank, self.world_size):
            raise UsageError(
                f"the agreement is of rank {agreement.rank} of {agreement.world_size}, and the "
                f"loader of rank {self.rank} of {self.world_size}; make both for the same ranks"
            )
        return agreement

    def _default_mixture(self) -> Mixture:
        """Token shares of the clusters that have at least one row."""
        tokens = {
            c.name: c.tokens
            for c, s in zip(self.manifest.clusters, self._streams, strict=True)
            if s.rows
        }
        if small := [name for name in self.names if name not in tokens]:
            say(f"left out, for want of {self.seq_len} tokens in a shard: {', '.join(small)}")
        return Mixture.of(tokens)


def _start(
    weights: Mixture | Mapping[str, float] | str | Path | Schedule | None,
) -> Mixture | Schedule | None:
    """Read what a run begins with."""
    if weights is None or isinstance(weights, Mixture | Schedule):
        return weights
    if isinstance(weights, str | Path):
        return Mixture.load(weights)
    return Mixture.of(weights)


def _check_numbers(seq_len: int, batch_rows: int, rank: int, world_size: int, lanes: int) -> None:
    """Raise `UsageError` unless the numbers of a loader fit each other."""
    for name, value in (
        ("seq_len", seq_len),
        ("batch_rows", batch_rows),
        ("world_size", world_size),
        ("lanes", lanes),
    ):
        if operator.index(value) < 1:
            raise UsageError(f"{name} is {value}; it must be 1 or more")
    valid = _divisors(int(np.gcd(lanes, batch_rows)))
    if world_size not in valid:
        raise UsageError(
            f"{world_size} ranks cannot share {batch_rows} rows a batch in {lanes} lanes evenly; "
            f"world_size may be {', '.join(map(str, valid))}"
        )
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} of {world_size}; ranks are 0 to {world_size - 1}")


def _check_choice(what: str, given: str, choices: Sequence[str]) -> None:
    if given not in choices:
        raise UsageError(f"there is no {what} {given!r}; choose one of {', '.join(choices)}")


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
