"""What a corpus brings of its own: scores, vectors, and columns to keep."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from climbstream.builder import append
from climbstream.builder.corpus.document import ExtraColumns, take_given
from climbstream.builder.features.quality import score_documents
from climbstream.builder.pipeline import build
from climbstream.builder.settings import CATALOGUE, SCORES, BuildSettings
from climbstream.builder.writers.catalogue import _SCHEMA
from climbstream.loader import Manifest
from climbstream.loader.cli.main import run
from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import read_json
from climbstream.loader.tools.verify import verify_directory

pytestmark = pytest.mark.usefixtures("engines")

AXES = np.eye(3, 4)
SETTINGS = BuildSettings(
    clusters=3,
    micro_clusters=3,
    vocab_size=400,
    embed="column:vector",
    scores={"overall": "column:worth"},
    keep=["url", "when"],
    near_duplicates=None,
    min_cluster_score={},
    min_document_score={"overall": 2.0},
)


@pytest.fixture(scope="module")
def records(make_records):
    """Records whose vectors say another grouping than their words do."""
    drawn = np.random.default_rng(3)
    found = []
    for number, record in enumerate(make_records(each=20)):
        vector = 7 * AXES[number % 3] + drawn.normal(0, 0.1, 4)
        extra = {"vector": vector.tolist(), "worth": number % 5, "url": f"https://x/{number}"}
        found.append({**record, **extra, "when": {"year": 2000 + number}, "id": f"d{number}"})
    del found[7]["url"]
    return found


@pytest.fixture(scope="module")
def given_corpus(tmp_path_factory, records, write_jsonl):
    folder = tmp_path_factory.mktemp("given")
    build([str(write_jsonl(folder / "a.jsonl", records[:90]))], folder / "out", SETTINGS)
    append([str(write_jsonl(folder / "b.jsonl", records[90:]))], folder / "out")
    return folder / "out"


def test_vectors_of_the_corpus_decide_its_clusters(given_corpus, catalogue):
    groups = {}
    for row in catalogue(given_corpus):
        if row["why"] is None:
            groups.setdefault(int(row["id"][1:]) % 3, set()).add(row["cluster"])
    assert [len(found) for found in groups.values()] == [1, 1, 1]
    assert set().union(*groups.values()) == {"c00", "c01", "c02"}


def test_a_score_of_the_corpus_prunes_and_the_others_are_counted(given_corpus, catalogue, records):
    texts = {record["id"]: record["text"] for record in records}
    for row in catalogue(given_corpus):
        worth = int(row["id"][1:]) % 5
        assert row["overall"] == worth
        assert (row["why"] == "low overall score") == (worth < 2)
        counted = score_documents([texts[row["id"]]], [row["language"]])[0]
        assert [row[name] for name in SCORES[1:]] == pytest.approx(counted[1:].tolist())


def test_columns_are_kept_for_all_documents_also_those_appended(given_corpus, catalogue, records):
    rows = catalogue(given_corpus)
    assert [row["url"] for row in rows] == [record.get("url") for record in records]
    assert [json.loads(row["when"]) for row in rows] == [record["when"] for record in records]
    assert verify_directory(given_corpus).faults == []


def test_the_command_builds_and_appends_the_same(
    given_corpus, tmp_path, write_jsonl, records, all_bytes
):
    config, out = tmp_path / "settings.json", tmp_path / "out"
    names = ("vocab_size", "near_duplicates", "min_cluster_score", "min_document_score")
    config.write_text(json.dumps({name: getattr(SETTINGS, name) for name in names}))
    first, second = (
        write_jsonl(tmp_path / f"{name}.jsonl", part)
        for name, part in (("a", records[:90]), ("b", records[90:]))
    )
    asked = f"build {first} --out {out} --config {config} --clusters 3 --micro-clusters 3"
    asked += " --embed column:vector --score overall=column:worth --keep url,when"
    assert run(asked.split()) == 0
    assert run(["build", str(second), "--out", str(out), "--append"]) == 0
    assert Manifest.load(out).fingerprint == Manifest.load(given_corpus).fingerprint
    ours, theirs = (
        {name: data for name, data in all_bytes(folder).items() if name.startswith("documents/")}
        for folder in (out, given_corpus)
    )
    assert ours == theirs


def test_vectors_of_another_length_cannot_be_appended(given_corpus, tmp_path, write_jsonl, records):
    other = [{**records[0], "id": "other", "text": "new words", "vector": [1.0, 2.0]}]
    with pytest.raises(
        InvalidDataError, match="has vectors of 2 numbers, and the centroids have 4"
    ):
        append([str(write_jsonl(tmp_path / "c.jsonl", other))], given_corpus)


def test_files_with_vectors_of_two_lengths_cannot_be_built(tmp_path, write_jsonl, records):
    short = [{**record, "id": f"s{i}", "vector": [1, i]} for i, record in enumerate(records[:4])]
    sources = [
        str(write_jsonl(tmp_path / f"{name}.jsonl", part))
        for name, part in (("a", records[:4]), ("b", short))
    ]
    with pytest.raises(InvalidDataError, match=r"b.jsonl:1 has vectors of 2 numbers, a"):
        build(sources, tmp_path / "out", SETTINGS)


def test_a_record_without_what_was_asked_for_is_counted(tmp_path, write_jsonl, records):
    bad = [
        {**records[0], "vector": [1, 2, 3]},
        {**records[0], "vector": "none"},
        {**records[0], "vector": [1, None, 3, 4]},
        {**records[0], "worth": True},
        {**records[0], "worth": None},
    ]
    source = write_jsonl(tmp_path / "a.jsonl", [*records[1:40], *bad])
    manifest = build([str(source)], tmp_path / "out", SETTINGS)
    assert {why: n["documents"] for why, n in manifest.conservation[0]["dropped"].items()} == {
        "3 numbers in vector, not 4": 1,
        "vector is not a list of numbers": 2,
        "worth is not a number": 2,
    }


def test_text_of_packages_has_no_columns(tmp_path):
    with pytest.raises(InvalidDataError, match="python:1 has no column worth, url, when, vector"):
        build(["python:1"], tmp_path / "out", SETTINGS)


def test_what_is_kept_is_text_or_json():
    record = {"a": "one", "b": [1, "zwei"], "d": "\ud800"}
    found = take_given(record, BuildSettings(keep=["a", "b", "c", "d"]))
    assert found == ExtraColumns(kept=("one", '[1, "zwei"]', None, "?"))


def test_columns_of_the_catalogue_cannot_be_kept():
    assert list(CATALOGUE) == _SCHEMA.names
    for keep in (["url", "id"], ["url", "url"]):
        with pytest.raises(
            InvalidDataError, match=f"keep cannot add {keep[1]}; name each column once"
        ):
            BuildSettings(keep=keep)


def test_models_and_columns_are_checked_as_settings():
    with pytest.raises(InvalidDataError, match="there is no score beauty"):
        BuildSettings(scores={"beauty": "column:x"})
    with pytest.raises(InvalidDataError, match="keep is 'url'; it must be of type"):
        BuildSettings(keep="url")
    with pytest.raises(InvalidDataError, match=r"scores is \{'overall': 3\}; it must be of type"):
        BuildSettings(scores={"overall": 3})


def test_the_kmeans_of_vectors_is_told(given_corpus):
    kmeans = read_json(given_corpus / "clusters.json")["kmeans"]
    assert (kmeans["centroids"], kmeans["empty"]) == (3, 0)
    assert kmeans["objective"] > 0.99
    assert pq.read_schema(given_corpus / "documents/part-00000.parquet").names[-2:] == SETTINGS.keep
