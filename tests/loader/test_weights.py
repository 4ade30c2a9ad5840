"""The weights log: append-only, numbered, chained; one hash vouches for the history."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.loader import Mixture, WeightsLog
from climbstream.loader.errors import IntegrityError, InvalidDataError, UsageError
from climbstream.loader.storage import hash_json
from climbstream.loader.weights import WeightsRecord

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
        UsageError, match="weights for step 19 come after weights for step 20; name step 20"
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
    with pytest.raises(IntegrityError, match=r"weights.jsonl: record \d of .* its hash"):
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
        ({}, "this is no record of weights"),
        ([], "this is no record of weights"),
        ({"v": 0, "colour": "red"}, "this is no record of weights"),
    ],
)
def test_what_is_no_record_is_refused(path, record, message):
    path.parent.mkdir()
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(InvalidDataError, match=f"weights.jsonl: {message}"):
        WeightsLog.open(path, write=False)


def test_an_unknown_kind_is_refused(written, path):
    rewrite(path, lambda record: record.update(kind="guess"), line=1)
    with pytest.raises(InvalidDataError, match="record 1 is of unknown kind 'guess'"):
        WeightsLog.open(path, write=False)
