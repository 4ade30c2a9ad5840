"""Exports of so many tokens by a mixture, and of text."""

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from climbstream.builder.cluster_names import cluster_labels
from climbstream.builder.exporter import mixture as exporting
from climbstream.builder.exporter.job import ExportJob
from climbstream.builder.exporter.mixture import export_mixture
from climbstream.builder.exporter.shards import export_shards
from climbstream.loader import Mixture
from climbstream.loader.core.engines.local import LocalEngine
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.documents import documents_of
from climbstream.loader.formats.manifest import Manifest, cluster_folder, load_index


@pytest.fixture(scope="module")
def directory(built):
    return built.directory


@pytest.fixture(scope="module")
def manifest(directory):
    return Manifest.load(directory)


@pytest.fixture(scope="module")
def documents(directory, manifest):
    """Documents of each cluster, as tuples of tokens without the last."""
    found = {}
    for cluster in manifest.clusters:
        shards = load_index(directory, manifest, cluster).shards
        folder = cluster_folder(directory, cluster.name)
        parts = documents_of(folder, shards, manifest.dtype)
        found[cluster.name] = [tuple(d[:-1].tolist()) for part in parts for d in part]
    return found


def job_of(directory, out, to, *, text=False, workers=1):
    return ExportJob(shards=ShardDirectory(directory), out=out, to=to, text=text, workers=workers)


def rows_of(out):
    """Rows of all files, in order."""
    tables = sorted(out.glob("part_*.parquet"))
    if tables:
        return [row for path in tables for row in pq.read_table(path).to_pylist()]
    lines = [path.read_text().splitlines() for path in sorted(out.glob("part_*.jsonl"))]
    return [json.loads(line) for part in lines for line in part]


def by_name(rows, manifest):
    """Rows by the name of their cluster."""
    names = dict(zip(cluster_labels(manifest.names), manifest.names, strict=True))
    found = {name: [] for name in manifest.names}
    for row in rows:
        found[names[row["cluster_id"]]].append(row)
    return found


def test_without_a_mixture_every_document_is_there_once(directory, manifest, documents, tmp_path):
    taken = export_mixture(job_of(directory, tmp_path / "out", "parquet"))
    assert taken == {c.name: c.tokens for c in manifest.clusters}
    for name, rows in by_name(rows_of(tmp_path / "out"), manifest).items():
        assert Counter(tuple(row["tokens"]) for row in rows) == Counter(documents[name])


weights = st.lists(st.sampled_from([0, 1, 2, 5, 0.01]), min_size=6, max_size=6).filter(any)


@settings(max_examples=12)
@given(weights, st.integers(200, 200_000))
def test_each_cluster_has_its_share_to_within_half_a_document(
    directory, manifest, documents, tmp_path_factory, weights, tokens
):
    out = tmp_path_factory.mktemp("mixture") / "out"
    mixture = Mixture.of(dict(zip(manifest.names, weights, strict=True)))
    taken = export_mixture(job_of(directory, out, "parquet"), mixture, tokens)
    rows = by_name(rows_of(out), manifest)
    for name, weight in mixture.weights.items():
        longest = max(map(len, documents[name])) + 1
        assert abs(taken[name] - weight * tokens) <= longest / 2 + 1
        assert taken[name] == sum(row["token_count"] + 1 for row in rows[name])
        # As often as needed, and none twice as long as another was not there once.
        counts = Counter(tuple(row["tokens"]) for row in rows[name])
        there = Counter(documents[name])
        times = [counts[document] / there[document] for document in there]
        assert {*counts} <= {*there}
        assert max(times) - min(times) <= 1


def test_the_card_counts_what_was_drawn_and_not_the_shards(directory, manifest, tmp_path):
    out = tmp_path / "out"
    counts = export_mixture(job_of(str(directory), out, "jsonl"), Mixture.of({"c00": 1}), 700)
    card = (out / "README.md").read_text()
    shards = f"{manifest.tokens:,} tokens in {len(manifest.clusters)} clusters"
    assert f"{counts['c00']:,} tokens, drawn from shards with {shards}. Licences of the" in card
    assert "\n| licence | documents" not in card
    assert f"| c00 | {counts['c00']:,} | {manifest.clusters[0].tokens:,} |" in card
    assert f"| c01 | 0 | {manifest.clusters[1].tokens:,} |" in card
    assert "part_*.jsonl" in card


def test_fewer_tokens_than_are_due_are_no_secret(directory, manifest, tmp_path, capsys):
    even = Mixture.uniform(manifest.names)
    asked = len(manifest.names) + 1
    few = export_mixture(job_of(directory, tmp_path / "few", "jsonl"), even, asked)
    said = capsys.readouterr().err
    assert not any(few.values())
    assert f"0 tokens are drawn instead of {asked}: only whole documents" in said
    assert "c05. A larger --tokens makes the difference smaller" in said
    export_mixture(job_of(directory, tmp_path / "many", "jsonl"), even, 20_000)
    assert "tokens are drawn instead" not in capsys.readouterr().err


def test_documents_are_shuffled_over_all_files(directory, manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_FILE_TOKENS", 8_000)
    export_mixture(job_of(directory, tmp_path / "out", "jsonl"))
    files = sorted((tmp_path / "out").glob("part_*.jsonl"))
    assert len(files) == -(-manifest.tokens // 8_000)
    sizes = []
    for path in files:
        labels = [json.loads(line)["cluster_id"] for line in path.read_text().splitlines()]
        sizes.append(len(labels))
        assert len({*labels}) > 1
        # As many neighbours of one cluster as chance gives, not whole runs of it.
        same = np.mean([a == b for a, b in pairwise(labels)])
        assert same < 0.6
    assert min(sizes) > max(sizes) / 3


@pytest.mark.parametrize("to", ["parquet", "jsonl"])
def test_files_are_the_same_whoever_writes_them(directory, tmp_path, to):
    mixture = Mixture.of({"c00": 1, "c02": 3})
    for number, (workers, seed) in enumerate([(1, 0), (2, 0), (1, 1)]):
        out = tmp_path / str(number)
        job = job_of(directory, out, to, workers=workers)
        export_mixture(job, mixture, 9_000, seed=seed)
    one, two, other = (
        {p.name: p.read_bytes() for p in (tmp_path / n).glob("part_*")} for n in "012"
    )
    assert one == two
    assert one != other


@pytest.mark.parametrize("stage", ["choose", "spool", "shuffle"])
def test_what_was_interrupted_goes_on_to_the_same_bytes(directory, tmp_path, monkeypatch, stage):
    mixture = Mixture.of({"c00": 1, "c02": 3, "c03": 1})
    monkeypatch.setattr(exporting, "_FILE_TOKENS", 4_000)
    export_mixture(job_of(directory, tmp_path / "whole", "parquet"), mixture, 12_000)

    class Stumbling(LocalEngine):
        def run(self, function, tasks):
            for number, done in enumerate(super().run(function, tasks)):
                if function.__name__ == stage and number == 1:
                    raise KeyboardInterrupt
                yield done

    monkeypatch.setattr(exporting, "LocalEngine", Stumbling)
    with pytest.raises(KeyboardInterrupt):
        export_mixture(job_of(directory, tmp_path / "out", "parquet"), mixture, 12_000)
    assert not (tmp_path / "out" / "README.md").exists()
    monkeypatch.setattr(exporting, "LocalEngine", LocalEngine)
    export_mixture(job_of(directory, tmp_path / "out", "parquet"), mixture, 12_000)
    whole, out = (
        {
            p.relative_to(tmp_path / n).as_posix(): p.read_bytes()
            for p in (tmp_path / n).rglob("*.*")
        }
        for n in ("whole", "out")
    )
    assert whole == out


@pytest.mark.parametrize("to", ["parquet", "jsonl"])
def test_text_is_what_the_tokenizer_reads(directory, manifest, documents, tmp_path, to):
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    export_shards(str(directory), tmp_path / "out", to, text=True, workers=1)
    if to == "parquet":
        paths = sorted((tmp_path / "out").glob("*/*.parquet"))
        rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    else:
        rows = rows_of(tmp_path / "out")
    found = by_name(rows, manifest)
    for name, expected in documents.items():
        texts = [tokenizer.decode(list(document)) for document in expected]
        assert sorted(row["text"] for row in found[name]) == sorted(texts)
        assert all("tokens" not in row for row in found[name])


def test_text_comes_back_to_the_same_tokens(directory, documents, tmp_path):
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    mixture = Mixture.of({"c01": 1})
    export_mixture(job_of(directory, tmp_path / "o", "jsonl", text=True), mixture, 3_000)
    for row in rows_of(tmp_path / "o"):
        assert tuple(tokenizer.encode(row["text"]).ids) in documents["c01"]
        assert row["token_count"] == len(tokenizer.encode(row["text"]).ids)


def test_an_export_that_is_not_possible_is_refused_with_its_reason(directory, tmp_path):
    out, place = tmp_path / "out", str(directory)
    with pytest.raises(UsageError, match="cannot be written as megatron; choose one of parquet"):
        export_mixture(job_of(place, out, "megatron"), None, 10)
    with pytest.raises(UsageError, match="give the number of tokens to draw"):
        export_mixture(job_of(place, out, "jsonl"), Mixture.of({"c00": 1}))
    with pytest.raises(InvalidDataError, match="gives weight to c77"):
        export_mixture(job_of(place, out, "jsonl"), Mixture.of({"c77": 1}), 10)
    export_mixture(job_of(place, out, "jsonl"), None, 500)
    with pytest.raises(InvalidDataError, match="was begun differently"):
        export_mixture(job_of(place, out, "jsonl"), None, 600)
