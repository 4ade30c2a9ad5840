"""Sources of updates: weights come in and nothing else, and the job goes on whatever they hold."""

import json
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.loader import Mixture, WeightsLog
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import write_bytes, write_json
from climbstream.loader.weights.sources import LARGEST, WeightsCallable, WeightsFile
from climbstream.loader.weights.update import WeightsUpdate

NAMES = ["c00", "c01", "c02"]
A = Mixture.of({"c00": 1, "c01": 3})
B = Mixture.of({"c02": 1})


def check(mixture):
    """Refuse clusters that are not there, as the loader does."""
    mixture.array(NAMES)


@pytest.fixture
def log():
    log = WeightsLog()
    log.append(A, 0, "start")
    return log


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.request.json"


@pytest.fixture
def source(path, log):
    """A source that was polled once, before its file existed."""
    source = WeightsFile(path, check)
    assert source.poll(0, log) is None
    return source


def settle(path):
    """Make a file old enough that its time stamp vouches for it."""
    os.utime(path, (time.time() - 60, time.time() - 60))


def asked(log, **more):
    return {"version": 1, "weights": {"c02": 1}, **more}


# What is asked for.


def test_without_a_file_nothing_is_asked_and_nothing_said(source, log, capsys):
    assert [source.poll(step, log) for step in range(3)] == [None] * 3
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "change"),
    [
        ({"c02": 5}, WeightsUpdate(B)),
        ({"weights": {"c02": 1}}, WeightsUpdate(B)),
        ({"version": 1, "weights": {"c02": 1}, "about": {"found": "by hand"}}, WeightsUpdate(B)),
        ({"weights": {"c02": 1}, "ramp": 20, "why": "anneal"}, WeightsUpdate(B, 20, "anneal")),
    ],
)
def test_a_new_file_is_a_change_once(source, path, log, content, change):
    write_json(path, content)
    assert source.poll(1, log) == change
    assert source.poll(2, log) is None
    settle(path)
    # The time stamp is another one, so it may be another request.
    assert source.poll(3, log) == change
    assert source.poll(4, log) is None


def test_the_file_of_a_mixture_is_a_request(source, path, log):
    A.save(path)
    assert source.poll(1, log) == WeightsUpdate(A)


def test_a_file_that_is_replaced_is_another_request(source, path, log):
    for mixture in (A, B, A):
        mixture.save(path)
        assert source.poll(1, log) == WeightsUpdate(mixture)
    path.unlink()
    assert source.poll(2, log) is None
    A.save(path)
    assert source.poll(3, log) == WeightsUpdate(A)


def test_two_writes_within_one_tick_of_the_clock_are_two_requests(source, path, log):
    path.write_text('{"c00": 1}')
    before = path.stat()
    assert source.poll(1, log) == WeightsUpdate(Mixture.of({"c00": 1}))
    path.write_text('{"c02": 1}')
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert source.poll(2, log) == WeightsUpdate(B)


def test_a_file_that_stays_the_same_is_not_opened(source, path, log):
    A.save(path)
    settle(path)
    assert source.poll(1, log) == WeightsUpdate(A)
    before = path.stat().st_mtime_ns
    # Other bytes of the same size in the same file, with the same old time stamp.
    path.write_text(path.read_text().replace("c00", "c02"))
    os.utime(path, ns=(before, before))
    assert source.poll(2, log) is None


# In which order.


def test_what_lay_there_before_the_run_is_not_followed(path, log, capsys):
    B.save(path)
    source = WeightsFile(path, check)
    assert source.poll(0, log) is None
    assert "it was there before the run began; write it again" in capsys.readouterr().err
    assert source.poll(1, log) is None
    assert capsys.readouterr().err == ""
    B.save(path)
    assert source.poll(2, log) == WeightsUpdate(B)


def test_what_was_asked_while_the_run_stood_still_is_followed_when_it_goes_on(path, log):
    write_json(path, asked(log, after=log.head))
    assert WeightsFile(path, check).poll(0, log) == WeightsUpdate(B)


@pytest.mark.parametrize("knows_the_last_record", [True, False])
def test_what_was_followed_before_a_restart_is_not_followed_again_and_no_warning_says_it(
    path, log, source, caplog, knows_the_last_record
):
    caplog.set_level("INFO", "climbstream")
    after = {"after": log.head} if knows_the_last_record else {}
    write_json(path, asked(log, ramp=3, why="anneal", **after))
    change = source.poll(0, log)
    log.append(change.mixture, 5, change.why, change.ramp)
    log.cap(["c00"], 9, "used up")
    assert WeightsFile(path, check).poll(9, log) is None
    (said,) = caplog.records
    assert said.levelname == "INFO"
    assert said.getMessage() == f"{path} was followed already, as record 1 of the log"


def test_a_request_like_one_that_was_followed_is_refused_if_another_change_came_between(
    path, log, capsys
):
    write_json(path, asked(log, after=log.head))
    log.append(A, 5, "somebody was faster")
    assert WeightsFile(path, check).poll(5, log) is None
    assert "but the last is" in capsys.readouterr().err


def test_a_request_that_knows_the_last_record_is_followed(source, path, log):
    write_json(path, asked(log, after=log.head))
    assert source.poll(1, log) == WeightsUpdate(B)


def test_a_request_that_does_not_know_the_last_record_is_refused(source, path, log, capsys):
    write_json(path, asked(log, after=log.head))
    known = log.head
    log.append(B, 5, "somebody was faster")
    assert source.poll(5, log) is None
    said = capsys.readouterr().err
    assert f"asked for after record {known[:8]}" in said
    assert f"but the last is {log.head[:8]}; look at the weights in force, and ask again" in said


# What is no request.

HOSTILE = {
    "torn": (b'{"c00": 0.5, "c0', "it is not JSON: "),
    "empty": (b"", "it is not JSON: "),
    "binary": (bytes(range(256)), "it is not JSON: "),
    "too large": (b" " * (LARGEST + 1), "it holds 1,048,577 bytes; a request has at most 1,048,5"),
    "nested": (b"[" * 500_000, "it is nested too deeply"),
    "nested weights": (
        b'{"weights": {"c00": ' + b"[" * 900 + b"]" * 900 + b"}}",
        "it is nested over 100 levels deep",
    ),
    "a long number": (
        b'{"c00": ' + b"9" * 10_000 + b"}",
        "it holds a number with thousands of digits",
    ),
    "unknown": (
        b'{"c00": 1, "web": 1}',
        "the mixture gives weight to web, but the clusters are c00, c01",
    ),
    "negative": (b'{"c00": -1, "c01": 2}', "the weight of cluster 'c00' is -1"),
    "nan": (b'{"c00": NaN}', "the weight of cluster 'c00' is nan"),
    "infinite": (b'{"c00": 1e999}', "the weight of cluster 'c00' is inf"),
    "all zero": (b'{"c00": 0, "c01": 0}', "every weight of the mixture is 0"),
    "no object": (b"[0.5, 0.5]", "a mixture must be an object with the weights of clusters"),
    "null": (b"null", "a mixture must be an object with the weights of clusters"),
    "text": (b'{"c00": "0.5"}', "the weight of cluster 'c00' is '0.5'"),
    "version": (b'{"weights": {"c00": 1}, "version": 9}', "the mixture has version 9"),
    "typing error": (
        b'{"weights": {"c00": 1}, "rmap": 5}',
        "a change of weights has no field 'rmap'",
    ),
    "ramp": (b'{"weights": {"c00": 1}, "ramp": -5}', "a ramp takes a whole number of steps from 0"),
    "why": (b'{"weights": {"c00": 1}, "why": 5}', "'why' must be text of at most 500 characters"),
    "after": (b'{"weights": {"c00": 1}, "after": 5}', "'after' must be text: the hash of a record"),
}


@pytest.mark.parametrize(("content", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_what_cannot_be_followed_is_said_once_and_the_next_request_is(
    source, path, log, capsys, content, reason
):
    write_bytes(path, content)
    assert [source.poll(step, log) for step in range(3)] == [None] * 3
    said = capsys.readouterr().err
    assert said.count("is not followed and the weights stay: ") == 1
    assert any(part in said for part in reason.split("|"))
    assert len(said) < 600
    settle(path)
    source.poll(3, log)
    capsys.readouterr()
    B.save(path)
    assert source.poll(4, log) == WeightsUpdate(B)
    assert capsys.readouterr().err == ""


def test_every_version_of_a_bad_file_is_said(source, path, log, capsys):
    for content in (b"{", b"{{", b"{"):
        write_bytes(path, content)
        source.poll(1, log)
        source.poll(2, log)
    assert capsys.readouterr().err.count("is not followed") == 3


def make_folder(path):
    path.mkdir()


def make_pipe(path):
    os.mkfifo(path)


def make_link_to_zeros(path):
    path.symlink_to("/dev/zero")


def make_loop(path):
    path.symlink_to(path.name)


def make_link_to_memory(path):
    path.symlink_to("/proc/self/mem")


def make_secret(path):
    path.write_text('{"c00": 1}')
    path.chmod(0)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_folder, "it is not a regular file; write JSON to a file and rename it to this"),
        (make_pipe, "it is not a regular file"),
        (make_link_to_zeros, "it is not a regular file"),
        (make_loop, "Too many levels of symbolic links"),
        (make_link_to_memory, "Input/output error"),
        (make_secret, "Permission denied"),
    ],
)
def test_what_is_no_file_to_read_is_said_once_and_never_waited_for(
    source, path, log, capsys, make, reason
):
    if make is make_secret and os.geteuid() == 0:
        pytest.skip("root may read everything")
    make(path)
    assert [source.poll(step, log) for step in range(3)] == [None] * 3
    said = capsys.readouterr().err
    assert said.count("is not followed and the weights stay: ") == 1
    assert reason in said


def test_a_link_to_a_request_is_followed(source, path, log, tmp_path):
    B.save(tmp_path / "elsewhere.json")
    path.symlink_to("elsewhere.json")
    assert source.poll(1, log) == WeightsUpdate(B)


def test_what_stands_beside_the_weights_goes_no_further(source, path, log):
    write_json(
        path, {"weights": {"c02": 1, "é" * 9000: 0}, "version": 1, "about": {"é": "é" * 9000}}
    )
    assert len(json.dumps(source.poll(1, log).to_json())) < 100


def test_signs_that_would_move_the_cursor_are_not_shown(source, path, log, capsys):
    write_json(path, {"\x1b[2Jc00\n": 1})
    source.poll(1, log)
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert said.count("\n") == 1


def test_weights_for_used_up_clusters_alone_are_not_followed(source, path, log, capsys):
    log.cap(["c01"], 5, "used up")
    write_json(path, {"c01": 1})
    assert source.poll(6, log) is None
    assert "all clusters with weight have used up their epochs: c01" in capsys.readouterr().err


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["weights", "c00", "ramp", "why", "after", "version"]), inner
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_lies_there_gives_weights_that_can_be_followed_or_none(tmp_path_factory, content):
    log = WeightsLog()
    log.append(A, 0, "start")
    path = tmp_path_factory.mktemp("source") / "request.json"
    source = WeightsFile(path, check)
    source.poll(0, log)
    path.write_bytes(content)
    change = source.poll(1, log)
    if change is not None:
        log.append(change.mixture, 1, change.why, change.ramp)
        assert log.integers(1, NAMES).sum() == 1 << 40


# A function.


def test_a_function_changes_the_weights_when_it_returns_others(log):
    source = WeightsCallable(lambda step: A if step < 3 else {"c02": 1}, check)
    # At the start it returns what the log says already.
    assert [source.poll(step, log) for step in range(6)] == [
        *[None] * 3,
        WeightsUpdate(B, why="function"),
        *[None] * 2,
    ]


def test_a_function_that_returns_nothing_changes_nothing(log, capsys):
    source = WeightsCallable(lambda _: None, check)
    assert source.poll(0, log) is None
    assert capsys.readouterr().err == ""


def test_an_error_in_a_function_is_said_once_and_the_weights_stay(log, capsys):
    def broken(step):
        if step == 5:
            return B
        raise ZeroDivisionError(f"at {step}")

    source = WeightsCallable(broken, check)
    assert [source.poll(step, log) for step in range(5)] == [None] * 5
    said = capsys.readouterr().err
    assert said == (
        "at step 0 the function for weights failed and the weights stay: "
        "ZeroDivisionError('at 0')\n"
    )
    assert source.poll(5, log) == WeightsUpdate(B, why="function")
    assert source.poll(6, log) is None
    assert "at step 6" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"web": 1}, "the mixture gives weight to web, but the clusters are c00"),
        ({"c00": -1}, "the weight of cluster 'c00' is -1"),
        (5, "a mixture must be an object with the weights of clusters"),
    ],
)
def test_what_a_function_returns_is_checked(log, capsys, weights, reason):
    source = WeightsCallable(lambda _: weights, check)
    assert [source.poll(step, log) for step in range(3)] == [None] * 3
    said = capsys.readouterr().err
    assert said.count("failed") == 1
    assert reason in said


def test_a_change_refuses_what_json_cannot_mean():
    with pytest.raises(InvalidDataError, match=r"a ramp takes a whole number of .*, not True"):
        WeightsUpdate(A, True)


def test_weights_of_a_function_that_do_not_sum_to_one_are_refused_with_the_remedy(log, capsys):
    source = WeightsCallable(lambda _: {"c02": 0.4}, check)
    assert source.poll(0, log) is None
    assert "sum to 0.4, not to 1; return all of them, or Mixture.of" in capsys.readouterr().err
