"""Targets are held-out text or a file, in two halves that never meet."""

import json
import shutil
from collections import Counter

import pytest
import zstandard

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.formats.heldout import HELDOUT, read_heldout
from climbstream.search.evaluation.targets import choose_target, load_target

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


@pytest.fixture
def empty(shards, tmp_path):
    """A shard directory without held-out text."""
    shutil.copy(shards / "manifest.json", tmp_path)
    return tmp_path


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
    expected = f"no held-out document has {kind} 'poems'; the held-out text has {', '.join(there)}"
    with pytest.raises(UsageError) as error:
        load_target(shards, f"{kind}=poems")
    assert str(error.value) == expected


@pytest.mark.parametrize("kind", ["", "error="])
def test_a_file_behind_a_url_is_refused_with_the_remedy(shards, kind):
    with pytest.raises(UsageError, match=r"s3://bucket/task is a URL, .*; copy it to this machine"):
        load_target(shards, f"{kind}s3://bucket/task")


def test_without_held_out_text_the_remedy_is_named(empty):
    with pytest.raises(UsageError, match=r"no held-out text; build it with --holdout 0.05, or na"):
        load_target(empty, "label=sea")


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
    with pytest.raises(
        UsageError, match=r"target nowhere: there is no file nowhere; give label=NAME, cluster=NAM"
    ):
        load_target(tmp_path, "nowhere")


def test_a_label_without_its_kind_is_recognised(shards):
    with pytest.raises(UsageError, match="no file sea; did you mean label=sea, held-out text"):
        load_target(shards, "sea")


@pytest.mark.parametrize("line", ['{"title": "a"}', '{"text"', "7", '{"text": null}'])
def test_a_line_without_text_is_named(tmp_path, line):
    path = tmp_path / "texts.jsonl"
    path.write_text(f'{{"text": "a"}}\n\n{line}\n')
    with pytest.raises(InvalidDataError, match=r"texts\.jsonl, line 3, has no text"):
        load_target(tmp_path, str(path))


def test_a_line_with_other_columns_is_told_which_are_needed_and_which_there_are(tmp_path):
    path = tmp_path / "bench.jsonl"
    path.write_text('{"question": "a", "options": ["b"], "answer": 0}\n')
    message = (
        r"its columns are question, options, answer, and should be text \(for texts\), or query, "
        r"choices and gold"
    )
    with pytest.raises(InvalidDataError, match=message):
        load_target(tmp_path, str(path))


@pytest.mark.parametrize("name", ["task.json", "task.csv", "task.parquet", "task.csv.zst"])
def test_a_target_is_no_table(tmp_path, name):
    (tmp_path / name).write_text("question,answer\n\nWho?,he\n")
    with pytest.raises(UsageError, match=r"cannot be \.\w+; write its records as JSON lines"):
        load_target(tmp_path, str(tmp_path / name))


def test_a_target_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "text.txt").write_bytes("für\n\ndich".encode("latin-1"))
    with pytest.raises(InvalidDataError, match=r"text\.txt is not text in UTF-8"):
        load_target(tmp_path, str(tmp_path / "text.txt"))


@pytest.mark.parametrize(
    ("texts", "number"), [([], 0), (["a"], 1), (["a", "a"], 1), (["", "a", " "], 1)]
)
def test_a_target_needs_two_different_documents(tmp_path, write_jsonl, texts, number):
    path = write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    with pytest.raises(
        InvalidDataError, match=rf"has too few different documents, {number}; at least two"
    ):
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


def test_the_kind_of_middle_size_is_chosen(empty):
    write_heldout(empty, {"small": 100, "middle": 200, "large": 900})
    assert choose_target(empty, 0) == "label=middle"


def test_kinds_that_are_too_small_are_passed_over(empty):
    sizes = {"a": 10, "b": 20, "c": 1000, "d": 2000, "e": 3000}
    write_heldout(empty, sizes)
    assert choose_target(empty, 1500) == "label=d"
    assert choose_target(empty, 10**6) == "label=e"


def test_clusters_are_chosen_from_where_no_domain_is_known(empty):
    write_heldout(empty, {"a": 10, "b": 20, "c": 30}, label=False)
    assert choose_target(empty, 0) == "cluster=of b"


def test_nothing_is_chosen_where_nothing_is_held_out(empty):
    with pytest.raises(UsageError, match="no held-out text; build it with --holdout"):
        choose_target(empty)


# Tasks.


def write_task(path, count=10, splits=("",)):
    """Write a task of questions, with splits by turns."""
    rows = [
        {"query": f"What is {n}?", "choices": [f"{n}", "a word", f"{n + 1}"], "gold": 0}
        | ({"split": splits[n % len(splits)]} if splits[n % len(splits)] else {})
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_task_is_a_target_whose_halves_do_not_meet(tmp_path):
    target = load_target(tmp_path, str(write_task(tmp_path / "task.jsonl")))
    assert target.measure == "bits"
    assert {len(target.validation), len(target.test)} == {5}
    assert len({question.query for question in (*target.validation, *target.test)}) == 10


def test_the_errors_of_a_task_are_a_target(tmp_path):
    path = write_task(tmp_path / "task.jsonl")
    target = load_target(tmp_path, f"error={path}")
    assert (target.name, target.measure) == (f"error={path}", "error")
    assert target.fingerprint == load_target(tmp_path, str(path)).fingerprint


def test_splits_of_a_task_are_its_halves(tmp_path):
    path = write_task(tmp_path / "task.jsonl", splits=("test", "test", "validation"))
    target = load_target(tmp_path, str(path))
    assert [q.query for q in target.validation] == [f"What is {n}?" for n in (2, 5, 8)]
    assert {q.split for q in target.test} == {"test"}


def test_splits_of_which_one_is_missing_are_refused(tmp_path):
    path = write_task(tmp_path / "task.jsonl", splits=("test", "test", ""))
    expected = "by split: validation 0, test 7, without a split 3; give each"
    with pytest.raises(InvalidDataError, match=expected):
        load_target(tmp_path, str(path))


def test_a_line_that_is_no_question_is_named(tmp_path):
    path = write_task(tmp_path / "task.jsonl")
    path.write_text(path.read_text() + "{broken\n")
    with pytest.raises(InvalidDataError, match=r"task\.jsonl, line 11: query is missing"):
        load_target(tmp_path, str(path))


def test_text_has_no_errors(tmp_path):
    (tmp_path / "text.txt").write_text("one\n\ntwo")
    with pytest.raises(UsageError, match=r"text\.txt has text and no questions"):
        load_target(tmp_path, f"error={tmp_path / 'text.txt'}")


def test_a_question_with_one_choice_has_bits_and_no_error(tmp_path):
    path = tmp_path / "task.jsonl"
    rows = [{"query": f"What is {n}?", "choices": ["a word"], "gold": 0} for n in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(load_target(tmp_path, str(path)).validation) == 2
    with pytest.raises(
        UsageError, match=r"only one choice, so no answer can be wrong; give .*jsonl with"
    ):
        load_target(tmp_path, f"error={path}")


def test_the_real_tasks_are_targets(shared_corpus):
    files = sorted((shared_corpus / "tasks").glob("*.jsonl.zst"))
    assert len(files) > 10
    for file in files:
        target = load_target(shared_corpus, str(file))
        assert min(len(target.validation), len(target.test)) > 100


def test_another_answer_makes_another_target(tmp_path):
    path = write_task(tmp_path / "task.jsonl")
    before = load_target(tmp_path, str(path)).fingerprint
    path.write_text(path.read_text().replace('"gold": 0', '"gold": 1', 1))
    assert load_target(tmp_path, str(path)).fingerprint != before


@pytest.mark.parametrize(
    "line",
    ['{"text": "half \\ud800"}', '{"query": "a", "choices": ["b", "\\udfff"], "gold": 0}'],
)
def test_half_of_a_character_is_named_by_target_and_item(shards, tmp_path, line):
    (tmp_path / "task.jsonl").write_text(f"{line}\n" * 2)
    with pytest.raises(InvalidDataError, match=r"task\.jsonl: item 1 holds half of a character"):
        load_target(shards, str(tmp_path / "task.jsonl"))
