"""Run the benches and print one table; arguments are passed on: ``python bench/run.py --tokens N``.

Each bench is a program beside this one that prints one JSON object a line:
``{"what": ..., "value": ..., "unit": ..., "note": ...}``; its docstring says what is measured.
"""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

BENCHES = ("loader.py",)


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores of {processor()}, {platform.system()} {platform.release()}")
    libraries = " ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "torch"))
    print(f"Python {platform.python_version()}, {libraries}")
    print(f"load before: {os.getloadavg()[0]:.1f}\n")
    rows = []
    for bench in BENCHES:
        command = [sys.executable, str(Path(__file__).with_name(bench)), *sys.argv[1:]]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{bench} failed")
        rows += [json.loads(line) for line in done.stdout.splitlines()]
    width = max(len(row["what"]) for row in rows)
    for row in rows:
        number = f"{row['value']:,.0f}" if row["value"] >= 100 else f"{row['value']:.3g}"
        print(f"{row['what']:{width}}  {number:>8} {row['unit']:7} {row['note']}".rstrip())


def processor() -> str:
    """Name of the processor, where Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


if __name__ == "__main__":
    main()
