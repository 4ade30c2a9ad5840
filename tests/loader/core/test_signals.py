"""Signals end a command plainly: no traceback, 128 and the number of the signal."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import sys, time, types
from climbstream.loader.cli import main as cli
import click

@click.command()
@click.option("--dry-run", is_flag=True)
def command(dry_run):
    print("begun", flush=True)
    {body}

home = types.ModuleType("home")
home.command = command
sys.modules["home"] = home
cli.COMMANDS["wait"] = cli.COMMANDS["build"]._replace(place="home:command")
sys.argv = ["climb", "wait", *sys.argv[1:]]
cli.main()
"""
POOL = (
    "from climbstream.loader.core.engines.local import LocalEngine as Pool\n"
    "    with Pool(1) as p: list(p.run(time.sleep, [60]))"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("body", ["time.sleep(60)", POOL])
def test_a_signal_ends_a_command_with_its_number_and_no_traceback(number, body):
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number, said
    assert "run the same command again to continue" in said
    assert "Traceback" not in said


COMPARING = """
    import os, signal, numpy, numpy._core._internal as internal
    internal._promote_fields = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    numpy.zeros(2, [("a", "i4")]) == numpy.zeros(2, [("a", "i8")])"""


def test_a_signal_that_a_library_turns_into_an_error_of_its_own_still_ends_the_command_as_one():
    script = SCRIPT.format(body=COMPARING)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 143, done.stderr
    assert done.stderr == "\nstopped; run the same command again to continue\n"


def test_a_dry_run_that_is_stopped_promises_not_to_go_on():
    command = [sys.executable, "-c", SCRIPT.format(body="time.sleep(60)"), "--dry-run"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (
        said.strip()
        == "stopped; a dry run saves nothing, so it begins from the start if you run it again"
    )


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    script = SCRIPT.format(body="[print('x' * 80) for _ in range(100_000)]")
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" | head -1', sys.executable, script],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("begun\n", "")


IMPORTING = """
import builtins, os, signal
from climbstream.loader.cli.entry import main
real = builtins.__import__
def late(name, *rest, **options):
    if name == "click":
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *rest, **options)
builtins.__import__ = late
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_command_line_is_imported_is_no_traceback(number):
    script = IMPORTING.replace("signal.SIGINT", f"signal.{number.name}")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + number, "")


def test_nothing_slow_is_imported_before_signals_are_heard():
    # In a process without site packages: what Python imports by itself differs by installation.
    script = (
        "import sys; before = set(sys.modules); import climbstream.loader.core.lazy; "
        "print(sorted(set(sys.modules) - before))"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "_links"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], env=environment, capture_output=True, text=True
    )
    assert "typing" not in done.stdout
    assert "climbstream.loader" in done.stdout


MANY = "[print('x' * 80) for _ in range(100_000)]"
WORK = "[(click.echo('y' * 80, err=True), time.sleep(0.01)) for _ in range(50)]"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (MANY, '"$0" -c "$1" | true'),
        (f"{WORK}; open('whole', 'x')", '"$0" -c "$1" 2>&1 | head -1'),
        (f"{WORK}; open('whole', 'x')", '"$0" -c "$1" 2>&-'),
        (f"{WORK}; open('whole', 'x').write('mine')", '"$0" -c "$1" >&- 2>&-'),
    ],
)
def test_work_ends_well_though_nobody_reads_what_it_says(tmp_path, body, line):
    script = SCRIPT.format(body=body)
    done = subprocess.run(
        ["bash", "-c", f'{line}; exit "${{PIPESTATUS[0]}}"', sys.executable, script],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "whole").exists() or body is MANY
    if "mine" in body:
        # No file of ours got the number of a stream that was closed.
        assert (tmp_path / "whole").read_text() == "mine"


def test_a_second_signal_at_the_end_of_a_command_changes_nothing():
    script = SCRIPT.format(body="time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", script], stdout=-1, stderr=-1) as process:
        process.stdout.readline()
        for _ in range(20):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.01)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 143
    assert b"Traceback" not in said


@pytest.mark.parametrize(("rank", "lines"), [("0", 2), ("1", 0)])
def test_a_stop_is_said_by_rank_0_alone(rank, lines):
    body = """
    from climbstream.loader.core.signals import Stopped, StopRequest
    with StopRequest() as stop:
        print(flush=True)
        while stop.number is None:
            time.sleep(0.01)
    raise Stopped(stop.number, "stopped after step 7")"""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(body=body)],
        env={**os.environ, "RANK": rank},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for _ in range(2):
            process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert len([line for line in said.splitlines() if line]) == lines, said
