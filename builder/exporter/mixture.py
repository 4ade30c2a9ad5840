"""Drawn: a mixture made into documents, so many tokens by its weights, shuffled, as ClimbMix is.

Of each cluster whole documents are taken in a random order until it has its share; one that is due
more than it holds is taken as often as needed. Shuffling takes two passes, as there may be more
documents than memory: the documents of some shards go into a spool, sorted by the file they are to
be in; then each file takes its part of every spool, and is shuffled in memory.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.dataset_card import write_beside
from climbstream.builder.workdir import open_workdir
from climbstream.loader.core.console import Progress, say
from climbstream.loader.core.engines.local import LocalEngine
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.files import atomic_path, hash_json, write_json
from climbstream.loader.core.typed import Count, convert, located
from climbstream.loader.core.workdir import read_plan
from climbstream.loader.formats.documents import cluster_documents
from climbstream.loader.formats.manifest import Manifest, load_index
from climbstream.loader.formats.mixture import Mixture
from climbstream.loader.storage.store import Store

from .rows import Rows, rows_of

DONE = "drawn.json"
_LAYOUTS = {"parquet": "part_{}.parquet", "jsonl": "part_{}.jsonl"}
_FILE_TOKENS = 1 << 25
"""Tokens of a file; it is shuffled in memory."""
_SPOOL_SHARDS = 8
"""Shards of a cluster that go into one spool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolTask:
    """Take documents out of some shards of a cluster."""

    directory: str
    manifest: Manifest
    k: int
    shards: range
    picks: Path
    """How often each document of the cluster is taken, uint32 ``[n]`` as ``.npy``."""
    first: int
    """Number of their first document in the cluster."""
    files: int
    seed: int
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleTask:
    """Write one file of what the spools hold for it."""

    number: int
    spools: tuple[tuple[int, Path], ...]
    """Number of the cluster, and the spool."""
    dtype: str
    seed: int
    rows: Rows
    path: Path


def export_mixture(
    directory: str,
    out: Path,
    to: str,
    mixture: Mixture | None,
    tokens: int | None,
    *,
    seed: int = 0,
    text: bool = False,
    workers: int | None = None,
) -> dict[str, int]:
    """Write ``tokens`` tokens of the shard directory ``directory`` to ``out``, by ``mixture``.

    Args:
        directory: A folder or URL.
        out: Folder for the files; a card goes with them.
        to: ``parquet`` or ``jsonl``, of rows as `Rows` has them.
        mixture: By default the token shares.
        tokens: By default so many that every document is there once, without a mixture.
        seed: Of the choice and the order.
        text: Whether rows are text.
        workers: Processes, by default one a core.

    Returns the tokens of each cluster by name: its share to within half a document.

    Raises:
        UsageError: There is no such layout, a mixture without ``tokens``, or no text to be had.
        InvalidDataError: ``out`` holds something else, or the mixture is for other clusters.
        IntegrityError: A shard is not what it was, or a document has no end.
        LockedError: Another process works on ``out``.
    """
    if to not in _LAYOUTS:
        raise UsageError(f"nothing is drawn to {to}; there are {', '.join(_LAYOUTS)}")
    if tokens is None and mixture is not None:
        raise UsageError("say how many tokens are to be drawn by the mixture")
    manifest = Manifest.load(directory)
    tokens = manifest.tokens if tokens is None else tokens
    if tokens < 1:
        raise UsageError(f"{tokens} tokens are asked for; ask for 1 or more")
    weights = (mixture or manifest.token_shares).array(manifest.names)
    due = np.rint(weights / weights.sum() * tokens).astype(np.int64)
    for cluster, share in zip(manifest.clusters, due, strict=True):
        if share and not cluster.tokens:
            raise UsageError(f"cluster {cluster.name} has weight but no tokens; give it weight 0")
        if share > 4 * cluster.tokens:
            say(
                f"{cluster.name} is repeated {share / cluster.tokens:.1f} times: "
                f"{share:,} tokens are due, and it holds {cluster.tokens:,}"
            )
    rows = rows_of(directory, manifest, to, text=text)
    plan = {
        "drawn": 1,
        "to": to,
        **({"text": True} if text else {}),
        "shards": manifest.fingerprint,
        "license": manifest.license,
        "due": dict(zip(manifest.names, due.tolist(), strict=True)),
        "seed": seed,
    }

    def finished() -> object | None:
        if not (out / DONE).exists():
            return None
        return {k: v for k, v in read_plan(out / DONE).items() if k != "tokens"}

    with open_workdir(out, ".drawn", plan, finished) as work:
        if work is not None:
            taken = _write(directory, manifest, due, work, out, to, rows, seed, workers)
            write_beside(directory, manifest, out, {"default": "."} if to == "parquet" else {})
            write_json(out / DONE, {**plan, "tokens": taken})
    return located(_tokens_of, read_plan(out / DONE), str(out / DONE))


def _tokens_of(done: dict[str, Any]) -> dict[str, int]:
    """Return the tokens of each cluster that were written."""
    return convert(done.get("tokens"), dict[str, Count], "count of tokens by cluster")


def _write(
    directory: str,
    manifest: Manifest,
    due: NDArray[np.int64],
    work: Path,
    out: Path,
    to: str,
    rows: Rows,
    seed: int,
    workers: int | None,
) -> dict[str, int]:
    """Choose, spool and shuffle; return the tokens of each cluster."""
    files = max(1, -(-int(due.sum()) // _FILE_TOKENS))
    wanted = np.flatnonzero(due).tolist()
    with LocalEngine(workers) as pool:
        choices = [
            ChoiceTask(
                directory=directory,
                manifest=manifest,
                k=k,
                due=int(due[k]),
                seed=seed,
                path=work / f"picks-{k}.npy",
            )
            for k in wanted
        ]
        with Progress("choose", len(wanted), "clusters") as progress:
            taken = {}
            for task, tokens in pool.run(choose, choices):
                taken[manifest.names[task.k]] = tokens
                progress.add(1)
        spools = list(_spools(directory, manifest, wanted, work, files, seed))
        total = sum(taken.values())
        with Progress("take", total, "tokens") as progress:
            for _, tokens in pool.run(spool, spools):
                progress.add(tokens)
        shuffles = [
            ShuffleTask(
                number=i,
                spools=tuple((task.k, task.path) for task in spools),
                dtype=manifest.dtype,
                seed=seed,
                rows=rows,
                path=out / _LAYOUTS[to].format(f"{i:05d}"),
            )
            for i in range(files)
        ]
        with Progress("shuffle", total, "tokens") as progress:
            for _, tokens in pool.run(shuffle, shuffles):
                progress.add(tokens)
    return {name: taken.get(name, 0) for name in manifest.names}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceTask:
    """Choose documents of a cluster."""

    directory: str
    manifest: Manifest
    k: int
    due: int
    """Tokens."""
    seed: int
    path: Path


def choose(task: ChoiceTask) -> int:
    """Write how often each document of a cluster is taken; return the tokens that makes."""
    lengths = np.concatenate(
        [
            np.array([len(document) for document in documents], np.int64)
            for documents in cluster_documents(task.directory, task.manifest, task.k)
        ]
    )
    whole, rest = divmod(task.due, int(lengths.sum()))
    order = _random(task.seed, task.manifest.names[task.k]).permutation(len(lengths))
    ends = np.cumsum(lengths[order])
    # Half a document too many is as good as half a document too few.
    more = order[: np.searchsorted(ends - lengths[order] / 2, rest)]
    picks = np.full(len(lengths), whole, np.uint32)
    picks[more] += 1
    with atomic_path(task.path) as path, path.open("wb") as file:
        np.save(file, picks)
    return int((picks * lengths).sum())


def _spools(
    directory: str, manifest: Manifest, wanted: list[int], work: Path, files: int, seed: int
) -> Iterator[SpoolTask]:
    for k in wanted:
        shards = load_index(Store.of(directory), manifest, manifest.clusters[k]).shards
        first = 0
        for begin in range(0, len(shards), _SPOOL_SHARDS):
            some = range(begin, min(begin + _SPOOL_SHARDS, len(shards)))
            yield SpoolTask(
                directory=directory,
                manifest=manifest,
                k=k,
                shards=some,
                picks=work / f"picks-{k}.npy",
                first=first,
                files=files,
                seed=seed,
                path=work / f"spool-{k}-{begin}",
            )
            first += sum(shards[i].samples for i in some)


def spool(task: SpoolTask) -> int:
    """Write what is taken of some shards, sorted by file: ``.bin`` of tokens, and ``.npz``.

    That holds ``lengths`` int64 ``[m]`` of documents, and ``ends`` int64 ``[files + 1]``, where
    those of each file begin.
    """
    index = task.path.with_suffix(".npz")
    if index.exists():
        with np.load(index) as written:
            return int(written["lengths"].sum())
    documents = list(
        itertools.chain.from_iterable(
            cluster_documents(task.directory, task.manifest, task.k, task.shards)
        )
    )
    picks = np.load(task.picks, mmap_mode="r")[task.first : task.first + len(documents)]
    chosen = np.repeat(np.arange(len(documents)), picks)
    name = task.manifest.names[task.k]
    to = _random(task.seed, name, task.first).integers(task.files, size=len(chosen))
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
    """Write a file, unless it is there; return its tokens."""
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
    """Return a generator that depends on ``names`` alone."""
    return np.random.Generator(np.random.PCG64(int(hash_json(list(names))[:16], 16)))
