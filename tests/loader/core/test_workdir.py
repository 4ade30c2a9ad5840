"""A folder that a command fills: nothing in it is removed or overwritten before it is ours."""

import json

import pytest

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import atomic_path, is_temporary, remove_temporaries
from climbstream.loader.core.workdir import begin_or_resume, differences_text

TEMPORARY = ".tmp-0123456789ab-result.json"
PLAN = {"train": 1, "seed": 7}


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def others(tmp_path):
    """A folder of somebody's, with files that look like ours and files that do not."""
    folder = tmp_path / "theirs"
    (folder / "thesis").mkdir(parents=True)
    for name in (".tmp-notes", TEMPORARY, f"thesis/{TEMPORARY}", "thesis/.tmp-draft"):
        (folder / name).write_text("mine")
    return folder


@pytest.mark.parametrize("leaves", [None, (".tmp-notes",)])
def test_a_folder_of_others_stays_as_it_is(others, leaves):
    before = contents(others)
    with pytest.raises(InvalidDataError, match=r"holds .*\.tmp-notes.*; name a new folder"):
        begin_or_resume(others, "run.json", PLAN, leaves=leaves, folders=("*",))
    assert contents(others) == before


def test_beginning_in_a_folder_that_others_use_too_removes_nothing(others):
    before = contents(others)
    assert not begin_or_resume(others, "run.json", PLAN, leaves=("model",), folders=("*",))
    assert contents(others).items() >= before.items()


def test_another_plan_removes_nothing(others):
    (others / "run.json").write_text(json.dumps({"train": 1, "seed": 8}))
    before = contents(others)
    with pytest.raises(InvalidDataError, match="seed was 8 and is 7"):
        begin_or_resume(others, "run.json", PLAN, folders=("*",))
    assert contents(others) == before


def test_settings_that_differ_are_named_by_the_options_that_set_them():
    old = {"settings": {"proxy": {"tokens": 1, "seq_len": 64}, "pinned": {}, "eos_id": None}}
    new = {"settings": {"proxy": {"tokens": 2, "seq_len": 32}, "pinned": {"c1": 0.5}, "eos_id": 0}}
    assert differences_text(old, new).split("; ") == [
        "--proxy-tokens was 1 and is 2",
        "--seq-len was 64 and is 32",
        "--pin c1 was not given and is 0.5",
        "--eos-id was not given and is 0",
    ]
    assert differences_text({"max_epochs": 6.0}, {}) == "--max-epochs was 6.0 and is not given"
    assert differences_text(old, old) == ""


def test_contents_that_differ_are_named_without_their_hashes():
    old = {"shards": "a" * 32, "settings": {"target": {"law.txt": "b" * 32}}}
    new = {"shards": "c" * 32, "settings": {"target": {"sea.txt": "d" * 32}}}
    assert differences_text(old, new).split("; ") == [
        "the contents of shards differ",
        "--target sea.txt was not given",
        "--target law.txt is not given now",
    ]


def test_lists_of_names_are_compared_as_a_whole():
    old = {"settings": {"keep_ids": [], "languages": ["*"], "targets": [{"a": 1}]}}
    names = [f"{n}.txt" for n in range(461)]
    new = {"settings": {"keep_ids": names, "languages": ["de", "fr"], "targets": [{"a": 2}]}}
    assert differences_text(old, new).split("; ") == [
        "--keep-ids was not given and is a list of 461",
        "--languages was ['*'] and is ['de', 'fr']",
        "--targets 0.a was 1 and is 2",
    ]


def test_going_on_removes_our_temporary_files_in_the_folders_that_are_named(others):
    (others / "run.json").write_text(json.dumps(PLAN))
    assert begin_or_resume(others, "run.json", PLAN)
    assert sorted(contents(others)) == [
        ".tmp-notes",
        "run.json",
        f"thesis/{TEMPORARY}",
        "thesis/.tmp-draft",
    ]
    assert begin_or_resume(others, "run.json", PLAN, folders=("thesis",))
    assert sorted(contents(others)) == [".tmp-notes", "run.json", "thesis/.tmp-draft"]


def test_a_temporary_name_that_is_a_link_or_a_folder_stays(tmp_path):
    (tmp_path / "letter").write_text("mine")
    (tmp_path / TEMPORARY).symlink_to("letter")
    (tmp_path / f"{TEMPORARY}.d").mkdir()
    remove_temporaries(tmp_path)
    assert (tmp_path / TEMPORARY).is_symlink()
    assert (tmp_path / f"{TEMPORARY}.d").is_dir()


def test_what_a_link_leads_to_is_not_looked_into(others, tmp_path):
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "model").symlink_to(others)
    before = contents(others)
    remove_temporaries(ours, "model", "model/*")
    assert contents(others) == before


def test_a_start_that_was_killed_at_its_plan_is_no_folder_of_others(tmp_path):
    for folder in (tmp_path, tmp_path / ".build"):
        folder.mkdir(exist_ok=True)
        (folder / ".tmp-0123456789ab-plan.json").write_text("{")
    assert not begin_or_resume(tmp_path, ".build/plan.json", PLAN)
    assert [*contents(tmp_path / ".build")] == ["plan.json"]


def test_a_temporary_file_is_known_by_its_name_and_by_the_name_it_will_have(tmp_path):
    with atomic_path(tmp_path / "a\nb") as path:
        path.write_text("cut")
        assert is_temporary(path)
        assert is_temporary(path, "a\nb")
        assert not is_temporary(path, "b")


def test_options_that_differ_beyond_the_first_are_named():
    old = {"settings": {f"{name}_size": 1 for name in "abcdefg"}}
    new = {"settings": {f"{name}_size": 2 for name in "abcdefg"}}
    assert differences_text(old, new).endswith(
        "--e-size was 1 and is 2; and 2 more differences, also in --f-size, --g-size"
    )


def test_differences_beyond_the_first_are_counted_and_sources_need_no_hash():
    old = {"settings": {"seed": 1}, "sources": {f"{i}.txt": str(i) for i in range(9)}}
    new = {"settings": {"seed": 2}, "sources": {"0.txt": "x", "new.txt": "y"}}
    assert differences_text(old, new) == (
        "--seed was 1 and is 2; the source 0.txt changed; the source new.txt is new; the source "
        "1.txt is missing; the source 2.txt is missing; and 6 more differences"
    )
