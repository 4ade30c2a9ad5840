"""in_threads: many waits at once, and an error ends what has not begun."""

import threading
import time

import pytest

from climbstream.loader.core.threads import in_threads


def test_results_come_as_they_end_and_none_is_missing():
    first = threading.Event()

    def function(number):
        return number if number else first.wait(60)

    results = in_threads(function, range(5), 2)
    assert sorted(next(results) for _ in range(4)) == [1, 2, 3, 4]
    first.set()
    assert list(results) == [True]


def test_an_error_is_raised_and_what_has_not_begun_never_begins():
    begun = []

    def function(number):
        begun.append(number)
        if number:
            time.sleep(0.05)
        else:
            raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        list(in_threads(function, range(1000), 1))
    assert len(begun) < 1000
