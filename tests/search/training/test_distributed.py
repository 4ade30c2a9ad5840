"""Several ranks train the model of one: the same batches, whether they were stopped or not."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from climb_command import ClimbProcess, run_climb
from transformers import AutoModelForCausalLM

from climbstream.loader.audit.ledger import LEDGER
from climbstream.loader.cli.main import run
from climbstream.search.training.run import train_run
from climbstream.search.training.settings import TrainSettings

pytestmark = pytest.mark.slow

SETTINGS = TrainSettings(tokens=128 * 700, seq_len=32, batch_rows=4, learning_rate=5e-4)
"""One checkpoint, at step 500. At so small a rate the order of sums stays a small difference."""


@pytest.fixture(scope="module")
def alone(shards, shares, tmp_path_factory):
    """The folder of a run on one rank, and its result."""
    out = tmp_path_factory.mktemp("alone")
    return out, train_run(shards, shares, SETTINGS, 3, out)


def arguments(shards, out):
    """Return the arguments of ``climb`` for the run of `SETTINGS`."""
    command = ["train", shards, "--out", out, f"--tokens={SETTINGS.tokens}", "--seq-len=32"]
    command += ["--batch-rows=4", "--seed=3", f"--learning-rate={SETTINGS.learning_rate}"]
    return [*map(str, command), "--json"]


@pytest.fixture
def begin(shards):
    """Begin that run by torchrun on so many ranks; it is stopped in the end if it still runs."""
    begun = []

    def begin_(ranks, out):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
        torchrun += [f"--nproc-per-node={ranks}", str(Path(sys.executable).with_name("climb"))]
        begun.append(
            subprocess.Popen(
                [*torchrun, *arguments(shards, out)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        )
        return begun[-1]

    yield begin_
    for process in begun:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def assert_same_run(out, result, theirs):
    assert {k: v for k, v in result.items() if k != "loss"} == {
        k: v for k, v in theirs.items() if k != "loss"
    }
    assert result["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
    AutoModelForCausalLM.from_pretrained(out / "model")


def test_two_ranks_serve_the_batches_of_one_and_one_of_them_speaks(begin, alone, tmp_path):
    process = begin(2, tmp_path)
    out, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert_same_run(tmp_path, json.loads(out), alone[1])
    assert not (tmp_path / "checkpoint.pt").exists()
    assert (tmp_path / LEDGER).read_bytes() == (alone[0] / LEDGER).read_bytes()
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    theirs = [json.loads(line) for line in (alone[0] / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics] == [line["step"] for line in theirs]
    for line, other in zip(metrics, theirs, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-4)
        # Losses of clusters are those of the rows of both ranks.
        assert line["cluster_loss"] == pytest.approx(other["cluster_loss"], rel=1e-4)


def test_a_run_goes_on_with_another_number_of_ranks(begin, alone, shards, tmp_path):
    process = begin(2, tmp_path)
    deadline = time.monotonic() + 240
    while not (tmp_path / "checkpoint.pt").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert not (tmp_path / "result.json").exists()
    done = run_climb(*arguments(shards, tmp_path))
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path, json.loads(done.stdout), alone[1])
    assert run(["audit", str(tmp_path), "--json"]) == 0


def free_port():
    """Return a free port below those that Linux gives to connections, which may take it later."""
    while True:
        port = random.randrange(10_000, 32_768)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def begin_ranks(shards, out, started, *more, ranks=2):
    """Begin some ranks of a job without torchrun, so that the end of each is seen."""
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    command = ["train", shards, "--out", out, f"--tokens={128 * 100_000}"]
    command += ["--seq-len=32", "--batch-rows=4", *more]
    return [
        ClimbProcess(
            *command,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **job, "RANK": str(rank), "WORLD_SIZE": str(ranks)},
        )
        for rank in range(started)
    ]


def ends(processes):
    try:
        said = [process.communicate(timeout=120)[1] for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
            process.communicate()
        raise
    return [process.returncode for process in processes], said


KEEPS_ITS_MODEL = """
import os, sys
import torch
from torch import nn
from climbstream.search.training.distributed import join_job

sys.setswitchinterval(1000)  # other threads get Python's lock only when this one waits
for port in sys.argv[1:]:
    os.environ["MASTER_PORT"] = port
    with join_job() as job:
        model = job.spread(nn.Linear(4, 4))
        for _ in range(20):
            job.sum(torch.ones(3))
        job.of_first(None)
    del model
"""


def test_a_job_ends_even_if_the_model_is_released_after_it():
    ports = [str(free_port()) for _ in range(10)]
    job = {**os.environ, "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    command = [sys.executable, "-c", KEEPS_ITS_MODEL, *ports]
    ranks = [subprocess.Popen(command, env={**job, "RANK": str(rank)}) for rank in range(2)]
    try:
        assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def test_a_signal_to_all_ranks_at_once_saves_one_checkpoint_and_ends_each_with_143(
    shards, tmp_path
):
    processes = begin_ranks(shards, tmp_path, 2)
    while not (tmp_path / "metrics.jsonl").exists():
        assert [process.poll() for process in processes] == [None, None]
        time.sleep(0.01)
    for _ in range(3):
        for process in processes:
            process.send_signal(signal.SIGTERM)
    codes, said = ends(processes)
    assert codes == [143, 143], said
    # Rank 0 says it for all of them.
    (steps, others) = (re.findall(r"stopped after step ([\d,]+) of", text) for text in said)
    assert (len(steps), others) == (1, [])
    assert [text.count("stopping after this step") for text in said] == [1, 0]
    assert not any("Traceback" in text for text in said)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert f"{saved['schedule']['last_epoch']:,}" in steps


def test_a_rank_that_never_starts_is_given_up_by_the_deadline(shards, tmp_path):
    codes, (said,) = ends(begin_ranks(shards, tmp_path, 1, "--task-timeout=4"))
    assert codes == [5]
    assert "error: waited 4.0 s for all 2 ranks to start; this is rank 0" in said
    assert "Traceback" not in said


def test_a_rank_that_is_stopped_is_given_up_by_the_deadline(shards, tmp_path):
    first, second = begin_ranks(shards, tmp_path, 2, "--task-timeout=5")
    while not (tmp_path / "metrics.jsonl").exists():
        assert [first.poll(), second.poll()] == [None, None]
        time.sleep(0.01)
    second.send_signal(signal.SIGSTOP)
    try:
        codes, (said,) = ends([first])
    finally:
        second.kill()
        second.communicate()
    assert codes == [5], said
    assert "error: rank 0" in said
    assert "5 s for" in said
    assert "Traceback" not in said
