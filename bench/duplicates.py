"""Measure the search for copies on synthetic documents: ``duplicates.py --documents 1e6,1e7``.

The bench runs the search of a build for exact copies and then for near copies, with 2 workers and a
limit of 256 open files. The documents have only hashes and signatures, no text. A partition has
1,400 documents, as many as 4 MiB of text typically have. One document in 50 is an exact copy. One
in 20 is a near copy, in which up to 30 % of the signature has changed. The originals are in earlier
partitions.

CPU-seconds are those of all processes. The memory of a process is its peak (VmHWM). Files and bytes
are the peaks in the folder of the search, sampled twice a second.
"""

import argparse
import os
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import most_bytes, processes_of, report, seconds_of_children

from climbstream.builder.corpus.document import Document
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.selection.dedup import SIGNATURE
from climbstream.builder.selection.selection import Selection
from climbstream.builder.selection.stages import drop_copies
from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.engines.local import LocalEngine

WORKERS = 2
EACH = 1400
"""Number of documents per partition."""
NEAR, EXACT = EACH // 20, EACH // 50
FAMILY = 10
"""Number of partitions in a family; all but the first copy documents of the first."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", default="1e5,1e6", help="how many, with commas between")
    parser.add_argument("--folder", type=Path, help="where they are written; default: TMPDIR")
    options, _ = parser.parse_known_args()
    limit_open_files()
    for count in map(float, options.documents.split(",")):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            measure(Path(folder), int(count))


def limit_open_files(most: int = 256) -> None:
    """Let this process, and those that it starts, have at most ``most`` files open."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@dataclass(frozen=True)
class Search:
    """What a search for copies took; times are in CPU-seconds of all processes."""

    documents: int
    cpu: float
    files: int
    """Largest number of files that existed at the same time."""
    bytes: int
    """Largest size of these files together."""
    worker: int
    """Peak memory of a worker, in bytes."""


def measure(folder: Path, count: int) -> Search:
    """Make ``count`` documents, rounded up to whole partitions; search them and report."""
    with LocalEngine(WORKERS) as engine:
        numbers = range(-(-count // EACH))
        for _ in engine.run(partial(make, folder / "units"), numbers):
            pass
        partitions = [Partition(path) for path in sorted((folder / "units").iterdir())]
        selection = Selection(engine, partitions, folder / "exchange")
        with watched(folder / "exchange") as most:
            begin, cpu, own = time.monotonic(), seconds(), time.process_time()
            drop_copies(selection, BuildSettings())
            wall, cpu, own = time.monotonic() - begin, seconds() - cpu, time.process_time() - own
        dropped = {
            why: size["documents"] for s in selection.stages for why, size in s["dropped"].items()
        }
    documents = EACH * len(partitions)
    note = ", ".join(f"{n:,} {why}" for why, n in dropped.items())
    report(f"search of {documents:,} documents", documents / cpu, "/CPU-s", note)
    report("  time", wall, "s", f"{cpu:.0f} CPU-s, load {os.getloadavg()[0]:.0f}")
    report("  the process that plans", own, "CPU-s", f"{100 * own / cpu:.1f} % of all")
    report("  its memory", most.driver / 1e6, "MB", "at most")
    report("  memory of a worker", most.worker / 1e6, "MB", "at most")
    note = f"at most, {most.bytes / documents:.0f} bytes a document"
    report("  files of the search", most.files, "", note)
    return Search(documents, cpu, most.files, most.bytes, most.worker)


def make(folder: Path, number: int) -> None:
    """Write partition ``number``.

    Unless the partition is the first of its family, some documents are copies from the first.
    """
    partition = Partition(folder / f"00000-{number:05d}")
    signatures, hashes = made(number)
    if number % FAMILY:
        rng = np.random.default_rng([number, 1])
        rows = rng.permutation(EACH)[: NEAR + EXACT]
        first, first_hashes = made(number - number % FAMILY)
        copied = rng.integers(0, EACH, len(rows))
        changed = rng.random((SIGNATURE, len(rows))) < rng.uniform(0, 0.3, len(rows))
        signatures[:, rows] = np.where(changed, signatures[:, rows], first[:, copied])
        hashes[rows[NEAR:]] = first_hashes[copied[NEAR:]]
    rng = np.random.default_rng([number, 2])
    partition.write_arrays(
        {
            "signatures": signatures,
            "text_hashes": hashes,
            "sizes": rng.integers(200, 6000, EACH),
            "scores": rng.uniform(0, 5, (EACH, 4)).astype(np.float32),
        }
    )
    partition.write_documents([Document(id=str(row), text="") for row in range(EACH)])


def made(number: int) -> tuple[Any, Any]:
    """Return the signatures and hashes of the documents of a partition before copies are put in."""
    rng = np.random.default_rng([number, 0])
    signatures = rng.integers(0, 256, (SIGNATURE, EACH), dtype=np.uint8)
    return signatures, rng.integers(0, 2**64, (EACH, 2), dtype=np.uint64)


def seconds() -> float:
    return time.process_time() + seconds_of_children()


@dataclass
class Most:
    """Peaks of memory (of the main process and of a worker), number of files and bytes."""

    driver: int = 0
    worker: int = 0
    files: int = 0
    bytes: int = 0


@contextmanager
def watched(folder: Path) -> Iterator[Most]:
    """Sample the memory of the processes and the files in ``folder``, twice a second.

    Yields the peaks so far, which are updated in place.
    """
    most, ended = Most(), threading.Event()
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak, so that it starts from here

    def watch() -> None:
        while not ended.wait(0.5):
            look(most, folder)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        ended.set()
        watcher.join()
        look(most, folder)


def look(most: Most, folder: Path) -> None:
    most.driver = max(most.driver, most_bytes(os.getpid()))
    most.worker = max([most.worker, *map(most_bytes, processes_of(os.getpid()))])
    # Unlike glob, walk skips folders that are removed in the meantime.
    sizes = [size_of(Path(at, name)) for at, _, names in os.walk(folder) for name in names]
    most.files = max(most.files, len(sizes))
    most.bytes = max(most.bytes, sum(sizes))


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # the file was removed
        return 0


if __name__ == "__main__":
    main()
