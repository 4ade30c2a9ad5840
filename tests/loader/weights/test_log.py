"""The weights log: append-only, numbered, chained; one hash vouches for the history."""

import contextlib
import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.loader import Mixture, WeightsLog
from climbstream.loader.core.errors import IntegrityError, InvalidDataError, UsageError
from climbstream.loader.core.files import hash_json
from climbstream.loader.formats.mixture import ONE
from climbstream.loader.weights.interpolation import MOST_STEPS
from climbstream.loader.weights.log import WeightsRecord, check_chain

A = Mixture.of({"c00": 1, "c01": 3})
B = Mixture.of({"c00": 1, "c01": 0})
C = Mixture.of({"c01": 1, "c02": 1})

steps = st.lists(st.integers(0, 1000), max_size=12).map(lambda steps: [0, *sorted(steps)])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "weights.jsonl"


@pytest.fixture
def written(path):
    """A log of three records in a file."""
    log = WeightsLog.open(path, write=True)
    log.append(A, 0, "start")
    log.append(B, 10, "less of c01")
    log.append(C, 20, "anneal")
    return log


def rewrite(path, change, line):
    """Change the record in a line of the file."""
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    change(lines[line])
    path.write_text("".join(json.dumps(value) + "\n" for value in lines))


# Weights over time.


def test_a_record_holds_from_its_step_until_the_next_one(written):
    assert [written.at(step).v for step in (0, 9, 10, 19, 20, 10**9)] == [0, 0, 1, 1, 2, 2]


def test_since_begins_with_the_record_in_force(written):
    assert [[r.v for r in written.since(step)] for step in (0, 9, 10, 25)] == [
        [0, 1, 2],
        [0, 1, 2],
        [1, 2],
        [2],
    ]


def test_of_two_records_for_one_step_the_later_holds():
    log = WeightsLog()
    log.append(A, 0, "")
    log.append(B, 5, "")
    log.append(C, 5, "")
    assert log.at(4).v == 0
    assert log.at(5).v == 2
    assert [r.v for r in log.since(5)] == [2]


@given(steps, st.integers(0, 1100))
def test_the_record_in_force_is_the_last_that_is_not_in_the_future(at_steps, step):
    log = WeightsLog()
    log.append(A, 0, "")
    for at_step in at_steps:
        log.append(B, at_step, "")
    expected = max(r.v for r in log.records if r.at_step <= step)
    assert log.at(step).v == expected
    assert [r.v for r in log.since(step)] == list(range(expected, len(log.records)))


def test_a_record_for_an_earlier_step_is_refused_and_leaves_no_trace(written, path):
    before = path.read_bytes()
    with pytest.raises(
        UsageError, match="weights for step 19 cannot follow weights for step 20; name step 20"
    ):
        written.append(A, 19, "late")
    assert path.read_bytes() == before
    assert len(written.records) == 3


def test_records_are_numbered_and_chained(written):
    assert [r.v for r in written.records] == [0, 1, 2]
    assert [r.prev for r in written.records] == ["", *[r.hash for r in written.records[:2]]]
    assert [r.why for r in written.records] == ["start", "less of c01", "anneal"]


def test_a_hash_is_that_of_all_the_rest_of_a_record(written):
    body = written.records[1].to_json()
    assert body.pop("hash") == hash_json(body)


def test_weights_of_zero_are_left_out(written):
    assert written.records[1].weights == {"c00": 1.0}


def test_another_history_gives_another_hash_for_the_same_weights():
    ends = set()
    for first in (A, B):
        log = WeightsLog()
        log.append(first, 0, "")
        ends.add(log.append(C, 5, "").hash)
    assert len(ends) == 2


@given(steps)
def test_a_record_comes_back_as_it_was(at_steps):
    log = WeightsLog()
    for at_step in at_steps:
        log.append(A, at_step, "é")
    for record in log.records:
        assert WeightsRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


# Ramps.

NAMES = ["c00", "c01", "c02", "c03"]

shares = st.lists(st.integers(0, 5), min_size=4, max_size=4).filter(any)
mixtures = st.builds(
    lambda names, weights: Mixture.of(dict(zip(names, weights, strict=True))),
    st.permutations(NAMES),
    shares,
)
"""Of four clusters in any order, some at 0."""


@st.composite
def histories(draw, caps=True):
    """A log of sets, ramps that may begin within one another, and caps."""
    log = WeightsLog()
    log.append(draw(mixtures), 0, "start")
    for _ in range(draw(st.integers(0, 8))):
        at_step = log.records[-1].at_step + draw(st.integers(0, 9))
        kind = draw(st.sampled_from(["set", "ramp", *(["cap"] if caps else [])]))
        # What would leave no cluster is refused, and changes nothing.
        with contextlib.suppress(UsageError):
            if kind == "cap":
                log.cap([draw(st.sampled_from(NAMES))], at_step, "used up")
            else:
                ramp = draw(st.integers(1, 12)) if kind == "ramp" else 0
                log.append(draw(mixtures), at_step, kind, ramp)
    return log


def by_hand(log, step):
    """Weights in force at a step by the words of the law, in fractions; for a log without caps."""
    line = None
    for record in log.records:
        if record.at_step > step:
            break
        weights = {name: Fraction(record.weights.get(name, 0.0)) for name in NAMES}
        start = {n: line(record.at_step, n) for n in NAMES} if record.kind == "ramp" else weights

        def line(at, name, record=record, start=start, weights=weights):
            part = min(Fraction(at - record.at_step, record.steps), 1) if record.steps else 1
            return start[name] + (weights[name] - start[name]) * part

    return [line(step, name) for name in NAMES]


def test_a_ramp_goes_in_a_straight_line_from_the_weights_in_force():
    log = WeightsLog()
    log.append(Mixture.of({"c00": 1}), 0, "start")
    log.append(Mixture.of({"c00": 1, "c01": 1}), 10, "anneal", ramp=4)
    assert [log.integers(step, NAMES[:2]).tolist() for step in (9, 10, 11, 13, 14, 10**9)] == [
        [ONE, 0],
        [ONE, 0],
        [ONE - ONE // 8, ONE // 8],
        [ONE - 3 * ONE // 8, 3 * ONE // 8],
        [ONE // 2, ONE // 2],
        [ONE // 2, ONE // 2],
    ]


def test_a_ramp_within_a_ramp_starts_from_where_that_one_stands():
    log = WeightsLog()
    log.append(Mixture.of({"c00": 1}), 0, "start")
    log.append(Mixture.of({"c01": 1}), 0, "there", ramp=8)
    log.append(Mixture.of({"c00": 1}), 4, "and back", ramp=4)
    assert [int(log.integers(step, ["c00", "c01"])[0]) * 8 // ONE for step in range(9)] == [
        *(8, 7, 6, 5, 4, 5, 6, 7, 8)
    ]


@given(histories(caps=False), st.integers(0, 120))
def test_weights_at_a_step_are_those_of_the_law(log, step):
    found = log.integers(step, NAMES)
    for n, exact in zip(found.tolist(), by_hand(log, step), strict=True):
        # A unit of rounding at the start of every ramp, and one for the ramp itself.
        assert abs(n - exact * ONE) < 1 + len(log.records)


@given(histories(), st.integers(0, 120))
def test_weights_at_any_step_sum_to_one_and_give_capped_clusters_nothing(log, step):
    found = log.integers(step, NAMES)
    assert found.dtype == np.int64
    assert found.sum() == ONE
    assert (found >= 0).all()
    capped = log.at(step).capped
    assert not any(n for name, n in zip(NAMES, found, strict=True) if name in capped)


@given(histories(), st.integers(0, 110), st.integers(1, 40))
def test_a_table_holds_what_each_step_would_say(log, step, count):
    rows = log.table(step, count, NAMES)
    expected = [log.integers(step + i, NAMES).tolist() for i in range(count)]
    assert len(rows) in (1, count)
    assert np.broadcast_to(rows, (count, 4)).tolist() == expected


def test_a_table_of_steps_that_are_all_the_same_is_one_row(written):
    assert written.table(10, 10, NAMES).shape == (1, 4)
    assert written.table(10, 11, NAMES).shape == (11, 4)


@given(histories(), st.permutations([*NAMES, "d"]))
def test_weights_do_not_depend_on_the_order_of_the_clusters(log, names):
    for step in range(0, 100, 7):
        here = dict(zip(names, log.integers(step, names).tolist(), strict=True))
        assert here == {**dict(zip(NAMES, log.integers(step, NAMES).tolist(), strict=True)), "d": 0}


def test_weights_do_not_depend_on_the_order_in_which_they_were_named():
    logs = WeightsLog(), WeightsLog()
    for log, names in zip(logs, (NAMES[:3], NAMES[2::-1]), strict=True):
        log.append(Mixture.uniform(names), 0, "start")
        # 2^40 is no multiple of three: the first name gets what is left over.
        assert log.integers(0, NAMES[2::-1]).tolist() == [ONE // 3, ONE // 3, ONE // 3 + 1]
        log.append(Mixture.of({"c02": 1}), 10, "anneal", ramp=7)
    assert logs[0].head == logs[1].head


@given(histories(), st.integers(0, 110), st.integers(0, 60))
def test_what_a_state_carries_is_enough_at_every_step_after_it(log, step, further):
    lines = json.loads(json.dumps([record.to_json() for record in log.since(step)]))
    again = WeightsLog(tuple(WeightsRecord.from_json(value) for value in lines))
    assert again.integers(step + further, NAMES).tolist() == (
        log.integers(step + further, NAMES).tolist()
    )
    more = Mixture.uniform([*NAMES, "new"])
    again.append(more, 200, "on", ramp=5)
    log.append(more, 200, "on", ramp=5)
    assert again.head == log.head


@given(histories(), st.integers(0, 110))
def test_the_mixture_of_a_step_is_its_integers(log, step):
    mixture = log.mixture(step)
    assert mixture.integers(NAMES) == pytest.approx(log.integers(step, NAMES), abs=1)


def test_the_mixture_that_was_set_comes_back_bit_for_bit(written):
    assert written.mixture(5).weights == A.weights


def test_a_ramp_record_says_what_it_starts_from(written):
    record = written.append(A, 20, "", ramp=6)
    assert record.to_json() == {
        "v": 3,
        "at_step": 20,
        "kind": "ramp",
        "weights": {"c00": 0.25, "c01": 0.75, "c02": 0.0},
        "why": "",
        "prev": written.records[2].hash,
        "hash": record.hash,
        "steps": 6,
        "start": [0, ONE // 2, ONE // 2],
    }


@pytest.mark.parametrize("ramp", [-1, MOST_STEPS + 1])
def test_a_ramp_of_impossible_length_is_refused_and_leaves_no_trace(written, path, ramp):
    before = path.read_bytes()
    with pytest.raises(UsageError, match="a ramp takes 1 to 1,000,000,000 steps, not"):
        written.append(A, 30, "", ramp=ramp)
    assert path.read_bytes() == before
    assert len(written.records) == 3


def test_the_first_weights_cannot_ramp():
    with pytest.raises(UsageError, match="the first weights cannot be a ramp, because no weights"):
        WeightsLog().append(A, 0, "", ramp=5)


def test_a_step_before_the_log_begins_has_no_weights(written):
    with pytest.raises(UsageError, match="asked for step -1, but the log begins at step 0"):
        written.integers(-1, NAMES)
    with pytest.raises(UsageError, match="the log begins at no step, it is empty"):
        WeightsLog().at(0)


def test_weights_for_other_clusters_are_refused(written):
    with pytest.raises(
        InvalidDataError, match="weights 2 of the log are for c01, c02, but the clusters are c00"
    ):
        written.integers(20, ["c00"])


def test_a_lookup_does_not_grow_with_the_log():
    log = WeightsLog()
    for step in range(10_000):
        log.append(A, step, "")
    seen = []

    class Counting(list):
        def __getitem__(self, item):
            seen.append(item)
            return super().__getitem__(item)

    log._at_steps = Counting(log._at_steps)
    log.records = Counting(log.records)
    log.integers(5_000, NAMES)
    log.at(5_000)
    assert len(seen) < 40


# Caps.


def test_a_capped_cluster_leaves_its_share_to_the_others(written):
    written.append(Mixture.of({"c00": 2, "c01": 1, "c02": 1}), 30, "")
    record = written.cap(["c00"], 40, "c00 has used up its 4 epochs")
    assert record.kind == "cap"
    assert record.capped == ("c00",)
    assert written.integers(39, NAMES).tolist() == [ONE // 2, ONE // 4, ONE // 4, 0]
    assert written.integers(40, NAMES).tolist() == [0, ONE // 2, ONE // 2, 0]
    assert written.mixture(40).weights == {"c01": 0.5, "c02": 0.5}


def test_a_cap_carries_all_that_came_before(written):
    written.append(Mixture.uniform(NAMES), 30, "")
    written.cap(["c01"], 40, "")
    assert written.cap(["c03", "c00"], 50, "").capped == ("c00", "c01", "c03")
    assert written.capped == ("c00", "c01", "c03")


def test_weights_set_later_do_not_bring_a_capped_cluster_back(written):
    written.cap(["c02"], 30, "")
    written.append(C, 40, "c02 once more")
    assert written.integers(40, NAMES).tolist() == [0, ONE, 0, 0]
    assert written.records[-1].weights == {"c01": 0.5, "c02": 0.5}
    assert written.records[-1].capped == ("c02",)


def test_a_cap_in_a_ramp_leaves_the_others_on_their_way():
    log = WeightsLog()
    log.append(Mixture.of({"c00": 2, "c01": 2}), 0, "start")
    log.append(Mixture.of({"c00": 1, "c01": 2, "c02": 1}), 0, "anneal", ramp=8)
    log.cap(["c01"], 4, "used up")
    # Without c01 the shares go on from 3/8 and 1/8 to 1/4 and 1/4, scaled.
    assert log.integers(4, NAMES).tolist() == [3 * ONE // 4, 0, ONE // 4, 0]
    assert log.integers(8, NAMES).tolist() == [ONE // 2, 0, ONE // 2, 0]


def test_between_a_capped_cluster_and_one_that_just_begins_the_latter_gets_all():
    log = WeightsLog()
    log.append(Mixture.of({"c00": 1}), 0, "start")
    log.append(Mixture.of({"c01": 1}), 5, "away", ramp=10)
    log.cap(["c00"], 5, "used up")
    assert log.integers(5, NAMES).tolist() == [0, ONE, 0, 0]


@pytest.mark.parametrize(
    "change",
    [
        lambda log: log.cap(["c02"], 40, ""),
        lambda log: log.append(Mixture.of({"c01": 1}), 40, ""),
        lambda log: log.append(Mixture.of({"c01": 1}), 40, "", ramp=5),
    ],
    ids=["cap", "set", "ramp"],
)
def test_when_all_clusters_with_weight_are_used_up_the_change_is_refused(written, path, change):
    written.cap(["c01"], 30, "")
    before = path.read_bytes()
    with pytest.raises(
        UsageError,
        match=r"clusters with weight have used up their epochs: c01.*; give weight to another one",
    ):
        change(written)
    assert path.read_bytes() == before
    assert len(written.records) == 4


def test_a_cap_for_an_earlier_step_or_before_all_weights_is_refused(written):
    with pytest.raises(UsageError, match="weights for step 19 cannot follow weights for step 20"):
        written.cap(["c01"], 19, "")
    with pytest.raises(UsageError, match="nothing can be capped before the first weights are set"):
        WeightsLog().cap(["c01"], 0, "")


# The file.


def test_a_file_that_is_not_there_yet_is_an_empty_log(path):
    assert WeightsLog.open(path, write=True).records == []
    assert not path.exists()


def test_what_was_appended_is_there_when_it_is_opened_again(written, path):
    again = WeightsLog.open(path, write=True)
    assert again.records == written.records
    again.append(A, 30, "more")
    assert WeightsLog.open(path, write=False).records == again.records


def test_without_leave_to_write_records_stay_in_memory(written, path):
    reader = WeightsLog.open(path, write=False)
    reader.append(A, 30, "")
    assert len(reader.records) == 4
    assert WeightsLog.open(path, write=False).records == written.records


def test_a_torn_last_line_is_ignored_and_overwritten(written, path):
    path.write_bytes(path.read_bytes()[:-5])
    again = WeightsLog.open(path, write=True)
    assert again.records == written.records[:2]
    again.append(A, 15, "instead")
    assert [r.why for r in WeightsLog.open(path, write=False).records] == [
        "start",
        "less of c01",
        "instead",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weights", {"c00": 0.5, "c01": 0.5}),
        ("at_step", 11),
        ("why", "for no reason"),
        ("prev", ""),
        ("v", 7),
        ("hash", "0" * 32),
    ],
)
def test_a_changed_record_is_found(written, path, key, value):
    rewrite(path, lambda record: record.update({key: value}), line=1)
    with pytest.raises(IntegrityError, match=r"weights.jsonl: line \d: record \d of .* its hash"):
        WeightsLog.open(path, write=False)


def test_a_lost_record_is_found(written, path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[2])
    with pytest.raises(IntegrityError, match=r"weights.jsonl: record 2 does not follow record 0"):
        WeightsLog.open(path, write=False)


def test_a_record_of_another_log_is_found(written, path):
    other = WeightsLog()
    other.append(C, 0, "")
    record = other.append(B, 10, "")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + json.dumps(record.to_json()) + "\n")
    with pytest.raises(IntegrityError, match="record 1 does not follow record 0"):
        WeightsLog.open(path, write=False)


def test_a_record_for_an_earlier_step_is_found(path):
    first = WeightsRecord.after(None, A, 10, "")
    second = WeightsRecord.after(first, B, 9, "")
    path.parent.mkdir()
    path.write_text("".join(json.dumps(r.to_json()) + "\n" for r in (first, second)))
    with pytest.raises(IntegrityError, match="record 1 takes effect before record 0"):
        WeightsLog.open(path, write=False)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "this is not a valid record of weights"),
        ([], "this is not a valid record of weights"),
        ({"v": 0, "colour": "red"}, "this is not a valid record of weights"),
    ],
)
def test_what_is_no_record_is_refused(path, record, message):
    path.parent.mkdir()
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(InvalidDataError, match=f"weights.jsonl: line 1: {message}"):
        WeightsLog.open(path, write=False)


def test_an_unknown_kind_is_refused(written, path):
    rewrite(path, lambda record: record.update(kind="guess"), line=1)
    with pytest.raises(InvalidDataError, match="record 1 is of unknown kind 'guess'"):
        WeightsLog.open(path, write=False)


@given(histories())
def test_a_history_comes_back_from_its_file(tmp_path_factory, log):
    path = tmp_path_factory.mktemp("log") / "weights.jsonl"
    path.write_text("".join(json.dumps(r.to_json()) + "\n" for r in log.records))
    assert WeightsLog.open(path, write=False).records == log.records


@given(histories().filter(lambda log: len(log.records) > 1), st.data())
def test_a_change_anywhere_in_a_history_is_found(tmp_path_factory, log, data):
    path = tmp_path_factory.mktemp("log") / "weights.jsonl"
    values = [record.to_json() for record in log.records]
    value = data.draw(st.sampled_from(values))
    key = data.draw(st.sampled_from(sorted(value)))
    other = data.draw(
        st.sampled_from([v for v in (7, 0, "x", {"c00": 1.0}, ["c00"], [ONE]) if v != value[key]])
    )
    value[key] = other
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    with pytest.raises((IntegrityError, InvalidDataError), match=r"weights\.jsonl: "):
        WeightsLog.open(path, write=False)


@given(histories().filter(lambda log: len(log.records) > 2), st.data())
def test_a_record_that_is_lost_or_moved_anywhere_is_found(log, data):
    records = list(log.records)
    place = data.draw(st.integers(1, len(records) - 2))
    record = records.pop(place)
    if data.draw(st.booleans()):
        records.insert(data.draw(st.integers(0, len(records)).filter(lambda i: i != place)), record)
    with pytest.raises(IntegrityError, match=r"record \d does not follow record \d"):
        check_chain(tuple(records))


def forged(record, **changes):
    """A record with other content, and the hash that fits."""
    value = {**record.to_json(), **changes}
    del value["hash"]
    return {**value, "hash": hash_json(value)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"at_step": -1}, "at_step: expected int >= 0"),
        ({"at_step": 2.0}, "at_step: expected int, got float"),
        ({"at_step": True}, "at_step: expected int, got bool"),
        ({"why": 5}, "why: expected str, got int"),
        ({"capped": [5]}, r"capped\[0\]: expected str, got int"),
        ({"steps": MOST_STEPS + 1}, "record 3, a ramp, takes 1000000001 steps"),
        ({"kind": "set"}, "record 3, a set, takes 6 steps"),
        ({"start": [ONE]}, "record 3, a ramp, does not start from weights"),
        ({"start": [ONE, 1, -1]}, r"start\[2\]: expected int >= 0"),
        ({"start": [ONE, 1, 1]}, "record 3, a ramp, does not start from weights"),
        ({"capped": ["c00", "c01"]}, "record 3, a ramp, caps every cluster that has weight"),
        ({"kind": "cap"}, "record 3, a cap, caps every cluster that has weight, or none"),
        ({"steps": 0}, "record 3 has a field that it does not need"),
        ({"capped": []}, "record 3 has a field that it does not need"),
        ({"weights": {"c00": -1}}, "the weight of cluster 'c00' is -1"),
        ({"weights": {}}, "a mixture must be an object with the weights of clusters"),
        ({"start": 5}, "this is not a valid record of weights"),
    ],
)
def test_what_does_not_fit_together_is_refused_even_with_the_right_hash(written, changes, message):
    record = written.append(A, 20, "", ramp=6)
    with pytest.raises(InvalidDataError, match=message):
        WeightsRecord.from_json(forged(record, **changes))
