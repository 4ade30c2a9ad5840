"""Run the benches and print one table: ``python bench/run.py --only loader --tokens N``.

Each bench is a program beside this one that prints one JSON object a line:
``{"what": ..., "value": ..., "unit": ..., "note": ...}``; its docstring says what is measured.
Other arguments than ``--only`` are passed on to each.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

BENCHES = (
    "loader",
    "cache",
    "opening",
    "peers",
    "builder",
    "scale",
    "duplicates",
    "writers",
    "proxy",
    "predictors",
    "search",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=BENCHES, help="the one bench to run; default: all")
    options, passed_on = parser.parse_known_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores of {processor()}, {platform.system()} {platform.release()}")
    libraries = " ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "torch"))
    print(f"Python {platform.python_version()}, {libraries}")
    print(f"load before: {os.getloadavg()[0]:.1f}\n")
    failed = []
    for bench in [options.only] if options.only else BENCHES:
        command = [sys.executable, str(Path(__file__).with_name(f"{bench}.py")), *passed_on]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        failed += [bench] if done.returncode else []
        # What was measured before a failure is worth its line.
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        width = max((len(row["what"]) for row in rows), default=0)
        print(f"{bench}:")
        for row in rows:
            number = in_words(row["value"])
            print(f"  {row['what']:{width}}  {number:>8} {row['unit']:7} {row['note']}".rstrip())
        print(flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def in_words(value: float | None) -> str:
    """Write three digits or more; ``-`` stands for no number."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def processor() -> str:
    """Name of the processor, where Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


if __name__ == "__main__":
    main()
