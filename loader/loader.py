"""MixtureLoader: batches of tokens, by weights that may change while it runs.

A row is ``seq_len`` tokens of one cluster. A global batch is ``batch_rows`` rows for one optimizer
step. Every rank plans the same whole batch (`draw_quotas`, `deal_lanes`: microseconds) and reads
only its own rows of it, so ranks agree without talking, and a state from one world size continues
on another. A batch is decided when it is asked for: nothing is prefetched that a change of weights
would have to throw away.
"""

import operator
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from .cache import ShardCache
from .draw import deal_lanes, draw_quotas
from .errors import InvalidDataError, UsageError
from .manifest import Manifest, cluster_folder, load_index
from .mixture import Mixture
from .order import key
from .progress import say
from .state import LoaderState
from .stream import TokenStream
from .weights import WeightsLog, WeightsRecord

PACKS = ("concat",)


class MixtureLoader:
    """An endless iterator of batches: dicts of torch tensors with this rank's rows.

    ``input_ids`` is int64 ``[rows, seq_len]``; ``cluster_ids``, int64 ``[rows]``, is the position
    of each row's cluster in ``names``; rows = batch_rows / world_size. The order of rows is a pure
    function of the shards, the seed, ``lanes`` and the weights, never of rank, threads or cache.
    """

    def __init__(
        self,
        directory: str | Path,
        weights: Mixture | Mapping[str, float] | str | Path | None = None,
        *,
        seq_len: int,
        batch_rows: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        lanes: int = 8,
        pack: str = "concat",
        log: str | Path | None = None,
        cache: str | Path | None = None,
    ) -> None:
        """Open a shard directory.

        Args:
            directory: What `climb build` made.
            weights: A mixture, weights by name, or the file of a mixture; default: token shares,
                or what ``log`` holds.
            seq_len: Tokens of a row.
            batch_rows: Rows of a global batch, over all ranks.
            rank: Which rank this is, from 0.
            world_size: Number of ranks; divides ``lanes`` and ``batch_rows``.
            seed: Keys every order.
            lanes: Into how many parts each cluster is dealt; fixed for a run, a multiple of every
                world size that it will ever have.
            pack: How documents become rows: ``concat``.
            log: File of the weights log; default: kept in memory and in the state alone.
            cache: Folder for decompressed shards; default: the user's cache folder.

        Raises:
            UsageError: Numbers that do not fit each other; the message lists those that do.
            InvalidDataError: No shard directory; a mixture for other clusters; a cluster with
                weight but without one row of tokens.
        """
        _check_numbers(seq_len, batch_rows, rank, world_size, lanes, pack)
        self.directory = Path(directory)
        self.manifest = Manifest.load(self.directory)
        self.names = self.manifest.names
        self.rank, self.world_size = rank, world_size
        # Plain integers, also if they came as those of numpy: they go into the state.
        self.seq_len, self.batch_rows = operator.index(seq_len), operator.index(batch_rows)
        self.seed, self.lanes = operator.index(seed), operator.index(lanes)
        self.pack = pack
        store = ShardCache(Path(cache) if cache is not None else None)
        self._streams = [
            TokenStream(
                cluster.name,
                cluster_folder(self.directory, cluster.name),
                load_index(self.directory, self.manifest, cluster),
                store,
                seq_len=seq_len,
                lanes=lanes,
                seed=seed,
            )
            for cluster in self.manifest.clusters
        ]
        self._lane_rows = np.stack([stream.lane_rows for stream in self._streams])
        self._order_key = np.uint64(key(seed, "order within a batch"))
        # Rank 0 writes the log; the others read it and make the same records in memory.
        self._log = WeightsLog.open(Path(log), write=rank == 0) if log else WeightsLog()
        self._start_log(weights)
        self._in_force: WeightsRecord | None = None
        self._integers: NDArray[np.int64] = np.zeros(0, np.int64)
        self._step = self._served = 0
        self._consumed = np.zeros((len(self.names), lanes), np.int64)
        self._credit = np.zeros(len(self.names), np.int64)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return self

    def __next__(self) -> dict[str, torch.Tensor]:
        # Kept aside until the rows are read: a batch that fails is not counted.
        credit, consumed = self._credit.copy(), self._consumed.copy()
        plan = self._plan(credit, consumed)
        mine = plan[plan[:, 1] % self.world_size == self.rank]
        rows = np.empty((len(mine), self.seq_len), np.int64)
        for (cluster, lane, number), row in zip(mine.tolist(), rows, strict=True):
            stream = self._streams[cluster]
            stream.read(stream.locate(lane, number), row)
        self._credit, self._consumed = credit, consumed
        self._step += 1
        self._served += self.batch_rows
        return {
            "input_ids": torch.from_numpy(rows),
            "cluster_ids": torch.from_numpy(mine[:, 0].copy()),
        }

    @property
    def step(self) -> int:
        """Batches returned: the number of the next one, from 0."""
        return self._step

    @property
    def mixture(self) -> Mixture:
        """The weights that the next batch will follow."""
        return Mixture.of(self._log.at(self._step).weights)

    @property
    def served(self) -> dict[str, int]:
        """Tokens served of each cluster, on all ranks together."""
        rows = self._consumed.sum(axis=1) * self.seq_len
        return dict(zip(self.names, rows.tolist(), strict=True))

    @property
    def epochs(self) -> dict[str, float]:
        """How often each cluster has been gone through, on all ranks together."""
        return {
            stream.name: float(rows / stream.rows) if stream.rows else 0.0
            for stream, rows in zip(self._streams, self._consumed.sum(axis=1), strict=True)
        }

    def set_weights(
        self,
        weights: Mixture | Mapping[str, float],
        *,
        why: str = "",
        at_step: int | None = None,
    ) -> WeightsRecord:
        """Change the weights from step ``at_step`` on; default: from the next batch on.

        With several ranks every rank calls this with the same arguments after the same step.

        Raises:
            UsageError: ``at_step`` has been served, or lies before a change that is logged.
            InvalidDataError: The weights do not fit the clusters.
        """
        at_step = self._step if at_step is None else at_step
        if at_step < self._step:
            raise UsageError(
                f"weights were asked for step {at_step}, but {self._step} steps are served; "
                f"name step {self._step} or later"
            )
        mixture = weights if isinstance(weights, Mixture) else Mixture.of(weights)
        self._check_rows(mixture)
        return self._log.append(mixture, at_step, why)

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch returned, as JSON values; see `LoaderState`."""
        return LoaderState(
            step=self._step,
            served=self._served,
            seed=self.seed,
            seq_len=self.seq_len,
            batch_rows=self.batch_rows,
            lanes=self.lanes,
            pack=self.pack,
            data=self.manifest.fingerprint,
            clusters=self.names,
            consumed=self._consumed.tolist(),
            credit=self._credit.tolist(),
            weights=[record.to_json() for record in self._log.since(self._step)],
        ).to_json()

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go to the position of ``state``, from any world size; also after iteration began.

        Raises:
            InvalidDataError: It belongs to other shards or settings, named in the message, or the
                weights log has another history.
        """
        value = LoaderState.from_json(state)
        for name, ours in (
            ("data", self.manifest.fingerprint),
            ("seed", self.seed),
            ("seq_len", self.seq_len),
            ("lanes", self.lanes),
            ("pack", self.pack),
        ):
            if (theirs := getattr(value, name)) != ours:
                raise InvalidDataError(
                    f"the state was saved with {name}={theirs!r}, this loader has {name}={ours!r}; "
                    "make the loader with the state's"
                )
        self._adopt_log(value.records(), value.step)
        self._in_force = None
        self._step, self._served = value.step, value.served
        self._consumed = np.array(value.consumed, np.int64)
        self._credit = np.array(value.credit, np.int64)
        return self

    def _plan(self, credit: NDArray[np.int64], consumed: NDArray[np.int64]) -> NDArray[np.int64]:
        """Decide the next global batch: cluster, lane and number of each row, int64 ``[B, 3]``.

        ``credit`` ``[K]`` and ``consumed`` ``[K, C]`` are updated in place.
        """
        record = self._log.at(self._step)
        if record is not self._in_force:
            self._in_force = record
            self._integers = Mixture.of(record.weights).integers(self.names)
        quotas = draw_quotas(self._integers, self.batch_rows, credit)
        secret = self._order_key + np.uint64(self._step * self.lanes)
        plan: NDArray[np.int64] = deal_lanes(
            quotas, self._served, self._lane_rows, consumed, secret
        )
        return plan

    def _start_log(self, weights: Mixture | Mapping[str, float] | str | Path | None) -> None:
        """Begin the log with ``weights``, or check that it begins with them."""
        given = _mixture(weights)
        if self._log.records:
            first = Mixture.of(self._log.records[0].weights)
            if given is not None and given.fingerprint != first.fingerprint:
                raise InvalidDataError(
                    "the weights log begins with other weights than were given; "
                    "leave weights out to follow the log, or name another log"
                )
            for record in self._log.records:
                self._check_rows(Mixture.of(record.weights))
            return
        if given is None:
            given = self._default_mixture()
        self._check_rows(given)
        self._log.append(given, 0, "start")

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

    def _check_rows(self, mixture: Mixture) -> None:
        """Raise unless each cluster that has weight has a row to serve."""
        weights = mixture.array(self.names)
        for stream, weight in zip(self._streams, weights, strict=True):
            if weight > 0 and not stream.rows:
                raise InvalidDataError(
                    f"cluster {stream.name} has weight {weight:.3g} but no shard of "
                    f"{self.seq_len} tokens; give it weight 0, or choose a smaller seq_len"
                )

    def _adopt_log(self, records: tuple[WeightsRecord, ...], step: int) -> None:
        """Follow the history of a state: check it against the file, or take it over.

        The file may go on after the state was saved; what the state knows must be the same.
        """
        if self._log.path is None:
            self._log = WeightsLog(records)
            return
        hashes = [record.hash for record in self._log.records]
        for record in records:
            if hashes[record.v : record.v + 1] != [record.hash]:
                raise InvalidDataError(
                    f"the state was saved under weights {record.v} ({record.hash[:8]}), which the "
                    f"log {self._log.path} does not hold; name the log of that run"
                )
        if (ours := self._log.at(step)).v != records[0].v:
            raise InvalidDataError(
                f"the state was saved at step {step} under weights {records[0].v}, but by the log "
                f"{self._log.path} weights {ours.v} hold from step {ours.at_step} on; "
                "go on from a state before that, or name another log"
            )


def _mixture(weights: Mixture | Mapping[str, float] | str | Path | None) -> Mixture | None:
    if weights is None or isinstance(weights, Mixture):
        return weights
    if isinstance(weights, str | Path):
        return Mixture.load(Path(weights))
    return Mixture.of(weights)


def _check_numbers(
    seq_len: int, batch_rows: int, rank: int, world_size: int, lanes: int, pack: str
) -> None:
    """Raise `UsageError` unless the settings of a loader fit each other."""
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
    if pack not in PACKS:
        raise UsageError(f"there is no packing {pack!r}; choose one of {', '.join(PACKS)}")


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
