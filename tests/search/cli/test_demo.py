"""The demonstration goes the whole way, and continues where it stopped."""

import json
import time

import pytest

from climbstream.loader.cli.main import run
from climbstream.search.cli.demo import FOUND, SHARES, UNIFORM

pytestmark = pytest.mark.slow

TINY = (
    "--label label --budget 8 --proxy-tokens 4096 --final-tokens 8192 --seeds 2 --clusters 4"
).split()


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory, make_records, write_jsonl, climb):
    """Arguments, folder and process of a finished demonstration."""
    folder = tmp_path_factory.mktemp("demo")
    source = write_jsonl(folder / "topics.jsonl", make_records(each=80))
    arguments = ["demo", "--source", source, "--out", folder / "out", *TINY]
    return arguments, folder / "out", climb(*arguments)


def test_the_demonstration_ends_with_a_table_and_a_verdict(demonstrated):
    _, out, done = demonstrated
    assert done.returncode == 0, done.stderr
    for name in (FOUND, SHARES, UNIFORM):
        assert f"\n{name} " in done.stdout
    assert done.stdout.startswith(("Found ", "No sure gain: found ", "No gain: found is the same "))
    assert " bits per byte against " in done.stdout
    assert str(out / "report.html") in done.stdout
    for step in ("1/3 build", "2/3 search: 8 proxies", "3/3 compare: 6 models of 8,192 tokens"):
        assert step in done.stderr
        assert step not in done.stdout


def test_its_report_has_every_part(demonstrated, read_page):
    _, out, _ = demonstrated
    page = read_page((out / "report.html").read_bytes())
    for part in ("The result", "The search", "The mixture", "The predictor", "The clusters"):
        assert part in page.text


def test_run_again_it_is_quick_and_prints_the_same(demonstrated, capsys, monkeypatch):
    arguments, out, done = demonstrated
    monkeypatch.setenv("CLIMBSTREAM_CACHE", str(out / "cache"))
    start = time.monotonic()
    assert run([*map(str, arguments)]) == 0
    again = capsys.readouterr()
    assert again.out == done.stdout
    assert "0/s" in again.err
    assert time.monotonic() - start < 60


def test_its_json_is_alone_on_stdout_and_agrees(demonstrated, climb):
    arguments, out, done = demonstrated
    value = json.loads(climb(*arguments, "--json").stdout)
    assert value["verdict"] in done.stdout
    assert value["report"] == str(out / "report.html")
    assert {name: len(scores) for name, scores in value["scores"].items()} == {
        FOUND: 2,
        SHARES: 2,
        UNIFORM: 2,
    }
    assert value["target"].startswith("label=")


def test_other_settings_are_refused_by_name(demonstrated, capsys, monkeypatch):
    arguments, out, _ = demonstrated
    monkeypatch.setenv("CLIMBSTREAM_CACHE", str(out / "cache"))
    assert run([*map(str, arguments), "--proxy-tokens", "6144"]) == 3
    assert "--proxy-tokens was " in capsys.readouterr().err
