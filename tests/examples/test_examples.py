"""The examples run as they stand, and go on exactly after they were killed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest
import torch

from climbstream.loader.weights.request import open_weights_log

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


def follow(process, *, until, end):
    """Return losses by step, to the last or until ``end`` ends the process after step ``until``."""
    losses, said = {}, []
    with process:
        for line in process.stdout:
            said.append(line)
            if found := re.match(r"step (\d+): loss (\S+)$", line):
                losses[int(found[1])] = float(found[2])
                if until == int(found[1]):
                    end(process)  # wherever the ranks are
        code = process.wait(timeout=60)
    assert (code != 0) == (until is not None and end is not tell_one_rank), "".join(said)
    return losses


def kill(process):
    """Kill a process and those that it started: torchrun's have sessions of their own."""
    for pid in (process.pid, *children(process)):
        os.kill(pid, SIGKILL)


def tell_all_ranks(process):
    """Send SIGTERM to torchrun, which passes it on to all ranks, and ends with an error."""
    process.terminate()


def tell_one_rank(process):
    """Send SIGTERM to the last rank alone."""
    os.kill(children(process)[-1], SIGTERM)


def children(process):
    """Processes that a process started: of torchrun, the ranks."""
    return [*map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())]


# torch and DDP.


def ddp(start, run, processes, *, until=None, end=kill):
    """Run the example, to its end or to be ended after step ``until``; return loss by step."""
    process = start(*TORCHRUN, processes, EXAMPLES / "torch_ddp.py", run=run, steps=60)
    return follow(process, until=until, end=end)


@pytest.fixture(scope="module")
def ddp_runs(start, tmp_path_factory):
    """Folders of an uninterrupted run on two processes and one ended after step 20; losses."""
    folder = tmp_path_factory.mktemp("ddp")
    whole = ddp(start, folder / "whole", 2)
    ddp(start, folder / "ended", 2, until=25)
    return folder, whole


@pytest.mark.parametrize("end", [tell_all_ranks, tell_one_rank])
def test_ddp_saves_at_the_same_step_if_one_rank_or_all_get_a_signal(
    start, ddp_runs, tmp_path, climb, end
):
    before = ddp(start, tmp_path, 2, until=25, end=end)
    after = ddp(start, tmp_path, 2)
    assert min(after) == max(before) + 1 < 60
    assert before | after == ddp_runs[1]
    done = climb("audit", tmp_path)
    assert done.returncode == 0, done.stderr
    said = f"{tmp_path}: 60 steps served as the weights log says\nresumed 1 time, last at step "
    assert done.stdout.startswith(said)


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
    name = max(open_weights_log(run).records[0].weights)
    done = climb("weights", run, f"{name}=1", "--why", "told")
    assert done.returncode == 0, done.stderr
    steps = ddp(start, run, 2)
    last = open_weights_log(run).records[-1]
    assert last.why == "told"
    assert min(steps) < last.at_step <= 60
    assert {n: w for n, w in last.weights.items() if w} == {name: 1}


# Lightning.


def lightning(start, run, processes=0, *, until=None):
    """Run the example, by torchrun if ``processes``, or kill it after step ``until``; see `ddp`."""
    script = EXAMPLES / "lightning_trainer.py"
    command = (*TORCHRUN, processes, script) if processes else (sys.executable, script)
    return follow(start(*command, run=run, steps=60), until=until, end=kill)


@pytest.fixture(scope="module")
def whole_lightning_run(start, tmp_path_factory):
    """Folder of an uninterrupted run in one process, and its losses."""
    run = tmp_path_factory.mktemp("lightning")
    losses = lightning(start, run)
    assert [*losses] == [*range(1, 61)]
    return run, losses


def test_lightning_goes_on_with_the_same_losses_and_weights(start, tmp_path, whole_lightning_run):
    folder, whole = whole_lightning_run
    before = lightning(start, tmp_path, until=25)
    after = lightning(start, tmp_path)
    assert min(after) in (21, 41)
    assert before | after == after | before == whole
    runs = [torch.load(run / "checkpoint.ckpt") for run in (folder, tmp_path)]
    assert runs[0]["global_step"] == 60
    # The state of the data among them: where each cluster is, and the weights.
    assert loader_state(runs[0])["step"] == 60
    assert loader_state(runs[0]) == loader_state(runs[1])
    assert all(torch.equal(runs[1]["state_dict"][n], t) for n, t in runs[0]["state_dict"].items())


def test_lightning_goes_on_with_another_number_of_processes(start, tmp_path, whole_lightning_run):
    folder, whole = whole_lightning_run
    before = lightning(start, tmp_path, 2, until=25)
    after = lightning(start, tmp_path)
    assert min(after) in (21, 41)
    assert [*before | after] == [*whole]
    assert before | after == pytest.approx(whole, rel=1e-4)
    runs = [torch.load(run / "checkpoint.ckpt") for run in (folder, tmp_path)]
    assert loader_state(runs[0]) == loader_state(runs[1])


def test_a_run_of_lightning_can_be_watched(whole_lightning_run, climb):
    state = json.loads(climb("monitor", whole_lightning_run[0], "--json").stdout)
    assert state["step"] == 60
    assert len(state["curves"]["loss"]) == 6


def loader_state(checkpoint):
    (state,) = checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    return state


# The Trainer of transformers.

TRAINER = EXAMPLES / "huggingface_trainer.py"
UNITS = ("samples", "steps")
KILLED = """
import os, runpy, sys
from pathlib import Path
from transformers import TrainerState

save = TrainerState.save_to_json

def save_and_die(self, path):
    die = f"checkpoint-{STEP}" in path
    if die and WHEN == "before":
        os.kill(os.getpid(), 9)
    save(self, path)
    if die and WHEN == "within":
        Path(path).write_text(Path(path).read_text()[:100])
    if die:
        os.kill(os.getpid(), 9)

TrainerState.save_to_json = save_and_die
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""The example, killed before, within or after the write that makes a checkpoint whole."""


def trained(checkpoint):
    """Loader's state and losses that a checkpoint holds."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    return state["stateful_callbacks"]["SaveLoader"]["attributes"]["loader"], losses


@pytest.fixture(scope="module")
def whole_trainer_run(start, tmp_path_factory):
    """Last checkpoint of an uninterrupted run."""
    run = tmp_path_factory.mktemp("trainer")
    # The other runs measure no held-out loss: it changes nothing of the training.
    finish(start(sys.executable, TRAINER, "--heldout-tokens", 2000, run=run, steps=80))
    loader, losses = trained(run / "checkpoint-80")
    assert loader["step"] == len(losses) == 80
    assert losses[-1] < losses[0] / 1.3
    return run / "checkpoint-80"


def test_the_trainer_goes_on_from_the_last_complete_checkpoint(start, tmp_path, whole_trainer_run):
    run, complete = tmp_path / "run", 0
    for when, step in (("before", 40), ("within", 60), ("after", 60)):
        code = KILLED.replace("WHEN", repr(when)).replace("STEP", str(step))
        process = start(sys.executable, "-c", code, TRAINER, run=run, steps=80)
        said, _ = process.communicate(timeout=240)
        assert process.returncode == -SIGKILL, said
        assert (run / f"checkpoint-{step}" / "model.safetensors").exists()
        assert f"goes on from step {complete}" in said or not complete
        complete = step if when == "after" else step - 20
    said = finish(start(sys.executable, TRAINER, run=run, steps=80))
    assert f"goes on from step {complete}" in said
    again = run / "checkpoint-80"
    assert trained(again) == trained(whole_trainer_run)
    ours, theirs = (c / "model.safetensors" for c in (again, whole_trainer_run))
    assert ours.read_bytes() == theirs.read_bytes()


def test_the_trainer_goes_on_with_another_number_of_processes(start, tmp_path, climb):
    said = finish(start(*TORCHRUN, 2, TRAINER, run=tmp_path, steps=20))
    rates = (float(re.search(rf"train_{n}_per_second'?: '?([0-9.]+)", said)[1]) for n in UNITS)
    samples, steps = rates
    assert samples / steps == pytest.approx(16, rel=0.05)
    said = finish(start(sys.executable, TRAINER, run=tmp_path, steps=40))
    assert "goes on from step 20" in said
    assert f"{tmp_path}: 40 steps served as the weights log says" in climb("audit", tmp_path).stdout


def test_a_run_of_the_trainer_can_be_audited_watched_and_told(whole_trainer_run, climb):
    run = whole_trainer_run.parent
    assert f"{run}: 80 steps served as the weights log says" in climb("audit", run).stdout
    assert climb("explain", run, "--step", 80, "--row", 0).returncode == 0
    state = json.loads(climb("monitor", run, "--json").stdout)
    assert state["step"] == 80
    assert len(state["curves"]["loss"]) == 80
    assert all(cluster["heldout_loss"] for cluster in state["clusters"])
    name = state["clusters"][0]["name"]
    assert climb("weights", run, f"{name}=1").returncode == 0
