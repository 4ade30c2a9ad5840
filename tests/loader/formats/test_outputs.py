"""A folder is known by what lies in it, and no command works in that of another."""

import json

import pytest

from climbstream.loader import Manifest
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.formats.outputs import COMPARE, DOREMI, FIT, SEARCH, TRAIN, writer_of
from climbstream.loader.weights.request import open_weights_log

RUNS = [SEARCH, DOREMI, TRAIN, COMPARE, FIT]


def plan_of(run):
    return dict.fromkeys(sorted(run.keys), 1)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.command)
def test_a_shard_directory_is_no_place_for_a_run(tmp_path, run):
    marks = {
        "manifest.json": {"fingerprint": "", "clusters": []},
        "pull.json": {"pull": 1, "shards": ""},
        ".build/plan.json": {"builder": 1},
    }
    for number, (name, content) in enumerate(marks.items()):
        out = tmp_path / str(number)
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text(json.dumps(content))
        with pytest.raises(InvalidDataError, match="is a shard directory; name a new folder"):
            run.begin(out, plan_of(run))
        assert len([path for path in out.rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.command)
@pytest.mark.parametrize("other", RUNS, ids=lambda run: run.command)
def test_a_folder_belongs_to_one_command(tmp_path, run, other):
    assert not other.begin(tmp_path, plan_of(other))
    if run is other:
        assert run.begin(tmp_path, plan_of(run))
        return
    with pytest.raises(InvalidDataError, match=f"is the folder of {other.command}; name a new"):
        run.begin(tmp_path, plan_of(run))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.command)
def test_what_a_run_writes_is_told_from_files_of_others(tmp_path, run):
    mine = tmp_path / "texts.jsonl"
    mine.write_text("{}")
    run.begin(tmp_path, plan_of(run))
    for name in (run.plan, *run.leaves, *run.more):
        assert writer_of(tmp_path / name) == run.command
        assert writer_of(tmp_path / name / "part.json") == run.command
    assert writer_of(mine) == ""
    assert writer_of(tmp_path / "corpus" / "model" / "a.txt") == ""


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.command)
def test_a_folder_of_another_command_is_named_where_shards_are_expected(tmp_path, run):
    run.begin(tmp_path, plan_of(run))
    said = f"{tmp_path} is not a shard directory, but the folder of {run.command}"
    with pytest.raises(InvalidDataError) as error:
        Manifest.load(tmp_path)
    assert str(error.value).startswith(said)
    assert "climb build` again" not in str(error.value)


def test_a_folder_of_a_search_is_named_where_a_run_is_expected(tmp_path):
    SEARCH.begin(tmp_path, plan_of(SEARCH))
    with pytest.raises(UsageError, match="is not a run, but the folder of climb search; read its"):
        open_weights_log(tmp_path)
