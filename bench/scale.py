"""Measure `climb build` as the corpus grows; print JSON lines for run.py.

The base is ``--megabytes`` of text that comes with the installed packages. The bench builds corpora
of ``--times`` as much text with the command ``climb build`` and 2 workers. Such a corpus consists
of changed copies of the base, with other identifiers. In a copy, three words in ten are replaced by
words from elsewhere in the same document, so that no document is dropped as a duplicate.

* Time is in CPU-seconds of all processes; the note has the time by the clock.
* Memory is the sum of the proportional set sizes (PSS) of all processes, sampled five times a
  second. For the main process, which plans the tasks, it is the peak (VmHWM).
* Models are fitted on 400 documents, and 200 documents of each of 3 clusters are described. These
  numbers are the same for all corpora, so they are small enough for the base.

With ``--files FEW MANY``, only the base is built: once cut into FEW files, and once into MANY. Each
file is a partition, and all else is equal, so the difference in the time of the main process is the
cost of the additional partitions. With ``--batched``, a task takes as many partitions, and as many
parts of the catalogue, as in a corpus of 65,536 partitions or more. Without it, a task takes one,
because the corpus has few. The cost of a shard is measured with tasks like those that write shards,
which do nothing.

The command writes a line at the end of each stage; the time between two such lines is that of a
stage. Work that is not a stage of its own (decisions, describing) counts to the next stage.
Megabytes are those of the corpus.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from subprocess import PIPE
from typing import Any

from measure import (
    most_bytes,
    processes_of,
    report,
    running_seconds,
    seconds_of_children,
)

from climbstream.builder.corpus.installed import installed_documents
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.passes import run_short
from climbstream.builder.writers.shards import DocumentRange, ShardTask
from climbstream.loader.core.engines.local import LocalEngine

CHANGED = 0.3
WORKERS = 2
SETTINGS = {
    "clusters": 3,
    "micro_clusters": 100,
    "sample": 400,
    "vocab_size": 8_000,
    "min_cluster_score": {},
}
BATCHED = """
from climbstream.builder.corpus import passes
from climbstream.loader.cli.entry import main
passes._BATCHES = 1
main()
"""
"""The command, in batches as large as those of a corpus of many partitions."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=float, default=12)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--files", type=int, nargs=2, metavar=("FEW", "MANY"))
    parser.add_argument("--batched", action="store_true")
    options, _ = parser.parse_known_args()
    base = list(installed_documents(megabytes=options.megabytes, seed=17))
    if options.files:
        measure_planner(base, *options.files, batched=options.batched)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = {times: measure(Path(folder), base, times) for times in options.times}
    last = options.times[-1]
    least, most = found[options.times[0]], found[last]
    for times, run in found.items():
        what = f"build, {times} times {least['megabytes']:.1f} MB"
        rate = run["megabytes"] / run["cpu"]
        note = f"{run['documents']:,} documents, {run['cpu']:.0f} CPU-s, {run['wall']:.0f} s"
        report(what, rate, "MB/CPU-s", note)
        report(f"  memory, {times} times", run["peak"] / 1e6, "MB", f"in {run['stage']}")
        own = run["own"]
        share = f"{100 * own / run['cpu']:.1f} % of the CPU-s, {100 * own / run['wall']:.1f} % of"
        note = f"the most it held; {own:.1f} CPU-s, {share} the wall-clock"
        report(f"  memory of the process that plans, {times} times", run["held"] / 1e6, "MB", note)
    growth = 100 * (most["peak"] / least["peak"] - 1)
    report(f"memory grows, {last} times the corpus", growth, "%", "asked for: below 20")
    grown = (most["cpu"] / least["cpu"]) / (most["megabytes"] / least["megabytes"])
    report("time per megabyte grows", 100 * (grown - 1), "%", "below 0: fits are shared by more")
    for stage, seconds in most["stages"].items():
        rate = most["megabytes"] / seconds if seconds else None
        memory = " to ".join(f"{run['peaks'][stage] / 1e6:.0f}" for run in (least, most))
        note = f"{100 * seconds / most['cpu']:.0f} % of the time, memory {memory} MB"
        report(f"  {stage}", rate, "MB/CPU-s", note)


@dataclass(frozen=True)
class PlannerCost:
    """What the process that plans spends, in CPU-seconds and bytes of memory."""

    fixed: float
    """Seconds once per build: imports, and what is done once."""
    partition: float
    """Seconds per partition."""
    shard: float
    """Seconds per shard."""
    held: float
    """Memory with few partitions."""
    memory: float
    """Additional memory per partition."""
    files: float
    """Number of files and folders in ``.build`` per partition."""
    catalogue: float
    """Bytes of the catalogue per document."""


def measure_planner(base: list[Any], few: int, many: int, *, batched: bool) -> PlannerCost:
    """Measure and report what the process that plans spends on a partition and on a shard."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (few, many):
            sources = Path(folder) / f"files-{count}"
            size = write_files(sources, base, count)
            found[count] = run = build(Path(folder), sources, size, batched=batched)
            note = (
                f"of {run['cpu']:.0f} in all; {run['wall']:.0f} s, {run['held'] / 1e6:.0f} MB held"
            )
            report(f"planner, {count:,} files of {size / 1e6:.0f} MB", run["own"], "CPU-s", note)
    least, most = found[few], found[many]
    own, memory, files = (
        (most[what] - least[what]) / (many - few) for what in ("own", "held", "files")
    )
    cost = PlannerCost(
        fixed=least["own"] - few * own,
        partition=own,
        shard=seconds_of_a_shard(),
        held=least["held"],
        memory=memory,
        files=files,
        catalogue=least["catalogue"] / least["documents"],
    )
    report("  planner, fixed", cost.fixed, "CPU-s", "imports, and what is done once")
    note = f"{memory / 1e3:.1f} kB of memory, {files:.1f} files and folders in .build"
    report("  planner, a partition", 1e3 * own, "ms", note)
    report("  planner, a shard", 1e3 * cost.shard, "ms", "handed over, and its result taken")
    report("  catalogue, a document", cost.catalogue, "bytes", "")
    return cost


def seconds_of_a_shard(count: int = 20_000) -> float:
    """Return the CPU-seconds of this process for a task of a shard and its entry.

    Tasks are sent in groups, as in a build of ``count`` shards.
    """
    units = [Partition(Path(f"units/{n:05d}-00000-00000")) for n in range(6)]
    ranges = tuple(DocumentRange(unit, 0, 9) for unit in units)
    task = ShardTask(
        cluster=0, number=0, folder=Path("c00"), dtype="uint16", ranges=ranges, done=Path("done")
    )
    with LocalEngine(WORKERS) as engine:
        list(engine.run(asdict, [task]))
        begin = time.process_time()
        tasks = (replace(task, number=n) for n in range(count))
        for _ in run_short(engine, asdict, tasks, count):
            pass
        return (time.process_time() - begin) / count


def write_files(folder: Path, base: list[Any], count: int) -> int:
    """Write ``base`` to ``count`` files in turn; return the bytes of its texts."""
    folder.mkdir()
    for n in range(count):
        with (folder / f"{n:05d}.jsonl").open("w", encoding="utf-8") as file:
            for document in base[n::count]:
                file.write(json.dumps({"id": document.id, "text": document.text}) + "\n")
    return sum(len(document.text.encode()) for document in base)


def measure(folder: Path, base: list[Any], times: int) -> dict[str, Any]:
    """Build ``times`` times the ``base``; return what it took."""
    sources = folder / f"corpus-{times}"
    return build(folder, sources, write_corpus(sources, base, times))


def build(folder: Path, sources: Path, size: int, *, batched: bool = False) -> dict[str, Any]:
    """Build ``sources``, ``size`` bytes of text; return what it took."""
    settings, shards = folder / "settings.json", folder / f"shards-{sources.name}"
    settings.write_text(json.dumps(SETTINGS))
    climb = Path(sys.executable).with_name("climb")
    command = [
        *([sys.executable, "-c", BATCHED] if batched else [str(climb)]),
        "build",
        str(sources),
        f"--out={shards}",
        f"--config={settings}",
        f"--workers={WORKERS}",
        "--json",
    ]
    held, spent, planner, files = [0], [0.0], [0.0, 0.0], [0]
    peaks: dict[str, int] = {}
    stages: dict[str, float] = {}
    ended = threading.Event()
    begin, first = time.monotonic(), seconds_of_children()
    result = folder / f"{sources.name}.json"
    with (
        result.open("w") as file,  # a pipe would be full while stderr is read
        subprocess.Popen(command, stdout=file, stderr=PIPE, text=True) as process,
    ):
        watcher = threading.Thread(
            target=watch, args=(process.pid, shards / ".build", held, spent, planner, files, ended)
        )
        watcher.start()
        before = first
        said = []
        for line in process.stderr:
            said.append(line)
            stage, _, rest = line.partition(": ")
            # The line that ends a stage names its rate; those on the way are of the same stage.
            if "/s · " in rest or "s each" in rest:
                stages[stage] = stages.get(stage, 0.0) + seconds_of_children() - before
                before = seconds_of_children()
                peaks[stage], held[:] = max(held), [0]
    ended.set()
    watcher.join()
    if process.returncode:
        sys.exit("".join(said))
    manifest = json.loads(result.read_text())
    # The time of workers that have ended is nowhere to be read.
    cpu = max(spent) - first
    stages["finish"], peaks["finish"] = cpu - sum(stages.values()), max(held)
    stage = max(peaks, key=lambda name: peaks[name])
    return {
        "megabytes": size / 1e6,
        "documents": manifest["conservation"][0]["out"]["documents"],
        "cpu": cpu,
        "wall": time.monotonic() - begin,
        "peak": peaks[stage],
        "held": planner[0],
        "own": planner[1],
        "stage": stage,
        "stages": stages,
        "peaks": peaks,
        "files": max(files),
        "catalogue": sum(path.stat().st_size for path in (shards / "documents").iterdir()),
    }


def watch(
    pid: int,
    work: Path,
    held: list[int],
    spent: list[float],
    planner: list[float],
    files: list[int],
    ended: threading.Event,
) -> None:
    """Note the memory and the time of ``pid``, and of all that it began, until ``ended``.

    Also notes the number of files and folders in ``work``, without those of the search for copies.
    """
    while not ended.wait(0.2):
        planner[:] = map(max, planner, (most_bytes(pid), running_seconds(pid)))
        spent.append(seconds_of_children())
        held.append(sum(map(proportional_bytes, [pid, *processes_of(pid)])))
        files.append(sum(map(entries, (p for p in work.glob("*") if p.name != "exchange"))))


def entries(folder: Path) -> int:
    """Return the number of files and folders in ``folder``, at any depth."""
    return sum(len(folders) + len(names) for _, folders, names in os.walk(folder))


def proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def write_corpus(folder: Path, base: list[Any], times: int) -> int:
    """Write ``times`` copies of ``base``, a file each; return the bytes of their texts."""
    folder.mkdir()
    size = 0
    for copy in range(times):
        rng = random.Random(copy)
        with (folder / f"{copy:03d}.jsonl").open("w", encoding="utf-8") as file:
            for number, document in enumerate(base):
                text = changed(document.text, rng) if copy else document.text
                size += len(text.encode())
                file.write(json.dumps({"id": f"{copy}-{number}", "text": text}) + "\n")
    return size


def changed(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    return " ".join(
        words[int(rng.random() * len(words))] if rng.random() < CHANGED else word for word in words
    )


if __name__ == "__main__":
    main()
