"""Measure `climb build` as the corpus grows; prints JSON lines for run.py.

What is measured: builds of ``--times`` a base of ``--megabytes`` of the text that the installed
packages bring, by the real command with 2 workers. Copies differ from the base: each has
identifiers of its own, and three words in ten are from elsewhere in the same document, so
none is dropped as a duplicate. Time is CPU-seconds of all processes, wall-clock beside it. Memory
is the sum of the proportional set sizes (PSS) of all processes, looked at five times a second; of
the process that plans, also the most that it held (VmHWM). What is fitted is fitted on 400
documents in all three, and 200 of each of 3 clusters are described: so few that the base has as
many.

Stages are told apart by the lines that the command writes as each ends; what is not a stage of its
own (decisions, describing) counts to the next line. Megabytes are those of the corpus.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
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

CHANGED = 0.3
WORKERS = 2
SETTINGS = {
    "clusters": 3,
    "micro_clusters": 100,
    "sample": 400,
    "vocab_size": 8_000,
    "min_cluster_score": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=float, default=12)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 3, 10])
    options, _ = parser.parse_known_args()
    base = list(installed_documents(megabytes=options.megabytes, seed=17))
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


def measure(folder: Path, base: list[Any], times: int) -> dict[str, Any]:
    """Build ``times`` times the ``base``; return what it took."""
    sources = folder / f"corpus-{times}"
    size = write_corpus(sources, base, times)
    settings = folder / "settings.json"
    settings.write_text(json.dumps(SETTINGS))
    command = [
        str(Path(sys.executable).with_name("climb")),
        "build",
        str(sources),
        f"--out={folder / f'shards-{times}'}",
        f"--config={settings}",
        f"--workers={WORKERS}",
        "--json",
    ]
    held, spent, planner = [0], [0.0], [0.0, 0.0]
    peaks: dict[str, int] = {}
    stages: dict[str, float] = {}
    ended = threading.Event()
    begin, first = time.monotonic(), seconds_of_children()
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True) as build:
        watcher = threading.Thread(target=watch, args=(build.pid, held, spent, planner, ended))
        watcher.start()
        before = first
        said = []
        for line in build.stderr:
            said.append(line)
            stage, _, rest = line.partition(": ")
            # The line that ends a stage names its rate; those on the way are of the same stage.
            if "/s · " in rest or "s each" in rest:
                stages[stage] = stages.get(stage, 0.0) + seconds_of_children() - before
                before = seconds_of_children()
                peaks[stage], held[:] = max(held), [0]
        manifest = json.load(build.stdout)
    ended.set()
    watcher.join()
    if build.returncode:
        sys.exit("".join(said))
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
    }


def watch(
    pid: int,
    held: list[int],
    spent: list[float],
    planner: list[float],
    ended: threading.Event,
) -> None:
    """Note the memory and the time of ``pid``, and of all that it began, until ``ended``."""
    while not ended.wait(0.2):
        planner[:] = map(max, planner, (most_bytes(pid), running_seconds(pid)))
        spent.append(seconds_of_children())
        held.append(sum(map(proportional_bytes, [pid, *processes_of(pid)])))


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
