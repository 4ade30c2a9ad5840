"""A task is named in a few words, however large it is."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from climbstream.loader.core.engines.task_timeout import task_name


@dataclass(frozen=True)
class Part:
    """Something with a name."""

    name: str


@dataclass(frozen=True)
class Work:
    """A task that holds a part."""

    number: int
    part: Part
    settings: str = "x" * 10_000


def tokenize(work):
    return work


def call(function, work):
    return function(work)


@pytest.mark.parametrize(
    ("function", "task", "name"),
    [
        (tokenize, Part("c03 7"), "tokenize c03 7"),
        (tokenize, Work(1, Part("00000-00012")), "tokenize 00000-00012"),
        (tokenize, (5, Work(1, Part("00000-00012"))), "tokenize 00000-00012"),
        (tokenize, Path("/data/part"), "tokenize /data/part"),
        (tokenize, "x" * 10_000, "tokenize"),
        (partial(tokenize, more=3), None, "tokenize"),
        (partial(call, partial(call, tokenize)), (0, Part("a")), "tokenize a"),
        (partial(call, function=tokenize), (0, 1), "tokenize"),
        (sum, [1, 2], "sum"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_task_is_named_by_what_it_does_and_on_what(function, task, name):
    assert task_name(function, task) == name
