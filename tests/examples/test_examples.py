"""The examples run as they stand, and go on exactly after they were killed."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from climbstream.loader.request import open_run

EXAMPLES = Path(__file__).parents[2] / "examples"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def start(built, tmp_path_factory):
    """Return a function that starts an example on the shards, ``steps`` long."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CLIMBSTREAM_CACHE": str(tmp_path_factory.mktemp("cache")),
    }

    def start_(*command, run, steps):
        more = (built.directory, run, "--steps", steps, "--every", 20)
        return subprocess.Popen(
            [*map(str, (*command, *more))],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start_


def finish(process):
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return said


# torch and DDP.


def ddp(start, run, processes, *, until=None):
    """Run the example, to its end or to be ended after step ``until``; return loss by step."""
    losses, said = {}, []
    with start(*TORCHRUN, processes, EXAMPLES / "torch_ddp.py", run=run, steps=60) as process:
        for line in process.stdout:
            said.append(line)
            if found := re.match(r"step (\d+): loss (\S+)$", line):
                losses[int(found[1])] = float(found[2])
                if until == int(found[1]):
                    process.terminate()  # torchrun ends the ranks, wherever they are
        code = process.wait(timeout=60)
    assert (code != 0) == (until is not None), "".join(said)
    return losses


@pytest.fixture(scope="module")
def ddp_runs(start, tmp_path_factory):
    """Folders of an uninterrupted run on two processes and one ended after step 20; losses."""
    folder = tmp_path_factory.mktemp("ddp")
    whole = ddp(start, folder / "whole", 2)
    ddp(start, folder / "ended", 2, until=25)
    return folder, whole


def resume(start, ddp_runs, name, processes):
    """Resume a copy of the run that was ended; return its losses, and both last checkpoints."""
    folder, _ = ddp_runs
    shutil.copytree(folder / "ended", folder / name)
    losses = ddp(start, folder / name, processes)
    last = (torch.load(folder / run / "checkpoint.pt") for run in ("whole", name))
    return losses, *last


def test_ddp_goes_on_with_the_same_losses_and_weights(start, ddp_runs):
    losses, whole, again = resume(start, ddp_runs, "again", 2)
    assert min(losses) in (21, 41)
    assert losses == {step: ddp_runs[1][step] for step in losses}
    assert again["loader"] == whole["loader"]
    assert all(torch.equal(again["model"][name], t) for name, t in whole["model"].items())


def test_ddp_goes_on_with_another_number_of_processes(start, ddp_runs):
    # Sums are rounded otherwise, so losses are equal within that; the loader's state is the same.
    losses, whole, again = resume(start, ddp_runs, "alone", 1)
    assert min(losses) in (21, 41)
    expected = [ddp_runs[1][step] for step in losses]
    assert [*losses.values()] == pytest.approx(expected, rel=1e-4)
    # A batch more or less would be seen.
    assert [*losses.values()][1:] != pytest.approx(expected[:-1], rel=1e-3)
    assert again["loader"] == whole["loader"]


def test_ddp_follows_the_command(start, ddp_runs, climb):
    run = ddp_runs[0] / "told"
    shutil.copytree(ddp_runs[0] / "ended", run)
    name = max(open_run(run).records[0].weights)
    done = climb("weights", run, f"{name}=1", "--why", "told")
    assert done.returncode == 0, done.stderr
    steps = ddp(start, run, 2)
    last = open_run(run).records[-1]
    assert last.why == "told"
    assert min(steps) < last.at_step <= 60
    assert {n: w for n, w in last.weights.items() if w} == {name: 1}


# The Trainer of transformers.


def logged(checkpoint):
    history = json.loads((checkpoint / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def test_the_trainer_goes_on_with_the_same_losses_and_weights(start, tmp_path):
    command = (sys.executable, EXAMPLES / "huggingface_trainer.py")
    finish(start(*command, run=tmp_path / "whole", steps=80))
    process = start(*command, run=tmp_path / "ended", steps=80)
    saved = tmp_path / "ended" / "checkpoint-20" / "loader.json"
    while not (saved.exists() and saved.stat().st_size) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    said, _ = process.communicate(timeout=60)
    assert process.returncode < 0, said
    assert not (tmp_path / "ended" / "checkpoint-80").exists()
    finish(start(*command, run=tmp_path / "ended", steps=80))
    whole, again = (tmp_path / run / "checkpoint-80" for run in ("whole", "ended"))
    for name in ("loader.json", "model.safetensors"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()
    losses = [logged(folder) for folder in (whole, again)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 80
    assert losses[0][-1] < losses[0][0] / 1.3
