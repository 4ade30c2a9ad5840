"""One rank of the job that `test_agree` starts: ``python ranks.py RANK WORLD_SIZE STORE OUT``.

Plays every scene with the other ranks, and writes what it saw of each as JSON.
"""

import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from climbstream.loader import Mixture, WeightsLog
from climbstream.loader.core.errors import ClimbError
from climbstream.loader.weights.agreement import Agreement
from climbstream.loader.weights.update import WeightsUpdate

RANK, WORLD_SIZE = int(sys.argv[1]), int(sys.argv[2])
STORE, OUT = sys.argv[3], Path(sys.argv[4])
A, B = Mixture.of({"c00": 1, "c01": 1}), Mixture.of({"c01": 1})


def begin():
    log = WeightsLog()
    log.append(A, 0, "start")
    return log


def walk(agreement, log, steps, before=lambda _: None):
    """Plan steps; ``before`` is called ahead of each."""
    for step in steps:
        before(step)
        for change in agreement.meet(step, log.head):
            log.append(change.mixture, step, change.why, change.ramp)


def told(log):
    return [(r.at_step, r.kind, r.why) for r in log.records]


def attempt(action):
    """Say with what error ``action`` ends."""
    try:
        action()
    except ClimbError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def timed(action):
    """Say with what error ``action`` ends, and after how many seconds."""
    begun = time.monotonic()
    return attempt(action), time.monotonic() - begun


def switch():
    """Rank 2 is slow; rank 0 is asked for other weights three times."""
    agreement, log, free = Agreement(), begin(), []

    def before(step):
        if RANK == 2:
            time.sleep(0.005)
        if RANK == 0 and step in (5, 16, 17):
            free.append(agreement.first_free(step))
            agreement.offer(
                WeightsUpdate(B if step < 17 else A, 8 if step == 17 else 0, f"at {step}")
            )

    walk(agreement, log, range(90), before)
    agreement.drain()
    return {"told": told(log), "head": log.head, "free": free}


def history():
    """Rank 3 makes a record of its own."""
    agreement, log = Agreement(every=4), begin()

    def before(step):
        if RANK == 3 and step == 6:
            log.append(B, 6, "alone")

    return attempt(lambda: walk(agreement, log, range(40), before))


def elsewhere():
    """Rank 1 has loaded another state."""
    agreement, log = Agreement(every=4), begin()
    first = 8 if RANK == 1 else 0
    return attempt(lambda: walk(agreement, log, range(first, first + 20)))


def rewind():
    """All go back to an earlier step, while a change is on its way."""
    agreement, log = Agreement(every=4), begin()
    if RANK == 0:
        agreement.offer(WeightsUpdate(B, why="kept"))
    walk(agreement, log, range(3))
    agreement.drain()
    walk(agreement, log, range(1, 20))
    agreement.drain()
    return told(log)


def large():
    """Two changes of 600,000 bytes each do not fit into one meeting."""
    agreement, log = Agreement(every=4), begin()
    if RANK == 0:
        for why in "first", "second":
            agreement.offer(WeightsUpdate(Mixture.of({"x" * 600_000: 1}), why=why))
    walk(agreement, log, range(20))
    agreement.drain()
    return told(log)


def refused():
    """What a rank may not do."""
    agreement = Agreement(every=4)
    huge = WeightsUpdate(Mixture.of({"x" * (1 << 20): 1}))
    agreement.meet(0, "")
    return [
        attempt(lambda: agreement.offer(huge)),
        attempt(lambda: agreement.meet(8, "")),
        attempt(agreement.drain),
    ]


def some_ranks():
    """Ranks 1 and 2 have an agreement of their own; the first of them is its rank 0."""
    group = dist.new_group([1, 2], backend="gloo")
    if RANK not in (1, 2):
        return None
    agreement, log = Agreement(group, every=2), begin()
    if RANK == 1:
        agreement.offer(WeightsUpdate(B, why="ours"))
    walk(agreement, log, range(8))
    agreement.drain()
    return told(log)


def late():
    """Rank 2 does not come."""
    agreement, log = Agreement(every=4, timeout=1), begin()
    if RANK == 2:
        time.sleep(4)
        return "late"
    return timed(lambda: walk(agreement, log, range(20)))


def gone():
    """Rank 3 dies without a word, while the others have plenty of time."""
    agreement, log = Agreement(every=4, timeout=100), begin()
    if RANK == 3:
        walk(agreement, log, range(6))
        os._exit(0)
    return timed(lambda: walk(agreement, log, range(200)))


dist.init_process_group(
    "gloo",
    init_method=f"file://{STORE}",
    rank=RANK,
    world_size=WORLD_SIZE,
    timeout=timedelta(seconds=120),
)
saw = {}
for scene in (switch, history, elsewhere, rewind, large, refused, some_ranks, late, gone):
    saw[scene.__name__] = scene()
    OUT.write_text(json.dumps(saw))
# The others may be gone by now; nothing is left to wait for.
dist.destroy_process_group()
