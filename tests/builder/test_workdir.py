"""What a build has written is no source, and what others have written is never removed."""

import json
import shutil

import pytest

from climbstream.builder import append
from climbstream.builder.corpus.sources import find_sources, survey
from climbstream.builder.pipeline import build
from climbstream.builder.settings import BuildSettings
from climbstream.builder.workdir import remove_work
from climbstream.loader.core.errors import InvalidDataError, UsageError

SETTINGS = BuildSettings(
    clusters=3,
    micro_clusters=6,
    dims=8,
    vocab_size=400,
    min_cluster_score={},
    min_document_score={},
)


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_build_into_its_source_is_the_same_the_second_time(
    make_records, write_jsonl, tmp_path, capsys
):
    source, out = tmp_path / "corpus", tmp_path / "corpus" / "shards"
    write_jsonl(source / "a.jsonl", make_records(10))
    build([str(source)], out, SETTINGS, workers=1)
    before = files(out)
    assert build([str(source)], out, SETTINGS, workers=1)
    assert files(out) == before
    assert "is built already" in capsys.readouterr().err
    write_jsonl(source / "b.jsonl", make_records(4, seed=1))
    append([str(source / "b.jsonl")], out, workers=1)
    assert [s.place for s in find_sources([str(source)])] == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize("unfinished", [False, True])
def test_a_shard_directory_in_a_source_is_left_out_by_name(built, tmp_path, unfinished):
    source = tmp_path / "corpus"
    source.mkdir()
    (source / "a.jsonl").write_text('{"text": "words"}\n')
    shards = shutil.copytree(built.directory, source / "more" / "shards")
    if unfinished:
        (shards / "manifest.json").unlink()
        (shards / ".build").mkdir()
        (shards / ".build" / "plan.json").write_text('{"builder": 1}')
    sources, others = survey([str(source)])
    assert [s.place for s in sources] == ["a.jsonl"]
    assert [(o.origin, o.reason) for o in others] == [
        ("more/shards", "a shard directory, written by climb")
    ]


@pytest.mark.parametrize("pattern", ["", "*", "**/*"])
def test_what_a_run_has_written_in_a_source_is_left_out_by_name(tmp_path, pattern):
    source = tmp_path / "corpus"
    run = source / "run"
    (run / "model").mkdir(parents=True)
    plan = {"train": 1, "shards": "", "settings": {}}
    (run / "run.json").write_text(json.dumps(plan))
    for name in ("metrics.jsonl", "weights.jsonl", "served.jsonl", "result.json", "mine.jsonl"):
        (run / name).write_text('{"text": "words"}\n')
    (run / "model" / "notes.txt").write_text("words")
    sources, others = survey([str(source / pattern)])
    assert [s.place for s in sources] == ["run/mine.jsonl"]
    reasons = {o.origin.removeprefix("run/"): o.reason for o in others}
    named = {"metrics.jsonl", "weights.jsonl", "served.jsonl", "result.json", "run.json", "model"}
    assert {reasons[name] for name in named} == {"written by climb train"}
    for name in ("metrics.jsonl", "model", "model/notes.txt"):
        with pytest.raises(UsageError, match="was written by climb train, and is not a source"):
            survey([str(run / name)])


@pytest.mark.parametrize("below", ["", "documents", "clusters/c01"])
def test_a_shard_directory_is_no_source_itself(built, below):
    with pytest.raises(
        UsageError, match="is a shard directory, written by climb, and not a source"
    ):
        survey([str(built.directory / below)])


def test_a_folder_of_work_without_a_plan_of_ours_stays(tmp_path, capsys):
    for name, plan in (("a", '{"name": "mine"}'), ("b", "no json"), ("c", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis").write_text("mine")
        if plan is not None:
            (tmp_path / name / "plan.json").write_text(plan)
    (tmp_path / "d").symlink_to("a")
    before = files(tmp_path)
    for name in "abcd":
        remove_work(tmp_path / name)
        assert f"{tmp_path / name} is not removed" in capsys.readouterr().err
    assert files(tmp_path) == before


def test_an_append_beside_a_folder_of_work_of_others_touches_nothing(built, tmp_path, write_jsonl):
    out = shutil.copytree(built.directory, tmp_path / "shards")
    (out / ".build").mkdir()
    (out / ".build" / "thesis").write_text("mine")
    before = files(out)
    source = write_jsonl(tmp_path / "more.jsonl", [{"text": "More words."}])
    with pytest.raises(InvalidDataError, match=r"holds \.build; name a new folder"):
        append([str(source)], out, workers=1)
    assert files(out) == before


@pytest.mark.parametrize("pattern", ["*/*", "**/*", "*", "*/*.*"])
def test_a_glob_reads_nothing_of_a_shard_directory(built, tmp_path, pattern):
    source = tmp_path / "corpus"
    (source / "more").mkdir(parents=True)
    (source / "more" / "a.jsonl").write_text('{"text": "words"}\n')
    shutil.copytree(built.directory, source / "shards")
    sources, others = survey([str(source / pattern), str(source / "more")])
    assert [s.place for s in sources] == ["a.jsonl"]
    assert "a shard directory, written by climb" in {o.reason for o in others}


@pytest.mark.parametrize("below", ["heldout.jsonl.zst", "**/*.zst"])
def test_a_file_of_a_shard_directory_is_no_source(built, tmp_path, below):
    (tmp_path / "link").symlink_to(built.directory)
    for folder in (built.directory, tmp_path / "link"):
        with pytest.raises(UsageError, match="is a shard directory, written by climb"):
            survey([str(folder / below)])
