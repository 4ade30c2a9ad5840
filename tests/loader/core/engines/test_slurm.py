"""The SLURM engine runs tasks in jobs that share only files; a lost job costs its tasks alone."""

import os
import signal
import subprocess
import sys
import time

import pytest
from fake_slurm import FakeSlurm

from climbstream.loader.core.engines import slurm
from climbstream.loader.core.engines.slurm import PRINT, SlurmEngine
from climbstream.loader.core.engines.task_folder import Facts, Heartbeat, TaskFolder, Work
from climbstream.loader.core.engines.versions import versions_here
from climbstream.loader.core.errors import ClimbError, UsageError

pytestmark = pytest.mark.slow

# Jobs cannot import this file: what they run is an expression, by `eval`.
PID = "__import__('os').getpid()"
KILL_JOB = "__import__('os').kill(0, 9)"
"""Kills all processes of the job that evaluates it."""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A cluster whose jobs are noticed to be lost soon."""
    fake = FakeSlurm(tmp_path / "cluster")
    for name, value in fake.environment().items():
        monkeypatch.setenv(name, value)
    for name, value in (("_BEAT", 0.2), ("_LOST", 5.0), ("_LOOK", 0.2), ("_ORPHAN", 30.0)):
        monkeypatch.setattr(slurm, name, value)
    yield fake
    fake.end()


@pytest.fixture
def shared(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def wait_until(true, seconds=60):
    last = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < last, "it did not happen"
        time.sleep(0.02)


def exists(path):
    return f"__import__('os').path.exists({str(path)!r})"


def folder_at(path, versions):
    folder = TaskFolder(path)
    folder.create(
        Facts(name="a", versions=versions, environment={}, preload=[], beat=1, patience=60)
    )
    return folder


def first_time(path, what):
    """An expression that does ``what`` the first time, and then is 7."""
    return f"7 if {exists(path)} else (open({str(path)!r}, 'x').close(), {what})"


def test_tasks_run_in_jobs_that_stay_for_all_stages_and_end_with_the_engine(cluster, shared):
    slow = f"__import__('time').sleep(0.3) or {PID}"
    with SlurmEngine(2, shared) as engine:
        assert engine.workers == 2
        first = [pid for _, pid in engine.run(eval, [slow] * 12)]
        numbers = [f"{n} * 2" for n in range(3_000)]
        found = dict(engine.run(eval, numbers))
        assert [found[task] for task in numbers] == [2 * n for n in range(3_000)]
        again = [pid for _, pid in engine.run(eval, [slow] * 12)]
        assert len({*first}) == 2
        assert {*again} == {*first}
    assert cluster.submitted() == 2
    assert cluster.running() == {}
    assert not (shared / "slurm").exists()


def test_the_first_error_is_that_of_its_task_and_ends_the_work(cluster, shared):
    tasks = [str(n) for n in range(300)] + ["1 / 0"]
    with SlurmEngine(2, shared) as engine, pytest.raises(ZeroDivisionError):
        list(engine.run(eval, tasks))
    assert cluster.running() == {}


def test_the_task_of_a_killed_job_goes_to_another_job(cluster, shared, tmp_path, capsys):
    tasks = [*(str(n) for n in range(5)), first_time(tmp_path / "flag", KILL_JOB)]
    with SlurmEngine(2, shared) as engine:
        found = dict(engine.run(eval, tasks))
    assert [found[task] for task in tasks] == [0, 1, 2, 3, 4, 7]
    assert "was lost; its work goes to another job" in capsys.readouterr().err


def test_the_task_of_a_job_that_gives_no_sign_of_life_goes_to_another_job(
    cluster, shared, tmp_path
):
    with SlurmEngine(2, shared) as engine:
        task = first_time(tmp_path / "flag", "__import__('os').kill(0, 19)")
        assert dict(engine.run(eval, [task])) == {task: 7}


def test_a_task_whose_jobs_are_lost_six_times_fails_alone(cluster, shared, monkeypatch):
    monkeypatch.setattr(slurm, "_RETRIES", 1)
    tasks = [*(str(n) for n in range(40)), KILL_JOB]
    with SlurmEngine(2, shared) as engine:
        found = dict(engine.run(eval, tasks, lambda _, error: str(error)))
        assert [found[str(n)] for n in range(40)] == [*range(40)]
        assert "its job was lost, and 1 times again, most likely because memory" in found[KILL_JOB]
        with pytest.raises(
            ClimbError, match="give the jobs more memory, such as SBATCH_MEM_PER_CPU"
        ):
            list(engine.run(eval, [KILL_JOB]))


def test_a_task_whose_process_is_killed_ends_no_job(cluster, shared):
    kill = "__import__('os')._exit(1)"
    with SlurmEngine(1, shared) as engine:
        found = dict(engine.run(eval, [kill, "1 + 1"], lambda _, error: str(error)))
    assert found["1 + 1"] == 2
    assert "for the second time; give the jobs more memory" in found[kill]
    assert cluster.submitted() == 1


def test_jobs_that_all_end_are_submitted_again(cluster, shared, tmp_path):
    with SlurmEngine(2, shared) as engine:
        results = engine.run(eval, [f"__import__('time').sleep(0.2) or {n}" for n in range(30)])
        found = [next(results)[1]]
        cluster.end()
        found += [result for _, result in results]
    assert sorted(found) == [*range(30)]
    assert cluster.submitted() > 2


# What cannot work is said in one line.


def test_the_number_of_jobs_must_be_given(shared):
    with pytest.raises(UsageError, match="--engine slurm needs --workers N"):
        SlurmEngine(None, shared)


def test_without_sbatch_the_remedy_is_named(shared, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with (
        pytest.raises(UsageError, match=r"command sbatch, which is not on the PATH.*--slurm-print"),
        SlurmEngine(1, shared),
    ):
        pass


def test_what_sbatch_says_is_told(cluster, shared):
    (cluster.commands / "sbatch").write_text(
        "#!/bin/sh\necho 'error: no such partition' >&2; false\n"
    )
    with (
        pytest.raises(UsageError, match=r"refuses 3 jobs: error: no such partition; .*SBATCH_PART"),
        SlurmEngine(3, shared) as engine,
    ):
        list(engine.run(eval, ["1"]))


def test_jobs_that_do_not_see_the_folder_are_told_of(cluster, shared, monkeypatch):
    script = cluster.commands / "sbatch"
    script.write_text(
        script.read_text().replace("exec", "sed -i 's|[^ ]*/slurm$|/elsewhere/slurm|' \"$2\"; exec")
    )
    with (
        pytest.raises(
            ClimbError,
            match=r"none took a task: .* does not see /elsewhere/slurm.*must see .*slurm",
        ),
        SlurmEngine(2, shared) as engine,
    ):
        list(engine.run(eval, ["1"]))
    assert [*(shared / "slurm").iterdir()] == [shared / "slurm" / "logs"]


def test_a_job_with_other_versions_refuses_to_work(cluster, shared, monkeypatch):
    theirs = {**slurm.versions_here(), "numpy": "1.0"}
    monkeypatch.setattr(slurm, "versions_here", lambda: theirs)
    with (
        pytest.raises(UsageError, match=r"has other versions: numpy 1\.0 and .*same versions on"),
        SlurmEngine(1, shared) as engine,
    ):
        list(engine.run(eval, ["1"]))
    assert cluster.running() == {}


def test_a_script_is_printed_for_the_user_to_submit(cluster, shared, monkeypatch, caplog):
    caplog.set_level("INFO")
    environment = {**os.environ}
    monkeypatch.setenv(PRINT, "1")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with SlurmEngine(2, shared) as engine:
        results = engine.run(eval, ["1"])
        script = shared / "slurm" / "job.sh"
        submit = [str(cluster.commands / "sbatch"), script]
        starter = subprocess.Popen(
            ["sh", "-c", 'while ! [ -e "$1" ]; do sleep .1; done; "$0" "$1"', *submit],
            env=environment,
        )
        assert dict(results) == {"1": 1}
        starter.wait()
    assert f"submit this script: sbatch {script}\n\n#!/bin/bash\n" in caplog.text
    wait_until(lambda: not cluster.running())


# The command that fills the folder.

SCRIPT = """
import sys
from pathlib import Path
from climbstream.loader.core.engines import slurm
from climbstream.loader.core.signals import unwind_on_signals
slurm._ORPHAN = float(sys.argv[2])
if __name__ == "__main__":
    unwind_on_signals()
    with slurm.SlurmEngine(2, Path(sys.argv[1])) as engine:
        print(*sorted(result for _, result in engine.run(eval, sys.argv[3:])))
"""


def command(shared, *tasks, patience=600):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, shared, str(patience), *tasks],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_interrupted_command_leaves_no_jobs(cluster, shared, tmp_path):
    waits = f"open({str(tmp_path / 'begun')!r}, 'w').close() or __import__('time').sleep(300)"
    with command(shared, waits, waits) as process:
        wait_until((tmp_path / "begun").exists)
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert cluster.running() == {}
    assert cluster.submitted() == 2
    assert not (shared / "slurm").exists()


def test_a_killed_command_goes_on_with_its_jobs(cluster, shared, tmp_path):
    flag = tmp_path / "go"
    waits = (
        f"open({str(tmp_path / 'begun')!r}, 'w').close() or "
        f"next(3 for _ in iter(lambda: __import__('time').sleep(.05), 0) if {exists(flag)})"
    )
    tasks = [waits, *(str(n) for n in range(2))]
    with command(shared, *tasks) as process:
        wait_until((tmp_path / "begun").exists)
        process.kill()
        process.communicate()
    assert len(cluster.running()) == 2
    flag.touch()
    with command(shared, *tasks) as process:
        output, errors = process.communicate()
    assert (output, cluster.submitted()) == ("0 1 3\n", 2), errors
    assert cluster.running() == {}


def test_jobs_of_a_killed_command_end_if_none_follows(cluster, shared, tmp_path):
    begun = f"open({str(tmp_path / 'begun')!r}, 'w').close() or __import__('time').sleep(.2)"
    with command(shared, begun, "__import__('time').sleep(3)", patience=1) as process:
        wait_until((tmp_path / "begun").exists)
        process.kill()
        process.communicate()
    wait_until(lambda: not cluster.running())


def test_jobs_that_wait_with_other_settings_are_replaced(cluster, shared, tmp_path, monkeypatch):
    begun = f"open({str(tmp_path / 'begun')!r}, 'w').close() or __import__('time').sleep(300)"
    with command(shared, begun) as process:
        wait_until((tmp_path / "begun").exists)
        process.kill()
        process.communicate()
    before = set(cluster.running())
    monkeypatch.setenv("CLIMBSTREAM_TASK_TIMEOUT", "77")
    told = "__import__('os').environ['CLIMBSTREAM_TASK_TIMEOUT']"
    with SlurmEngine(1, shared) as engine:
        assert dict(engine.run(eval, [told])) == {told: "77"}
        assert not before & set(cluster.running())


# A job that gets SIGTERM while a library runs; the library raises TypeError, as NumPy may do.
DISTURBED = """
import signal
from climbstream.loader.core.engines import slurm_worker
class Engine(slurm_worker.LocalEngine):
    def run(self, *_):
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            raise TypeError("the comparison failed") from None
slurm_worker.LocalEngine = Engine
slurm_worker.main()
"""


def test_a_signal_that_a_library_turns_into_an_error_is_no_error_of_the_task(tmp_path):
    folder = folder_at(tmp_path / "slurm", versions_here())
    folder.add("0", Work.of("one", eval, ["1"]))
    with Heartbeat(folder.driver, 0.2):
        command = [sys.executable, "-c", DISTURBED, folder.path]
        job = subprocess.run(command, capture_output=True, timeout=60)
    assert job.returncode == 128 + signal.SIGTERM, job.stderr
    assert not list(folder.answers())
    assert folder.take("another job") is not None


def test_nobody_else_may_write_tasks(tmp_path):
    folder = folder_at(tmp_path / "slurm", {})
    assert folder.path.stat().st_mode & 0o077 == 0
