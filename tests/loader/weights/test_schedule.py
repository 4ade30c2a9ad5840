"""Schedules: changes that are known before the run, in the same log as those that are not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.loader import Mixture, WeightsLog
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.formats.mixture import ONE
from climbstream.loader.weights.schedule import Schedule

WEB, CODE, BOTH = {"web": 1}, {"code": 1}, {"web": 1, "code": 1}
NAMES = ["web", "code"]
ENTRIES = [(0, WEB), (100, Mixture.of(CODE), 50), (400, BOTH)]


def filled(entries=ENTRIES, end=10**6):
    log = WeightsLog()
    Schedule.of(entries).extend(log, 0, end)
    return log


def web(log, step):
    return int(log.integers(step, NAMES)[0]) / ONE


def test_a_schedule_becomes_records_of_the_log():
    assert [(r.at_step, r.kind, r.steps, r.why) for r in filled().records] == [
        (0, "set", 0, "schedule"),
        (100, "ramp", 50, "schedule"),
        (400, "set", 0, "schedule"),
    ]


def test_weights_follow_the_schedule():
    log = filled()
    assert [web(log, step) for step in (0, 100, 125, 150, 399, 400)] == [1, 1, 0.5, 0, 0, 0.5]


@given(st.lists(st.integers(1, 500), max_size=10))
def test_it_makes_the_same_records_in_whatever_pieces_the_steps_are_planned(lengths):
    log, step = WeightsLog(), 0
    for length in [*lengths, 1000]:
        Schedule.of(ENTRIES).extend(log, step, step + length)
        step += length
    assert log.records == filled(end=step).records


def test_what_the_log_holds_already_is_not_appended_again():
    log = filled()
    for start in (0, 100, 150, 400):
        Schedule.of(ENTRIES).extend(log, start, 1000)
    assert len(log.records) == 3


def test_a_state_within_a_ramp_goes_on_with_the_schedule():
    log = filled(end=200)
    again = WeightsLog(tuple(log.since(120)))
    Schedule.of(ENTRIES).extend(again, 120, 1000)
    assert again.head == filled().head


def test_weights_may_change_between_the_entries():
    log = WeightsLog()
    schedule = Schedule.of(ENTRIES)
    schedule.extend(log, 0, 50)
    log.append(Mixture.of(BOTH), 60, "by hand")
    schedule.extend(log, 50, 1000)
    # The ramp starts from what holds then.
    assert [web(log, step) for step in (60, 100, 125, 150, 400)] == [0.5, 0.5, 0.25, 0, 0.5]


def test_a_cluster_that_is_capped_in_between_stays_so():
    log = WeightsLog()
    schedule = Schedule.of(ENTRIES)
    schedule.extend(log, 0, 120)
    log.cap(["web"], 120, "web has used up its epochs")
    schedule.extend(log, 120, 1000)
    assert [web(log, step) for step in (119, 120, 150, 400)] == [pytest.approx(0.62), 0, 0, 0]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "a schedule needs an entry; name weights for step 0"),
        ([(5, WEB)], "begins with weights set for step 0, not with step 5"),
        ([(0, WEB, 10)], "not with step 0 and a ramp of 10 steps"),
        (
            [(0, WEB), (20, CODE), (10, WEB)],
            "entry 2 of the schedule is for step 10, entry 1 for step 20; put them in order",
        ),
        ([(0, WEB), (10, CODE), (10, WEB)], "entry 2 .* is for step 10, entry 1 for step 10"),
    ],
)
def test_a_schedule_out_of_order_is_refused(entries, message):
    with pytest.raises(UsageError, match=message):
        Schedule.of(entries)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ((10,), "entry 1 of the schedule: not enough values to unpack"),
        (5, "entry 1 of the schedule: .* not iterable|entry 1 .* cannot unpack"),
        ((10, WEB, 5, 5), r"entry 1 of the schedule: an entry is \(step, weights\) or \(step, w"),
        ((10.0, WEB), r"entry 1 of the schedule: an entry is \(step, weights\)"),
        ((-1, WEB), "entry 1 .*, step from 0 to below"),
        (
            (10, {}),
            "entry 1 of the schedule: a mixture must be an object with the weights of clusters",
        ),
        (
            (10, {"web": float("nan")}),
            "entry 1 of the schedule: the weight of cluster 'web' is nan",
        ),
        ((10, WEB, -5), "entry 1 .*: a ramp takes a whole number of steps from 0 to .*, not -5"),
        ((10, WEB, 1.5), "entry 1 .*: a ramp takes a whole number of steps from 0 to .*, not 1.5"),
    ],
)
def test_an_entry_that_cannot_be_used_is_named(entry, message):
    with pytest.raises(InvalidDataError, match=message):
        Schedule.of([(0, WEB), entry])


def test_a_log_that_went_on_without_the_schedule_is_refused():
    log = WeightsLog()
    log.append(Mixture.of(WEB), 0, "start")
    log.append(Mixture.of(CODE), 300, "another plan")
    with pytest.raises(UsageError, match="weights for step 100 cannot follow weights for step 300"):
        Schedule.of(ENTRIES).extend(log, 1, 1000)


# Files.


def test_a_schedule_is_read_as_it_was_written(tmp_path):
    schedule = Schedule.of(ENTRIES)
    path = tmp_path / "schedule.json"
    path.write_text(json.dumps(schedule.to_json()))
    assert Schedule.load(path) == schedule
    assert Schedule.from_json({"version": 1, "schedule": [{"step": 0, "weights": WEB}]}) == (
        Schedule.of([(0, WEB)])
    )


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"version": 2, "schedule": []}, "the schedule has version 2; this climbstream reads 1"),
        ({"weights": WEB}, "this is not a valid schedule: it is not an object with a version"),
        ({"version": 1, "schedule": {"0": WEB}}, "this is not a valid schedule: it must be .*ramp"),
        (
            {"version": 1, "schedule": [{"step": 0}]},
            "this is not a valid schedule: it must be .*ramp",
        ),
        ({"version": 1, "schedule": []}, "a schedule needs an entry"),
        ({"version": 1, "schedule": [{"step": "a", "weights": WEB}]}, "entry 0 of the schedule"),
        ({"version": 1, "schedule": [{"step": 5, "weights": WEB}]}, "begins with weights set for"),
    ],
)
def test_a_file_that_holds_no_schedule_is_named_with_what_is_wrong(tmp_path, value, named):
    path = tmp_path / "schedule.json"
    path.write_text(json.dumps(value))
    with pytest.raises(InvalidDataError, match=rf"schedule\.json: .*{named}"):
        Schedule.load(path)


def test_a_schedule_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidDataError, match=r"there is no file .*none$"):
        Schedule.load(tmp_path / "none")


def test_a_schedule_says_what_weights_mean_that_do_not_sum_to_one():
    entries = [(0, {"a": 0.5, "b": 0.25, "c": 0.25}), (10, {"c": 0.4})]
    with pytest.raises(UsageError, match=r"entry 1 of the schedule: the weights c=0.4 sum to 0.4"):
        Schedule.of(entries)
    kept, scaled = (Schedule.of(entries, others=o).changes[1][1].mixture for o in ("keep", "scale"))
    assert kept.weights == pytest.approx({"a": 0.4, "b": 0.2, "c": 0.4})
    assert scaled.weights == {"c": 1.0}
