"""Ranks agree: real processes over gloo switch at the same step, or find out that they differ."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from climbstream.loader import Mixture, WeightsLog
from climbstream.loader.core.errors import UsageError
from climbstream.loader.weights.agreement import Agreement
from climbstream.loader.weights.update import WeightsUpdate

RANKS = 4
SCRIPT = Path(__file__).with_name("agreement_rank.py")
A, B = Mixture.of({"c00": 1, "c01": 1}), Mixture.of({"c01": 1})


@pytest.fixture(scope="module")
def saw(tmp_path_factory):
    """What each of four processes saw of each scene of `ranks`: ``saw(scene)`` by rank."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(rank), str(RANKS), folder / "store", folder / f"{rank}"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(RANKS)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=200)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
            process.wait()
    found = [json.loads((folder / f"{rank}").read_text()) for rank in range(RANKS)]
    return lambda scene: [by_rank.get(scene) for by_rank in found]


pytestmark = pytest.mark.slow


def test_all_ranks_switch_at_the_same_steps_though_one_is_slow(saw):
    expected = [
        [0, "set", "start"],
        [32, "set", "at 5"],
        # Ranks meet before step 16 is planned, so what comes just before that is in time.
        [32, "set", "at 16"],
        [48, "ramp", "at 17"],
    ]
    assert [rank["told"] for rank in saw("switch")] == [expected] * RANKS
    assert len({rank["head"] for rank in saw("switch")}) == 1


def test_a_change_takes_effect_at_the_step_that_is_named_when_it_is_offered(saw):
    assert saw("switch")[0]["free"] == [32, 32, 48]


def test_a_rank_with_another_history_is_found_by_all(saw):
    for said in saw("history"):
        assert said.startswith("IntegrityError: at step 8 rank 0 follows the weights log ")
        assert ", rank 3 the log " in said
        assert said.endswith("give all ranks the same state, and change weights on rank 0")


def test_a_rank_at_another_step_is_found_by_all(saw):
    assert (
        saw("elsewhere")
        == [
            "IntegrityError: all ranks must agree on weights at the same step, but rank 0 is at "
            "step 0, and rank 1 at step 8; load the same state on all ranks"
        ]
        * RANKS
    )


def test_what_is_on_its_way_when_ranks_go_back_is_not_lost(saw):
    assert saw("rewind") == [[[0, "set", "start"], [8, "set", "kept"]]] * RANKS


def test_what_does_not_fit_into_a_meeting_waits_for_the_next(saw):
    assert (
        saw("large") == [[[0, "set", "start"], [4, "set", "first"], [8, "set", "second"]]] * RANKS
    )


def test_what_cannot_be_agreed_on_is_refused(saw):
    for rank, (offer, meet, drain) in enumerate(saw("refused")):
        if rank == 0:
            assert "is too large for the ranks to agree on, at most 1,048,574 are poss" in offer
        else:
            assert f"weights were changed on rank {rank}; change them on rank 0" in offer
        assert meet == (
            "UsageError: the ranks met at step 0, and must meet next at step 4, not at step 8; "
            "drain the agreement before the loader goes to another step"
        )
        assert drain == "no error"


def test_some_ranks_agree_in_a_group_of_their_own(saw):
    ours = [[0, "set", "start"], [2, "set", "ours"]]
    assert saw("some_ranks") == [None, ours, ours, None]


def test_a_rank_that_does_not_come_is_an_error_and_no_hang(saw):
    for rank, seen in enumerate(saw("late")):
        if rank == 2:
            continue
        said, seconds = seen
        assert f"RemoteError: rank {rank} waited at most 1 s for the other ranks at step 0" in said
        assert "one of the 4 ranks is late, stopped, or takes other steps" in said
        assert seconds < 3.5


def test_a_rank_that_dies_is_an_error_long_before_the_deadline(saw):
    for said, seconds in saw("gone")[:3]:
        assert seconds < 50
        assert "RemoteError: rank" in said
        assert "one of the 4 ranks is late, stopped, or takes other steps" in said


# Alone.


def test_a_rank_that_is_alone_changes_weights_at_once():
    agreement, log = Agreement(), WeightsLog()
    log.append(A, 0, "start")
    assert agreement.first_free(5) == 5
    agreement.offer(WeightsUpdate(B, 7, "anneal"))
    assert agreement.meet(5, log.head) == [WeightsUpdate(B, 7, "anneal")]
    assert agreement.meet(6, log.head) == []
    agreement.drain()


@pytest.mark.parametrize(("every", "timeout"), [(0, 1), (16, 0)])
def test_meetings_need_a_period_and_a_deadline(every, timeout):
    with pytest.raises(UsageError, match="every must be 1 or more, and timeout above 0"):
        Agreement(every=every, timeout=timeout)
