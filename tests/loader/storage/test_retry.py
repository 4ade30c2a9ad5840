"""Tests of the pauses between tries, and of what a retry must leave alone."""

import random

from climbstream.loader.storage.retry import FIRST_PAUSE, Retry


def test_each_pause_is_between_half_and_all_of_its_doubled_length():
    retry = Retry(10_000, "http://nowhere.invalid")
    for number in range(8):
        longest = min(30.0, FIRST_PAUSE * 2**number)
        assert longest / 2 <= retry.pause_after(OSError("no")) <= longest


def test_a_retry_changes_no_random_number_of_the_program():
    random.seed(7)
    expected = [random.random() for _ in range(3)]
    random.seed(7)
    retry = Retry(10_000, "http://nowhere.invalid")
    drawn = []
    for _ in range(3):
        retry.pause_after(OSError("no"))
        drawn.append(random.random())
    assert drawn == expected
