"""Tests of `climb contamination`: shards in, a report of the test questions in them out."""

import json
import random
from pathlib import Path

import pytest
from climb_command import run_climb

from climbstream.builder import ImportSettings, import_corpus
from climbstream.builder.contamination import shards as shards_module
from climbstream.builder.contamination.shards import check_shards, report_text
from climbstream.builder.contamination.tasks import read_tasks
from climbstream.loader.core.errors import UsageError

WORDS = [f"{a}{b}" for a in "kar mol tin ses pur".split() for b in "a el ino us ard im".split()]


def question(seed: int) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(24)).capitalize() + "?"


def text(seed: int) -> str:
    rng = random.Random(f"text {seed}")
    return " ".join(rng.choice(WORDS) for _ in range(80))


@pytest.fixture(scope="module")
def leaky(tmp_path_factory) -> Path:
    """Shards of two clusters; documents 3 and 12 hold question 0, document 12 with its answer."""
    folder = tmp_path_factory.mktemp("leaky")
    rows = [{"id": f"d{n}", "text": text(n), "cluster": n % 2} for n in range(20)]
    rows[3]["text"] += "\n" + question(0).upper()
    rows[12]["text"] = f"{question(0)}\nAnswer: forty two sheep\n{rows[12]['text']}"
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    import_corpus([str(folder / "rows.jsonl")], folder / "shards", workers=1)
    items = [
        {"id": f"q{n}", "query": question(n), "choices": ["none", "forty two sheep"], "gold": 1}
        for n in range(4)
    ]
    (folder / "task.jsonl").write_text("\n".join(map(json.dumps, items)))
    (folder / "clean.txt").write_text(f"{question(7)}\n\n{question(8)}\n")
    return folder


def test_a_report_says_which_items_stand_where_and_how_much_of_each(leaky):
    tasks = [str(leaky / "task.jsonl"), str(leaky / "clean.txt")]
    report = check_shards(leaky / "shards", read_tasks(tasks))
    leak, clean = report["tasks"]
    assert report["documents"] == 20
    assert report["contaminated"]["documents"] == 2
    assert (leak["items"], leak["found"], leak["with_answer"], leak["documents"]) == (4, 1, 1, 2)
    assert leak["clusters"] == {"c00": 1, "c01": 1}
    (match,) = leak["matches"]
    assert match["item"] == "q0"
    assert match["share"] == 1
    assert match["documents"] == 2
    assert {place["cluster"] for place in match["places"]} == {"c00", "c01"}
    assert all(
        place["text"].lower().startswith(question(0)[:30].lower()) for place in match["places"]
    )
    assert (clean["items"], clean["found"], clean["documents"], clean["matches"]) == (2, 0, 0, [])
    assert (
        leak["tokens"]
        == report["contaminated"]["tokens"]
        == sum(place["tokens"] for place in match["places"])
    )
    said = report_text(report)
    assert "2 of 20 documents contain an item" in said
    assert "task.jsonl, q0: 100%, with its answer in" in said


def test_processes_find_what_one_process_finds(leaky, monkeypatch):
    tasks = read_tasks([str(leaky / "task.jsonl")])
    alone = check_shards(leaky / "shards", tasks)
    monkeypatch.setattr(shards_module, "_LITTLE", 0)
    assert check_shards(leaky / "shards", tasks, workers=2) == alone


def test_of_an_item_in_many_documents_the_first_are_named_and_all_counted(leaky, monkeypatch):
    monkeypatch.setattr(shards_module, "_PLACES", 1)
    report = check_shards(leaky / "shards", read_tasks([str(leaky / "task.jsonl")]))
    (match,) = report["tasks"][0]["matches"]
    assert match["documents"] == 2
    assert [place["cluster"] for place in match["places"]] == ["c00"]


def test_the_command_writes_the_report_as_json_to_stdout_and_to_a_file(leaky, tmp_path):
    out = tmp_path / "report.json"
    result = run_climb(
        "contamination", leaky / "shards", leaky / "task.jsonl", "--json", "--out", out
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == json.loads(out.read_text())
    assert json.loads(result.stdout)["tasks"][0]["found"] == 1


def test_shards_without_a_tokenizer_have_no_text_to_look_in(leaky, tmp_path):
    rows = [{"tokens": [1, 2, 3], "cluster": 0}, {"tokens": [4, 5, 6], "cluster": 1}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = ImportSettings(vocab_size=300, eos_id=0)
    import_corpus([str(tmp_path / "rows.jsonl")], tmp_path / "shards", settings, workers=1)
    with pytest.raises(UsageError, match=r"has no tokenizer\.json"):
        check_shards(tmp_path / "shards", read_tasks([str(leaky / "task.jsonl")]))


def test_a_label_that_is_not_held_out_is_named_with_those_that_are(leaky):
    with pytest.raises(
        UsageError, match=r"no held-out document has label 'law'; the held-out text has none"
    ):
        read_tasks(["label=law"], leaky / "shards")
