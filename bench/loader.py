"""Compare MixtureLoader with the limits of this machine; print JSON lines for run.py.

Measured on one rank, with a synthetic shard directory (16 clusters of skewed sizes, documents of
about 1,000 tokens) and skewed weights, three of which are zero:

* Tokens per second of ``next(loader)`` from a warm cache, in batches [8, 2048] and [64, 2048]. They
  are compared with a limit: compiled code that copies the same number of rows from random places of
  one mapped file of tokens to int64, with one call per batch, and without planning, documents or
  shards.
* Tokens per second from compressed shards with a cold cache: reading, hashing, decompressing,
  writing to the cache, packing and copying. They are compared with zstd decompression alone of the
  same shards, from memory to memory.
* Microseconds to plan a step, with 16 and with 1,000 clusters, and microseconds that a change of
  weights takes: the time of `set_weights`, and that of the next batch.
* In separate processes after the imports, for this corpus and for a corpus a tenth of its size: the
  seconds from the creation of a loader to its first batch, without a state and with a state of step
  1,000; the seconds that loading this state takes; the size of the state as JSON, in bytes; and the
  growth of peak resident memory since the imports, without the mapped shards.

All of this is measured in one run, in which the things that are compared take turns. Each number is
the median over the rounds. Rates are per CPU-second of all threads of the process; other seconds
are wall time.

Not measured: a cold disk, several ranks, a training step that runs at the same time, other loaders
(see peers.py), and real text (token ids are drawn at random, small ids more often).
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from corpus import CLUSTERS, SEQ_LEN, WEIGHTS, make_shards
from measure import cpu_seconds, in_turn, report
from numba import njit

from climbstream.loader import Manifest, MixtureLoader
from climbstream.loader.formats.mixture import Mixture
from climbstream.loader.sampling.lanes import Lanes
from climbstream.loader.sampling.planner import BatchPlanner, Position

BATCHES = {8: 4000, 64: 500}  # batches per round, by rows per batch
BARS = {8: "50%", 64: "80%"}  # least share of the limit, by rows per batch
COLD_BAR = "70%"
STATE_STEP = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=200_000_000, help="tokens to make up")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(*options.child)))
        return
    with tempfile.TemporaryDirectory() as name:
        large, small = Path(name) / "large", Path(name) / "small"
        for work, tokens in ((large, options.tokens), (small, options.tokens // 10)):
            make_shards(work / "shards", tokens)
        for rows in BATCHES:
            measure_batches(large, rows, options.rounds)
        measure_cold(large, options.rounds)
        measure_plans(options.rounds)
        measure_change(large, options.rounds)
        for work in (small, large):
            measure_processes(work, options.rounds)


def measure_batches(work: Path, rows: int, rounds: int) -> None:
    batches = BATCHES[rows]
    loader = open_loader(work, rows)
    bare = work / "bare"
    if not bare.exists():
        for cluster in loader.names:  # so that every shard is in the cache
            while loader.epochs[cluster] < 1 and WEIGHTS[cluster]:
                next(loader)
        with bare.open("wb") as file:
            for path in sorted((work / "cache").rglob("*.mds")):
                file.write(path.read_bytes()[: path.stat().st_size // 2 * 2])
    tokens = np.memmap(bare, np.uint16, "r").view(np.ndarray)
    random = np.random.default_rng(0)
    rates: dict[str, list[float]] = {"loader": [], "limit": []}
    for number in range(rounds + 1):
        firsts = random.integers(0, len(tokens) - SEQ_LEN, (batches, rows))
        contenders = {
            "loader": partial(serve, loader, batches),
            "limit": partial(gather_bare, tokens, firsts),
        }
        for name in in_turn(contenders, number):
            seconds, last = cpu_seconds(contenders[name])
            assert last.shape == (rows, SEQ_LEN)
            assert last.dtype == np.int64
            if number:  # the first round warms up
                rates[name].append(rows * batches * SEQ_LEN / seconds / 1e6)
        assert (last[-1] == tokens[firsts[-1, -1] :][:SEQ_LEN]).all() or name == "loader"
    shape = f"rows [{rows}, {SEQ_LEN}]"
    spread = f"{min(rates['loader']):.0f} to {max(rates['loader']):.0f}"
    report(f"{shape}: MixtureLoader", statistics.median(rates["loader"]), "Mtok/s", spread)
    ratio = statistics.median(a / b for a, b in zip(*rates.values(), strict=True))
    limit = statistics.median(rates["limit"])
    note = f"the loader reaches {ratio:.0%}; the bar is {BARS[rows]}"
    report(f"{shape}: limit, compiled gather", limit, "Mtok/s", note)


def serve(loader: MixtureLoader, batches: int) -> Any:
    for _ in range(batches):
        batch = next(loader)
    return batch["input_ids"].numpy()


def gather_bare(tokens: Any, firsts: Any) -> Any:
    for places in firsts:
        out = np.empty((len(places), SEQ_LEN), np.int64)
        widen_rows(tokens, places, out)
    return out


@njit
def widen_rows(tokens: Any, firsts: Any, out: Any) -> None:
    for i in range(len(firsts)):
        row, source = out[i], tokens[firsts[i] : firsts[i] + out.shape[1]]
        for t in range(len(row)):
            row[t] = source[t]


def measure_cold(work: Path, rounds: int) -> None:
    """Measure serving about one epoch from an empty cache, and decompressing the same shards."""
    directory, cache = work / "shards", work / "cold"
    manifest = Manifest.load(directory)
    packed = [path.read_bytes() for path in sorted(directory.glob("clusters/*/*.zstd"))]
    size = sum(zstandard.get_frame_parameters(data).content_size for data in packed)
    batches = manifest.tokens // (64 * SEQ_LEN)

    def cold() -> Any:
        loader = MixtureLoader(directory, seq_len=SEQ_LEN, batch_rows=64, cache_dir=cache)
        return serve(loader, batches)

    def bare() -> Any:
        return [len(zstandard.ZstdDecompressor().decompress(data)) for data in packed]

    rates: dict[str, list[float]] = {"cold": [], "bare": []}
    served = {"cold": batches * 64 * SEQ_LEN, "bare": manifest.tokens}
    for number in range(rounds + 1):
        for name in in_turn(rates, number):
            shutil.rmtree(cache, ignore_errors=True)
            seconds, _ = cpu_seconds({"cold": cold, "bare": bare}[name])
            if number:
                rates[name].append(served[name] / seconds / 1e6)
    ratio = statistics.median(a / b for a, b in zip(*rates.values(), strict=True))
    note = f"the loader reaches {ratio:.0%}; the bar is {COLD_BAR}"
    report("cold cache: MixtureLoader", statistics.median(rates["cold"]), "Mtok/s", "an epoch")
    report("cold cache: limit, zstd", statistics.median(rates["bare"]), "Mtok/s", note)
    factor = f"{size / sum(map(len, packed)):.2f} times smaller"
    report("zstd", size / manifest.tokens * statistics.median(rates["bare"]), "MB/s", factor)


def measure_plans(rounds: int) -> None:
    for clusters, rows in ((CLUSTERS, 8), (CLUSTERS, 512), (1000, 512)):
        names = [f"c{i:04d}" for i in range(clusters)]
        lanes = Lanes.deal(names, [[4000] * 4] * clusters, 8, 17)
        planner = BatchPlanner(lanes, rows, 0, 1, np.uint64(17))
        weights = Mixture.of({n: 1 / (1 + i) for i, n in enumerate(names)}).integers(names)[None]
        room = np.full(clusters, np.iinfo(np.int64).max)
        position, spent = Position.start(clusters, 8), []
        for _ in range(rounds + 1):
            begin = time.perf_counter()
            position = planner.plan(position, weights, 64, room).after
            spent.append((time.perf_counter() - begin) / 64 * 1e6)
        what = f"plan a step of {rows} rows, {clusters:,} clusters"
        report(what, statistics.median(spent[1:]), "us", "")


def measure_change(work: Path, rounds: int) -> None:
    loader = open_loader(work, 8)
    serve(loader, 1000)
    spent: dict[str, list[float]] = {"set_weights": [], "batch after it": [], "batch": []}
    for number in range(20 * rounds):
        serve(loader, 7 + number)
        weights = {name: w * (1 + number % 3 * i) for i, (name, w) in enumerate(WEIGHTS.items())}
        begin = time.perf_counter()
        loader.set_weights(weights, others="scale")
        changed = time.perf_counter()
        next(loader)
        after = time.perf_counter()
        next(loader)
        spent["set_weights"].append(changed - begin)
        spent["batch after it"].append(after - changed)
        spent["batch"].append(time.perf_counter() - after)
    for what, seconds in spent.items():
        most = f"at most {max(seconds) * 1e6:,.0f}; the bar is 1,000, of the first two together"
        report(f"change of weights: {what}", statistics.median(seconds) * 1e6, "us", most)


def measure_processes(work: Path, rounds: int) -> None:
    tokens = Manifest.load(work / "shards").tokens
    for rows in BATCHES:
        shape = f"{tokens / 1e6:.0f} Mtok, rows [{rows}, {SEQ_LEN}]"
        state = work / f"state-{rows}.json"
        loader = open_loader(work, rows)
        for _ in range(STATE_STEP):
            next(loader)
        state.write_text(json.dumps(loader.state_dict()))
        new, resumed = [], []
        for _ in range(rounds):
            new.append(in_a_process(work, rows, None))
            resumed.append(in_a_process(work, rows, state))
        for what, key, unit, bar, results in (
            ("first batch of a new run", "seconds", "s", 0.5, new),
            (f"first batch of a run resumed at step {STATE_STEP:,}", "seconds", "s", 0.6, resumed),
            ("of that, loading the state", "resume", "s", 0.1, resumed),
            ("peak memory above that of the imports", "megabytes", "MB", 200, new),
        ):
            values = [result[key] for result in results]
            spread = f"{min(values):.3g} to {max(values):.3g}; the bar is {bar}"
            report(f"{shape}: {what}", statistics.median(values), unit, spread)
        what, size = f"{shape}: state at step {STATE_STEP:,}", state.stat().st_size
        report(what, size, "bytes", "JSON; the bar is 100,000")


def in_a_process(work: Path, rows: int, state: Path | None) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", str(work), str(rows), str(state or "")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def child(work: str, rows: str, state: str) -> dict[str, float]:
    """Measure time to the first batch and memory, in a process that was just started."""
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak of resident memory
    imported = peak_memory()
    begin = time.perf_counter()
    loader = open_loader(Path(work), int(rows))
    opened = time.perf_counter()
    if state:
        loader.load_state_dict(json.loads(Path(state).read_text()))
    resumed = time.perf_counter()
    next(loader)
    seconds = time.perf_counter() - begin
    serve(loader, 400)
    memory = peak_memory() - mapped_memory() - imported
    return {"seconds": seconds, "resume": resumed - opened, "megabytes": memory / 1e6}


def open_loader(work: Path, rows: int) -> MixtureLoader:
    return MixtureLoader(
        work / "shards", WEIGHTS, seq_len=SEQ_LEN, batch_rows=rows, cache_dir=work / "cache"
    )


def peak_memory() -> int:
    """Return the peak of resident memory, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def mapped_memory() -> int:
    """Return the resident bytes of shards mapped from the cache; they never decrease."""
    kib, shard = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not line.partition(" ")[0].endswith(":"):
            shard = line.endswith(".mds")
        elif shard and line.startswith("Rss:"):
            kib += int(line.split()[1])
    return kib * 1024


if __name__ == "__main__":
    main()
