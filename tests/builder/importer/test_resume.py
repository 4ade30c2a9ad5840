"""An import that is killed at any moment goes on, and ends with the same bytes."""

import json
import random
import signal
import subprocess
import time

import numpy as np
import pytest
from climb_command import ClimbProcess

from climbstream.loader.tools.verify import verify_directory

pytestmark = pytest.mark.slow

STAGES = (".build/units/00003.json", "clusters/*/shard.*", "documents/*")
"""What an import writes, stage by stage."""


@pytest.fixture(scope="module")
def mix(tmp_path_factory):
    """A small ClimbMix of some parts."""
    folder = tmp_path_factory.mktemp("mix")
    rng = np.random.default_rng(0)
    for part in range(8):
        with (folder / f"part_{part}.tokenized.jsonl").open("w") as file:
            for _ in range(400):
                tokens = rng.integers(0, 50_000, rng.integers(1, 200)).tolist()
                cluster = int(rng.integers(1, 6))
                row = {"tokens": tokens, "token_count": len(tokens), "cluster_id": cluster}
                file.write(json.dumps(row) + "\n")
    return folder


def start(mix, out):
    return ClimbProcess(
        "import",
        mix,
        f"--out={out}",
        "--workers=2",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_import_that_is_killed_in_every_stage_ends_with_the_same_bytes(mix, tmp_path, all_bytes):
    with start(mix, tmp_path / "whole") as process:
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
    out, kills = tmp_path / "killed", 0
    wait = random.Random(0)
    for stage in STAGES:
        with start(mix, out) as process:
            while process.poll() is None and not any(out.glob(stage)):
                time.sleep(0.002)
            time.sleep(wait.uniform(0, 0.05))
            process.kill()
            kills += process.wait() == -signal.SIGKILL
        assert not (out / "manifest.json").exists() or verify_directory(out).faults == []
    assert kills >= len(STAGES) / 2
    with start(mix, out) as process:
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
    assert all_bytes(out) == all_bytes(tmp_path / "whole")
    assert verify_directory(out).faults == []
