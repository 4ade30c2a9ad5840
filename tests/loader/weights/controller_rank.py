"""One rank of the job of `test_controller`: ``controller_rank.py SHARDS LOG OUT``, by torchrun.

Rank 2 is slow. Rank 0 is told to change weights by a call and through a file; every rank writes
down the rows that it was given.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import torch.distributed as dist

from climbstream.loader import MixtureLoader
from climbstream.loader.weights.agreement import Agreement

SHARDS, LOG, OUT = sys.argv[1], sys.argv[2], Path(sys.argv[3])
STEPS = 40


def main():
    dist.init_process_group("gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    file = OUT / "weights.request.json"
    loader = MixtureLoader(
        SHARDS,
        {"c00": 1, "c01": 1},
        seq_len=8,
        batch_rows=16,
        seed=17,
        rank=rank,
        world_size=world_size,
        weights_log=LOG,
        ledger=OUT / "served.jsonl",
        weights_file=file,
        agreement=Agreement(every=4, timeout=60),
        cache_dir=os.environ["CLIMBSTREAM_CACHE"],
    )
    seen, named = [], None
    for step in range(STEPS):
        if rank == 2:
            time.sleep(0.01 * (step % 5))
        if rank == 0 and step == 6:
            named = loader.set_weights({"c01": 1, "c02": 3}, why="call")
        if rank == 0 and step == 7:  # before the first change is in force
            loader.set_weights({"c00": 0.2}, others="keep", why="again")
        if rank == 0 and step == 21:
            file.write_text(json.dumps({"weights": {"c03": 1}, "ramp": 3, "why": "file"}))
        batch = next(loader)
        rows = zip(batch["cluster_ids"].tolist(), batch["input_ids"].tolist(), strict=True)
        seen.append(sorted(hashlib.sha256(repr(row).encode()).hexdigest() for row in rows))
    value = {"seen": seen, "named": named, "state": loader.state_dict()}
    (OUT / f"rank{rank}.json").write_text(json.dumps(value))
    dist.barrier()
    dist.destroy_process_group()


main()
