"""LocalEngine: processes for tasks; what they import, and how they end."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from climbstream.loader.core.engines import local
from climbstream.loader.core.engines.engine import ENGINES, open_engine
from climbstream.loader.core.engines.local import LocalEngine
from climbstream.loader.core.engines.task_timeout import TIMEOUT
from climbstream.loader.core.errors import ClimbError, UsageError

pytestmark = pytest.mark.slow

# Workers cannot import this file: what they run is an expression, by `eval`.
LOADED = "'colorsys' in __import__('sys').modules"
SCRIPT = """
import sys
from climbstream.loader.core.engines.local import LocalEngine as Pool
with Pool(1, preload={preload}) as pool:
    ((_, found),) = pool.run(eval, [{loaded!r}])
print(found, "colorsys" in sys.modules)
"""
"""For a process of its own: the server that preloads is there once for all pools of a process."""


def test_every_task_is_given_back_with_its_result():
    with LocalEngine(2) as pool:
        assert dict(pool.run(eval, ["1 + 1", "2 * 3", "7 // 2"])) == {
            "1 + 1": 2,
            "2 * 3": 6,
            "7 // 2": 3,
        }


class Counted:
    """Calls `eval`; counts how often it is sent to a process."""

    def __init__(self):
        self.sent = 0

    def __reduce__(self):
        self.sent += 1
        return partial, (eval,)


def test_a_function_is_packed_once_a_stage_however_many_tasks_it_has():
    function = Counted()
    with LocalEngine(2) as pool:
        assert dict(pool.run(function, ["1 + 1", "2 + 2", "3 + 3", "4 + 4"])).keys() == {
            "1 + 1",
            "2 + 2",
            "3 + 3",
            "4 + 4",
        }
    assert function.sent == 1


def test_each_stage_has_its_own_function_in_the_same_processes():
    with LocalEngine(1) as pool:
        for function in (eval, len, eval, ascii):
            assert list(pool.run(function, ["12", "345"])) == [
                (task, function(task)) for task in ("12", "345")
            ]


@pytest.mark.parametrize("preload", [(), ("colorsys",)])
def test_what_is_preloaded_is_there_in_the_workers_and_not_here(preload):
    script = SCRIPT.format(preload=preload, loaded=LOADED)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == f"{bool(preload)} False\n", done.stderr


@pytest.mark.parametrize("workers", [0, -1])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_number_of_workers_below_one_is_refused(engine, workers, tmp_path):
    with pytest.raises(UsageError, match=f"workers is {workers}; it must be 1 or more"):
        open_engine(engine, workers, tmp_path)


def test_the_first_error_ends_the_work():
    with LocalEngine(1) as pool, pytest.raises(ZeroDivisionError):
        list(pool.run(eval, ["1", "1 / 0", "2"]))


def test_a_worker_that_is_killed_is_an_error_with_a_remedy():
    with LocalEngine(1) as pool, pytest.raises(ClimbError, match="again with fewer than 1 workers"):
        list(pool.run(eval, ["__import__('os')._exit(1)"]))


def test_a_script_without_a_main_guard_is_told_of_it(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(SCRIPT.format(preload=(), loaded="1"))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert "ended before it could begin; a script has to call this under `if __name__" in last
    assert "fewer than" not in last


def test_a_folder_for_temporary_files_with_too_long_a_path_is_named(tmp_path):
    deep = tmp_path / ("long" * 30)
    deep.mkdir()
    script = (
        "from climbstream.loader.core.engines.local import LocalEngine\n"
        "if __name__ == '__main__':\n"
        "    with LocalEngine(1) as engine:\n"
        "        list(engine.run(abs, [1]))\n"
    )
    (tmp_path / "run.py").write_text(script)
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py"],
        env={**os.environ, "TMPDIR": str(deep)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"UsageError: the path {deep} is too long for the sockets" in done.stderr


def test_a_task_whose_process_is_killed_once_is_tried_again_where_it_may_fail(tmp_path, capsys):
    flag = tmp_path / "flag"
    kill = f"open({str(flag)!r}, 'x').close() or __import__('os')._exit(1) if not {exists(flag)}"
    with LocalEngine(1) as pool:
        results = dict(pool.run(eval, ["1 + 1", f"{kill} else 7"], lambda *_: None))
    assert list(results.values()) == [2, 7]
    assert (
        "was killed, most likely because memory ran out; the task is tried again"
        in capsys.readouterr().err
    )


def test_a_task_whose_process_is_killed_twice_fails_and_the_others_go_on():
    kill = "__import__('os')._exit(1)"
    with LocalEngine(1) as pool:
        results = dict(pool.run(eval, [kill, "1 + 1"], lambda _, error: str(error)))
    assert results["1 + 1"] == 2
    assert "was killed, most likely because memory ran out, for the second time;" in results[kill]


# Hung processes.

STOP = "(o := __import__('os')).kill(o.getpid(), 19)"
"""What stops the process that evaluates it."""


def stop_once(flag):
    return f"open({str(flag)!r}, 'x').close() or {STOP}" + f" if not {exists(flag)} else 7"


def exists(flag):
    return f"__import__('os').path.exists({str(flag)!r})"


def test_the_task_of_a_stopped_process_is_tried_again_in_a_fresh_one(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(TIMEOUT, "2")
    tasks = ["1 + 1", stop_once(tmp_path / "flag"), "3"]
    with LocalEngine(2) as pool:
        assert dict(pool.run(eval, tasks)) == dict(zip(tasks, [2, 7, 3], strict=True))
    said = capsys.readouterr().err
    assert "task 2, eval: " in said
    assert "used no CPU time for" in said
    assert "the task is tried again" in said


def test_a_task_that_hangs_twice_is_an_error_and_the_pool_ends(monkeypatch):
    monkeypatch.setenv(TIMEOUT, "2")
    begun = time.monotonic()
    with (
        pytest.raises(ClimbError, match=r"second time; .* --task-timeout SECONDS"),
        LocalEngine(2) as pool,
    ):
        list(pool.run(eval, [STOP]))
    assert time.monotonic() - begun < 20


def test_what_stands_for_a_hung_task_is_its_result_and_the_others_go_on(monkeypatch):
    monkeypatch.setenv(TIMEOUT, "2")
    with LocalEngine(2) as pool:
        found = dict(pool.run(eval, [STOP, "1", "2", "3"], lambda _, error: str(error)))
        assert [found[task] for task in "123"] == [1, 2, 3]
        assert "for the second time" in found[STOP]
        assert dict(pool.run(eval, ["4"])) == {"4": 4}


def test_a_task_that_computes_longer_than_the_deadline_is_left_alone(monkeypatch):
    monkeypatch.setenv(TIMEOUT, "2")
    busy = "__import__('timeit').timeit(number=1_000_000) and sum(range(300_000_000)) > 0"
    with LocalEngine(1) as pool:
        assert dict(pool.run(eval, [busy])) == {busy: True}


def test_leaving_a_pool_ends_its_stopped_processes(tmp_path):
    pid = tmp_path / "pid"
    write = f"open({str(pid)!r}, 'w').write(str(__import__('os').getpid())) and {STOP}"
    written = (
        "next(path for path in iter(lambda: __import__('time').sleep(0.01) or "
        f"__import__('pathlib').Path({str(pid)!r}), None) if path.exists() and path.read_text())"
    )
    begun = time.monotonic()
    with LocalEngine(2) as pool:
        # The other process waits for the first, or all could end before it stops.
        for task, _ in pool.run(eval, [write, written]):
            assert task == written
            break
    assert time.monotonic() - begun < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), signal.SIGCONT)


def test_a_wait_is_told_of_after_a_minute_then_after_two(monkeypatch, capsys):
    monkeypatch.setattr("climbstream.loader.core.engines.task_timeout._FIRST", 1.0)
    monkeypatch.setenv(TIMEOUT, "6")
    with LocalEngine(1) as pool, pytest.raises(ClimbError):
        list(pool.run(eval, [STOP]))
    said = capsys.readouterr().err
    assert "is ended after 6.0 s" in said
    assert "no task has ended for" in said
    assert "1 at work, the first is task 1, eval, in process" in said


def test_a_worker_whose_parent_is_ending_ends_without_a_word(capfd):
    context = multiprocessing.get_context("forkserver")
    ours, its = context.Pipe()
    worker = context.Process(target=local._work, args=(0, its))
    worker.start()
    its.close()
    ours.close()
    worker.join(30)
    assert (worker.exitcode, capfd.readouterr().err) == (0, "")


NUMBER = "(__import__('time').sleep(.2), __import__('os').getpid(), {module}._number)[1:]".format(
    module="__import__('climbstream.loader.core.engines.local', fromlist=['local'])"
)
"""Gives the id and the number of the process that runs it."""


@pytest.mark.parametrize(("gpus", "processes"), [(2, {0, 1}), (0, {0, 1, 2}), (8, {0, 1, 2})])
def test_a_stage_for_gpus_has_one_process_for_each_gpu_and_at_most_the_workers(
    monkeypatch, gpus, processes
):
    monkeypatch.setattr(local, "_gpus", lambda: gpus)
    with LocalEngine(3) as pool:
        before = [found for _, found in pool.run(eval, [NUMBER] * 6)]
        found = [found for _, found in pool.run(eval, [NUMBER] * 12, gpu=True)]
        assert {number for _, number in found} == processes
        assert {pid for pid, _ in found} <= {pid for pid, _ in before}
        assert pool.gpus() == min(gpus, 3)


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (2, "cuda:1")])
def test_the_device_of_a_process_is_the_gpu_with_its_number(monkeypatch, gpus, device):
    monkeypatch.setattr(local, "_gpus", lambda: gpus)
    monkeypatch.setattr(local, "_number", 1)
    assert local.own_device() == device
