"""What the library says goes through logging: silenced, routed, on one rank, harmless."""

import logging
import os
import subprocess
import sys

import pytest

SPEAK = """
import logging, sys
from climbstream.loader.core.log import get_logger, show_messages
{setup}
logger = get_logger("climbstream.loader.reading.shard_cache")
logger.info("for your information")
logger.warning("a warning with \\x1b[31m an escape, 100 % of it")
"""


def stderr_of(setup="", **environment):
    script = SPEAK.format(setup=setup)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    return done.stderr


WARNING = "a warning with \\x1b[31m an escape, 100 % of it\n"


def test_a_library_user_sees_warnings_and_nothing_else():
    assert stderr_of() == WARNING


def test_the_command_shows_what_informs_too_once():
    assert stderr_of("show_messages(); show_messages()") == f"for your information\n{WARNING}"


@pytest.mark.parametrize(
    "name", ["climbstream", "climbstream.loader", "climbstream.loader.reading"]
)
def test_a_trainer_silences_all_of_it_or_a_part(name):
    assert stderr_of(f"logging.getLogger({name!r}).setLevel(logging.ERROR)") == ""


def test_a_trainer_routes_it_where_its_own_messages_go():
    setup = "logging.basicConfig(format='%(levelname)s %(name)s: %(message)s', level='INFO')"
    name = "climbstream.loader.reading.shard_cache"
    assert stderr_of(setup) == f"INFO {name}: for your information\nWARNING {name}: {WARNING}"


def test_only_the_first_rank_speaks_unless_all_are_asked_to():
    assert stderr_of(RANK="0", WORLD_SIZE="2") == WARNING
    assert stderr_of(RANK="1", WORLD_SIZE="2") == ""
    assert stderr_of(RANK="1", WORLD_SIZE="2", CLIMBSTREAM_LOG_ALL_RANKS="1") == WARNING


def test_the_rank_is_that_of_torch_where_a_group_is_at_work():
    setup = (
        "import torch.distributed as d; store = d.HashStore()\n"
        "d.init_process_group('fake', store=store, rank={}, world_size=2)"
    )
    fake = "from torch.testing._internal.distributed.fake_pg import FakeStore\n"
    assert stderr_of(fake + setup.format(1)) == ""
    assert stderr_of(fake + setup.format(0), RANK="1") == WARNING


def test_warnings_of_other_libraries_are_one_line_in_the_command(capsys):
    from climbstream.loader.core import log

    handler, logger = log._Foreign(logging.WARNING), logging.getLogger("urllib3.connection")
    logger.addHandler(handler)
    try:
        raise ValueError("inner")
    except ValueError:
        logger.warning("Failed to parse\nheaders", exc_info=True)
    finally:
        logger.removeHandler(handler)
    assert capsys.readouterr().err == "urllib3.connection: Failed to parse headers\n"


def test_every_module_that_speaks_has_its_own_name():
    from climbstream.loader.reading import shard_cache

    assert shard_cache.logger.name == "climbstream.loader.reading.shard_cache"
