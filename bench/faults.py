"""Run the tests that docs/reliability.md names for each of its promises: ``make faults``."""

import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"


class Promise(NamedTuple):
    """A row of the table in docs/reliability.md."""

    kind: str
    text: str
    tests: tuple[str, ...]
    """Names of its tests as ``file::test``, relative to ``tests/``."""


class Outcome(NamedTuple):
    """The outcome of one test, or of all tests of a promise."""

    verdict: str
    """``pass``, ``FAIL`` or ``skip``."""
    reason: str
    """Why the verdict is not ``pass``; else ""."""


def read_promises(page: Path = PAGE) -> list[Promise]:
    """Return the promises in the table of ``page``, in order."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        for line in page.read_text().splitlines()
        if line.startswith("| ")
    ]
    return [Promise(k, text, tuple(re.findall("`([^`]+)`", ids))) for k, text, ids in rows[1:]]


def collect(tests: list[str]) -> set[str]:
    """Return the names of all tests that pytest collects in the files of ``tests``.

    Parameters are removed from the names.
    """
    done = _pytest(sorted({test.partition("::")[0] for test in tests}), "--collect-only", "-q")
    return {
        line.removeprefix("tests/").partition("[")[0]
        for line in done.stdout.splitlines()
        if "::" in line
    }


def run(tests: list[str]) -> dict[str, list[Outcome]]:
    """Run ``tests``; return the outcomes of each test, one for each set of its parameters."""
    outcomes = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.xml"
        done = _pytest(
            list(dict.fromkeys(tests)),
            "-q",
            "--tb=short",
            "-nauto",
            "--dist=loadfile",
            "-ojunit_family=xunit1",
            f"--junitxml={file}",
        )
        if done.returncode:
            print(done.stdout, done.stderr)
        for case in ET.parse(file).iter("testcase"):
            test = f"{case.get('file')}::{case.get('name')}".removeprefix("tests/")
            outcomes[test.partition("[")[0]].append(_outcome(case))
    return outcomes


def judge(promise: Promise, outcomes: dict[str, list[Outcome]]) -> Outcome:
    """Return the outcome of ``promise``: the worst outcome of its tests.

    A test that did not run counts as ``FAIL``, a skipped test as ``skip``.
    """
    if missing := [test for test in promise.tests if not outcomes.get(test)]:
        return Outcome("FAIL", f"did not run: {', '.join(missing)}")
    if not promise.tests:
        return Outcome("FAIL", "it names no test")
    every = [(test, one) for test in promise.tests for one in outcomes[test]]
    for verdict in ("FAIL", "skip"):
        for test, one in every:
            if one.verdict == verdict:
                return Outcome(verdict, f"{test}: {one.reason}")
    return Outcome("pass", "")


def _outcome(case: ET.Element) -> Outcome:
    for tag, verdict in (("failure", "FAIL"), ("error", "FAIL"), ("skipped", "skip")):
        if (found := case.find(tag)) is not None:
            return Outcome(verdict, (found.get("message") or "").partition("\n")[0])
    return Outcome("pass", "")


def _pytest(tests: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", *options, *(f"tests/{test}" for test in tests)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def main() -> None:
    promises = read_promises()
    outcomes = run([test for promise in promises for test in promise.tests])
    judged = [judge(promise, outcomes) for promise in promises]
    for promise, outcome in zip(promises, judged, strict=True):
        reason = f" ({outcome.reason})" if outcome.reason else ""
        print(f"{outcome.verdict}  {promise.kind:17}  {promise.text}{reason}")
    count = [sum(o.verdict == verdict for o in judged) for verdict in ("pass", "FAIL", "skip")]
    print("\n{} passed, {} failed, {} skipped".format(*count))
    sys.exit(bool(count[1]))


if __name__ == "__main__":
    main()
