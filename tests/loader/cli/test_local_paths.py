"""A URL where only a path of this machine is possible is refused, and nothing is written."""

from pathlib import Path

import click
import pytest

from climbstream.loader import Mixture
from climbstream.loader.cli.main import COMMANDS, root, run
from climbstream.loader.cli.options import LocalPath
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.files import append_line, default_cache, lock, read_json, write_json
from climbstream.loader.weights.schedule import Schedule

URL = "s3://bucket/name"
COPY = "copy it to this machine first, and name the copy (climb pull fetches shards)"


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_for_a_path_takes_a_url(name):
    context = click.Context(root)
    for parameter in root.get_command(context, name).params:
        if isinstance(parameter.type, click.Path):
            assert isinstance(parameter.type, LocalPath), parameter.name
            with pytest.raises(click.BadParameter, match=f"{URL} is a URL, and only a path is pos"):
                parameter.type.convert(URL, parameter, context)


@pytest.mark.parametrize(
    "command",
    [
        "export shards --to jsonl --out s3://bucket/name",
        "pull owner/name s3://bucket/name",
        "regroup s3://bucket/name --by topic",
        "search shards --target label=sea --out s3://bucket/name",
        "train shards --tokens 1M --out gs://bucket/name",
        "compare one two --out https://example.org/page.html",
        "fit runs.csv --target loss --out s3://bucket/name",
        "demo --out s3://bucket/name",
        "contamination shards task.jsonl --out s3://bucket/report.json",
        "publish shards owner/name --work s3://bucket/name",
        "build a.jsonl --out s3://bucket/name --scratch s3://bucket/scratch",
    ],
)
def test_a_url_to_write_to_is_refused_before_anything_is_written(
    command, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert run(command.split()) == 2
    said = " ".join(capsys.readouterr().err.split())
    (url, *_) = [word for word in reversed(command.split()) if "://" in word]
    assert f"{url} is a URL, and only a path is possible here; " in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        "build a.jsonl --out shards --config s3://bucket/settings.json",
        "build a.jsonl --out shards --keep-ids https://example.org/ids.txt",
        "build a.jsonl --out shards --licenses s3://bucket/licenses.txt",
        "contamination shards s3://bucket/task.jsonl",
        "regroup shards --by s3://bucket/groups.json",
        "train shards --tokens 1M --out run --mixture s3://bucket/mixture.json",
        "train shards --tokens 1M --out run --schedule s3://bucket/schedule.json",
        "compare s3://bucket/one s3://bucket/two",
        "weights s3://bucket/run c00=0.5",
    ],
)
def test_a_url_of_a_local_file_is_refused_with_the_remedy(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(command.split()) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f" is a URL, and only a path is possible here; {COPY}" in said
    assert list(tmp_path.iterdir()) == []


def test_functions_refuse_a_url_that_was_made_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIMBSTREAM_CACHE", URL)
    for refused in (
        lambda: lock(Path(URL)).__enter__(),
        lambda: write_json(Path(URL), {}),
        lambda: append_line(Path(URL), {}),
        lambda: read_json(Path(URL)),
        lambda: Mixture.load(URL),
        lambda: Mixture.load(Path(URL)),
        lambda: Mixture.of({"c00": 1}).save(URL),
        lambda: Schedule.load(URL),
        default_cache,
    ):
        with pytest.raises(UsageError, match=rf"^{URL} is a URL, and only a path is possible "):
            refused()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_name_looks_like_a_scheme_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "s3:" / "value.json", 1)
    assert read_json(tmp_path / "s3:" / "value.json") == 1
