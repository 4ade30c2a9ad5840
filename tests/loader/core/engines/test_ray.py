"""The Ray engine runs tasks on all nodes; errors and losses are said."""

import os
import time

import pytest

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
            ClimbError, match=r"lost on the Ray cluster, and 5 times again.*goes on"
        ):
            list(engine.run(die, [0]))
    with (
        RayEngine(2, tmp_path / "elsewhere") as engine,
        pytest.raises(UsageError, match=r"does not see .*elsewhere: all nodes .* must mount"),
    ):
        list(engine.run(pid_of, [1]))
