"""A build from end to end: every document has one outcome, and equal inputs give equal bytes."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from climbstream.builder import pipeline
from climbstream.builder.pipeline import build
from climbstream.builder.settings import SCORES, BuildSettings
from climbstream.loader import Manifest, MixtureLoader
from climbstream.loader.core.errors import InvalidDataError, LockedError, UsageError
from climbstream.loader.core.files import lock, read_json
from climbstream.loader.formats.clusters import load_clusters
from climbstream.loader.formats.heldout import read_heldout
from climbstream.loader.formats.outputs import WORK
from climbstream.loader.tools.verify import verify_directory

SMALL = {
    "clusters": 3,
    "micro_clusters": 9,
    "dims": 8,
    "vocab_size": 400,
    "min_cluster_score": {},
    "min_document_score": {},
}


@pytest.fixture(scope="module")
def rows(built, catalogue):
    return catalogue(built.directory)


@pytest.fixture(scope="module")
def texts(built, read_documents):
    """Every text in the shards, by cluster, shard and row."""
    tokenizer = Tokenizer.from_file(str(built.directory / "tokenizer.json"))
    return {
        place: tokenizer.decode(tokens.tolist(), skip_special_tokens=False)
        for place, tokens in read_documents(built.directory).items()
    }


@pytest.fixture
def small(tmp_path, write_jsonl, make_records):
    """Two small sources."""
    records = make_records(each=10)
    return [
        str(write_jsonl(tmp_path / "in" / name, part))
        for name, part in (("a.jsonl", records[:35]), ("b.jsonl", records[35:]))
    ]


def times(directory):
    return {path: path.stat().st_mtime_ns for path in [directory, *directory.rglob("*")]}


# Every document has one outcome.


def test_the_catalogue_lists_the_documents_of_the_corpus_in_its_order(built, rows):
    assert [row["id"] for row in rows] == [record["id"] for record in built.records]
    assert [row["label"] for row in rows] == [record["label"] for record in built.records]
    sizes = [len(record["text"].encode()) for record in built.records]
    assert [row["bytes"] for row in rows] == sizes


def test_a_document_that_stays_is_found_in_its_place(built, rows, texts):
    kept = {
        (row["cluster"], row["shard"], row["row"]): i
        for i, row in enumerate(rows)
        if row["why"] is None
    }
    assert kept.keys() == texts.keys()
    for place, i in kept.items():
        assert texts[place] == built.records[i]["text"] + "<|endoftext|>"


def test_a_document_has_as_many_tokens_as_the_catalogue_says(built, rows, read_documents):
    documents = read_documents(built.directory)
    for row in rows:
        if row["why"] is None:
            assert len(documents[row["cluster"], row["shard"], row["row"]]) == row["tokens"]


def test_a_document_that_is_dropped_has_a_reason_and_no_place(rows):
    dropped = [row for row in rows if row["why"] is not None]
    assert dropped
    assert all(
        row[name] is None for row in dropped for name in ("cluster", "shard", "row", "tokens")
    )


def test_what_was_planted_is_dropped_for_its_reason(built, rows):
    why = {row["id"]: row["why"] for row in rows[360:]}
    assert Counter(why.values()) == {
        "text seen before": 5,
        "identifier seen before": 3,
        "low overall score": 4,
    }
    assert all(why[name] == "low overall score" for name in why if name.startswith("junk"))
    assert {row["why"] for row in rows[:360]} == {None, "held out"}


def test_every_stage_gives_what_it_got_but_what_it_dropped(built, rows):
    manifest = Manifest.load(built.directory)
    stages = manifest.conservation
    assert stages[0]["in"]["documents"] == len(built.records) + 2
    assert stages[0]["dropped"] == {
        "empty text": {"documents": 1},
        "not JSON": {"documents": 1},
    }
    for before, stage in zip((None, *stages), stages, strict=False):
        assert before is None or all(
            stage["in"][unit] == before["out"][unit] for unit in ("documents", "bytes")
        )
        for unit in stage["in"]:
            lost = sum(size[unit] for size in stage["dropped"].values())
            assert stage["in"][unit] == stage["out"][unit] + lost
    kept = [row for row in rows if row["why"] is None]
    assert stages[-1]["out"] == {
        "documents": len(kept),
        "bytes": sum(row["bytes"] for row in kept),
        "tokens": manifest.tokens,
    }


def test_reasons_are_counted_alike_by_the_manifest_and_the_catalogue(built, rows):
    counted = Counter()
    for stage in Manifest.load(built.directory).conservation[1:]:
        counted.update({why: size["documents"] for why, size in stage["dropped"].items()})
    assert counted == Counter(row["why"] for row in rows if row["why"] is not None)


def test_bad_records_are_listed_with_their_places(built):
    place = len(built.records)
    assert read_json(built.directory / "bad_records.json") == [
        {"origin": f"topics.jsonl:{place + 1}", "reason": "not JSON"},
        {"origin": f"topics.jsonl:{place + 2}", "reason": "empty text"},
    ]


def test_held_out_documents_are_in_no_shard_and_stand_by_themselves(built, rows, texts):
    held = list(read_heldout(built.directory))
    gone = {row["id"]: row for row in rows if row["why"] == "held out"}
    assert [document.id for document in held] == list(gone)
    assert len(held) == pytest.approx(36, abs=20)
    names = Manifest.load(built.directory).names
    given = {record["id"]: record for record in built.records[:360]}
    served = {text.removesuffix("<|endoftext|>") for text in texts.values()}
    for document in held:
        assert document.text == given[document.id]["text"]
        assert document.label == given[document.id]["label"]
        assert document.cluster in names
        assert document.text not in served


def test_every_kept_document_is_of_the_licence_that_the_manifest_names(built):
    assert Manifest.load(built.directory).license == "CC0-1.0"


def test_scores_stand_in_the_catalogue(rows):
    assert all(0 <= row[name] <= 5 for row in rows for name in SCORES)


# Clusters.


def test_topics_become_clusters_the_largest_first(built, rows):
    clusters = Counter((row["cluster"], row["label"]) for row in rows if row["why"] is None)
    assert len(clusters) == 6
    sizes = [entry.documents for entry in Manifest.load(built.directory).clusters]
    assert sizes == sorted(sizes, reverse=True)


def test_clusters_are_described_by_what_is_in_them(built, rows):
    for info in load_clusters(built.directory):
        mine = [row for row in rows if row["cluster"] == info.name]
        assert (info.documents, info.tokens, info.bytes) == (
            len(mine),
            sum(row["tokens"] for row in mine),
            sum(row["bytes"] for row in mine),
        )
        assert info.labels == Counter(row["label"] for row in mine)
        assert {row["micro"] for row in mine} <= {*info.micro}
        assert {sample["id"] for sample in info.samples} <= {row["id"] for row in mine}
        for name in SCORES:
            mean = np.mean([row[name] for row in mine])
            assert info.quality[name] == pytest.approx(mean, abs=1e-3)


def test_a_document_is_of_the_micro_cluster_whose_centroid_lies_there(built, rows):
    centroids = np.load(built.directory / "centroids.npy")
    cluster_of = read_json(built.directory / "clusters.json")["map"]["cluster"]
    names = Manifest.load(built.directory).names
    assert len(centroids) == len(cluster_of) == built.settings["micro_clusters"]
    for row in rows:
        if row["why"] is None:
            assert names[cluster_of[row["micro"]]] == row["cluster"]


# What is built is a data set.


def test_a_finished_build_is_whole(built):
    verdict = verify_directory(built.directory)
    assert verdict.faults == []
    manifest = Manifest.load(built.directory)
    assert verdict.tokens == manifest.tokens
    assert verdict.documents == sum(cluster.documents for cluster in manifest.clusters)


def test_nothing_is_left_of_the_work(built):
    names = {path.name for path in built.directory.rglob("*")}
    assert WORK not in names
    assert not [name for name in names if name.startswith(".")]


def test_a_finished_build_can_be_trained_on(built, rows, tmp_path):
    loader = MixtureLoader(built.directory, seq_len=32, batch_rows=12, cache_dir=tmp_path)
    batch = next(loader)
    assert batch["input_ids"].shape == (12, 32)
    tokenizer = Tokenizer.from_file(str(built.directory / "tokenizer.json"))
    texts = dict.fromkeys(loader.names, "")
    for row, record in zip(rows, built.records, strict=True):
        if row["why"] is None:
            texts[row["cluster"]] += record["text"] + "<|endoftext|>"
    for ids, cluster in zip(batch["input_ids"], batch["cluster_ids"].tolist(), strict=True):
        for piece in tokenizer.decode(ids.tolist(), skip_special_tokens=False).split(
            "<|endoftext|>"
        ):
            assert piece in texts[loader.names[cluster]]


def test_a_cluster_of_weight_zero_is_not_served(built, tmp_path):
    names = Manifest.load(built.directory).names
    weights = {name: float(name in names[1:3]) for name in names}
    loader = MixtureLoader(built.directory, weights, seq_len=32, batch_rows=12, cache_dir=tmp_path)
    assert set(next(loader)["cluster_ids"].tolist()) == {1, 2}


def test_ids_over_65535_are_written_with_four_bytes(tmp_path, small, read_documents):
    words = {word: 65_400 + i for i, word in enumerate("the of a and".split())}
    fill = {f"w{i}": i for i in range(65_400)} | {f"v{i}": 65_404 + i for i in range(200)}
    tokenizer = Tokenizer(models.WordLevel({**words, **fill, "?": 65_604}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    settings = BuildSettings(**SMALL, tokenizer=str(tmp_path / "tokenizer.json"), no_eos=True)
    manifest = build(small, tmp_path / "out", settings, workers=1)
    assert (manifest.dtype, manifest.vocab_size, manifest.eos_id) == ("uint32", 65_605, None)
    assert verify_directory(tmp_path / "out").faults == []
    ids = np.concatenate(list(read_documents(tmp_path / "out").values()))
    assert {65_400, 65_604} <= set(ids.tolist()) <= {*range(65_400, 65_404), 65_604}


# Equal inputs give equal bytes.


def test_the_number_of_workers_and_the_place_make_no_difference(
    tmp_path, small, all_bytes, write_jsonl, make_records
):
    settings = BuildSettings(**SMALL, holdout=0.1)
    build(small, tmp_path / "one" / "shards", settings, workers=1)
    records = make_records(each=10)
    moved = [
        str(write_jsonl(tmp_path / "moved" / "b.jsonl", records[35:])),
        str(write_jsonl(tmp_path / "moved" / "a.jsonl", records[:35])),
    ]
    build(moved, tmp_path / "many" / "shards", settings, workers=4)
    one, many = all_bytes(tmp_path / "one"), all_bytes(tmp_path / "many")
    assert {name: many.get(name) == data for name, data in one.items()} == dict.fromkeys(many, True)


def test_another_seed_gives_other_bytes(tmp_path, small):
    # So few documents fall into the same clusters by any seed; others are held out.
    fingerprints = {
        build(
            small, tmp_path / f"{seed}", BuildSettings(**SMALL, seed=seed, holdout=0.3), workers=1
        ).fingerprint
        for seed in (1, 2)
    }
    assert len(fingerprints) == 2


def test_what_is_built_already_is_left_as_it_is(built, capsys):
    before = times(built.directory)
    manifest = build([str(built.source)], built.directory, BuildSettings(**built.settings))
    assert manifest == Manifest.load(built.directory)
    assert times(built.directory) == before
    assert "is built already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"seed": 3, "vocab_size": 700},
            "--vocab-size was 600 and is 700; --seed was 17 and is 3; "
            "that changes the embedding and the centroids; all later stages change, too",
        ),
        (
            {"clusters": 5},
            "--clusters was 6 and is 5; that changes what stays and its clusters; all later stages",
        ),
        (
            {"min_document_score": {}},
            "--min-document-score overall was 0.3 and is not given; that changes what stays",
        ),
        ({"text": "body"}, "--text was 'text' and is 'body'; that changes what is read"),
        ({"vocab_size": 700}, "--vocab-size was 600 and is 700; that changes the tokens"),
    ],
    ids=repr,
)
def test_other_settings_are_refused_by_their_names(built, change, message):
    before = times(built.directory)
    settings = BuildSettings(**{**built.settings, **change})
    with pytest.raises(InvalidDataError, match=f"was begun differently: {message}"):
        build([str(built.source)], built.directory, settings)
    assert times(built.directory) == before


def test_a_build_that_was_begun_with_other_settings_is_refused_by_their_names(
    tmp_path, write_jsonl, monkeypatch
):
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "too little"}])
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "read_corpus", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build([str(source)], out, BuildSettings(**SMALL, seed=1), workers=1)
    message = f"--seed was 1 and is 2.*; to discard the unfinished work, remove {out}"
    with pytest.raises(InvalidDataError, match=message):
        build([str(source)], out, BuildSettings(**SMALL, seed=2), workers=1)


def test_a_build_that_fails_by_its_data_or_settings_lets_other_settings_follow(
    tmp_path, small, write_jsonl, all_bytes
):
    out, settings = tmp_path / "out", BuildSettings(**SMALL)
    empty = write_jsonl(tmp_path / "a.jsonl", [{"body": "no text"}])
    wrong = [
        ([str(empty)], settings, "no record has the column 'text'"),
        ([str(path) for path in small], replace(settings, licenses=["none"]), "keeps no document"),
        ([str(path) for path in small], replace(settings, languages=["zh"]), "keeps no document"),
    ]
    for sources, others, message in wrong:
        with pytest.raises(InvalidDataError, match=message):
            build(sources, out, others, workers=1)
    build([str(path) for path in small], out, settings, workers=1)
    build([str(path) for path in small], tmp_path / "fresh", settings, workers=1)
    assert all_bytes(out) == all_bytes(tmp_path / "fresh")


def test_a_build_that_read_no_document_leaves_no_folder(tmp_path, write_jsonl):
    source = write_jsonl(tmp_path / "a.jsonl", [{"body": "no text"}])
    with pytest.raises(InvalidDataError, match="no record has the column 'text'"):
        build([str(source)], tmp_path / "out", BuildSettings(**SMALL), workers=1)
    assert not (tmp_path / "out").exists()


def test_another_source_is_refused_by_its_name(built, tmp_path, write_jsonl):
    other = write_jsonl(tmp_path / "topics.jsonl", built.records)
    with pytest.raises(InvalidDataError, match=r"the source topics\.jsonl changed"):
        build([str(other)], built.directory, BuildSettings(**built.settings))
    more = write_jsonl(tmp_path / "more.jsonl", built.records)
    with pytest.raises(InvalidDataError, match=r"the source more\.jsonl is new"):
        build([str(built.source), str(more)], built.directory, BuildSettings(**built.settings))


def test_files_of_one_name_are_told_apart_when_a_build_is_repeated(tmp_path, write_jsonl, small):
    for part, path in zip(("x", "y"), small, strict=True):
        (tmp_path / part).mkdir()
        Path(path).rename(tmp_path / part / "same.jsonl")
    names = [str(tmp_path / part / "same.jsonl") for part in "xy"]
    build(names, tmp_path / "out", BuildSettings(**SMALL), workers=1)
    write_jsonl(tmp_path / "x" / "same.jsonl", [{"text": "another"}])
    with pytest.raises(InvalidDataError, match=r"the source x/same\.jsonl changed"):
        build(names, tmp_path / "out", BuildSettings(**SMALL), workers=1)


# One at a time, and nothing of others.

HOLD = """
import sys
from pathlib import Path
from climbstream.loader.core.files import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_on_the_same_directory_is_an_error(tmp_path, small):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=r"another process works on .*out"):
            build(small, tmp_path / "out", BuildSettings(**SMALL))
        process.communicate("")
        assert not (tmp_path / "out").exists()


def test_a_build_that_is_over_holds_nothing(built):
    with lock(built.directory):
        pass


@pytest.mark.parametrize("name", ["thesis.txt", ".build/mine", "clusters/c00/shard.00000.mds.zstd"])
def test_a_folder_with_files_of_others_is_refused_and_left_as_it_is(tmp_path, small, name):
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    before = times(tmp_path / "out")
    with pytest.raises(InvalidDataError, match=f"out is not empty: it holds .*{name[:6]}.*; name"):
        build(small, tmp_path / "out", BuildSettings(**SMALL))
    assert times(tmp_path / "out") == before
    assert mine.read_text() == "mine"


def test_a_build_that_was_killed_before_it_had_a_plan_goes_on(tmp_path, small):
    (tmp_path / "out" / WORK).mkdir(parents=True)
    (tmp_path / "out" / WORK / ".tmp-0123456789ab-plan.json").write_text("{")
    build(small, tmp_path / "out", BuildSettings(**SMALL), workers=1)
    assert verify_directory(tmp_path / "out").faults == []
    assert not (tmp_path / "out" / WORK).exists()


# What cannot be built.


def test_a_source_that_is_not_there_leaves_no_directory(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere\.jsonl is not a file"):
        build([str(tmp_path / "nowhere.jsonl")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("records", [[], [b"bad", {"text": "one"}]])
def test_a_corpus_without_two_documents_is_refused(tmp_path, write_jsonl, records):
    source = write_jsonl(tmp_path / "a.jsonl", records)
    with pytest.raises(InvalidDataError, match=r"hold [01] usable documents; at least 2"):
        build([str(source)], tmp_path / "out", BuildSettings(**SMALL), workers=1)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("count", [2, 3])
def test_the_smallest_corpora_can_be_built(tmp_path, write_jsonl, make_records, count):
    source = write_jsonl(tmp_path / "a.jsonl", make_records(each=1)[:count])
    manifest = build([str(source)], tmp_path / "out", BuildSettings(**SMALL), workers=1)
    assert sum(cluster.documents for cluster in manifest.clusters) == count
    assert verify_directory(tmp_path / "out").faults == []


def test_broken_and_hostile_records_never_end_a_build(tmp_path, small, shared_corpus, catalogue):
    bad = shared_corpus / "bad_records.jsonl.zst"
    # Some of the records differ by a word.
    settings = BuildSettings(
        **{**SMALL, "min_document_score": {"overall": 0.3}, "near_duplicates": None}, label="source"
    )
    build([*small, str(bad)], tmp_path / "out", settings, workers=2)
    assert verify_directory(tmp_path / "out").faults == []
    outcomes = {
        int(row["origin"].rpartition(":")[2]): row["why"]
        for row in catalogue(tmp_path / "out")
        if row["origin"].startswith("bad_records")
    }
    listed = read_json(tmp_path / "out" / "bad_records.json")
    assert len(outcomes) + len(listed) == 35
    assert outcomes[1] is None
    assert outcomes[13] == "identifier seen before"
    assert outcomes[33] == "low overall score"
    assert outcomes[32] is None


# Real text.


@pytest.mark.slow
def test_real_text_falls_into_clusters_that_agree_with_its_sources(
    tmp_path, shared_corpus, catalogue
):
    source = shared_corpus / "small" / "small.jsonl.zst"
    settings = BuildSettings(label="source", vocab_size=2000, holdout=0.05)
    manifest = build([str(source)], tmp_path / "out", settings)
    assert verify_directory(tmp_path / "out").faults == []
    assert len(manifest.clusters) == 20
    rows = catalogue(tmp_path / "out")
    assert len(rows) == 1516
    agreement = read_json(tmp_path / "out" / "clusters.json")["agreement"]
    assert agreement["purity"] > 0.6
    assert agreement["nmi"] > 0.6
    junk = [row for row in rows if row["label"].startswith("junk")]
    assert sum(row["why"] is not None for row in junk) > len(junk) / 2
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["license"]
