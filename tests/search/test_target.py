"""Targets are held-out text or a file, in two halves that never meet."""

import json
from collections import Counter

import pytest
import zstandard

from climbstream.loader.errors import InvalidDataError, UsageError
from climbstream.loader.heldout import HELDOUT, read_heldout
from climbstream.search.target import choose_target, load_target

TEXTS = [f"document {number} " * (1 + number % 5) for number in range(40)]


def write_heldout(directory, sizes, *, label=True):
    """Leave held-out documents of so many bytes by kind in a directory."""
    rows = [
        {"id": f"{name}{i}", "text": "x" * size, "label": name * label, "cluster": f"of {name}"}
        for name, size in sizes.items()
        for i in range(2)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (directory / HELDOUT).write_bytes(zstandard.compress(lines.encode()))
    return directory


@pytest.fixture(params=["txt", "txt.zst", "jsonl", "jsonl.zst"])
def file(request, tmp_path):
    """A file of each kind that holds the texts."""
    path = tmp_path / f"texts.{request.param}"
    data = "\n\n".join(TEXTS)
    if "jsonl" in request.param:
        data = "\n".join(json.dumps({"text": text, "more": 1}) for text in TEXTS) + "\n\n"
    packed = zstandard.compress(data.encode())
    path.write_bytes(packed if path.suffix == ".zst" else data.encode())
    return path


# Held-out text.


@pytest.mark.parametrize("kind", ["label", "cluster"])
def test_a_kind_of_the_held_out_text_is_a_target(shards, kind):
    documents = list(read_heldout(shards))
    name, _ = Counter(getattr(d, kind) for d in documents).most_common(1)[0]
    target = load_target(shards, f"{kind}={name}")
    expected = {d.text for d in documents if getattr(d, kind) == name}
    assert {*target.validation, *target.test} == expected
    assert target.name == f"{kind}={name}"


@pytest.mark.parametrize("kind", ["label", "cluster"])
def test_a_kind_that_is_not_there_is_told_those_that_are(shards, kind):
    there = sorted({getattr(d, kind) for d in read_heldout(shards)})
    expected = f"no held-out document has {kind} 'poems'; there are {', '.join(there)}"
    with pytest.raises(UsageError) as error:
        load_target(shards, f"{kind}=poems")
    assert str(error.value) == expected


def test_without_held_out_text_the_remedy_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"no held-out text; build it with --holdout 0.05, or na"):
        load_target(tmp_path, "label=sea")


# Files.


def test_a_file_is_a_target(shards, file):
    target = load_target(shards, str(file))
    assert {text.strip() for text in (*target.validation, *target.test)} == {
        text.strip() for text in TEXTS
    }


def test_a_file_of_several_frames_is_read_whole(tmp_path):
    path = tmp_path / "texts.txt.zst"
    path.write_bytes(zstandard.compress(b"one\n\n") + zstandard.compress(b"two"))
    target = load_target(tmp_path, str(path))
    assert {*target.validation, *target.test} == {"one", "two"}


def test_a_file_that_is_not_there_is_told_what_a_target_is(tmp_path):
    with pytest.raises(UsageError, match="target nowhere: say label=NAME, cluster=NAME or the nam"):
        load_target(tmp_path, "nowhere")


@pytest.mark.parametrize("line", ['{"title": "a"}', '{"text"', "7", '{"text": null}'])
def test_a_line_without_text_is_named(tmp_path, line):
    path = tmp_path / "texts.jsonl"
    path.write_text(f'{{"text": "a"}}\n\n{line}\n')
    with pytest.raises(InvalidDataError, match=r"texts\.jsonl, line 3, holds no text"):
        load_target(tmp_path, str(path))


@pytest.mark.parametrize(
    ("texts", "number"), [([], 0), (["a"], 1), (["a", "a"], 1), (["", "a", " "], 1)]
)
def test_a_target_needs_two_different_documents(tmp_path, write_jsonl, texts, number):
    path = write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    with pytest.raises(InvalidDataError, match=rf"has {number} different documents; two are need"):
        load_target(tmp_path, str(path))


# Halves.


def test_halves_never_meet_and_are_everything(shards, file):
    target = load_target(shards, str(file))
    assert not {*target.validation} & {*target.test}
    assert len(target.validation) + len(target.test) == len(TEXTS)


def test_halves_do_not_depend_on_the_order_of_the_documents(tmp_path, write_jsonl):
    halves = []
    for texts in (TEXTS, TEXTS[::-1], TEXTS + TEXTS[:7]):
        path = write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
        target = load_target(tmp_path, str(path))
        halves.append((target.validation, target.test))
    assert halves[0] == halves[1] == halves[2]


def test_a_long_document_does_not_empty_the_other_half(tmp_path, write_jsonl):
    texts = ["x" * 1000, *(f"{i} " * 50 for i in range(10))]
    path = write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    target = load_target(tmp_path, str(path))
    sizes = [sum(map(len, half)) for half in (target.validation, target.test)]
    assert min(sizes) > 300


# Choice.


def test_the_kind_of_middle_size_is_chosen(tmp_path):
    write_heldout(tmp_path, {"small": 100, "middle": 200, "large": 900})
    assert choose_target(tmp_path, 0) == "label=middle"


def test_kinds_that_are_too_small_are_passed_over(tmp_path):
    sizes = {"a": 10, "b": 20, "c": 1000, "d": 2000, "e": 3000}
    write_heldout(tmp_path, sizes)
    assert choose_target(tmp_path, 1500) == "label=d"
    assert choose_target(tmp_path, 10**6) == "label=e"


def test_clusters_are_chosen_from_where_no_domain_is_known(tmp_path):
    write_heldout(tmp_path, {"a": 10, "b": 20, "c": 30}, label=False)
    assert choose_target(tmp_path, 0) == "cluster=of b"


def test_nothing_is_chosen_where_nothing_is_held_out(tmp_path):
    with pytest.raises(UsageError, match="no held-out text; build it with --holdout"):
        choose_target(tmp_path)
