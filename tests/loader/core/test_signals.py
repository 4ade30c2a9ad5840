"""Signals end a command plainly: no traceback, 128 and the number of the signal."""

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import sys, time, types
from climbstream.loader.cli import main as cli
import click

@click.command()
def command():
    print("begun", flush=True)
    {body}

home = types.ModuleType("home")
home.command = command
sys.modules["home"] = home
cli.COMMANDS["wait"] = cli.COMMANDS["build"]._replace(place="home:command")
sys.argv = ["climb", "wait"]
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
    assert "run the same command again to go on" in said
    assert "Traceback" not in said


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


def test_ctrl_c_while_the_command_line_is_imported_is_no_traceback():
    done = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")
