"""What every bench measures with; the standard library is all it needs."""

import json
import os
import resource
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU-seconds of this process, all its threads, and the processes that it began."""
    begin = time.process_time() + _children()
    result = work()
    return time.process_time() + _children() - begin, result


def in_turn(names: Iterable[str], number: int) -> list[str]:
    """Begin each round with another contender."""
    order = list(names)
    first = number % len(order)
    return order[first:] + order[:first]


def report(what: str, value: float | None, unit: str, note: str) -> None:
    """Print one line of the table; a value of None stands for something that has no number."""
    print(json.dumps({"what": what, "value": value, "unit": unit, "note": note}), flush=True)


def _children() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime + sum(map(_running, _begun_by(os.getpid())))


def _begun_by(process: int) -> list[int]:
    """Processes that ``process`` began, and those that they began, as far as they still run."""
    found = []
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, thread.read_text().split()):
            found += [child, *_begun_by(child)]
    return found


def _running(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
