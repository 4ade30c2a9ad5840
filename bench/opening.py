"""Measure how long it takes to open a large shard directory; prints JSON lines for run.py.

The directories are made up. One has ``--shards`` shards in 20 clusters, but only their indexes
exist; the benchmark measures the CPU seconds and the memory in which one process reads and checks
these indexes. The other directory has ``--clusters`` clusters of one small shard each, behind a
server in another process that waits ``--delay`` seconds before each answer; the benchmark measures
how long `MixtureLoader` takes to open, and to return its first batch with an empty cache. A real
network is not measured.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from measure import report

from climbstream.loader import Manifest, MixtureLoader
from climbstream.loader.core.files import hash_bytes
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.manifest import INDEX, ClusterEntry, cluster_folder
from climbstream.loader.formats.mds.compression import compress
from climbstream.loader.formats.mds.entry import ShardEntry
from climbstream.loader.formats.mds.index import Index
from climbstream.loader.formats.mds.writer import describe_shard, encode_document, encode_shard

CLUSTERS = 20
DTYPE = "uint16"
TOKENS = 4096
"""Number of tokens of a small shard."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--clusters", type=int, default=1_000)
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()
    if options.serve:
        serve(options.serve, options.delay)
    elif options.open:
        open_indexes(options.open)
    else:
        with tempfile.TemporaryDirectory(prefix="climb-bench-") as work:
            measure_indexes(Path(work) / "many", options.shards)
            measure_remote(Path(work), options.clusters, options.delay)


def measure_indexes(folder: Path, shards: int) -> None:
    """Write the indexes of ``shards`` shards, and measure in a new process how they are opened."""
    count = shards // CLUSTERS
    write_directory(
        folder, [[made_up(k * count + n) for n in range(count)] for k in range(CLUSTERS)]
    )
    command = [sys.executable, __file__, f"--open={folder}"]
    subprocess.run(command, check=True)


def open_indexes(folder: Path) -> None:
    """Read and check all indexes in ``folder``; report the CPU time and the memory needed."""
    shards = ShardDirectory.open(folder)
    begin, wall, before = time.process_time(), time.monotonic(), resident_bytes()
    shards.load_indexes(shards.names)
    seconds, wall = time.process_time() - begin, time.monotonic() - wall
    count = sum(len(shards.index(name).shards) for name in shards.names)
    held = resident_bytes() - before
    note = f"{1e6 * seconds / count:.0f} us a shard; {wall:.1f} s by the clock"
    report(f"open {count:,} shards", seconds, "CPU-s", note)
    report("  memory", held / 1e6, "MB", f"{held / count:.0f} bytes a shard")


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
        begin, cpu = time.monotonic(), time.process_time()
        loader = MixtureLoader(url, seq_len=64, batch_rows=8, cache_dir=work / "cache")
        opened, cpu = time.monotonic() - begin, time.process_time() - cpu
        next(loader)
        first = time.monotonic() - begin
        server.terminate()
    note = f"{1e3 * delay:.0f} ms a request; {cpu:.2f} CPU-s; first batch after {first:.2f} s"
    report(f"open {clusters:,} clusters over HTTP", opened, "s", note)


def write_directory(folder: Path, clusters: list[list[ShardEntry]]) -> None:
    """Write a manifest and one index per cluster, but no shards.

    ``clusters`` lists the index entries of the shards of each cluster.
    """
    entries = []
    for number, shards in enumerate(clusters):
        index = Index.of(DTYPE, shards)
        data, name = index.to_bytes(), f"c{number:04d}"
        path = cluster_folder(folder, name)
        path.mkdir(parents=True)
        (path / INDEX).write_bytes(data)
        counts = {"tokens": index.tokens, "documents": index.samples}
        entries.append(ClusterEntry(name=name, index_hash=hash_bytes(data), **counts))
    Manifest(
        clusters=tuple(entries),
        dtype=DTYPE,
        vocab_size=1_000,
        eos_id=0,
        tokenizer_hash="",
        build=hash_bytes(b"made up"),
        license="unknown",
    ).save(folder)


def made_up(number: int) -> ShardEntry:
    """Return the index entry of a made-up shard of 16 MiB with documents of many lengths."""
    lengths = tuple((number % 97 + k, (number % 97 + k) << k) for k in range(16))
    digests = [hash_bytes(f"{number} {what}".encode()) for what in ("raw", "zip")]
    samples = sum(documents for documents, _ in lengths)
    basename = f"shard.{number:05d}.mds"
    return ShardEntry(basename, samples, lengths, 1 << 24, digests[0], 1 << 23, digests[1])


def small_shard() -> tuple[ShardEntry, bytes]:
    """Return the index entry of a shard of one document, and the compressed shard."""
    document = np.random.default_rng(0).integers(0, 1_000, TOKENS).astype(DTYPE)
    raw = encode_shard([encode_document(document)], DTYPE)
    packed = compress(raw)
    return describe_shard("shard.00000.mds", [TOKENS], raw, packed), packed


def resident_bytes() -> int:
    """Return the resident memory of this process now, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


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
