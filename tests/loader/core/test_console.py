"""Progress: how far, how fast, how long still; one line on a terminal, few in a log."""

import io

import pytest

from climbstream.loader.core import console
from climbstream.loader.core.console import Progress


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self):
        """Say that it is one."""
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told: a list of one time, in seconds."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_rate_time_elapsed_and_time_left_are_of_what_was_done_here_and_not_before(clock):
    log = io.StringIO()
    with Progress("train", 1000, "tokens", 200, stream=log) as bar:
        bar.skip(300)
        clock[0] += 20
        bar.add(100, "loss 2.5")
    assert log.getvalue().splitlines()[0] == (
        "train: 600/1000 tokens · 5/s · 20.0 s elapsed · 1 min 20 s left · loss 2.5"
    )


def test_the_rate_is_measured_from_the_last_skip_on(clock):
    log = io.StringIO()
    with Progress("train", 1000, "tokens", stream=log) as bar:
        clock[0] += 40  # the start, and the first step
        bar.skip(100)
        clock[0] += 2
        bar.add(100)
    assert log.getvalue().splitlines()[0] == (
        "train: 200/1000 tokens · 50/s · 42.0 s elapsed · 16.0 s left"
    )


def test_work_that_was_only_skipped_has_no_rate(clock):
    log = io.StringIO()
    with Progress("train", 100, "tokens", stream=log) as bar:
        clock[0] += 40
        bar.skip(100)
    assert log.getvalue() == "train: 100/100 tokens · in 40.0 s\n"


def test_slow_work_says_seconds_for_each(clock):
    log = io.StringIO()
    with Progress("search", 4, "proxies", stream=log) as bar:
        clock[0] += 30
        bar.add(1)
    assert "search: 1/4 proxies · 30.0 s each · 30.0 s elapsed · 1 min 30 s left" in log.getvalue()


def test_the_time_of_a_part_of_the_work_is_said_to_be_that_of_the_part(clock):
    log = io.StringIO()
    with Progress("search", 8, "proxies", 6, stream=log, part="round 5") as bar:
        clock[0] += 30
        bar.add(1)
        clock[0] += 30
        bar.add(1)
    assert log.getvalue().splitlines() == [
        "search: 7/8 proxies · 30.0 s each · 30.0 s elapsed in round 5 · 30.0 s left",
        "search: 8/8 proxies · 30.0 s each · round 5 in 1 min 00 s",
    ]


def test_the_time_left_includes_work_that_follows(clock):
    log = io.StringIO()
    with Progress("search", 2, "proxies", stream=log, later=6) as bar:
        clock[0] += 30
        bar.add(1)
        clock[0] += 30
        bar.add(1)
    assert log.getvalue().splitlines() == [
        "search: 1/2 proxies · 30.0 s each · 30.0 s elapsed · 3 min 30 s left, with 6 proxies that "
        "follow",
        "search: 2/2 proxies · 30.0 s each · in 1 min 00 s",
    ]


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end(clock):
    log = io.StringIO()
    with Progress("read", 240, "files", stream=log) as bar:
        for _ in range(240):
            clock[0] += 0.125
            bar.add(1)
    lines = log.getvalue().splitlines()
    assert 3 <= len(lines) <= 4
    assert lines[-1] == "read: 240/240 files · 8/s · in 30.0 s"


def test_a_log_does_not_get_the_same_line_twice(clock):
    log = io.StringIO()
    with Progress("embed", 541, "documents", stream=log) as bar:
        clock[0] += 20
        bar.add(541)
    assert log.getvalue().splitlines() == ["embed: 541/541 documents · 27.1/s · in 20.0 s"]


def test_work_that_ended_says_no_time_left_even_if_less_was_done_than_planned(clock):
    log = io.StringIO()
    with Progress("verify", 100, "tokens", stream=log) as bar:
        clock[0] += 9
        bar.add(90)
    assert log.getvalue().splitlines()[-1] == "verify: 90/100 tokens · 10/s · in 9.0 s"


def test_a_terminal_has_one_line_that_is_rewritten(clock):
    screen = Terminal()
    with Progress("read", 100, "files", stream=screen) as bar:
        for _ in range(100):
            clock[0] += 0.125
            bar.add(1)
    said = screen.getvalue()
    assert said.count("\n") == 1
    assert said.endswith("\n")
    assert said.count("\r\x1b[K") > 40


def test_work_of_unknown_size_says_how_much_is_done(clock):
    log = io.StringIO()
    with Progress("read", None, "documents", stream=log) as bar:
        clock[0] += 2
        bar.add(25_000)
    assert log.getvalue() == "read: 25k documents · 12.5k/s · in 2.0 s\n"


def test_work_that_is_broken_off_says_so(clock):
    log = io.StringIO()

    def read():
        with Progress("read", 9, "files", stream=log) as bar:
            clock[0] += 1
            bar.add(3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read()
    assert log.getvalue() == "read: 3/9 files · 3/s · 1.0 s elapsed · 2.0 s left · stopped\n"
