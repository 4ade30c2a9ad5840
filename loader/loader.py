"""MixtureLoader: batches of tokens, by mixture weights that may change during the run.

A row is ``seq_len`` tokens of one cluster. A global batch consists of ``batch_rows`` rows, over all
ranks, for one optimizer step. Every rank plans the same global batches (`Lookahead`), that is, it
chooses their rows, and copies only its own rows. So ranks need no messages to agree on the rows,
and a state that was saved with one world size can resume with another. Rows are copied only when a
batch is asked for. So a change of weights costs little: steps are planned again, and no copied row
is thrown away.
"""

import functools
import operator
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, NoReturn, ParamSpec, Self, TypeVar
from weakref import WeakSet, finalize

import numpy as np
import torch

from climbstream.loader.audit.ledger import Ledger, Opening
from climbstream.loader.core.console import counted
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.renamed import renamed_attribute, renamed_parameters
from climbstream.loader.core.typed import short
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.grouping import folder_of
from climbstream.loader.formats.manifest import Manifest
from climbstream.loader.formats.mixture import ONE, Mixture, read_weights
from climbstream.loader.reading.collator import Batch, Collator
from climbstream.loader.reading.gather import count_padding
from climbstream.loader.reading.heldout_batches import HeldOutBatches, HeldOutChoice
from climbstream.loader.reading.open_shards import OpenShards
from climbstream.loader.reading.packing import PACKS
from climbstream.loader.reading.row_source import RowSource, served_shares
from climbstream.loader.reading.shard_cache import ShardCache
from climbstream.loader.sampling.epoch_limits import EpochLimits
from climbstream.loader.sampling.planner import BatchPlanner, RunSettings
from climbstream.loader.storage.hub import pin
from climbstream.loader.storage.store import Store
from climbstream.loader.weights.agreement import Agreement
from climbstream.loader.weights.controller import WeightsController
from climbstream.loader.weights.log import WeightsLog
from climbstream.loader.weights.request import write_clusters
from climbstream.loader.weights.schedule import Schedule
from climbstream.loader.weights.sources import WeightsCallable, WeightsFile
from climbstream.loader.weights.update import WeightsUpdate

from .lookahead import ON_EXHAUSTED, Lookahead
from .state import LoaderState

logger = get_logger(__name__)

Weights = Mixture | Mapping[str, float] | str | Path | Schedule | None
WeightsFunction = Callable[[int], Mixture | Mapping[str, float] | None]
_MOST_LEFT_OUT = 0.2
"""Share of the tokens from which on a loader warns that packing leaves them out."""
P = ParamSpec("P")
R = TypeVar("R")
RENAMED = {
    "log": "weights_log",
    "served": "ledger",
    "cache": "cache_dir",
    "part": "fraction",
    "segments": "max_segments",
    "exhausted": "on_exhausted",
}
"""New names of the renamed parameters of `MixtureLoader`, by old name."""


class _ForkLock:
    """Replaces the lock of a loader in a forked process: locking raises `UsageError`."""

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
    """Wrap ``method`` so that a call waits until no other thread is in a method of the loader."""

    @functools.wraps(method)
    def call(self: "MixtureLoader", /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:
            return method(self, *args, **kwargs)

    return call


class MixtureLoader:
    r"""An iterator of batches: dicts of torch tensors with this rank's rows.

    Without ``max_epochs``, the iteration never ends. A batch has the following fields, where
    ``rows`` is ``batch_rows / world_size``. The argument ``fields`` adds more; see `Collator`.

    - ``input_ids``, ``[rows, seq_len]``: the tokens.
    - ``cluster_ids``, int64 ``[rows]``: the index in ``names`` of each row's cluster.

    The order of rows depends only on the shards, the weights, ``seq_len``, ``batch_rows``,
    ``seed``, ``lanes``, ``pack`` and ``fraction``. It does not depend on rank, threads or cache.

    Any thread may call any method: a call waits until other calls have ended. Each batch is
    returned once, to the thread that asked for it; `state_dict` returns the position after the last
    batch returned to any thread. A loader cannot be pickled, copied, or used in a process that was
    forked after the loader was made.

    >>> import json, tempfile
    >>> from climbstream.builder import import_corpus
    >>> folder = Path(tempfile.mkdtemp())
    >>> rows = [{"text": f"story {n} " * 40, "cluster": n % 2} for n in range(20)]
    >>> _ = (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    >>> _ = import_corpus([str(folder / "rows.jsonl")], folder / "shards", workers=1)
    >>> weights = {"c00": 0.75, "c01": 0.25}
    >>> loader = MixtureLoader(folder / "shards", weights, seq_len=16, batch_rows=8)
    >>> next(loader)["input_ids"].shape
    torch.Size([8, 16])
    >>> loader.step, loader.tokens_served
    (1, {'c00': 96, 'c01': 32})
    """

    @renamed_parameters(**RENAMED)
    def __init__(
        self,
        directory: str | Path | Store | ShardDirectory,
        weights: Weights = None,
        *,
        grouping: str | None = None,
        others: str | None = None,
        seq_len: int,
        batch_rows: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        lanes: int = 8,
        pack: str = "concat",
        fraction: float = 1.0,
        fields: Sequence[str] = (),
        max_segments: int = 64,
        dtype: torch.dtype = torch.int64,
        pin_memory: bool = False,
        max_epochs: float | Mapping[str, float] | None = None,
        on_exhausted: str = "renormalise",
        weights_log: str | Path | None = None,
        ledger: str | Path | None = None,
        weights_file: str | Path | None = None,
        weights_function: WeightsFunction | None = None,
        agreement: Agreement | None = None,
        cache_dir: str | Path | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        """Open a shard directory, and begin a run at step 0.

        Args:
            directory: Shards, as `climb build` makes them: a folder, or a URL (``s3://``,
                ``hf://``, ``https://``).
            weights: A mixture, weights by name of cluster, the path of a mixture file, or a
                `Schedule` of mixtures. Default: the weights in ``weights_log`` if that file has
                records; else each cluster's share of all tokens.
            grouping: Name of a grouping of ``directory``, as `climb regroup` makes it. A grouping
                joins clusters into groups, and the loader uses the groups as its clusters.
            others: What is left for clusters without a weight, if the named weights do not sum to
                1. ``scale``: nothing; the named weights are scaled to sum 1. ``keep``: the rest, in
                proportion to their tokens; the named weights are shares of all tokens.
            seq_len: Number of tokens of a row.
            batch_rows: Number of rows of a global batch, over all ranks.
            rank: Number of this rank, from 0.
            world_size: Number of ranks; it must divide ``lanes`` and ``batch_rows``.
            seed: Seed of the order of rows.
            lanes: Number of lanes (virtual ranks) to which the rows of each cluster are dealt. This
                number cannot change during a run, so it must be a multiple of every world size that
                the run will have.
            pack: How documents become rows: ``concat``, ``bfd`` or ``bos``; see `packing`.
            fraction: Fraction of each cluster that is served, above 0 and at most 1; the rows are
                the same in every epoch. So a short run with a small fraction can repeat clusters as
                often as a long run with all rows.
            fields: Further fields of a batch: ``labels``, ``position_ids``, ``cu_seqlens``.
            max_segments: Largest number of documents that a row can have in ``cu_seqlens``.
            dtype: Type of tokens: ``torch.int64`` or ``torch.int32``.
            pin_memory: Whether batches are in page-locked memory.
            max_epochs: Largest number of epochs of each cluster: one number for all clusters, or
                numbers by name; fractions are allowed. Default: no limit.
            on_exhausted: What to do when a cluster reaches ``max_epochs``. ``renormalise``: other
                clusters share its weight. ``stop``: the iteration ends. ``error``: `UsageError` is
                raised.
            weights_log: Path of the weights log, a file that records all changes of weights.
                Default: the log is kept in memory and in saved states.
            ledger: Path of the ledger, a file that records which rows were served, as hashes. Only
                rank 0 writes this file; `climb audit` checks it. Default: no ledger.
            weights_file: Path of a file through which users change the weights of a running job.
                `climb weights` writes this file; rank 0 reads it every `Agreement.every` steps.
            weights_function: Function that gets the number of steps so far. It returns new
                weights, or None to keep the present weights. Rank 0 calls it every
                `Agreement.every` steps.
            agreement: Makes all ranks change weights at the same step. If there are several ranks,
                it is needed for ``weights_file`` and ``weights_function``, and if only rank 0 calls
                `set_weights`.
            cache_dir: Folder for decompressed shards; default: the user's cache folder.
            cache_bytes: Largest size of the shards in that folder, in bytes; default: no limit.

        Raises:
            UsageError: An argument is invalid. Or ``world_size`` does not divide ``lanes`` and
                ``batch_rows``; the message lists numbers that do. Or weights by name do not sum to
                1, and ``others`` is not set.
            InvalidDataError: ``directory`` has no shards, the mixture is for other clusters, or a
                cluster with weight has no row.
            RemoteError: A store failed, refused or did not answer.
        """
        self._lock: threading.RLock | _ForkLock = threading.RLock()
        _LOADERS.add(self)
        _check_numbers(seq_len, batch_rows, rank, world_size, lanes)
        _check_choice("packing", pack, PACKS)
        _check_choice("way to be exhausted", on_exhausted, ON_EXHAUSTED)
        # numpy's integers are turned into plain integers, because these are written to states.
        self._run = RunSettings(
            seed=operator.index(seed),
            seq_len=operator.index(seq_len),
            batch_rows=operator.index(batch_rows),
            lanes=operator.index(lanes),
            pack=pack,
            fraction=float(fraction),
        )
        self.rank, self.world_size, self.on_exhausted = rank, world_size, on_exhausted
        if grouping is not None:
            shards = directory.store if isinstance(directory, ShardDirectory) else directory
            directory = folder_of(shards, grouping)
        # A name on the Hub is pinned to its present commit, so that later reads use this commit.
        self.shards = ShardDirectory.open(
            pin(directory) if isinstance(directory, str) else directory
        )
        self.names = self.shards.names
        self._rows_each = self.batch_rows // world_size
        self._make_collator = functools.partial(
            Collator,
            seq_len=self.seq_len,
            size=self.shards.token_size,
            padding=self.manifest.eos_id or 0,
            fields=fields,
            max_segments=max_segments,
            dtype=dtype,
            pin_memory=pin_memory,
        )
        self._collator = self._make_collator(self._rows_each)
        self._sources = sources = self._open_sources(cache_dir, cache_bytes)
        self._batches_begun = False
        rows = np.array([*self._epoch_rows.values()], np.int64)
        self._limits = EpochLimits(max_epochs, self.names, rows)
        live = weights_file is not None or weights_function is not None
        if rank == 0 and weights_file is not None:
            _check_folder(Path(weights_file), weights_log)
        agreement = _check_agreement(agreement, rank, world_size, live=live)
        self._ranks_agree = agreement is not None or world_size == 1
        """Whether `set_weights` needs no warning about other ranks."""
        self._weights = self._control_weights(sources, _open_log(weights_log, rank), agreement)
        self._begin_weights(self._start(weights, others))
        if rank == 0:
            self._warn_of_left_out(sources)
        if rank == 0:
            self._weights.open(_sources(weights_file, weights_function, self._weights))
            if weights_file is not None:
                write_clusters(Path(weights_file), self.names)
        self._ledger = Ledger(Path(ledger)) if ledger is not None and rank == 0 else None
        self._lookahead = self._look_ahead(sources)
        self._batches: list[tuple[int, int]] | None = [(0, self.batch_rows)]
        self._end: tuple[str, int | None] | None = None
        """Result of the last call of `len`, which is valid as long as the weights log does not
        change: (hash of the log's last record, number of batches or None for an endless run). None:
        `len` was not called yet."""
        self._ends: tuple[str, dict[str, int]] = "", {}
        """Steps at which clusters are used up, as `_end` has the result of `len`; "": unknown."""
        self._count_from_here()
        self._open_ledger()
        self._told = self._steps_told()
        """Text of `_steps_told` for a warning; "" once a state was loaded or the warning given."""

    def _open_sources(self, cache_dir: str | Path | None, limit: int | None) -> list[RowSource]:
        """Return the source of rows of each cluster; ``limit`` is the cache's limit in bytes."""
        cache = ShardCache(Path(cache_dir) if cache_dir is not None else None, limit=limit)
        finalize(self, cache.close)  # a loader that nobody uses any more fetches no more shards
        self.shards.load_indexes(self.names, cache.root)
        sources = [RowSource(self.shards, name, self._run, cache) for name in self.names]
        self._open_shards = OpenShards(sources, self.lanes)
        self._epoch_rows = {source.name: source.rows for source in sources}
        return sources

    def _control_weights(
        self, sources: Sequence[RowSource], log: WeightsLog, agreement: Agreement | None
    ) -> WeightsController:
        """Return the controller of the weights, which adds records to ``log``."""
        return WeightsController(
            self._epoch_rows,
            log,
            why_none=f"no shard of {self.seq_len} tokens",
            longest={source.name: source.longest for source in sources},
            agreement=agreement,
        )

    def _look_ahead(self, sources: Sequence[RowSource]) -> Lookahead:
        """Return the lookahead, which plans the steps of this rank."""
        shard_rows = {source.name: source.shard_rows for source in sources}
        return Lookahead(
            BatchPlanner.for_run(shard_rows, self._run, self.rank, self.world_size),
            self._weights,
            self._limits,
            self._open_shards,
            ledger=self._ledger,
            on_exhausted=self.on_exhausted,
        )

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return self

    def __next__(self) -> Batch:
        with self._lock:
            cursor = self._lookahead.cursor
            if (begin := cursor.row) == cursor.end:
                if not self._batches_begun:
                    self._check_pulled()
                if self._told:
                    self._warn_of_told()
                cursor, begin = self._lookahead.extend(), 0
            end = begin + self._rows_each
            if end > cursor.ready:
                began = time.perf_counter()
                cursor.ready = self._open_shards.prepare(end)
                self._waited += time.perf_counter() - began
            addresses, rows = self._open_shards.addresses, cursor.rows
            batch = self._collator.make(addresses, rows, begin, cursor.clusters)
            if self.pack == "bos":
                self._padding += count_padding(
                    addresses, rows, begin, self._rows_each, self.seq_len
                )
            # This comes last, so that a batch that fails is not counted.
            cursor.row = end
            return batch

    @_one_at_a_time
    def __len__(self) -> int:
        """Return the number of batches of the whole run, if ``max_epochs`` ends it.

        The number is exact if there are no other changes of weights than those in the log and the
        schedule. With ``max_epochs=1`` it may be a few batches smaller than `steps_per_epoch`,
        because the last rows of a cluster are not served if a batch needs more rows than are left.

        Raises:
            TypeError: The run does not end.
        """
        head = self._weights.log.head
        if self._end is None or self._end[0] != head:
            self._end = head, self._lookahead.end()
        if (end := self._end[1]) is None:
            raise TypeError(
                "this MixtureLoader has no length, because no max_epochs ends it with these "
                "weights; count steps by loader.steps_per_epoch, or give max_epochs for every "
                "cluster. A DataLoader takes MixtureDataset(loader), with batch_size=None"
            )
        return end

    def __getitem__(self, _index: object) -> NoReturn:
        """Raise `TypeError`: batches have an order, but a `DataLoader` asks for items by number."""
        raise TypeError(
            "a MixtureLoader has no items by number; iterate over it. A DataLoader takes "
            "DataLoader(MixtureDataset(loader), batch_size=None), with MixtureDataset from "
            "climbstream.loader"
        )

    def __bool__(self) -> bool:
        return True  # without this method, a loader without length would raise

    def __getstate__(self) -> NoReturn:
        raise UsageError(
            "a MixtureLoader cannot be copied or sent to another process; make one there, and give "
            "it the state_dict of this one"
        )

    def __repr__(self) -> str:
        run = self._run
        ranks = f", rank {self.rank} of {self.world_size}" if self.world_size > 1 else ""
        return (
            f"MixtureLoader(step={self.step}, {len(self.names)} clusters, {run.batch_rows} rows of "
            f"{run.seq_len} tokens a batch{ranks}, shards={str(self.shards)!r})"
        )

    @property
    def step(self) -> int:
        """Number of batches returned so far; also the number of the last one, counted from 1."""
        return self._lookahead.step

    @property
    def manifest(self) -> Manifest:
        """The manifest of the shards."""
        return self.shards.manifest

    @property
    def directory(self) -> Store:
        """Folder or URL of the shards."""
        return self.shards.store

    @property
    def seq_len(self) -> int:
        """Number of tokens of a row."""
        return self._run.seq_len

    @property
    def batch_rows(self) -> int:
        """Number of rows of a global batch, over all ranks."""
        return self._run.batch_rows

    @property
    def seed(self) -> int:
        """Seed of the order of rows."""
        return self._run.seed

    @property
    def lanes(self) -> int:
        """Number of lanes that share the rows of each cluster."""
        return self._run.lanes

    @property
    def pack(self) -> str:
        """How documents become rows: ``concat``, ``bfd`` or ``bos``."""
        return self._run.pack

    @property
    def fraction(self) -> float:
        """Fraction of each cluster that is served."""
        return self._run.fraction

    @property
    @_one_at_a_time
    def mixture(self) -> Mixture:
        """The weights of the next batch."""
        return self._weights.log.mixture(self.step)

    @property
    @_one_at_a_time
    def tokens_served(self) -> dict[str, int]:
        """Number of tokens of each cluster that were served, over all ranks, by name."""
        rows = self._lookahead.position().consumed.sum(axis=1) * self.seq_len
        return dict(zip(self.names, rows.tolist(), strict=True))

    @property
    @_one_at_a_time
    def epochs(self) -> dict[str, float]:
        """Number of epochs of each cluster that were served, over all ranks, by name."""
        return self._limits.served(self._lookahead.position())

    @property
    @_one_at_a_time
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch of all clusters with weight, rounded down; at least 1.

        It is the number of rows of these clusters, divided by ``batch_rows``.
        If each weight is the cluster's share of all tokens, this number of batches serves each
        cluster once. With other weights, it serves some clusters several times, and others only in
        part; see `epochs`.
        """
        rows = sum(self._epoch_rows[name] for name in self._weights.log.mixture(self.step).weights)
        return max(1, rows // self.batch_rows)

    part = renamed_attribute("part", "fraction")
    served = renamed_attribute("served", "tokens_served")
    exhausted = renamed_attribute("exhausted", "on_exhausted")

    @property
    def joined(self) -> int:
        """Number of documents so far for which ``cu_seqlens`` had no room.

        ``cu_seqlens`` has room for ``max_segments`` documents of a row. It treats each further
        document of the row as a part of the last of these documents.
        """
        return self._collator.joined

    def heldout(
        self,
        cluster: str | None = None,
        *,
        label: str | None = None,
        max_tokens: int | None = None,
    ) -> HeldOutBatches:
        """Return batches of held-out text, packed like training batches.

        Held-out text is text that the build kept out of the shards, so training batches never
        contain it. The result is finite, and can be iterated any number of times. Each rank gets
        its part of the rows, and all ranks get the same number of batches.

        Args:
            cluster: Name of a cluster or, if no cluster has that name, a label; default: all.
            label: Label (known domain) of the documents; default: all.
            max_tokens: Largest number of tokens over all ranks, spread evenly over the clusters.
                Which text is chosen does not depend on the seed. Default: no limit.

        Raises:
            UsageError: There is no such text, or too little for one row per rank. The message names
                the clusters and labels that have held-out text.
        """
        return HeldOutBatches.of(
            self.shards,
            self._make_collator,
            HeldOutChoice(cluster, label, max_tokens),
            pack=self.pack,
            seq_len=self.seq_len,
            batch_rows=self.batch_rows,
            rank=self.rank,
            world_size=self.world_size,
        )

    def decode(self, batch: Mapping[str, torch.Tensor] | torch.Tensor) -> list[str]:
        """Return the text of each row of a batch, including the tokens that end documents.

        ``batch`` is a batch, or only its ``input_ids``.

        Raises:
            UsageError: The shards have no tokenizer, as after an import of tokens alone.
        """
        tokens = batch["input_ids"] if isinstance(batch, Mapping) else batch
        rows: list[list[int]] = tokens.reshape(-1, tokens.shape[-1]).tolist()
        return self.shards.tokenizer().decode_batch(rows, skip_special_tokens=False)

    @_one_at_a_time
    def metrics(self) -> dict[str, Any]:
        """Return the state of the run as JSON values.

        Numbers for all ranks and the whole run:

        - ``step``, ``tokens``: numbers of steps and of tokens served so far.
        - ``weights``: number of the weights record in force.

        Dicts with one number per cluster, by name, for all ranks and the whole run:

        - ``target``: weight in the next batch.
        - ``served``: share of all tokens served so far.
        - ``epochs``: number of epochs served so far.
        - ``used_up_at``: step at which the cluster reaches ``max_epochs``, if weights change only
          as the log and the schedule say. Clusters that do not reach it before the data ends are
          left out. If more than 32 clusters reach it, only the first 32 are named, and those
          that reach it at the same step as the last of these.

        Numbers for this rank alone:

        - ``since``: step from which the other numbers of this list are counted. This is the step at
          which this loader began, or the step of the state that it loaded last.
        - ``wait_seconds``: seconds that batches waited for shards to be fetched and packed.
        - ``padding``: number of padding tokens in the batches.
        - ``cut``: number of documents in the opened shards that were split over rows or cropped.
        - ``dropped``: number of tokens in the opened shards that are in no row.
        """
        position = self._lookahead.position()
        rows = position.consumed.sum(axis=1)
        integers = self._weights.log.table(position.step, 1, self.names)[0]
        target, served = integers / ONE, rows / max(1, position.served)
        return {
            "step": position.step,
            "tokens": position.served * self.seq_len,
            "target": dict(zip(self.names, target.tolist(), strict=True)),
            "served": dict(zip(self.names, served.tolist(), strict=True)),
            "epochs": self.epochs,
            "weights": self._weights.log.at(position.step).v,
            "used_up_at": self._used_up_at(),
            "since": self._since,
            "wait_seconds": self._waited,
            "padding": int(self._padding),
            "cut": self._open_shards.cut,
            "dropped": self._open_shards.dropped,
        }

    @_one_at_a_time
    def set_weights(
        self,
        weights: Mixture | Mapping[str, float],
        *,
        others: str | None = None,
        ramp: int = 0,
        why: str = "",
        at_step: int | None = None,
    ) -> int:
        """Change the weights, immediately or linearly over ``ramp`` steps.

        With an `Agreement`, only rank 0 calls this method, and all ranks change weights at the step
        that is returned. Without an agreement, every rank must call it with the same arguments
        after the same step; the first call logs a warning that says so.

        Args:
            weights: A mixture, or weights by name, which sum to 1 unless ``others`` is set.
            others: What other clusters get if the named weights do not sum to 1. ``keep``: the
                rest, in proportion to the weights that were asked for last, as with `climb
                weights`. ``scale``: nothing; the named weights are scaled to sum 1.
            ramp: Number of steps until the new weights are reached; 0: they take effect
                immediately.
            why: Reason, which is written to the weights log.
            at_step: Step after which the change begins; default: the earliest possible.

        Returns:
            The step after which the change begins. Without a ramp, the batch after this step has
            the new weights.

        Raises:
            UsageError: The step ``at_step`` was already served, or is before a change in the log.
                Or ``at_step`` is given although several ranks have an `Agreement`. Or the weights
                do not sum to 1, and ``others`` is not set.
            InvalidDataError: A weight above 0 is for an unknown cluster, or for one without a row.
        """
        mixture = read_weights(weights, others, self._weights.last_asked())
        position = self._lookahead.position()
        self._lookahead.note_served()
        at_step = self._weights.change(WeightsUpdate(mixture, ramp, why), position.step, at_step)
        self._lookahead.go_to(position)
        self._warn_of_other_ranks(position.step)
        return at_step

    @_one_at_a_time
    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch returned, as JSON values; see `LoaderState`."""
        self.flush()
        return self._state().to_json()

    @_one_at_a_time
    def flush(self) -> None:
        """Write the steps served so far to the ledger, if any; `state_dict` calls this method."""
        self._lookahead.note_served()
        if self._ledger is not None:
            self._ledger.write(self._weights.log)

    def _used_up_at(self) -> dict[str, int]:
        """Return the step at which each cluster is used up, by name, as `metrics` does."""
        head = self._weights.log.head
        if self._ends[0] != head:
            self._ends = head, self._lookahead.used_up_at()
        return dict(self._ends[1])

    def _state(self) -> LoaderState:
        """Return the state after the last batch returned."""
        return LoaderState.at(
            self._lookahead.position(),
            self._run,
            self.manifest,
            self._weights.log,
            self._batches,
        )

    @_one_at_a_time
    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go to the position of ``state``, and return this loader.

        The state may have been saved with any world size. This loader may already have returned
        batches. After the call, the weights are those of the state. A warning is logged if the
        state has other weights or another ``batch_rows`` than this loader was made with, or if the
        ledger has other ``max_epochs``.

        Raises:
            InvalidDataError: The state is of other shards or settings; the message names them. Or
                the file of the weights log differs from the records in the state.
            UsageError: ``weights_function`` has called this method.
        """
        self._lookahead.check_not_planning()
        value = LoaderState.from_json(state)
        value.check_run(self._run, self.manifest)
        value.check_rows(self._epoch_rows)
        self.flush()
        self._weights.adopt(value.records(), value.step)
        self._batches = value.batches_from(self.batch_rows)
        self._lookahead.go_to(value.position())
        self._end, self._ends = None, ("", {})
        self._count_from_here()
        self._open_ledger()
        self._told = ""
        if value.batch_rows != self.batch_rows:
            logger.warning(
                f"after step {value.step:,}, a batch has {self.batch_rows:,} rows; the state was "
                f"saved with batch_rows={value.batch_rows}"
            )
        return self

    def _warn_of_left_out(self, sources: Sequence[RowSource]) -> None:
        """Warn if packing leaves out a large share of the tokens of the clusters with weight."""
        weights = self._weights.log.records[-1].weights
        used = [source for source in sources if weights.get(source.name)]
        tokens, left_out = sum(s.tokens for s in used), sum(s.left_out for s in used)
        if left_out <= _MOST_LEFT_OUT * tokens:
            return
        bos = self.pack == "bos"
        remedy = "a larger seq_len, pack='bfd' or pack='concat'" if bos else "a smaller seq_len"
        logger.warning(
            f"pack={self.pack!r} with seq_len={self.seq_len} leaves out {left_out / tokens:.0%} of "
            f"the tokens in each epoch, {left_out:,} of {tokens:,}; for fewer, use {remedy}"
        )

    def _warn_of_other_ranks(self, step: int) -> None:
        """Warn once, after a change of weights at ``step``, if other ranks cannot hear of it."""
        if self._ranks_agree:
            return
        self._ranks_agree = True  # the warning is given once
        logger.warning(
            f"step {step:,}: set_weights changed the weights of rank {self.rank} only. Each of the "
            f"{self.world_size} ranks must call it with the same arguments after the same step; "
            "else rows are served twice or not at all. With agreement=Agreement(), rank 0 calls it "
            "for all ranks"
        )

    def _check_pulled(self) -> None:
        """Check that a pull with a mixture left out no cluster that has weight.

        The check comes before the first batch, because a saved state may bring other weights than
        those with which the loader was made.
        """
        weights = self._weights.log.records[-1].weights
        used = [source for source in self._sources if weights.get(source.name)]
        self.shards.check_pulled(
            (source.name for source in used if not source.is_cached()),
            ", or give a mixture without them (climb train --mixture FILE)",
        )
        self._batches_begun = True

    def _steps_told(self) -> str:
        """Say, for a warning, which steps the ledger and the weights log already have; "" if none.

        These steps are those of an earlier run, if no state is loaded.
        """
        told, log = [], self._weights.log
        if self._ledger is not None and self._ledger.end:
            told.append(f"{self._ledger.path} has {counted(self._ledger.end, 'step')}")
        if last := log.records[-1].at_step:
            told.append(f"{log.path} has a change of weights at step {last:,}")
        return " and ".join(told)

    def _warn_of_told(self) -> None:
        """Warn that the run begins at step 0, although its ledger or log has later steps."""
        logger.warning(
            f"no state was loaded, so the run begins at step 0, but {self._told}. Changes in the "
            "weights log take effect at their steps again. To continue the earlier run, load the "
            "state of its checkpoint; to begin another run, name other files"
        )
        self._told = ""

    def _count_from_here(self) -> None:
        """Set to 0 the counters of this rank that `metrics` returns."""
        self._since, self._waited, self._padding = self.step, 0.0, 0
        self._open_shards.cut = self._open_shards.dropped = 0

    def _open_ledger(self) -> None:
        """Let the ledger, if there is one, begin or continue at the present position."""
        if self._ledger is not None:
            where = str(self.directory)
            where = where if "://" in where else str(Path(where).absolute())
            self._ledger.open(
                Opening(shards=where, max_epochs=self._limits.epochs, state=self._state())
            )

    def _start(self, weights: Weights, others: str | None) -> Mixture | Schedule | None:
        """Return ``weights`` as a mixture or schedule; None if the caller gave no weights."""
        if weights is None or isinstance(weights, Schedule):
            return weights
        if isinstance(weights, str | Path):
            return Mixture.load(weights)
        now = self._token_shares().weights if others == "keep" else {}
        return read_weights(weights, others, now)

    def _token_shares(self) -> Mixture:
        return served_shares(self.shards, self.seq_len, self.pack)

    def _begin_weights(self, start: Mixture | Schedule | None) -> None:
        """Begin an empty weights log with ``start``; None stands for each cluster's token share.

        A log that has records is checked instead: it must have begun with ``start``, if given.
        """
        if (
            self.rank == 0
            and isinstance(start, Mixture)
            and (misfit := self.manifest.misfit(start))
        ):
            logger.warning(misfit)
        self._weights.begin(start, self._token_shares)


def _open_log(path: str | Path | None, rank: int) -> WeightsLog:
    """Open the weights log in the file ``path``; None: make a log in memory."""
    if path is None:
        return WeightsLog()
    # Rank 0 writes the file; other ranks read it, and make the same new records in memory.
    return WeightsLog.open(Path(path), write=rank == 0)


def _sources(
    file: str | Path | None, function: WeightsFunction | None, weights: WeightsController
) -> list[WeightsFile | WeightsCallable]:
    """Return the sources of new weights that are polled during the run: file and function."""
    sources: list[WeightsFile | WeightsCallable] = []
    if file is not None:
        sources.append(WeightsFile(Path(file), weights.check))
    if function is not None:
        sources.append(WeightsCallable(function, weights.check))
    return sources


def _check_agreement(
    agreement: Agreement | None, rank: int, world_size: int, *, live: bool
) -> Agreement | None:
    """Return the agreement that a loader uses, or None if it needs none.

    ``live`` says that new weights come from a file or a function during the run. A loader of one
    rank then needs an agreement too; it is made here if ``agreement`` is None.

    Raises:
        UsageError: ``agreement`` is for another rank or world size. Or ``live`` is set, there are
            several ranks, and ``agreement`` is None.
    """
    if agreement is None and live:
        if world_size > 1:
            raise UsageError(
                f"{world_size} ranks cannot follow a file or a function without an agreement: "
                "write from climbstream.loader import Agreement, and give every rank "
                "agreement=Agreement()"
            )
        return Agreement()
    if agreement and (agreement.rank, agreement.world_size) != (rank, world_size):
        remedy = (
            f"give the loader rank={agreement.rank} and world_size={agreement.world_size}"
            if agreement.world_size > 1
            else "call torch.distributed.init_process_group() before Agreement()"
        )
        raise UsageError(
            f"the agreement is for rank {agreement.rank} of {agreement.world_size}, as "
            f"torch.distributed says, but the loader is for rank {rank} of {world_size}; {remedy}"
        )
    return agreement


def _check_folder(weights_file: Path, weights_log: str | Path | None) -> None:
    """Raise `UsageError` unless ``weights_file`` is in a folder that exists or will be made.

    The folder of ``weights_log`` is made when the log is written.
    """
    folder = weights_file.parent
    if not folder.is_dir() and (weights_log is None or folder != Path(weights_log).parent):
        raise UsageError(
            f"weights_file is {weights_file}, but there is no folder {folder}; make the folder, or "
            "name a file in the folder of the run, beside weights_log"
        )


def _check_numbers(seq_len: int, batch_rows: int, rank: int, world_size: int, lanes: int) -> None:
    """Raise `UsageError` if the numbers of rows, ranks and lanes cannot be combined."""
    for name, value in (
        ("seq_len", seq_len),
        ("batch_rows", batch_rows),
        ("world_size", world_size),
        ("lanes", lanes),
    ):
        if not hasattr(value, "__index__") or operator.index(value) < 1:
            raise UsageError(f"{name} is {short(value)}; it must be a whole number, 1 or more")
    valid = _divisors(int(np.gcd(lanes, batch_rows)))
    if world_size not in valid:
        raise UsageError(
            f"{world_size} ranks cannot evenly share batches of {batch_rows} rows in {lanes} "
            f"lanes; world_size may be {', '.join(map(str, valid))}, or for {world_size} ranks use "
            f"{_remedy(batch_rows, world_size, lanes)}"
        )
    if not hasattr(rank, "__index__") or not 0 <= rank < world_size:
        raise UsageError(
            f"rank is {short(rank)}, and world_size is {world_size}; ranks are 0 to "
            f"{world_size - 1}"
        )


def _remedy(batch_rows: int, world_size: int, lanes: int) -> str:
    """Return arguments for a message, such as ``lanes=6``, that fit ``world_size`` ranks."""
    wanted = {"batch_rows": batch_rows, "lanes": lanes}
    fits = {name: -(-value // world_size) * world_size for name, value in wanted.items()}
    return " and ".join(f"{name}={n}" for name, n in fits.items() if n != wanted[name])


def _check_choice(what: str, choice: str, choices: Sequence[str]) -> None:
    if choice not in choices:
        raise UsageError(f"there is no {what} {choice!r}; choose one of {', '.join(choices)}")


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
