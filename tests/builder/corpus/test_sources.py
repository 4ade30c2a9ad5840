"""Sources: what names stand for, and what lies beside and is left out, with its reason."""

import gzip
import lzma
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from climbstream.builder.corpus.sources import find_sources, survey
from climbstream.builder.corpus.unpack import unpacked
from climbstream.loader.core.errors import UsageError

LINE = b'{"text": "a text"}\n'


def reasons(folder):
    return {bad.origin: bad.reason for bad in survey([str(folder)])[1]}


def places(*names):
    return [source.place for source in find_sources([str(name) for name in names])]


@pytest.mark.parametrize("ending", ["gz", "gzip", "zst", "zstd", "bz2", "bzip2", "xz"])
def test_a_folder_holds_files_packed_in_every_way_that_is_read(tmp_path, ending):
    (tmp_path / f"a.jsonl.{ending}").write_bytes(LINE)
    assert places(tmp_path) == [f"a.jsonl.{ending}"]


def test_a_linked_folder_is_read_and_a_loop_ends(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "b.jsonl.xz").write_bytes(lzma.compress(LINE))
    folder = tmp_path / "here"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.jsonl").write_bytes(LINE)
    (folder / "link").symlink_to(tmp_path / "there")
    (folder / "deep" / "loop").symlink_to(folder)
    (folder / "file.jsonl").symlink_to(folder / "a.jsonl")
    assert places(folder) == ["a.jsonl", "link/b.jsonl.xz"]
    assert places(f"{folder}/*") == places(f"{folder}/**") == places(folder)
    assert reasons(folder) == reasons(f"{folder}/*") == {}


def test_another_file_or_folder_changes_the_place_of_no_file(tmp_path):
    for name in ("a/x.txt", "b/deep/y.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("text")
    assert places(tmp_path) == ["a/x.txt", "b/deep/y.txt"]
    assert places(f"{tmp_path}/*/x.txt") == ["a/x.txt"]
    assert places(tmp_path / "a" / "x.txt", tmp_path / "b") == ["deep/y.txt", "x.txt"]
    (tmp_path / "b" / "x.txt").write_text("other text")
    assert places(tmp_path) == ["a/x.txt", "b/deep/y.txt", "b/x.txt"]


def test_files_of_one_name_in_folders_that_are_named_have_different_places(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.txt").write_text(folder)
    assert places(tmp_path / "one", tmp_path / "two") == ["one/x.txt", "two/x.txt"]


def test_what_lies_beside_data_is_left_out_each_with_its_reason(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINE)
    beside = {
        "._a.jsonl": "hidden",
        ".DS_Store": "hidden",
        "dataset_info.json": "no data by its name",
        "state.json": "no data by its name",
        "README.md": "of an unknown format",
        "a.jsonl.br": "packed in an unknown way",
        "_SUCCESS": "no ending that says its format",
    }
    for name in beside:
        (tmp_path / name).write_bytes(LINE)
    for folder, reason in {
        ".ipynb_checkpoints": "hidden",
        "__MACOSX": "no data by its name",
    }.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_bytes(LINE)
        beside[folder] = reason
    (tmp_path / "dead.jsonl").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.jsonl")
    beside |= {"dead.jsonl": "a link that leads nowhere", "pipe.jsonl": "no regular file"}
    assert places(tmp_path) == places(f"{tmp_path}/*") == ["a.jsonl"]
    assert reasons(tmp_path) == reasons(f"{tmp_path}/**") == beside
    # A shell does not match what is hidden.
    seen = {name: why for name, why in beside.items() if not name.startswith(".")}
    assert Counter(reasons(f"{tmp_path}/*").values()) == Counter(seen.values())


def test_a_file_that_is_named_is_read_whatever_a_folder_would_make_of_it(tmp_path):
    (tmp_path / "state.json").write_bytes(LINE)
    assert places(tmp_path / "state.json") == ["state.json"]


def test_a_folder_without_data_is_refused_with_what_lies_in_it(tmp_path):
    (tmp_path / "part-0").write_bytes(LINE)
    with pytest.raises(UsageError, match="part-0: no ending that says its format"):
        survey([str(tmp_path)])


@pytest.mark.parametrize("name", ["plain", "a.jsonl.br"])
def test_a_file_of_no_known_ending_is_refused_with_those_that_are_known(tmp_path, name):
    (tmp_path / name).write_bytes(LINE)
    with pytest.raises(UsageError, match=rf"{name} has an unknown format; a build reads .*\.xz"):
        survey([str(tmp_path / name)])


def test_a_pipe_that_is_named_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(UsageError, match="is not a regular file"):
        survey([str(tmp_path / "pipe.jsonl")])


def test_a_name_that_is_not_utf8_is_written_as_its_bytes(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.jsonl"))
    path.write_bytes(gzip.compress(LINE))
    assert places(tmp_path) == ["b\\udcff.jsonl"]


# Names.


ODD = st.text("ab:*?[]#%{}$~\\ \n-!'\"", min_size=1, max_size=20).map(str.encode)
ANY = st.binary(min_size=1, max_size=40).map(lambda name: name.translate(None, b"/\0.") or b"x")


@given(ODD | ANY)
@example(b"Data::Dump.3pm")
@example(b"hub:x")
@example(b"python:3")
@example(b"file:x")
@example(b"-x")
@example(b"\xff")
def test_a_file_of_any_name_is_read_by_its_name_and_in_its_folder(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("names") / os.fsdecode(name)
    folder.mkdir()
    file = folder / f"{folder.name}.txt"
    file.write_bytes(b"a text")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for named in (str(folder), str(file), file.name):
            (source,) = find_sources([named])
            with unpacked(source.name) as stream:
                assert stream.read() == b"a text"
