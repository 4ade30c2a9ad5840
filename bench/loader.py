"""Measure MixtureLoader beside what this machine could do at most; prints JSON lines for run.py.

What is measured, on a shard directory made up for it (16 clusters of skewed size, documents of
about 1,000 tokens) that lies in a warm cache, by skewed weights, three of them zero:

* tokens a second of ``next(loader)``, for one rank, at rows [8, 2048] and [64, 2048], beside
  three limits, which make the very batches that the loader made in that round, the rows being
  located already: without planning, without looking up shards;
* limit 1, a call a row: ``copy_tokens`` from Python;
* limit 2, a call a batch: the same function, called for each row from compiled code, the shards
  being one mapped file; what lies between 1 and 2 is the cost of calls from Python;
* limit 3, bare tokens: compiled code widens slices of one array of all tokens; what lies between
  2 and 3 is the cost of documents that have heads and lie at odd addresses;
* zstd decompression of all the shards, from memory to memory;
* in processes of their own, after the imports: seconds until a loader that was just made has given
  its first batch, the same with a state of step 1,000 loaded, bytes of that state as JSON, and how
  much the peak of resident memory, without the mapped shards, lies above that after the imports.

All in one run, contenders taking turns; each number is the median of the rounds. Rates are by
CPU-seconds of the process, all its threads; seconds until the first batch are by the clock.

What is not measured: a cold disk, the first decompression, several ranks, a training step beside
it, other loaders, and real text (tokens are drawn at random, small ids more often).
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import zstandard
from numba import njit

from climbstream.loader import Manifest, MixtureLoader
from climbstream.loader.cache import ShardCache
from climbstream.loader.manifest import ClusterEntry, cluster_folder, load_index
from climbstream.loader.mds import (
    SHARD_BYTES,
    Index,
    ShardView,
    compress,
    describe_shard,
    encode_document,
    encode_shard,
)
from climbstream.loader.pack import copy_tokens
from climbstream.loader.storage import hash_bytes, write_bytes
from climbstream.loader.stream import TokenStream

CLUSTERS = 16
SEQ_LEN = 2048
BATCHES = {8: 400, 64: 50}  # rows a batch: batches a round
STATE_STEP = 1000
WEIGHTS = {
    f"c{i:02d}": 0.0 if i in (3, 8, 13) else (1 + i * 7 % CLUSTERS) ** -1.5 for i in range(CLUSTERS)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=40_000_000, help="tokens to make up")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(*options.child)))
        return
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        make_shards(work / "shards", options.tokens)
        for rows in BATCHES:
            measure_batches(work, rows, options.rounds)
        measure_zstd(work, options.rounds)
        measure_processes(work, options.rounds)


def measure_batches(work: Path, rows: int, rounds: int) -> None:
    batches = BATCHES[rows]
    # Two loaders that serve the same: one is measured, the other says which rows those are.
    loader, twin = (open_loader(work, rows) for _ in range(2))
    whole = OneFile(work)
    rates: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        with addresses() as found:
            for _ in range(batches):
                next(twin)
        shards = [whole.shards[stream.name, at.shard] for stream, at in found]
        first = [at.first_token for _, at in found]
        places = [(s.data, s.starts, s.ends, f) for (s, _), f in zip(shards, first, strict=True)]
        firsts = np.array([before for _, before in shards]) + first
        contenders = {
            "loader": partial(serve, loader, batches),
            "row": partial(gather_by_row, places, rows),
            "batch": partial(gather_by_batch, whole, firsts, rows),
            "bare": partial(gather_bare, whole, firsts, rows),
        }
        got = {}
        for name in in_turn(contenders, number):
            seconds, got[name] = cpu_seconds(contenders[name])
            if number:  # the first round warms up
                rates.setdefault(name, []).append(rows * batches * SEQ_LEN / seconds / 1e6)
        # A limit is none unless it does the same work.
        assert all((got["loader"] == batch).all() for batch in got.values())
    shape = f"rows [{rows}, {SEQ_LEN}]"
    rate = rates["loader"]
    spread = f"{min(rate):.0f} to {max(rate):.0f}"
    report(f"{shape}: MixtureLoader", statistics.median(rate), "Mtok/s", spread)
    for name, what in (
        ("row", "limit 1, gather, a call a row"),
        ("batch", "limit 2, gather, a call a batch"),
        ("bare", "limit 3, bare tokens"),
    ):
        ratio = statistics.median(a / b for a, b in zip(rate, rates[name], strict=True))
        limit = statistics.median(rates[name])
        report(f"{shape}: {what}", limit, "Mtok/s", f"the loader reaches {ratio:.0%}")


def serve(loader: MixtureLoader, batches: int) -> Any:
    for _ in range(batches):
        batch = next(loader)
    return batch["input_ids"].numpy()


def gather_by_row(places: list[Any], rows: int) -> Any:
    for first in range(0, len(places), rows):
        out = np.empty((rows, SEQ_LEN), np.int64)
        for place, row in zip(places[first : first + rows], out, strict=True):
            data, starts, ends, token = place
            copy_tokens(data, starts, ends, token, 2, row)
    return out


def gather_by_batch(whole: "OneFile", firsts: Any, rows: int) -> Any:
    for first in range(0, len(firsts), rows):
        out = np.empty((rows, SEQ_LEN), np.int64)
        copy_rows(whole.data, whole.starts, whole.ends, firsts[first : first + rows], out)
    return out


def gather_bare(whole: "OneFile", firsts: Any, rows: int) -> Any:
    for first in range(0, len(firsts), rows):
        out = np.empty((rows, SEQ_LEN), np.int64)
        widen_rows(whole.tokens, firsts[first : first + rows], out)
    return out


def measure_zstd(work: Path, rounds: int) -> None:
    directory = work / "shards"
    manifest = Manifest.load(directory)
    packed = [path.read_bytes() for path in sorted(directory.glob("clusters/*/*.zstd"))]
    size = sum(zstandard.get_frame_parameters(data).content_size for data in packed)
    seconds = []
    for _ in range(rounds):
        used, _nothing = cpu_seconds(
            lambda: [len(zstandard.ZstdDecompressor().decompress(data)) for data in packed]
        )
        seconds.append(used)
    used = statistics.median(seconds)
    ratio = f"{size / sum(map(len, packed)):.2f} times smaller"
    report("zstd decompression", size / used / 1e6, "MB/s", ratio)
    report("zstd decompression", manifest.tokens / used / 1e6, "Mtok/s", "")


def measure_processes(work: Path, rounds: int) -> None:
    for rows in BATCHES:
        shape = f"rows [{rows}, {SEQ_LEN}]"
        state = work / f"state-{rows}.json"
        loader = open_loader(work, rows)
        for _ in range(STATE_STEP):
            next(loader)
        state.write_text(json.dumps(loader.state_dict()))
        new, resumed = [], []
        for _ in range(rounds):
            new.append(in_a_process(work, rows, None))
            resumed.append(in_a_process(work, rows, state))
        for what, key, unit, results in (
            ("first batch of a new run", "seconds", "s", new),
            (f"first batch of a run resumed at step {STATE_STEP:,}", "seconds", "s", resumed),
            ("peak memory above that of the imports", "megabytes", "MB", new),
        ):
            values = [result[key] for result in results]
            spread = f"{min(values):.3g} to {max(values):.3g}"
            report(f"{shape}: {what}", statistics.median(values), unit, spread)
        report(f"{shape}: state at step {STATE_STEP:,}", state.stat().st_size, "bytes", "JSON")


def in_a_process(work: Path, rows: int, state: Path | None) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", str(work), str(rows), str(state or "")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def child(work: str, rows: str, state: str) -> dict[str, float]:
    """Measure what only a process that has just begun can tell."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    imported = peak_memory()
    begin = time.perf_counter()
    loader = open_loader(Path(work), int(rows))
    if state:
        loader.load_state_dict(json.loads(Path(state).read_text()))
    next(loader)
    seconds = time.perf_counter() - begin
    serve(loader, BATCHES[int(rows)])
    memory = peak_memory() - mapped_memory() - imported
    return {"seconds": seconds, "megabytes": memory / 1e6}


def open_loader(work: Path, rows: int) -> MixtureLoader:
    return MixtureLoader(
        work / "shards", WEIGHTS, seq_len=SEQ_LEN, batch_rows=rows, cache=work / "cache"
    )


def make_shards(directory: Path, tokens: int) -> None:
    """Write clusters whose sizes fall from about a third of ``tokens`` to a hundredth."""
    random = np.random.default_rng(17)
    shares = (1 + np.arange(CLUSTERS)) ** -1.1
    entries = []
    for name, share in zip(WEIGHTS, shares / shares.sum(), strict=True):
        lengths = random.lognormal(6.4, 1.0, int(tokens * share / 992)).astype(int) + 1
        shards, waiting, held = [], [], []
        for number, length in enumerate(lengths):
            # Log-uniform ids: about as often as words are in a text.
            document = np.exp(random.random(length) * np.log(50_000)).astype(np.uint16)
            waiting.append(encode_document(document))
            held.append(length)
            size = 2 * sum(held) + 16 * len(waiting)
            if size > SHARD_BYTES - (1 << 19) or number == len(lengths) - 1:
                raw = encode_shard(waiting, "uint16")
                packed = compress(raw)
                basename = f"shard.{len(shards):05d}.mds"
                entry = describe_shard(basename, held, raw, packed)
                write_bytes(cluster_folder(directory, name) / entry.zip_basename, packed)
                shards.append(entry)
                waiting, held = [], []
        index = Index("uint16", tuple(shards))
        data = index.to_bytes()
        write_bytes(cluster_folder(directory, name) / "index.json", data)
        entries.append(
            ClusterEntry(
                name=name,
                tokens=index.tokens,
                documents=index.samples,
                index_hash=hash_bytes(data),
            )
        )
    Manifest(
        clusters=tuple(entries),
        dtype="uint16",
        vocab_size=50_000,
        eos_id=None,
        tokenizer_hash="0",
        build="0",
        license="none",
    ).save(directory)


class OneFile:
    """All raw shards one after the other in one mapped file, as if they were a single shard."""

    def __init__(self, work: Path) -> None:
        directory = work / "shards"
        manifest = Manifest.load(directory)
        cache = ShardCache(work / "cache")
        self.shards: dict[tuple[str, int], tuple[ShardView, int]] = {}
        """Each shard, and the tokens before it, by cluster and number."""
        self.tokens = np.empty(manifest.tokens, np.uint16)
        starts, ends, size, before = [], [], 0, 0
        with (work / "whole").open("wb") as file:
            for cluster in manifest.clusters:
                folder = cluster_folder(directory, cluster.name)
                entries = load_index(directory, manifest, cluster).shards
                for number, entry in enumerate(entries):
                    view = cache.view(folder, entry, manifest.dtype)
                    self.shards[cluster.name, number] = view, before
                    after = before + view.tokens
                    copied = np.empty(view.tokens, np.int64)
                    copy_tokens(view.data, view.starts, view.ends, 0, 2, copied)
                    self.tokens[before:after] = copied
                    starts.append(view.starts + size)
                    ends.append(view.ends + before)
                    file.write(view.data.data)
                    size += len(view.data)
                    before = after
        # A plain array over the map, read-only, as the cache gives it.
        self.data = np.memmap(work / "whole", np.uint8, "r").view(np.ndarray)
        self.starts, self.ends = np.concatenate(starts), np.concatenate(ends)


@njit
def copy_rows(data: Any, starts: Any, ends: Any, firsts: Any, out: Any) -> None:
    for i in range(len(firsts)):
        copy_tokens(data, starts, ends, firsts[i], 2, out[i])


@njit
def widen_rows(tokens: Any, firsts: Any, out: Any) -> None:
    for i in range(len(firsts)):
        out[i] = tokens[firsts[i] : firsts[i] + out.shape[1]]


@contextlib.contextmanager
def addresses() -> Any:
    """Collect the rows that are read in the block."""
    found: list[Any] = []
    read = TokenStream.read

    def noted(stream: TokenStream, address: Any, out: Any) -> None:
        found.append((stream, address))
        read(stream, address, out)

    with mock.patch.object(TokenStream, "read", noted):
        yield found


def in_turn(names: Any, number: int) -> list[str]:
    """Begin each round with another contender."""
    order = list(names)
    return order[number % len(order) :] + order[: number % len(order)]


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


def peak_memory() -> int:
    """Most bytes that were resident at once."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def mapped_memory() -> int:
    """Resident bytes that are shards, mapped from the cache; they never get fewer."""
    kib, shard = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not line.partition(" ")[0].endswith(":"):
            shard = line.endswith(".mds")
        elif shard and line.startswith("Rss:"):
            kib += int(line.split()[1])
    return kib * 1024


def report(what: str, value: float, unit: str, note: str) -> None:
    print(json.dumps({"what": what, "value": value, "unit": unit, "note": note}), flush=True)


if __name__ == "__main__":
    main()
