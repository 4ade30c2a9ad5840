"""Pool: processes for tasks; what they import, and how they end."""

import subprocess
import sys

import pytest

from climbstream.loader.errors import ClimbError
from climbstream.loader.pool import Pool

pytestmark = pytest.mark.slow

# Workers cannot import this file: what they run is an expression, by `eval`.
LOADED = "'colorsys' in __import__('sys').modules"
SCRIPT = """
import sys
from climbstream.loader.pool import Pool
with Pool(1, preload={preload}) as pool:
    ((_, found),) = pool.run(eval, [{loaded!r}])
print(found, "colorsys" in sys.modules)
"""
"""For a process of its own: the server that preloads is there once for all pools of a process."""


def test_every_task_is_given_back_with_its_result():
    with Pool(2) as pool:
        assert dict(pool.run(eval, ["1 + 1", "2 * 3", "7 // 2"])) == {
            "1 + 1": 2,
            "2 * 3": 6,
            "7 // 2": 3,
        }


@pytest.mark.parametrize("preload", [(), ("colorsys",)])
def test_what_is_preloaded_is_there_in_the_workers_and_not_here(preload):
    script = SCRIPT.format(preload=preload, loaded=LOADED)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == f"{bool(preload)} False\n", done.stderr


def test_the_first_error_ends_the_work():
    with Pool(1) as pool, pytest.raises(ZeroDivisionError):
        list(pool.run(eval, ["1", "1 / 0", "2"]))


def test_a_worker_that_is_killed_is_an_error_with_a_remedy():
    with Pool(1) as pool, pytest.raises(ClimbError, match="again with fewer than 1 workers"):
        list(pool.run(eval, ["__import__('os')._exit(1)"]))
