"""The demonstration goes the whole way, and continues where it stopped."""

import json
import re
import time
from dataclasses import replace

import pytest

from climbstream.loader import Manifest
from climbstream.loader.cli.main import run
from climbstream.search.cli.demo import FOUND, SHARES, UNIFORM, _mixtures, _summary
from climbstream.search.evaluation.comparison import Comparison
from climbstream.search.optimizer.answer import BASE

TINY = (
    "--label label --budget 8 --proxy-tokens 4096 --final-tokens 8192 --seeds 2 --clusters 4"
).split()


def compared(out):
    """Names of the mixtures on which the demonstration in ``out`` trains."""
    answer = json.loads((out / "search" / "answer.json").read_text())
    return [SHARES, UNIFORM] if answer["choice"] == BASE else [FOUND, SHARES, UNIFORM]


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory, make_records, write_jsonl, climb):
    """Arguments, folder and process of a finished demonstration."""
    folder = tmp_path_factory.mktemp("demo")
    source = write_jsonl(folder / "topics.jsonl", make_records(each=80))
    arguments = ["demo", "--source", source, "--out", folder / "out", *TINY]
    return arguments, folder / "out", climb(*arguments)


@pytest.mark.parametrize(
    ("choice", "names"), [("measured", [FOUND, SHARES, UNIFORM]), (BASE, [SHARES, UNIFORM])]
)
def test_only_what_the_search_found_is_called_found(searched, shards, tmp_path, choice, names):
    answer = replace(searched[1], choice=choice)
    mixtures = _mixtures(Manifest.load(shards), answer)
    assert list(mixtures) == names
    assert mixtures[names[0]] == answer.mixture
    comparison = Comparison({name: [2.0 + n, 2.1 + n] for n, name in enumerate(names)})
    text = _summary(shards, tmp_path, "label=sea", answer, comparison)
    assert text.count("The search found no mixture that is surely better") == (choice == BASE)
    assert f"{names[0]} is better by" in text
    assert ("found 2.05" in text.lower()) == (choice != BASE)


@pytest.mark.slow
def test_the_demonstration_ends_with_a_table_and_a_verdict(demonstrated):
    _, out, done = demonstrated
    assert done.returncode == 0, done.stderr
    names = compared(out)
    for name in names:
        assert f"\n{name} " in done.stdout
    assert done.stdout.startswith(("Found ", "No sure gain: found ", "The search found no mixture"))
    assert " bits per byte against " in done.stdout
    assert str(out / "report.html") in done.stdout
    last = f"3/3 compare: {2 * len(names)} models of 8,192 tokens; mixtures: {', '.join(names)}"
    for step in ("1/3 build", "2/3 search: 8 proxies", last):
        assert step in done.stderr
        assert step not in done.stdout


@pytest.mark.slow
def test_its_report_has_every_part(demonstrated, read_page):
    _, out, _ = demonstrated
    page = read_page((out / "report.html").read_bytes())
    for part in ("The result", "The search", "The mixture", "The predictor", "The clusters"):
        assert part in page.text


@pytest.mark.slow
def test_run_again_it_is_quick_and_prints_the_same(demonstrated, capsys, monkeypatch):
    arguments, out, done = demonstrated
    monkeypatch.setenv("CLIMBSTREAM_CACHE", str(out / "cache"))
    start = time.monotonic()
    assert run([*map(str, arguments)]) == 0
    again = capsys.readouterr()
    assert again.out == done.stdout
    assert re.search(r"compare: (\d+)/\1 runs · in 0\.\d s\n$", again.err)  # none is trained anew
    assert time.monotonic() - start < 60


@pytest.mark.slow
def test_its_json_is_alone_on_stdout_and_agrees(demonstrated, climb):
    arguments, out, done = demonstrated
    value = json.loads(climb(*arguments, "--json").stdout)
    assert value["verdict"] in done.stdout
    assert value["report"] == str(out / "report.html")
    lengths = {name: len(scores) for name, scores in value["scores"].items()}
    assert lengths == dict.fromkeys(compared(out), 2)
    assert value["target"].startswith("label=")


@pytest.mark.slow
def test_other_settings_are_refused_by_name(demonstrated, capsys, monkeypatch):
    arguments, out, _ = demonstrated
    monkeypatch.setenv("CLIMBSTREAM_CACHE", str(out / "cache"))
    assert run([*map(str, arguments), "--proxy-tokens", "6144"]) == 3
    assert "--proxy-tokens was " in capsys.readouterr().err
