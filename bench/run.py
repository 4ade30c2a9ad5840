"""Run the benches and print their results as tables: ``python bench/run.py --only loader``.

Each bench is a program in the folder of this file. Its docstring describes what it measures. It
prints one JSON object per line: ``{"what": ..., "value": ..., "unit": ..., "note": ...}``. All
arguments except ``--only`` are passed on to each bench: ``--only loader --tokens N``.
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
        # Print the results of a bench that failed later as well.
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
    """Return ``value`` as text with at least three significant digits; ``-`` for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def processor() -> str:
    """Return the name of the processor from /proc/cpuinfo, or else the machine type."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


if __name__ == "__main__":
    main()
