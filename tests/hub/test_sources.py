"""Data sets of the Hub as sources of a build: each file is one."""

import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SCRIPT = """
import json, sys
from climbstream.builder.corpus.records import Columns, read_records
from climbstream.builder.corpus.sources import find_sources
print(json.dumps([
    [source.place, source.format, source.fingerprint, source.size,
     [value["text"] for _, value in read_records(source, ["text"], Columns())]]
    for source in find_sources(sys.argv[1:])
]))
"""
CARD = "---\nlicense: mit\n{}---\n"


@pytest.fixture
def read(environment):
    """Return a function that reads sources in a process whose Hub is the double."""

    def call(*names):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *names], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return call


@pytest.fixture
def folder(tmp_path):
    """A data set of two files for training and one for a test."""
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    for n in range(2):
        table = pa.table({"text": [f"text {n}", "more"]})
        pq.write_table(table, folder / "data" / f"train-{n:05d}-of-00002.parquet")
    pq.write_table(pa.table({"text": ["x"]}), folder / "data" / "test-00000-of-00001.parquet")
    (folder / "README.md").write_text(CARD.format(""))
    return folder


@pytest.mark.slow
def test_each_training_file_of_a_data_set_is_a_source_known_by_its_version(hub, read, folder):
    hub.upload("someone/texts", folder)
    first = read("hub:someone/texts")
    assert [(place, form, texts) for place, form, _, _, texts in first] == [
        (f"train-{n:05d}-of-00002.parquet", "parquet", [f"text {n}", "more"]) for n in range(2)
    ]
    path = folder / "data" / "train-00001-of-00002.parquet"
    assert first[1][3] == path.stat().st_size
    pq.write_table(pa.table({"text": ["text 1", "else"]}), path)
    hub.upload("someone/texts", folder)
    second = read("hub:someone/texts")
    assert second[0][2] == first[0][2]
    assert second[1][2] != first[1][2]


@pytest.mark.slow
def test_files_of_one_name_in_two_data_sets_are_told_apart_by_the_names_of_these(hub, read, folder):
    for name in ("someone/texts", "someone/others"):
        hub.upload(name, folder)
    places = [place for place, *_ in read("hub:someone/texts", "hub:someone/others")]
    assert places == [
        f"{name}/data/train-{n:05d}-of-00002.parquet"
        for name in ("others", "texts")
        for n in (0, 1)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "json within a field"])
def test_a_data_set_that_only_datasets_can_read_is_one_source(hub, read, tmp_path, kind):
    (tmp_path / "set").mkdir()
    more = ""
    if kind == "csv":
        (tmp_path / "set" / "train.csv").write_text("text\none\ntwo\n")
    else:
        (tmp_path / "set" / "train.json").write_text('{"rows": [{"text": "one"}, {"text": "two"}]}')
        more = "configs:\n- config_name: default\n  data_files: train.json\n  field: rows\n"
    (tmp_path / "set" / "README.md").write_text(CARD.format(more))
    hub.upload("someone/table", tmp_path / "set")
    ((place, form, _, size, texts),) = read("hub:someone/table")
    assert (place, form, size, texts) == ("table", "hub", None, ["one", "two"])
