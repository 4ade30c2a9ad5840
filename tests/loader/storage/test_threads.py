"""Any thread may call anything of a loader: no crash, no wrong row, no batch twice or never.

Each test runs in a process of its own: a fault in compiled code ends that, and not the tests.
"""

import copy
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from climbstream.loader import MixtureLoader
from climbstream.loader.core.errors import UsageError
from climbstream.loader.monitoring.cluster_loss import ClusterLoss

PRELUDE = """
import itertools, json, os, random, signal, sys, threading, time
from collections import Counter
from pathlib import Path
from climbstream.loader import MixtureLoader
from climbstream.loader.dataset import MixtureDataset
from climbstream.loader.core.errors import UsageError
from climbstream.loader.reading.row_source import RowSource as TokenStream
from climbstream.loader.weights.log import WeightsLog

sys.setswitchinterval(1e-5)
directory, cache, pack = sys.argv[1:]
EVEN = {"c00": 1, "c01": 1, "c02": 1}

def open_loader(**more):
    return MixtureLoader(directory, EVEN, seq_len=8, batch_rows=8, seed=3, pack=pack,
        cache_dir=cache, cache_bytes=20_000, **more)

def content(batch):
    return tuple(map(tuple, batch["input_ids"].tolist())), tuple(batch["cluster_ids"].tolist())

def in_threads(*functions):
    failures = []
    def guarded(function):
        try:
            function()
        except BaseException as error:
            failures.append(error)
    threads = [threading.Thread(target=guarded, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory, make_shards, counted_documents):
    lengths = {"c00": [11, 30, 9] * 40, "c01": [50] * 30, "c02": [17] * 90}
    documents = counted_documents(lengths)
    return make_shards(tmp_path_factory.mktemp("shards"), documents, shard_bytes=200)


@pytest.fixture
def run(shards, tmp_path):
    """Return a function that runs a program on the shards, and returns what it printed."""

    def call(program, pack="concat"):
        command = [sys.executable, "-X", "faulthandler", "-c", PRELUDE + program]
        done = subprocess.run(
            [*command, str(shards.directory), str(tmp_path / "cache"), pack],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{done.returncode}: {done.stderr[-3000:]}"
        return done.stdout

    return call


@pytest.mark.parametrize("pack", ["concat", "bfd", "bos"])
def test_threads_that_share_a_loader_get_each_batch_once_and_none_is_wrong(run, pack):
    program = """
alone = open_loader()
expected = Counter(content(next(alone)) for _ in range(1200))
shared, batches, over = open_loader(ledger=f"{cache}.served"), [], threading.Event()

def take():
    for _ in range(300):
        batches.append(content(next(shared)))

def look():
    while not over.is_set():
        metrics = shared.metrics()
        assert sum(shared.state_dict()["credit"]) == 0
        assert metrics["tokens"] == metrics["step"] * 64
        shared.mixture, shared.tokens_served, shared.epochs, shared.joined, shared.step
        shared.flush()

watcher = threading.Thread(target=look)
watcher.start()
in_threads(take, take, take, take)
over.set()
watcher.join()
assert Counter(batches) == expected
assert shared.state_dict() == alone.state_dict()
"""
    run(program, pack)


def test_weights_that_another_thread_sets_hold_between_two_batches(run):
    program = """
log = Path(f"{cache}.weights")
loader, batches, over = open_loader(weights_log=log), [], threading.Event()

def take():
    for _ in range(400):
        batches.append(content(next(loader)))

def change():
    drawn = random.Random(0)
    while not over.is_set():
        loader.set_weights({name: drawn.randint(1, 9) for name in EVEN})

timer = threading.Timer(0.001, change)
timer.start()
in_threads(take, take, take)
over.set()
timer.join()
assert loader.step == len(batches) == 1200
counts = Counter(cluster for _, clusters in batches for cluster in clusters)
assert {f"c0{k}": n * 8 for k, n in counts.items()} == loader.tokens_served
# One thread alone that makes the same changes before the same steps is served the same.
alone, expected, changes = open_loader(), Counter(), WeightsLog.open(log, write=False).records[1:]
assert len(changes) > 50
for step in range(1200):
    while changes and changes[0].at_step == step:
        alone.set_weights(changes.pop(0).weights)
    expected[content(next(alone))] += 1
assert Counter(batches) == expected
other = open_loader(weights_log=log).load_state_dict(json.loads(json.dumps(loader.state_dict())))
assert content(next(other)) == content(next(loader))
"""
    run(program)


def test_threads_may_share_the_iterator_of_a_data_set(run):
    program = """
alone = open_loader()
expected = Counter(content(next(alone)) for _ in range(400))
batches, shared = [], iter(MixtureDataset(open_loader()))
take = lambda: batches.extend(content(next(shared)) for _ in range(100))
in_threads(take, take, take, take)
assert Counter(batches) == expected
"""
    run(program)


def test_a_batch_that_failed_half_way_is_made_whole_when_it_is_asked_for_again(run):
    program = """
alone = open_loader()
expected = [content(next(alone)) for _ in range(300)]
ours, open_, failed = open_loader(), TokenStream.open, set()

def fail_first(self, shard, epoch, pieces=None):
    if (key := (self.name, shard, epoch)) not in failed:
        failed.add(key)
        raise OSError("the store stumbled")
    return open_(self, shard, epoch, pieces)

TokenStream.open = fail_first
for batch in expected:
    while True:
        try:
            ours_now = content(next(ours))
            break
        except OSError:
            continue
    assert ours_now == batch
assert len(failed) > 50
"""
    run(program)


def test_a_handler_of_signals_sees_the_last_batch_that_was_returned(run):
    program = """
ours, states = open_loader(), []

def save(*_):
    states.append(ours.state_dict())
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 4e-4))

signal.signal(signal.SIGALRM, save)
signal.setitimer(signal.ITIMER_REAL, 3e-4)
batches = [content(next(ours)) for _ in range(3000)]
signal.signal(signal.SIGALRM, signal.SIG_IGN)
batches.append(content(next(ours)))
assert len(states) > 20, len(states)
for state in states[:: len(states) // 20]:
    again = open_loader().load_state_dict(state)
    assert content(next(again)) == batches[state["step"]]
"""
    run(program)


def test_a_loader_says_in_a_forked_process_that_it_is_not_to_be_used_there(run):
    program = """
loader = open_loader()
next(loader)
busy = threading.Thread(target=lambda: [next(loader) for _ in range(20_000)], daemon=True)
busy.start()
if not (child := os.fork()):
    uses = lambda: next(loader), loader.state_dict, loader.metrics, lambda: loader.tokens_served
    for use in uses:
        try:
            use()
        except UsageError as error:
            print(error)
    sys.stdout.flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
next(loader)
"""
    said = run(program).splitlines()
    assert len(said) == 4
    assert all("was made before process" in line and "num_workers=0" in line for line in said)


def test_a_function_for_weights_may_look_at_the_loader_but_not_move_it(shards, tmp_path):
    refused = []

    def function(step):
        if step:
            assert loader.metrics()["step"] == loader.state_dict()["step"] == step
            for move in (lambda: next(loader), lambda: loader.load_state_dict(start)):
                with pytest.raises(UsageError, match=f"of step {step} moves the loader on") as no:
                    move()
                refused.append(no.value)

    loader = MixtureLoader(
        shards.directory, seq_len=8, batch_rows=8, cache_dir=tmp_path, weights_function=function
    )
    start = loader.state_dict()
    for step in range(100):
        assert loader.step == step
        next(loader)
    assert refused


def test_a_loader_is_neither_pickled_nor_copied(shards, tmp_path):
    loader = MixtureLoader(shards.directory, seq_len=8, batch_rows=8, cache_dir=tmp_path)
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(UsageError, match="give it the state_dict of this one"):
            take(loader)


def test_each_row_counts_in_one_mean_of_losses_whichever_thread_takes_it():
    losses, over, sums = ClusterLoss(["a", "b"]), threading.Event(), []

    def add():
        for _ in range(2000):
            losses.add(torch.tensor([0, 1]), torch.tensor([1.0, 1.0]))

    def take():
        while not over.is_set():
            losses.take(lambda both: sums.append(both.clone()) or both)

    watcher = threading.Thread(target=take)
    watcher.start()
    with ThreadPoolExecutor(3) as pool:
        for added in [pool.submit(add) for _ in range(3)]:
            added.result()
    over.set()
    watcher.join()
    losses.take(lambda both: sums.append(both) or both)
    assert torch.stack(sums).sum(0).tolist() == [[6000.0, 6000.0]] * 2
    assert pickle.loads(pickle.dumps(losses)).take() == {}
