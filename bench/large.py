"""Print what a build of 1, 10 and 45 TB of text costs; most lines are derived from small builds.

The bench first measures, and reports each measurement:

* builds of 10 MB, 100 MB and so on, up to ``--to``: MB per CPU-second, and the slope of the time,
  which is 1 if ten times the text takes ten times the CPU-seconds (`scale.py`);
* the process that plans, per partition and per shard (`scale.py`, 10 MB in FEW and in MANY files);
* the search for copies among ``--documents`` synthetic documents (`duplicates.py`);
* the index of ``--shards`` made-up shards (`opening.py`).

Then it prints the table. The note of each line says "derived" and from what, or "chosen". The
derivation assumes documents of 3 kB, partitions of 128 MiB, and shards of 16 MiB. Builds with the
options of a large corpus are not measured on a network file system, nor on more than one machine.
"""

import argparse
import math
import os
import tempfile
from itertools import pairwise
from pathlib import Path

from duplicates import Search, limit_open_files
from duplicates import measure as measure_copies
from measure import report
from opening import IndexCost, measure_indexes
from scale import PlannerCost, measure, measure_planner

from climbstream.builder.corpus.installed import installed_documents
from climbstream.builder.selection.dedup import BANDS
from climbstream.builder.selection.exchange import MOST
from climbstream.builder.writers.catalogue_parts import PART_BYTES
from climbstream.loader.formats.mds.index import SHARD_BYTES

MEGABYTES = 10
DOCUMENT = 3_000
"""Bytes of text of a document."""
PARTITION = 128 << 20
"""Bytes of text of a partition of a large corpus."""
TOKEN_BYTES = 0.5
"""Bytes of tokens for a byte of text: 4 bytes of text make a token of 2."""
CORES = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--to", type=float, default=100, metavar="MB", help="largest build")
    parser.add_argument("--documents", type=float, default=1e6)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--files", type=int, nargs=2, default=[50, 1000], metavar=("FEW", "MANY"))
    options, _ = parser.parse_known_args()
    print_load()
    base = list(installed_documents(megabytes=MEGABYTES, seed=17))
    rate = measure_decades(base, options.to)
    planner = measure_planner(base, *options.files, batched=True)
    limit_open_files()
    # Before the index: its shards would stay in the memory of this process, which is measured here.
    with tempfile.TemporaryDirectory() as folder:
        copies = measure_copies(Path(folder), int(options.documents))
    with tempfile.TemporaryDirectory() as folder:
        index = measure_indexes(Path(folder) / "many", options.shards, processes=4)
    print_load()
    for terabytes in (1, 10, 45):
        derive(terabytes, rate, planner, index, copies)


def print_load() -> None:
    report("load of the machine", os.getloadavg()[0], "", f"{os.cpu_count()} cores")


def measure_decades(base: list, most: float) -> float:
    """Build 10, 100 and so on, up to ``most`` MB; return the MB per CPU-second of the largest."""
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for power in range(1 + round(math.log10(most / MEGABYTES))):
            run = measure(Path(folder), base, 10**power)
            runs.append(run)
            what = f"build of {run['megabytes']:,.0f} MB"
            note = f"measured; {run['cpu']:,.0f} CPU-s, {run['wall']:,.0f} s by the clock"
            report(what, run["megabytes"] / run["cpu"], "MB/CPU-s", note)
            own, wall = run["own"], run["wall"]
            note = f"measured; {own:.1f} CPU-s, {100 * own / wall:.1f} % of the time by the clock"
            report("  main process, memory", run["held"] / 1e6, "MB", note)
    for small, large in pairwise(runs):
        slope = math.log(large["cpu"] / small["cpu"])
        slope /= math.log(large["megabytes"] / small["megabytes"])
        what = f"slope of CPU-s, {small['megabytes']:,.0f} to {large['megabytes']:,.0f} MB"
        report(what, slope, "", "measured; asked for: at most 1.1")
    return float(runs[-1]["megabytes"] / runs[-1]["cpu"])


def derive(
    terabytes: float, rate: float, planner: PlannerCost, index: IndexCost, copies: Search
) -> None:
    """Report what ``terabytes`` of text cost; ``rate`` is in MB per CPU-second."""
    size = terabytes * 1e12
    documents, partitions = size / DOCUMENT, size / PARTITION
    shards, blocks = size * TOKEN_BYTES / SHARD_BYTES, math.ceil(size / DOCUMENT / MOST)
    work = size / 1e6 / rate
    own = planner.fixed + partitions * planner.partition + shards * planner.shard
    memory = (planner.held + partitions * planner.memory) / 1e6
    opened = BANDS * 4 * blocks**2 / CORES
    search = documents * copies.cpu / copies.documents
    disk = documents * copies.bytes / copies.documents
    wall = work / CORES
    share = f"{100 * own / wall:.1f} % of the time by the clock"
    lines = [
        ("partitions", partitions, "", "chosen: 128 MiB of text each"),
        ("files and folders in .build", partitions * planner.files, "", "per partition"),
        ("files of the catalogue", documents * planner.catalogue / PART_BYTES, "", "per document"),
        ("work of all tasks", work / 3600, "core-h", "MB per CPU-second of the largest build"),
        (f"time on {CORES:,} cores", wall / 3600, "h", "the line above"),
        ("main process, time", own, "CPU-s", f"once, per partition, per shard; {share}"),
        ("main process, memory", memory, "MB", "once, and per partition"),
        ("search for copies", search / 3600, "core-h", "per document; part of the work"),
        ("  files that each core opens", opened, "", "128 per pair of blocks, by all cores"),
        ("  files open at once", 256, "", "measured as a limit; independent of size"),
        ("  disk", disk / 1e9, "GB", "per document"),
        ("  memory of a worker", copies.worker / 1e6, "MB", "measured; independent of size"),
        ("shards", shards, "", "chosen: 16 MiB of tokens each"),
        ("  index of all shards", shards * index.file / 1e6, "MB", "per shard"),
        ("  its memory on a node", shards * index.opened / 1e6, "MB", "per shard"),
        ("  a loader, per rank", shards * index.loader / 1e6, "MB", "per shard"),
    ]
    for what, value, unit, note in lines:
        known = note.startswith(("chosen", "measured"))
        report(f"{terabytes} TB: {what}", value, unit, note if known else f"derived: {note}")


if __name__ == "__main__":
    main()
