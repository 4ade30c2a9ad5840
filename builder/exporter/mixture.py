"""Export of a mixture: documents are drawn by weight and shuffled, as in NVIDIA's ClimbMix.

Whole documents of each cluster are taken in a random order until the cluster's share is reached. A
cluster with fewer tokens than its share is taken several times.

The documents may not fit into memory, so shuffling takes two passes. The first pass assigns each
document to a random output file. This pass takes a few shards at a time, and writes their
documents, sorted by output file, to a temporary file, called a spool. The second pass makes one
output file at a time: it reads the documents of this file from all spools, and shuffles them in
memory.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.dataset_card import ExportContents, write_beside
from climbstream.builder.workdir import open_workdir
from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.engines.local import LocalEngine
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.files import atomic_path, hash_json, write_json
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.typed import Count, convert, located
from climbstream.loader.core.workdir import read_plan
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.manifest import Manifest
from climbstream.loader.formats.mixture import Mixture, some_names

from .job import ExportJob, done_file
from .rows import Rows, rows_of

logger = get_logger(__name__)

DONE = ".drawn.json"
_LAYOUTS = {"parquet": "part_{}.parquet", "jsonl": "part_{}.jsonl"}
_FILE_TOKENS = 1 << 25
"""Number of tokens in an output file, which is shuffled in memory."""
_SPOOL_SHARDS = 8
"""Number of shards of a cluster whose documents are written to one spool."""
_FAR = 0.05
"""A warning is logged if the number of drawn tokens differs by more than this fraction from the
number that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceTask:
    """Input of `choose`: a cluster, and how many of its tokens to take."""

    directory: ShardDirectory
    cluster: str
    due: int
    """Number of tokens to take."""
    seed: int
    path: Path
    """File for the result: how often each document is taken, uint32 ``[n]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolTask:
    """Input of `spool`: some shards of a cluster, and which of their documents are taken."""

    directory: ShardDirectory
    cluster: str
    shards: range
    picks: Path
    """File with how often each document of the cluster is taken, uint32 ``[n]``."""
    first: int
    """Number of the first document of these shards, counted in the cluster."""
    files: int
    """Number of output files."""
    seed: int
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleTask:
    """Input of `shuffle`: one output file, and the spools that contain its documents."""

    number: int
    spools: tuple[tuple[int, Path], ...]
    """The spools, each with the number of its cluster."""
    dtype: str
    seed: int
    rows: Rows
    path: Path


def export_mixture(
    job: ExportJob, mixture: Mixture | None = None, tokens: int | None = None, *, seed: int = 0
) -> dict[str, int]:
    """Write about ``tokens`` tokens, drawn by a mixture; return the number of tokens by cluster.

    Whole documents are drawn. Each cluster's share is exact to within half a document. A card of
    the data set is written beside the files.

    Args:
        job: What is exported to which folder; its layout ``to`` is ``parquet`` or ``jsonl``.
        mixture: Weights of the clusters; default: each cluster's share of all tokens.
        tokens: Number of tokens to write; required with a mixture. None: all documents, each once.
        seed: Decides which documents are chosen, and their order.

    Raises:
        UsageError: The layout is unknown, a mixture is given without ``tokens``, or the shards have
            no tokenizer to decode text with.
        InvalidDataError: ``job.out`` contains something else, or the mixture is for other clusters.
        IntegrityError: The hash of a shard differs from the hash in its index, or a document has no
            end token.
        LockedError: Another process works on ``job.out``.
    """
    if job.to not in _LAYOUTS:
        raise UsageError(
            f"documents that a mixture draws cannot be written as {job.to}; choose one of "
            f"{', '.join(_LAYOUTS)}"
        )
    if tokens is None and mixture is not None:
        raise UsageError("give the number of tokens to draw by the mixture, as --tokens")
    manifest = job.shards.manifest
    due = _tokens_due(manifest, mixture or manifest.token_shares, tokens)
    used = [name for name, share in zip(manifest.names, due, strict=True) if share]
    job.shards.check_pulled(used, ", or give a mixture without them (--mixture FILE)")
    rows = rows_of(job.shards, job.to, text=job.text)
    plan = {
        "drawn": 1,
        "to": job.to,
        **({"text": True} if job.text else {}),
        "shards": manifest.fingerprint,
        "license": manifest.license,
        "due": dict(zip(manifest.names, due.tolist(), strict=True)),
        "seed": seed,
    }
    with open_workdir(job.out, ".drawn", plan, partial(_finished_plan, job.out)) as work:
        if work is not None:
            asked = manifest.tokens if tokens is None else tokens
            counts = _Writer(job, rows, work, due, asked, seed).run()
            pattern = _LAYOUTS[job.to].format("*")
            contents = ExportContents(
                files=f"`{pattern}`, documents drawn by a mixture and shuffled",
                configs={"default": pattern},
                drawn=counts,
            )
            write_beside(job.shards, job.out, contents)
            write_json(job.out / DONE, {**plan, "tokens": counts})
    return located(_read_tokens, read_plan(done_file(job.out, DONE)), str(job.out))


def _tokens_due(manifest: Manifest, mixture: Mixture, tokens: int | None) -> NDArray[np.int64]:
    """Return the number of tokens to take from each cluster, int64 ``[K]``."""
    tokens = manifest.tokens if tokens is None else tokens
    if tokens < 1:
        raise UsageError(f"the number of tokens to draw is {tokens}; it must be 1 or more")
    weights = mixture.array(manifest.names)
    due: NDArray[np.int64] = np.rint(weights / weights.sum() * tokens).astype(np.int64)
    for cluster, share in zip(manifest.clusters, due, strict=True):
        if share and not cluster.tokens:
            raise UsageError(f"cluster {cluster.name} has weight but no tokens; give it weight 0")
        if share > 4 * cluster.tokens:
            logger.warning(
                f"cluster {cluster.name} is repeated {share / cluster.tokens:.1f} times: the "
                f"mixture asks for {share:,} of its tokens, and it has {cluster.tokens:,}"
            )
    return due


def _read_tokens(finished: dict[str, Any]) -> dict[str, int]:
    """Return how many tokens of each cluster are in a finished export, by name of the cluster."""
    return convert(finished.get("tokens"), dict[str, Count], "count of tokens by cluster")


def _finished_plan(out: Path) -> object | None:
    """Return the plan of the finished export in ``out``; None if there is no such export."""
    if not (done := done_file(out, DONE)).exists():
        return None
    return {key: value for key, value in read_plan(done).items() if key != "tokens"}


@dataclass(frozen=True, slots=True)
class _Writer:
    """Chooses, spools and shuffles documents."""

    job: ExportJob
    rows: Rows
    work: Path
    due: NDArray[np.int64]
    asked: int
    """Number of tokens that the user asked for; the sum of ``due`` is rounded."""
    seed: int

    def run(self) -> dict[str, int]:
        """Write all files; return the number of tokens of each cluster by name."""
        with LocalEngine(self.job.workers) as engine:
            counts = self._choose(engine)
            total = sum(counts.values())
            self._warn_if_far(counts)
            spools = list(self._spool_tasks())
            with Progress("take", total, "tokens") as progress:
                for _, tokens in engine.run(spool, spools):
                    progress.add(tokens)
            with Progress("shuffle", total, "tokens") as progress:
                for _, tokens in engine.run(shuffle, self._shuffle_tasks(spools)):
                    progress.add(tokens)
        return counts

    def _warn_if_far(self, counts: Mapping[str, int]) -> None:
        """Log a warning if the number of drawn tokens is far from the number asked for."""
        due = dict(zip(self.job.shards.names, self.due.tolist(), strict=True))
        total, asked = sum(counts.values()), self.asked
        if abs(total - asked) <= _FAR * asked:
            return
        none = [name for name in due if due[name] and not counts[name]]
        logger.warning(
            f"{total:,} tokens are drawn instead of {asked:,}: only whole documents are drawn, and "
            "they are long compared with the number of tokens asked from their clusters"
            + (f"; no document is drawn from {some_names(none)}" if none else "")
            + ". A larger --tokens makes the difference smaller"
        )

    @property
    def _files(self) -> int:
        return max(1, -(-int(self.due.sum()) // _FILE_TOKENS))

    @property
    def _clusters(self) -> list[int]:
        """Numbers of the clusters from which tokens are taken."""
        numbers: list[int] = np.flatnonzero(self.due).tolist()
        return numbers

    def _picks(self, k: int) -> Path:
        return self.work / f"picks-{k}.npy"

    def _choose(self, engine: Engine) -> dict[str, int]:
        """Choose documents of each cluster; return the number of tokens chosen by cluster name."""
        tasks = [
            ChoiceTask(
                directory=self.job.shards,
                cluster=self.job.shards.names[k],
                due=int(self.due[k]),
                seed=self.seed,
                path=self._picks(k),
            )
            for k in self._clusters
        ]
        counts = dict.fromkeys(self.job.shards.names, 0)
        with Progress("choose", len(tasks), "clusters") as progress:
            for task, tokens in engine.run(choose, tasks):
                counts[task.cluster] = tokens
                progress.add(1)
        return counts

    def _spool_tasks(self) -> Iterator[SpoolTask]:
        for k in self._clusters:
            name = self.job.shards.names[k]
            shards = self.job.shards.index(name).shards
            first = 0
            for begin in range(0, len(shards), _SPOOL_SHARDS):
                numbers = range(begin, min(begin + _SPOOL_SHARDS, len(shards)))
                yield SpoolTask(
                    directory=self.job.shards,
                    cluster=name,
                    shards=numbers,
                    picks=self._picks(k),
                    first=first,
                    files=self._files,
                    seed=self.seed,
                    path=self.work / f"spool-{k}-{begin}",
                )
                first += sum(shards[i].samples for i in numbers)

    def _shuffle_tasks(self, spools: list[SpoolTask]) -> list[ShuffleTask]:
        numbers = {name: k for k, name in enumerate(self.job.shards.names)}
        return [
            ShuffleTask(
                number=number,
                spools=tuple((numbers[task.cluster], task.path) for task in spools),
                dtype=self.job.shards.manifest.dtype,
                seed=self.seed,
                rows=self.rows,
                path=self.job.out / _LAYOUTS[self.job.to].format(f"{number:05d}"),
            )
            for number in range(self._files)
        ]


def choose(task: ChoiceTask) -> int:
    """Write how often each document of a cluster is taken; return the number of tokens taken."""
    lengths = np.concatenate(
        [
            np.array([len(document) for document in documents], np.int64)
            for documents in task.directory.documents(task.cluster)
        ]
    )
    whole, rest = divmod(task.due, int(lengths.sum()))
    order = _random(task.seed, task.cluster).permutation(len(lengths))
    ends = np.cumsum(lengths[order])
    # The document at which the share is reached is taken only if that brings the sum nearer to the
    # share.
    more = order[: np.searchsorted(ends - lengths[order] / 2, rest)]
    picks = np.full(len(lengths), whole, np.uint32)
    picks[more] += 1
    with atomic_path(task.path) as path, path.open("wb") as file:
        np.save(file, picks)
    return int((picks * lengths).sum())


def spool(task: SpoolTask) -> int:
    """Write a spool, unless it exists; return its number of tokens.

    A spool is two files, in which documents are sorted by output file. The file ``.bin`` contains
    the tokens. The file ``.npz`` contains the ``lengths`` of documents, int64 ``[m]``, and
    ``ends``, int64 ``[files + 1]``. Value ``i`` of ``ends`` is the index of the first document of
    output file ``i``; the last value is m.
    """
    index = task.path.with_suffix(".npz")
    if index.exists():
        with np.load(index) as written:
            return int(written["lengths"].sum())
    documents = list(
        itertools.chain.from_iterable(task.directory.documents(task.cluster, task.shards))
    )
    picks = np.load(task.picks, mmap_mode="r")[task.first : task.first + len(documents)]
    chosen = np.repeat(np.arange(len(documents)), picks)
    to = _random(task.seed, task.cluster, task.first).integers(task.files, size=len(chosen))
    order = np.argsort(to, kind="stable")
    lengths = np.array([len(documents[i]) for i in chosen[order]], np.int64)
    with atomic_path(task.path.with_suffix(".bin")) as path, path.open("wb") as file:
        for i in chosen[order]:
            file.write(documents[i].tobytes())
    with atomic_path(index) as path, path.open("wb") as file:
        ends = np.searchsorted(to[order], np.arange(task.files + 1))
        np.savez(file, lengths=lengths, ends=ends)
    return int(lengths.sum())


def shuffle(task: ShuffleTask) -> int:
    """Write an output file; return how many tokens were written, 0 if the file exists already."""
    if task.path.exists():
        return 0
    clusters: list[int] = []
    documents: list[NDArray[Any]] = []
    for k, path in task.spools:
        with np.load(path.with_suffix(".npz")) as index:
            lengths, ends = index["lengths"], index["ends"]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        a, b = ends[task.number], ends[task.number + 1]
        if a == b:
            continue
        size = np.dtype(task.dtype).itemsize
        tokens = np.fromfile(
            path.with_suffix(".bin"),
            task.dtype,
            count=int(starts[b] - starts[a]),
            offset=int(starts[a]) * size,
        )
        documents += np.split(tokens, (starts[a + 1 : b] - starts[a]))
        clusters += [k] * int(b - a)
    order = _random(task.seed, "file", task.number).permutation(len(documents)).tolist()
    groups = [order[i : i + 1000] for i in range(0, len(order), 1000)]
    return task.rows.write(
        task.path, (([clusters[i] for i in some], [documents[i] for i in some]) for some in groups)
    )


def _random(*names: object) -> np.random.Generator:
    """Return a random generator whose seed depends on ``names`` alone."""
    return np.random.Generator(np.random.PCG64(int(hash_json(list(names))[:16], 16)))
