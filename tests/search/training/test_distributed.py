"""Several ranks train the model of one: the same batches, whether they were stopped or not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
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


@pytest.fixture
def begin(shards):
    """Begin the same run on so many ranks; it is stopped in the end if it still runs."""
    begun = []

    def begin_(ranks, out):
        climb = Path(sys.executable).with_name("climb")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
        command += [f"--nproc-per-node={ranks}", climb, "train", shards, "--out", out]
        command += [f"--tokens={SETTINGS.tokens}", "--seq-len=32", "--batch-rows=4", "--seed=3"]
        command += [f"--learning-rate={SETTINGS.learning_rate}"]
        begun.append(
            subprocess.Popen(
                [*map(str, command), "--json"],
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


def test_a_run_goes_on_with_another_number_of_ranks(begin, alone, tmp_path):
    process = begin(2, tmp_path)
    deadline = time.monotonic() + 240
    while not (tmp_path / "checkpoint.pt").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert not (tmp_path / "result.json").exists()
    process = begin(1, tmp_path)
    out, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert_same_run(tmp_path, json.loads(out), alone[1])
    assert run(["audit", str(tmp_path), "--json"]) == 0
