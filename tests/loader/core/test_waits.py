"""A wait is told of after a minute, and ends by a deadline; the process hears signals meanwhile."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from climbstream.loader.core.errors import RemoteError
from climbstream.loader.core.waits import SlowStepWatch, wait_for


@pytest.fixture
def at_once(monkeypatch):
    """Tell of waits after 1 s."""
    monkeypatch.setattr("climbstream.loader.core.engines.task_timeout._FIRST", 1.0)


def test_a_wait_is_told_of_and_given_up(at_once, capsys):
    never = threading.Event()
    begun = time.monotonic()
    with pytest.raises(RemoteError, match=r"waited 3\.0 s for the Hub to answer; run the same"):
        wait_for(never.wait, "the Hub to answer", 3.0)
    assert time.monotonic() - begun < 10
    said = capsys.readouterr().err
    assert "waiting for the Hub to answer, for 1." in said
    assert "the wait ends with an error after 3.0 s (--task-timeout)" in said
    never.set()


def test_a_wait_returns_or_raises_what_the_call_does(capsys):
    assert wait_for(lambda: 7, "seven", 60) == 7
    with pytest.raises(ZeroDivisionError):
        wait_for(lambda: 1 // 0, "nothing", 60)
    assert capsys.readouterr().err == ""


def test_a_signal_ends_a_wait_that_no_other_would():
    script = (
        "import threading\n"
        "from climbstream.loader.core.signals import unwind_on_signals\n"
        "from climbstream.loader.core.waits import wait_for\n"
        "unwind_on_signals()\n"
        "print('begun', flush=True)\n"
        "wait_for(threading.Event().wait, 'ever', 600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=-1, stderr=-1) as process:
        process.stdout.readline()
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    assert b"Stopped" in said


def test_a_slow_step_is_told_of_and_a_quick_one_is_not(at_once, capsys):
    with SlowStepWatch("it waits for a disk") as watch:
        for step in range(20):
            watch.begin(f"step {step}")
            time.sleep(0.02)
        assert capsys.readouterr().err == ""
        watch.begin("step 20")
        time.sleep(4)
    said = capsys.readouterr().err
    assert "step 20 has taken" in said
    assert "maybe it waits for a disk" in said
    assert "step 1 " not in said
