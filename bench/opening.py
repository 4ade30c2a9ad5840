"""Measure how long it takes to open a large shard directory; print JSON lines for run.py.

The directories are made up, and each is opened twice: from ``shards.columns``, and from the
``index.json`` of each cluster. One directory has ``--shards`` shards in 20 clusters, but only their
indexes exist. It is opened by ``--processes`` processes at once, and from ``index.json`` by one.
The benchmark measures the time in which a process reads and checks the indexes, and then makes a
`MixtureLoader`; and the memory of all processes, in which a page that several map counts once
(Pss). The other directory has ``--clusters`` clusters of one small shard each, behind a server in
another process that waits ``--delay`` seconds before each answer; the benchmark measures how long
`MixtureLoader` takes to open, and to return its first batch with an empty cache. A real network is
not measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from measure import report

from climbstream.loader import Manifest, MixtureLoader
from climbstream.loader.core.files import hash_bytes
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.manifest import (
    COLUMNS,
    INDEX,
    ClusterEntry,
    cluster_folder,
    hash_files,
)
from climbstream.loader.formats.mds.compression import compress
from climbstream.loader.formats.mds.entry import ShardEntry, shard_name
from climbstream.loader.formats.mds.index import Index
from climbstream.loader.formats.mds.writer import describe_shard, encode_document, encode_shard
from climbstream.loader.formats.shard_columns import save_columns

CLUSTERS = 20
DTYPE = "uint16"
TOKENS = 4096
"""Number of tokens of a small shard."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--clusters", type=int, default=1_000)
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()
    if options.serve:
        serve(options.serve, options.delay)
    elif options.open:
        open_indexes(options.open)
    else:
        with tempfile.TemporaryDirectory(prefix="climb-bench-") as work:
            measure_indexes(Path(work) / "many", options.shards, options.processes)
            measure_remote(Path(work), options.clusters, options.delay)


@dataclass(frozen=True)
class IndexCost:
    """What the index of all shards takes per shard, in bytes."""

    file: float
    """Size of ``shards.columns``."""
    opened: float
    """Memory of the processes of a node together that have opened the directory."""
    loader: float
    """Additional memory of each process after it has made a `MixtureLoader`, in bytes."""


def measure_indexes(folder: Path, shards: int, processes: int) -> IndexCost:
    """Write the indexes of ``shards`` shards; measure how new processes open them."""
    count = shards // CLUSTERS
    write_directory(
        folder, ([made_up(k * count + n, n) for n in range(count)] for k in range(CLUSTERS))
    )
    columns, indexes = folder / COLUMNS, folder.glob("clusters/*/*.json")
    note = f"index.json: {sum(path.stat().st_size for path in indexes) / shards:.0f} bytes a shard"
    report(f"{COLUMNS}, for each shard", columns.stat().st_size / shards, "bytes", note)
    opened, made = open_at_once(folder, f"{shards:,} shards, {COLUMNS}", processes)
    size = columns.stat().st_size
    columns.unlink()
    open_at_once(folder, f"{shards:,} shards, index.json", 1)
    return IndexCost(size / shards, opened / shards, (made - opened) / processes / shards)


def open_at_once(folder: Path, what: str, processes: int) -> list[int]:
    """Let ``processes`` processes open ``folder`` at the same time; report time and memory.

    Returns the memory of all processes together, in bytes: after they have opened the folder, and
    after they have made a loader.
    """
    memory = []
    command = [sys.executable, __file__, f"--open={folder}"]
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(processes)
        ]
        before = memory_of(children, go_on(children))
        for step in ("open", "make a loader of"):
            times = go_on(children)
            seconds, wall = max(cpu for cpu, _ in times), max(wall for _, wall in times)
            note = f"{wall:.2f} s by the clock; the slowest of {processes} processes"
            report(f"{step} {what}", seconds, "CPU-s", note)
            grown = memory_of(children, times)
            grown.subtract(before)
            note = f"{grown['Anonymous'] / 1e6:.0f} MB are not shared; processes: {processes}"
            report("  memory of all processes", grown["Pss"] / 1e6, "MB", note)
            memory.append(grown["Pss"])
        for child in children:
            child.communicate("")
    return memory


def go_on(children: list["subprocess.Popen[str]"]) -> list[tuple[float, float]]:
    """Let all children do their next step, and return the times that each prints."""
    for child in children:
        print(file=child.stdin, flush=True)
    return [tuple(json.loads(child.stdout.readline())) for child in children if child.stdout]


def memory_of(children: list["subprocess.Popen[str]"], _: object) -> Counter[str]:
    """Return sums over the children, by the names of /proc/PID/smaps_rollup, in bytes."""
    sums: Counter[str] = Counter()
    for child in children:
        for line in Path(f"/proc/{child.pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, value = line.partition(":")
            sums[name] += 1024 * int(value.split()[0])
    return sums


def open_indexes(folder: Path) -> None:
    """Open ``folder`` and make a loader; begin each step when a line is read.

    Prints the CPU seconds, and the seconds by the clock, of each step.
    """
    shards = ShardDirectory.open(folder)
    steps = (
        lambda: None,
        lambda: shards.load_indexes(shards.names),
        lambda: MixtureLoader(shards, seq_len=4096, batch_rows=8),
    )
    kept: list[object] = []
    for step in steps:
        sys.stdin.readline()
        begin, wall = time.process_time(), time.monotonic()
        kept.append(step())
        print(json.dumps([time.process_time() - begin, time.monotonic() - wall]), flush=True)
    sys.stdin.readline()
    os._exit(0)


def measure_remote(work: Path, clusters: int, delay: float) -> None:
    """Measure how long a loader takes to open when a server waits ``delay`` seconds per request."""
    folder = work / "remote"
    entry, packed = small_shard()
    write_directory(folder, [[entry]] * clusters)
    for path in (folder / "clusters").iterdir():
        (path / entry.zip_basename).write_bytes(packed)
    command = [sys.executable, __file__, f"--serve={folder}", f"--delay={delay}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        Manifest.load(url)  # imports the client
        for what in (COLUMNS, "index.json"):
            begin, cpu = time.monotonic(), time.process_time()
            loader = MixtureLoader(url, seq_len=64, batch_rows=8, cache_dir=work / what)
            opened, cpu = time.monotonic() - begin, time.process_time() - cpu
            next(loader)
            first = time.monotonic() - begin
            note = f"{1e3 * delay:.0f} ms a request; {cpu:.2f} CPU-s; first batch: {first:.2f} s"
            report(f"open {clusters:,} clusters over HTTP, {what}", opened, "s", note)
            (folder / COLUMNS).unlink(missing_ok=True)
        server.terminate()


def write_directory(folder: Path, clusters: Iterable[list[ShardEntry]]) -> None:
    """Write a manifest, one index per cluster, and ``shards.columns``, but no shards.

    ``clusters`` lists the index entries of the shards of each cluster.
    """
    entries, columns = [], {}
    for number, shards in enumerate(clusters):
        index = Index.of(DTYPE, shards)
        data, name = index.to_bytes(), f"c{number:04d}"
        columns[name] = index.parts[0]
        path = cluster_folder(folder, name)
        path.mkdir(parents=True)
        (path / INDEX).write_bytes(data)
        counts = {"tokens": index.tokens, "documents": index.samples}
        entries.append(ClusterEntry(name=name, index_hash=hash_bytes(data), **counts))
    save_columns(folder, columns)
    Manifest(
        clusters=tuple(entries),
        dtype=DTYPE,
        vocab_size=1_000,
        eos_id=0,
        tokenizer_hash="",
        build=hash_bytes(b"made up"),
        license="unknown",
        files=hash_files(folder),
    ).save(folder)


def made_up(number: int, within: int) -> ShardEntry:
    """Return the entry of a made-up shard of 16 MiB, which is number ``within`` of its cluster."""
    lengths = tuple((number % 97 + k, (number % 97 + k) << k) for k in range(16))
    digests = [hash_bytes(f"{number} {what}".encode()) for what in ("raw", "zip")]
    samples = sum(documents for documents, _ in lengths)
    name = shard_name(within)
    return ShardEntry(name, samples, lengths, 1 << 24, digests[0], 1 << 23, digests[1])


def small_shard() -> tuple[ShardEntry, bytes]:
    """Return the index entry of a shard of one document, and the compressed shard."""
    document = np.random.default_rng(0).integers(0, 1_000, TOKENS).astype(DTYPE)
    raw = encode_shard([encode_document(document)], DTYPE)
    packed = compress(raw)
    return describe_shard("shard.00000.mds", [TOKENS], raw, packed), packed


class Late(SimpleHTTPRequestHandler):
    """Serves files, and pauses for ``delay`` seconds before each."""

    protocol_version = "HTTP/1.1"
    delay = 0.0

    def do_GET(self) -> None:
        """Wait, then send a file."""
        time.sleep(self.delay)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Lets many clients connect at once."""

    request_queue_size = 1024


def serve(folder: Path, delay: float) -> None:
    """Serve ``folder`` until this process is ended; print the address."""
    Late.delay = delay
    server = Server(("127.0.0.1", 0), partial(Late, directory=str(folder)))
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
