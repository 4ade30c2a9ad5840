"""Every promise of docs/reliability.md names tests that there are."""

import pytest
from bench_module import load_bench


@pytest.fixture(scope="module")
def page():
    return load_bench("faults")


def test_every_promise_names_tests_that_are_collected(page):
    promises = page.read_promises()
    assert {promise.kind for promise in promises} == {
        "crash",
        "damage",
        "disk",
        "network",
        "ranks",
        "hostile input",
        "several processes",
        "clock",
        "files of others",
        "documents",
        "threads",
    }
    tests = [test for promise in promises for test in promise.tests]
    assert all(promise.tests for promise in promises)
    assert set(tests) - page.collect(tests) == set()


def test_a_promise_fails_with_its_tests_and_where_none_ran(page):
    promise = page.Promise("crash", "It goes on.", ("a.py::one", "a.py::two"))
    passed, failed = page.Outcome("pass", ""), page.Outcome("FAIL", "it did not")
    skipped = page.Outcome("skip", "no compiler")
    verdict = {
        "pass": {"a.py::one": [passed], "a.py::two": [passed]},
        "FAIL": {"a.py::one": [skipped], "a.py::two": [passed, failed]},
        "skip": {"a.py::one": [passed], "a.py::two": [skipped]},
    }
    for wanted, outcomes in verdict.items():
        assert page.judge(promise, outcomes).verdict == wanted
    assert page.judge(promise, {"a.py::one": [passed]}) == (
        "FAIL",
        "did not run: a.py::two",
    )
    assert page.judge(promise._replace(tests=()), {}).verdict == "FAIL"
