"""The Ray engine runs tasks on all nodes; errors and losses are said."""

import os
import time

import pytest

from climbstream.loader.core.engines import ray as ray_engine
from climbstream.loader.core.engines.ray import RayEngine
from climbstream.loader.core.errors import ClimbError, InvalidDataError, UsageError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
]  # Ray has warnings of its own


def pid_of(_):
    time.sleep(0.2)
    return os.getpid()


def fail(task):
    if task == 3:
        raise InvalidDataError("record 3 is broken")
    return task


def die(_):
    os._exit(1)


def test_tasks_run_on_all_nodes_and_errors_are_those_of_the_task(cluster, tmp_path):
    (tmp_path / "shared").touch()
    with RayEngine(None, tmp_path / "shared") as engine:
        results = dict(engine.run(pid_of, iter(range(12))))
        assert sorted(results) == list(range(12))
        assert len(set(results.values())) >= 2
        with pytest.raises(InvalidDataError, match=r"^record 3 is broken$"):
            list(engine.run(fail, range(10)))
        with pytest.raises(
            ClimbError, match=r"lost on the Ray cluster, and 5 times again.*continues where"
        ):
            list(engine.run(die, [0]))
    with (
        RayEngine(2, tmp_path / "elsewhere") as engine,
        pytest.raises(UsageError, match=r"does not see .*elsewhere: all nodes .* must mount"),
    ):
        list(engine.run(pid_of, [1]))


def call_of(task):
    """Say which of Ray's calls this is; a task takes as many seconds as it says."""
    import ray

    time.sleep(task % 1)
    return ray.get_runtime_context().get_task_id()


def fail_late(task):
    if task == 700:
        raise InvalidDataError("record 700 is broken")
    return task


def die_late(task):
    if task == 700:
        os._exit(1)
    return task


def hang_once(task):
    """Take long the first time."""
    folder, number = task
    if number == 5 and not (folder / "begun").exists():
        (folder / "begun").touch()
        time.sleep(300)
        (folder / "ended").touch()
    return number


@pytest.fixture
def shared(tmp_path):
    (tmp_path / "shared").touch()
    return tmp_path / "shared"


def test_short_tasks_are_handed_over_many_at_a_time_and_long_ones_singly(cluster, shared):
    with RayEngine(None, shared) as engine:
        short = dict(engine.run(call_of, range(3_000)))
        assert [*sorted(short)] == [*range(3_000)]
        assert len({*short.values()}) < 200
        long = dict(engine.run(call_of, [number + 0.3 for number in range(6)]))
        assert len({*long.values()}) == 6
        # A long task among short ones holds back none that follow it.
        mixed = dict(engine.run(call_of, [n + 0.3 * (n == 500) for n in range(600)]))
        assert len(mixed) == 600
    with RayEngine(None, shared, gpus=True) as engine:
        assert len({*dict(engine.run(call_of, range(50))).values()}) == 50


def test_an_error_within_a_batch_is_that_of_its_task_and_what_came_before_is_given(cluster, shared):
    done = []
    with (
        RayEngine(None, shared) as engine,
        pytest.raises(InvalidDataError, match=r"^record 700 is broken$"),
    ):
        done.extend(task for task, _ in engine.run(fail_late, range(2_000)))
    assert done
    assert 700 not in done


def test_of_a_batch_that_is_lost_only_the_task_at_fault_has_no_result(cluster, shared):
    with RayEngine(None, shared) as engine:
        results = dict(engine.run(die_late, range(1_000), lambda _, error: str(error)))
    assert "lost on the Ray cluster" in results.pop(700)
    assert results == {task: task for task in range(1_000) if task != 700}


def test_a_task_that_takes_much_longer_than_others_is_run_a_second_time(
    cluster, shared, monkeypatch, capsys
):
    monkeypatch.setattr(ray_engine, "_SLOW", 2.0)
    monkeypatch.setattr(ray_engine, "_LOOK", 0.5)
    begun = time.monotonic()
    tasks = [(shared.parent, number) for number in range(6)]
    with RayEngine(None, shared) as engine:
        assert sorted(number for _, number in engine.run(hang_once, tasks)) == [*range(6)]
    assert time.monotonic() - begun < 100
    assert "is run a second time, because its node may be slow" in capsys.readouterr().err
    assert not (shared.parent / "ended").exists()


def gpu_of(_):
    time.sleep(0.2)
    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.fixture
def two_gpus():
    """A Ray cluster that is told to have two GPUs; none is needed."""
    import ray

    ray.init(num_cpus=4, num_gpus=2, log_to_driver=False)
    yield
    ray.shutdown()


def test_each_gpu_has_one_process_which_stays_for_its_next_task(two_gpus, shared):
    with RayEngine(None, shared) as engine:
        assert (engine.workers, engine.gpus()) == (4, 2)
        found = [found for _ in range(3) for _, found in engine.run(gpu_of, range(12), gpu=True)]
        assert {gpu for _, gpu in found} == {"0", "1"}
        processes = {pid for pid, _ in found}
        assert len(processes) < 12
        # No process is ever on two GPUs.
        assert len({*found}) == len(processes)


def test_without_gpus_a_stage_for_them_runs_on_the_cores(cluster, shared):
    with RayEngine(None, shared) as engine:
        assert engine.gpus() == 0
        assert len({*dict(engine.run(pid_of, range(12), gpu=True)).values()}) >= 2
