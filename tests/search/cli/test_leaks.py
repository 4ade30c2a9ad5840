"""Tests of the look for a search's own targets in its shards."""

import json
import random
import re

import pytest
import zstandard
from small_build import SMALL_BUILD

from climbstream.builder import BuildSettings, build, import_corpus
from climbstream.loader import Mixture
from climbstream.loader.cli.main import call, run
from climbstream.loader.core.errors import InvalidDataError
from climbstream.search.cli import leaks
from climbstream.search.cli.leaks import check_targets
from climbstream.search.evaluation.targets import load_target

WORDS = [f"{a}{b}" for a in "kar mol tin ses pur".split() for b in "a el ino us ard im".split()]


def words(seed, count):
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(count))


@pytest.fixture
def leaky(tmp_path, monkeypatch):
    """Shards of which one document holds the second of four questions, and the task."""
    monkeypatch.setenv("CLIMBSTREAM_CACHE", str(tmp_path / "cache"))
    questions = [words(f"question {n}", 20) for n in range(4)]
    rows = [{"text": words(n, 90), "cluster": n % 2} for n in range(12)]
    rows[5]["text"] += f"\n{questions[1].upper()}?"
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    import_corpus([str(tmp_path / "rows.jsonl")], tmp_path / "shards", workers=1)
    lines = [json.dumps({"query": q, "choices": ["yes", "no"], "gold": 0}) for q in questions]
    (tmp_path / "task.jsonl").write_text("\n".join(lines))
    (tmp_path / "clean.jsonl").write_text(f"{lines[0]}\n{lines[2]}")
    return tmp_path


def test_a_target_in_the_shards_is_told_with_its_counts(leaky, caplog):
    caplog.set_level("WARNING", logger="climbstream")
    check_targets(leaky / "shards", [str(leaky / "task.jsonl")], strict=False)
    assert "1 of its 4 items are contained in 1 document of the shards (c01 1)" in caplog.text


def test_the_part_of_wrong_answers_is_looked_for_as_its_task(leaky, caplog):
    caplog.set_level("WARNING", logger="climbstream")
    check_targets(leaky / "shards", [f"error={leaky / 'task.jsonl'}"], strict=False)
    assert "1 of its 4 items" in caplog.text


def test_a_target_that_is_not_in_the_shards_is_not_told(leaky, caplog):
    caplog.set_level("WARNING", logger="climbstream")
    check_targets(leaky / "shards", [str(leaky / "clean.jsonl")], strict=True)
    assert caplog.text == ""


def test_strict_refuses_a_target_in_the_shards(leaky):
    with pytest.raises(InvalidDataError, match=r"1 of its 4 items .* leave out --strict"):
        check_targets(leaky / "shards", [str(leaky / "task.jsonl")], strict=True)


def test_what_was_looked_for_is_not_looked_for_again(leaky, monkeypatch):
    check_targets(leaky / "shards", [str(leaky / "task.jsonl")], strict=False)
    monkeypatch.setattr(leaks, "call", lambda _: pytest.fail("it was looked for again"))
    with pytest.raises(InvalidDataError, match="1 of its 4 items"):
        check_targets(leaky / "shards", [str(leaky / "task.jsonl")], strict=True)


def test_a_target_that_was_looked_for_is_not_looked_for_again_beside_another(
    leaky, monkeypatch, caplog
):
    check_targets(leaky / "shards", [str(leaky / "task.jsonl")], strict=False)
    looked = []
    monkeypatch.setattr(leaks, "call", lambda asked: looked.append(asked) or call(asked))
    both = [str(leaky / "clean.jsonl"), str(leaky / "task.jsonl")]
    caplog.clear()
    check_targets(leaky / "shards", both, strict=False)
    (asked,) = looked
    assert sum(part.endswith(".jsonl") for part in asked) == 1
    assert f"target {leaky / 'task.jsonl'}: 1 of its 4 items" in caplog.text
    assert "clean.jsonl" not in caplog.text


def test_the_search_ends_with_3_before_a_proxy_is_trained(leaky, capsys):
    out = leaky / "search"
    arguments = ["search", leaky / "shards", "--target", leaky / "task.jsonl", "--out", out]
    more = "--preset climb --budget 4 --proxy-tokens 2048 --seq-len 64 --batch-rows 8 --strict"
    assert run([*map(str, arguments), *more.split()]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "1 of its 4 items" in captured.err
    assert not (out / "trials.jsonl").exists()


def test_the_answer_its_files_and_the_mixture_warn_of_a_target_in_the_shards(leaky, capsys):
    out = leaky / "search"
    arguments = ["search", leaky / "shards", "--target", leaky / "task.jsonl", "--out", out]
    more = "--preset climb --budget 4 --proxy-tokens 2048 --seq-len 64 --batch-rows 8"
    assert run([*map(str, arguments), *more.split()]) == 0
    leak = "1 of its 4 items are contained in 1 document of the shards (c01 1)"
    assert leak in capsys.readouterr().out
    assert leak in json.loads((out / "answer.json").read_text())["warnings"][0]
    assert leak in Mixture.load(out / "mixture.json").about["warnings"][0]
    assert leak in (out / "report.html").read_text()


def test_a_result_of_doremi_warns_of_a_target_in_the_shards(leaky, capsys):
    out = leaky / "search"
    arguments = ["search", leaky / "shards", "--target", leaky / "task.jsonl", "--out", out]
    more = "--preset doremi --proxy-tokens 6k --seq-len 64 --batch-rows 8"
    assert run([*map(str, arguments), *more.split()]) == 0
    leak = "warning: target "
    assert leak in capsys.readouterr().out
    assert run([*map(str, arguments), *more.split()]) == 0
    assert leak in capsys.readouterr().out  # the result that was kept says it too


def test_strict_and_no_look_exclude_each_other(leaky, capsys):
    arguments = ["search", leaky / "shards", "--target", leaky / "task.jsonl", "--out", leaky / "o"]
    assert run([*map(str, arguments), "--strict", "--skip-check"]) == 2
    assert "give only one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more",
    [
        "--preset doremi --proxy-tokens 2048",
        "--preset climb --proxy-tokens 2048 --budget 0",
        "--preset climb --proxy-tokens 2048 --pin c99=0.5",
        "--preset doremi --proxy-tokens 99999 --base nowhere",
    ],
)
def test_nothing_is_looked_for_before_the_settings_are_sound(leaky, monkeypatch, more):
    looked = []
    monkeypatch.setattr(leaks, "call", looked.append)
    arguments = ["search", leaky / "shards", "--target", leaky / "task.jsonl", "--out", leaky / "o"]
    assert run([*map(str, arguments), *"--seq-len 64 --batch-rows 8".split(), *more.split()]) == 2
    assert not looked


def test_held_out_text_that_stands_in_a_longer_document_can_be_left_out(
    tmp_path, monkeypatch, write_jsonl, make_records, caplog, capsys
):
    monkeypatch.setenv("CLIMBSTREAM_CACHE", str(tmp_path / "cache"))
    chapters = [
        {"id": f"chapter {n}", "text": words(f"chapter {n}", 120), "label": "chapter"}
        for n in range(20)
    ]
    book = {"id": "book", "text": "\n".join(c["text"] for c in chapters), "label": "book"}
    source = str(write_jsonl(tmp_path / "corpus.jsonl", [*make_records(each=8), *chapters, book]))
    small = {**SMALL_BUILD, "holdout": 0.4}
    shards, again = tmp_path / "shards", tmp_path / "again"
    build([source], shards, BuildSettings(**small), workers=1)
    assert "1 document of the shards contains held-out text, of " in caplog.text
    assert "(the first of these: chapter " in caplog.text
    (command,) = re.findall("`climb (contamination .*?)`", caplog.text)
    assert run(command.split()) == 0
    assert "book" in capsys.readouterr().out
    check_targets(shards, ["label=chapter"], strict=False)
    assert "items are contained in 1 document of the shards" in caplog.text
    assert (
        "copy the lines of the target from heldout.jsonl.zst, which is beside the shards, to FILE"
    ) in caplog.text
    assert str(shards) not in caplog.text.rpartition("Build new shards")[2]
    target = tmp_path / "chapters.jsonl"
    with zstandard.open(shards / "heldout.jsonl.zst", "rt", encoding="utf-8") as lines:
        target.write_text("".join(line for line in lines if '"label": "chapter"' in line))
    build([source], again, BuildSettings(**small, decontaminate=[str(target)]), workers=1)
    check_targets(again, [str(target)], strict=True)
    assert load_target(again, str(target)).validation
