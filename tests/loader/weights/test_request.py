"""Asking a run for other weights: ``climb weights``, and the file it leaves."""

import json
import math
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.loader import Mixture, WeightsLog
from climbstream.loader.core.errors import UsageError
from climbstream.loader.weights.request import (
    LOG,
    REQUEST,
    UpdateRequest,
    with_named_weights,
    write_clusters,
)
from climbstream.loader.weights.sources import WeightsFile
from climbstream.loader.weights.update import WeightsUpdate

START = {"c00": 0.5, "c01": 0.3, "c02": 0.2}


def make_log(path=None):
    log = WeightsLog(path=path, write=path is not None)
    log.append(Mixture.of(START), 0, "start")
    return log


@pytest.fixture
def run(tmp_path):
    """The folder of a run, with weights that ramp and a cluster that is used up."""
    log = make_log(tmp_path / "run" / LOG)
    log.append(Mixture.of({"c00": 1, "c01": 1, "c02": 2}), 100, "anneal", ramp=50)
    log.cap(["c02"], 2000, "c02 has used up its 4 epochs")
    return tmp_path / "run"


# What becomes of the clusters that are not named.


def test_the_others_share_the_rest_as_they_do_now():
    assert with_named_weights(make_log(), {"c02": 0.6}).weights == pytest.approx(
        {"c00": 0.25, "c01": 0.15, "c02": 0.6}
    )


def test_named_weights_that_sum_to_one_leave_nothing_to_the_others():
    mixture = with_named_weights(make_log(), {"c00": 0.1, "c02": 0.9})
    assert mixture.weights == {"c00": 0.1, "c02": 0.9}


def test_a_cluster_that_is_named_with_zero_leaves_its_share_to_the_others():
    assert with_named_weights(make_log(), {"c00": 0}).weights == pytest.approx(
        {"c00": 0, "c01": 0.6, "c02": 0.4}
    )


def test_a_cluster_that_is_used_up_gets_no_share(run):
    log = WeightsLog.open(run / LOG, write=False)
    assert with_named_weights(log, {"c00": 0.7}).weights == pytest.approx({"c00": 0.7, "c01": 0.3})


def test_only_gives_the_others_nothing_and_scales():
    assert with_named_weights(make_log(), {"c00": 3, "c02": 1}, only=True).weights == {
        "c00": 0.75,
        "c02": 0.25,
    }


@given(st.dictionaries(st.sampled_from([*START]), st.floats(0, 0.33), min_size=1, max_size=2))
def test_what_is_named_is_what_it_gets_and_the_others_keep_their_proportion(named):
    weights = with_named_weights(make_log(), named).weights
    assert math.fsum(weights.values()) == pytest.approx(1)
    for name, weight in named.items():
        assert weights[name] == pytest.approx(weight, abs=1e-9)
    others = [weights[name] / START[name] for name in START if name not in named]
    assert others == pytest.approx([others[0]] * len(others))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"c09": 1}, "there is no cluster c09 in the weights log; its clusters are c00, c01, c02"),
        ({"c00": 0.8, "c01": 0.4}, r"the named weights sum to 1.2, more than 1; use --only"),
        (
            {"c00": 0.2, "c01": 0.3, "c02": 0.1},
            "sum to 0.6, and no other cluster has weight to share the rest; use --only to scale",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(named, message):
    with pytest.raises(UsageError, match=message):
        with_named_weights(make_log(), named)


def test_a_request_comes_back_as_it_was():
    request = UpdateRequest(WeightsUpdate(Mixture.of(START), 20, "é"), "0" * 32)
    assert UpdateRequest.from_json(json.loads(json.dumps(request.to_json()))) == request


# A cluster that never had weight.


def test_a_cluster_that_began_at_zero_can_be_named():
    weights = with_named_weights(make_log(), {"c03": 0.4}, clusters=[*START, "c03"]).weights
    assert weights == pytest.approx({"c00": 0.3, "c01": 0.18, "c02": 0.12, "c03": 0.4})


def test_the_clusters_that_may_be_named_are_those_of_the_loader(climb, run):
    write_clusters(run / REQUEST, ["c00", "c01", "c02", "c03"])
    assert climb("weights", run, "c03=0.4").returncode == 0
    assert json.loads((run / REQUEST).read_text())["weights"]["c03"] == pytest.approx(0.4)
    done = climb("weights", run, "c04=0.4")
    assert done.returncode == 2
    assert (
        "there is no cluster c04 in the weights log; its clusters are c00, c01, c02, c03"
        in done.stderr
    )


# The command.


def test_without_weights_it_shows_what_holds_and_how_it_came_to_it(climb, run):
    done = climb("weights", run)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"{run}: 3 records; these weights hold after step 2,000"
    assert ["c00", "50.0000%"] in [line.split() for line in lines]
    assert "used up: c02" in lines
    head = WeightsLog.open(run / LOG, write=False).head
    assert lines[-1].split() == [
        "2",
        "2,000",
        "cap",
        head[:8],
        *"c02 has used up its 4".split(),
        "epochs",
    ]


def test_it_shows_all_of_it_to_programs(climb, run):
    value = json.loads(climb("weights", run, "--json").stdout)
    log = WeightsLog.open(run / LOG, write=False)
    assert value["head"] == log.head
    assert value["weights"] == {"c00": 0.5, "c01": 0.5}
    assert value["records"] == [record.to_json() for record in log.records]


def test_with_weights_the_job_gets_a_request_that_it_follows(climb, run):
    log = WeightsLog.open(run / LOG, write=True)
    source = WeightsFile(run / REQUEST, lambda _: None)
    assert source.poll(2100, log) is None
    done = climb("weights", run, "c01=0.8", "--ramp", 20, "--why", "more of it")
    assert done.returncode == 0
    asked, *_, later = done.stdout.splitlines()
    assert asked == (
        f"request to the job in {run / REQUEST}: a ramp of 20 steps to these weights, "
        f"as the change after record {log.records[-1].v}:"
    )
    assert "one rank begins the change at most 16 steps later" in later
    assert "a job of several ranks at most 32 steps later" in later
    change = source.poll(2101, log)
    assert change.mixture.weights == pytest.approx({"c00": 0.2, "c01": 0.8})
    assert (change.ramp, change.why) == (20, "more of it")


def test_what_was_asked_is_shown_to_programs(climb, run):
    value = json.loads(climb("weights", run, "c01=1", "--only", "--json").stdout)
    assert value["file"] == str(run / REQUEST)
    assert value["weights"] == {"c01": 1.0}
    assert value["after"] == WeightsLog.open(run / LOG, write=False).head


def test_what_is_asked_is_shown_until_it_is_followed(climb, run):
    climb("weights", run, "c01=0.8")
    assert "a change of weights is requested, and not yet in force" in climb("weights", run).stdout
    asked = json.loads(climb("weights", run, "--json").stdout)["asked"]
    assert asked["weights"]["c01"] == pytest.approx(0.8)
    WeightsLog.open(run / LOG, write=True).append(Mixture.of(START), 2200, "followed")
    assert "not yet in force" not in climb("weights", run).stdout
    assert json.loads(climb("weights", run, "--json").stdout)["asked"] is None


def test_a_second_request_keeps_the_weights_of_the_one_that_waits(climb, run):
    log = WeightsLog.open(run / LOG, write=True)
    climb("weights", run, "c00=0.7", "--ramp", 20, "--why", "more of it")
    write_clusters(run / REQUEST, ["c00", "c01", "c02", "c03"])
    done = climb("weights", run, "c03=0.5")
    assert done.returncode == 0
    assert (
        "a request that the job has not followed yet is replaced; the new weights begin from its "
        "weights; not kept: its ramp of 20 steps, its reason 'more of it'\n"
    ) in done.stdout
    change = WeightsFile(run / REQUEST, lambda _: None).poll(2100, log)
    assert change.mixture.weights == pytest.approx({"c00": 0.35, "c01": 0.15, "c03": 0.5})
    value = json.loads(climb("weights", run, "c01=0.5", "--json").stdout)
    assert value["replaces"] == change.to_json()
    only = climb("weights", run, "c01=1", "--only").stdout
    assert "a request that the job has not followed yet is replaced; not kept: its weights" in only
    log.append(change.mixture, 2200, "followed")
    assert "replaced" not in climb("weights", run, "c01=0.5").stdout


def test_a_request_to_a_job_that_writes_nothing_is_said_to_wait(climb, run):
    (run / "metrics.jsonl").touch()
    assert "written no metrics" not in climb("weights", run, "c01=0.5").stdout
    os.utime(run / "metrics.jsonl", (0, time.time() - 1200))
    for said in (climb("weights", run, "c01=0.5").stdout, climb("weights", run).stdout):
        assert "the job has written no metrics for 20 min 0" in said
        assert "the request waits in the file, and the job follows it when it is resumed" in said


def test_a_run_that_has_ended_says_so_and_is_asked_for_nothing(climb, run):
    assert not json.loads(climb("weights", run, "--json").stdout)["ended"]
    for name, value in {
        "run.json": {"train": 1, "shards": "", "settings": {}},
        "result.json": {},
    }.items():
        (run / name).write_text(json.dumps(value))
    shown = climb("weights", run)
    assert shown.returncode == 0
    assert shown.stdout.endswith("the run has ended, so its weights cannot change any more\n")
    assert json.loads(climb("weights", run, "--json").stdout)["ended"]
    asked = climb("weights", run, "c01=0.8")
    assert asked.returncode == 2
    assert f"error: the run in {run} has ended, so its weights cannot change" in asked.stderr
    assert "--schedule FILE, and another --out" in asked.stderr
    assert not (run / REQUEST).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["c09=1"], "there is no cluster c09 in the weights log; its clusters are c00, c01, c02"),
        (["c00=0.9", "c01=0.9"], "the named weights sum to 1.8, more than 1; use --only"),
        (["c00"], "'c00' is not a weight; write CLUSTER=WEIGHT, such as c03=0.4"),
        (["c00=much"], "'c00=much' is not a weight; write CLUSTER=WEIGHT"),
        (["=1"], "'=1' is not a weight"),
        (["c00=0.1", "c00=0.2"], "cluster c00 is named twice; name it once"),
        (["--ramp", "5"], "--only, --ramp and --why need new weights; name some, such as c03=0.4"),
        (["c02=1"], "no epochs are left of c02, so this weight would have no effect; leave it out"),
    ],
)
def test_what_cannot_be_asked_is_refused_and_nothing_is_written(climb, run, arguments, message):
    done = climb("weights", run, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (run / REQUEST).exists()


@pytest.mark.parametrize("weight", ["-1", "nan", "inf"])
def test_a_weight_that_is_none_is_refused(climb, run, weight):
    done = climb("weights", run, f"c00={weight}")
    assert done.returncode == 3
    assert f"the weight of cluster 'c00' is {weight}" in done.stderr
    assert not (run / REQUEST).exists()


def test_a_folder_that_is_no_run_is_refused(climb, tmp_path):
    done = climb("weights", tmp_path, "c00=1")
    assert done.returncode == 2
    assert f"{tmp_path} is not a run: it has no weights.jsonl with weights; name the" in done.stderr


def test_a_log_that_was_changed_is_found(climb, run):
    path = run / LOG
    path.write_text(path.read_text().replace("anneal", "anneel"))
    done = climb("weights", run)
    assert done.returncode == 4
    assert "weights.jsonl: line 2: record 1 of the weights log does not match" in done.stderr
