"""What every bench measures with; the standard library is all it needs."""

import json
import os
import resource
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU-seconds of this process, all its threads, and the processes that it began."""
    begin = time.process_time() + seconds_of_children()
    result = work()
    return time.process_time() + seconds_of_children() - begin, result


def in_turn(names: Iterable[str], number: int) -> list[str]:
    """Begin each round with another contender."""
    order = list(names)
    first = number % len(order)
    return order[first:] + order[:first]


def report(what: str, value: float | None, unit: str, note: str) -> None:
    """Print one line of the table; a value of None stands for something that has no number."""
    print(json.dumps({"what": what, "value": value, "unit": unit, "note": note}), flush=True)


def seconds_of_children() -> float:
    """CPU-seconds of all that this process began, and that they began, whether ended or not."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime + sum(map(running_seconds, processes_of(os.getpid())))


def processes_of(process: int) -> list[int]:
    """Processes that ``process`` began, and those that they began, as far as they still run."""
    found = []
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # it has ended
            for child in map(int, thread.read_text().split()):
                found += [child, *processes_of(child)]
    return found


def running_seconds(process: int) -> float:
    """CPU-seconds of ``process`` so far; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    except OSError:  # it has ended, and its parent has counted it
        return 0.0
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def most_bytes(process: int) -> int:
    """Return the most bytes of memory that ``process`` has held (VmHWM); 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
