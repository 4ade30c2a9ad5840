"""The weights controller: who may change weights while it runs, and that all ranks follow."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from climbstream.loader import Mixture, MixtureLoader, Schedule, WeightsLog
from climbstream.loader.audit.auditor import audit_run
from climbstream.loader.audit.replay import Replay
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.weights.agreement import Agreement
from climbstream.loader.weights.request import (
    LOG,
    REQUEST,
    open_weights_log,
    read_clusters,
    with_named_weights,
    write_request,
)
from climbstream.loader.weights.update import WeightsUpdate

SEQ_LEN = 8
EVEN = {"c00": 1, "c01": 1}


@pytest.fixture(scope="module")
def shards(tmp_path_factory, make_shards, counted_documents):
    lengths = {f"c0{k}": [20] * 60 for k in range(4)}
    return make_shards(tmp_path_factory.mktemp("shards"), counted_documents(lengths))


@pytest.fixture
def open_loader(shards):
    def open_(weights=EVEN, **given):
        kwargs = {"seq_len": SEQ_LEN, "batch_rows": 16, "seed": 17}
        return MixtureLoader(shards.directory, weights, **(kwargs | given))

    return open_


def shares(loader, steps):
    """Rows of each cluster, step after step."""
    return [
        [batch["cluster_ids"].tolist().count(k) for k in range(4)]
        for batch in (next(loader) for _ in range(steps))
    ]


# Weights that do not sum to 1.


def test_some_weights_that_do_not_sum_to_one_are_refused_with_both_remedies(open_loader):
    message = r"c03=0\.4 sum to 0\.4, not to 1; use others='keep' .* or others='scale'"
    with pytest.raises(UsageError, match=message):
        open_loader({"c03": 0.4})
    with pytest.raises(UsageError, match=message):
        open_loader().set_weights({"c03": 0.4})
    with pytest.raises(UsageError, match="others is 'rest'; it may be 'scale' or 'keep'"):
        open_loader().set_weights({"c03": 0.4}, others="rest")


def test_keep_gives_the_share_that_is_said_and_the_others_their_ratio(open_loader):
    loader = open_loader({"c00": 0.6, "c01": 0.4})
    loader.set_weights({"c03": 0.5}, others="keep")
    assert loader.mixture.weights == pytest.approx({"c00": 0.3, "c01": 0.2, "c03": 0.5})
    with pytest.raises(UsageError, match=r"sum to 1\.4, more than 1; use others='scale'"):
        loader.set_weights({"c00": 0.7, "c03": 0.7}, others="keep")


def test_keep_at_the_start_lets_the_others_share_the_rest_by_their_tokens(open_loader):
    weights = open_loader({"c03": 0.4}, others="keep").mixture.weights
    assert weights == pytest.approx({"c00": 0.2, "c01": 0.2, "c02": 0.2, "c03": 0.4})


def test_scale_gives_the_others_nothing(open_loader):
    loader = open_loader({"c03": 0.4, "c01": 0.2}, others="scale")
    assert loader.mixture.weights == pytest.approx({"c03": 2 / 3, "c01": 1 / 3})


@pytest.mark.parametrize(
    "weights", [{"c00": 3, "c01": 1}, {"c00": 0.3333, "c01": 0.3333, "c02": 0.3333}]
)
def test_whole_ratios_and_rounded_shares_need_no_word(open_loader, weights):
    total = sum(weights.values())
    assert open_loader(weights).mixture.weights == pytest.approx(
        {name: weight / total for name, weight in weights.items()}
    )


def test_a_run_that_can_be_asked_says_which_clusters_may_be_named(open_loader, tmp_path):
    loader = open_loader(weights_log=tmp_path / LOG, weights_file=tmp_path / REQUEST)
    next(loader)
    assert read_clusters(tmp_path) == ["c00", "c01", "c02", "c03"]
    log, names = open_weights_log(tmp_path), read_clusters(tmp_path)
    mixture = with_named_weights(log, {"c03": 0.4}, clusters=names)
    loader.set_weights(mixture)
    assert loader.mixture.weights == pytest.approx({"c00": 0.3, "c01": 0.3, "c03": 0.4})


# Ramps and schedules.


def test_a_ramp_goes_in_a_straight_line(open_loader):
    loader = open_loader()
    loader.set_weights({"c00": 1}, ramp=4, why="anneal")
    assert shares(loader, 6) == [[n, 16 - n, 0, 0] for n in (8, 10, 12, 14, 16, 16)]
    assert loader.mixture == Mixture.of({"c00": 1})


def test_a_schedule_changes_weights_at_its_steps(open_loader, batch_digest):
    plan = [(0, EVEN), (3, {"c02": 1}), (5, EVEN, 2)]
    loader = open_loader(Schedule.of(plan))
    assert shares(loader, 8) == [
        *[[8, 8, 0, 0]] * 3,
        *[[0, 0, 16, 0]] * 3,
        [4, 4, 8, 0],
        [8, 8, 0, 0],
    ]
    # The same by hand gives the same rows.
    scheduled, told = open_loader(Schedule.of(plan)), open_loader()
    for step in range(10):
        if step == 3:
            told.set_weights({"c02": 1})
        if step == 5:
            told.set_weights(EVEN, ramp=2)
        assert batch_digest(next(scheduled)) == batch_digest(next(told))


def test_a_schedule_goes_on_the_same_from_every_step(open_loader, batch_digest, tmp_path):
    plan = Schedule.of([(0, EVEN), (3, {"c02": 1}, 4), (9, {"c03": 1})])
    loader, states, digests = open_loader(plan), [], []
    for _ in range(12):
        states.append(json.dumps(loader.state_dict()))
        digests.append(batch_digest(next(loader)))
    for step, state in enumerate(states):
        again = open_loader(plan).load_state_dict(json.loads(state))
        assert [batch_digest(next(again)) for _ in range(12 - step)] == digests[step:]


def test_a_schedule_leaves_room_for_caps_and_changes(open_loader):
    plan = Schedule.of([(0, EVEN), (30, {"c00": 1, "c02": 1})])
    loader = open_loader(plan, max_epochs={"c01": 0.5})
    assert shares(loader, 1) == [[8, 8, 0, 0]]
    shares(loader, 15)
    loader.set_weights({"c01": 1, "c03": 1})
    assert shares(loader, 1) == [[0, 0, 0, 16]]
    shares(loader, 13)
    assert shares(loader, 1) == [[8, 0, 8, 0]]


def test_a_schedule_for_other_clusters_is_refused(open_loader):
    with pytest.raises(
        InvalidDataError, match="the mixture gives weight to c09, but the clusters are c00"
    ):
        open_loader(Schedule.of([(0, EVEN), (9, {"c09": 1})]))


# Sources of updates.


def test_a_file_changes_the_weights_at_the_next_look(open_loader, tmp_path):
    loader = open_loader(weights_file=tmp_path / "weights.json")
    assert shares(loader, 3) == [[8, 8, 0, 0]] * 3
    (tmp_path / "weights.json").write_text('{"c02": 1}')
    # Steps 3 to 15 are planned already.
    assert shares(loader, 13) == [[8, 8, 0, 0]] * 13
    assert shares(loader, 2) == [[0, 0, 16, 0]] * 2


def test_a_file_in_a_folder_that_does_not_exist_is_refused(open_loader, tmp_path):
    missing = tmp_path / "typo"
    with pytest.raises(UsageError, match=f"there is no folder {missing}; make the folder, or"):
        open_loader(weights_file=missing / "weights.request.json")
    assert not missing.exists()


def test_a_bad_file_keeps_the_weights_and_says_so_once(open_loader, tmp_path, capsys):
    loader = open_loader(weights_file=tmp_path / "weights.json")
    shares(loader, 16)
    (tmp_path / "weights.json").write_text('{"c09": 1}')
    assert shares(loader, 48) == [[8, 8, 0, 0]] * 48
    said = capsys.readouterr().err
    assert said.count("is not followed and the weights stay: the mixture gives weight to c09") == 1


def test_a_request_of_the_command_is_followed(open_loader, tmp_path):
    run = tmp_path / "run"
    loader = open_loader(
        weights_log=run / "weights.jsonl", weights_file=run / "weights.request.json"
    )
    shares(loader, 1)
    write_request(
        run, WeightsUpdate(Mixture.of({"c03": 1}), why="anneal"), after=open_weights_log(run).head
    )
    shares(loader, 15)
    assert shares(loader, 1) == [[0, 0, 0, 16]]
    last = open_weights_log(run).records[-1]
    assert (last.at_step, last.why) == (16, "anneal")


def test_a_function_changes_the_weights(open_loader):
    loader = open_loader(weights_function=lambda step: {"c01": 1} if step >= 16 else None)
    assert shares(loader, 17) == [*[[8, 8, 0, 0]] * 16, [0, 16, 0, 0]]


# Several ranks.


def test_several_ranks_need_an_agreement_to_follow_a_file(open_loader, tmp_path):
    message = "2 ranks cannot follow a file or a function without an agreement"
    with pytest.raises(UsageError, match=message):
        open_loader(world_size=2, weights_file=tmp_path / "weights.json")


def test_an_agreement_of_other_ranks_is_refused_with_the_remedy(open_loader):
    agreement = Agreement()
    with pytest.raises(UsageError, match=r"0 of 1.* 1 of 2; call torch\S+init_process_group\(\)"):
        open_loader(rank=1, world_size=2, agreement=agreement)
    agreement.rank, agreement.world_size = 1, 2
    with pytest.raises(
        UsageError, match=r"1 of 2.* 0 of 1; give the loader rank=1 and world_size=2"
    ):
        open_loader(agreement=agreement)


@pytest.fixture(scope="module")
def job(shards, tmp_path_factory):
    """What four real ranks saw, of which one is slow."""
    out = tmp_path_factory.mktemp("job")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    script = str(Path(__file__).with_name("controller_rank.py"))
    done = subprocess.run(
        [*command, script, str(shards.directory), str(out / "weights.jsonl"), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return out, [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(4)]


@pytest.mark.slow
def test_all_ranks_of_a_job_switch_at_the_same_step(job, open_loader):
    out, ranks = job
    records = WeightsLog.open(out / "weights.jsonl", write=False).records
    (_, call, again, file) = [(r.at_step, r.kind, r.why) for r in records]
    assert call == (ranks[0]["named"], "set", "call")
    # Asked for before the first change was in force, it keeps the proportions of this change.
    assert again == (call[0], "set", "again")
    assert records[2].weights == pytest.approx({"c00": 0.2, "c01": 0.2, "c02": 0.6})
    # Asked for at step 21, taken up at the meeting of step 24, and followed from the next on.
    assert file == (28, "ramp", "file")
    # One loader that is told the same for these steps serves the same rows.
    alone = open_loader()
    for step in range(40):
        if step == call[0]:
            alone.set_weights({"c01": 1, "c02": 3})
            alone.set_weights({"c00": 0.2}, others="keep")
        if step == file[0]:
            alone.set_weights({"c03": 1}, ramp=3)
        batch = next(alone)
        rows = zip(batch["cluster_ids"].tolist(), batch["input_ids"].tolist(), strict=True)
        expected = sorted(hashlib.sha256(repr(row).encode()).hexdigest() for row in rows)
        assert sorted(row for rank in ranks for row in rank["seen"][step]) == expected


@pytest.mark.slow
def test_all_ranks_of_a_job_save_the_same_state(job):
    states = [rank["state"] for rank in job[1]]
    assert states[1:] == states[:-1]


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_the_ledger_of_a_job_agrees_also_where_another_number_of_ranks_went_on(
    job, open_loader, tmp_path, world_size
):
    out, ranks = job
    for name in ("weights.jsonl", "served.jsonl"):
        shutil.copy(out / name, tmp_path)
    assert audit_run(Replay(tmp_path)).steps == 40
    for rank in range(world_size):
        loader = open_loader(
            None,
            rank=rank,
            world_size=world_size,
            weights_log=tmp_path / "weights.jsonl",
            ledger=tmp_path / "served.jsonl",
        )
        loader.load_state_dict(ranks[-1]["state"])
        for _ in range(25):
            next(loader)
        loader.flush()
    found = audit_run(Replay(tmp_path))
    assert (found.steps, found.again, found.unwritten) == (65, 0, 0)
    assert {c.name: c.tokens for c in found.clusters} == loader.tokens_served
