"""Functions with which all benches measure and report; they need only the standard library."""

import json
import os
import resource
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Call ``work``; return its CPU-seconds and its result.

    CPU-seconds are those of all threads of this process and of the processes that it started.
    """
    begin = time.process_time() + seconds_of_children()
    result = work()
    return time.process_time() + seconds_of_children() - begin, result


def in_turn(names: Iterable[str], number: int) -> list[str]:
    """Return ``names`` rotated by ``number``, so that each round begins with another contender."""
    order = list(names)
    first = number % len(order)
    return order[first:] + order[:first]


def report(what: str, value: float | None, unit: str, note: str) -> None:
    """Print one line of the table as JSON; ``value`` is None if the line has no number."""
    print(json.dumps({"what": what, "value": value, "unit": unit, "note": note}), flush=True)


def seconds_of_children() -> float:
    """Return the CPU-seconds of all descendants of this process, running or ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime + sum(map(running_seconds, processes_of(os.getpid())))


def processes_of(process: int) -> list[int]:
    """Return the ids of all descendants of ``process`` that are still running."""
    found = []
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            for child in map(int, thread.read_text().split()):
                found += [child, *processes_of(child)]
    return found


def running_seconds(process: int) -> float:
    """Return the CPU-seconds of ``process`` so far; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    except OSError:  # the process has ended, so its CPU time is counted in that of its parent
        return 0.0
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def most_bytes(process: int) -> int:
    """Return the peak resident memory of ``process`` in bytes (VmHWM); 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
