"""Examples in docstrings, run by import name.

A run by path would import ``loader`` beside ``climbstream.loader``: two classes of each kind.
"""

import doctest
import importlib
import sys
from pathlib import Path

import pytest

FOLDERS = ("builder", "loader", "search")
ROOT = Path(__file__).parents[1]
BUILD = {"climbstream.builder", "climbstream.loader.loader"}
"""Their examples write shards, in processes of their own."""
MODULES = [
    ".".join(["climbstream", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(
        ".__init__"
    )
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
    if ">>>" in path.read_text()
]


@pytest.mark.parametrize(
    "module",
    [pytest.param(name, marks=pytest.mark.slow) if name in BUILD else name for name in MODULES],
)
def test_examples_give_what_they_say(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_there_are_examples():
    assert {"climbstream.loader.core.console", "climbstream.builder.clustering.kmeans"} <= {
        *MODULES
    }


def test_no_module_was_imported_by_a_generic_name():
    assert not {*FOLDERS} & {name.split(".")[0] for name in sys.modules}
