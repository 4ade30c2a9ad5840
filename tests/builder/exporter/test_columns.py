"""Columns of the catalogue in an export: each row has those of its document."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from climbstream.builder.cli.exchange import export as command
from climbstream.builder.exporter import shards as export
from climbstream.builder.exporter.shards import export_shards
from climbstream.builder.importer.pipeline import import_corpus
from climbstream.loader import Manifest
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import hash_file

NAMES = ("id", "exact_copies", "near_copies", "source_count", "overall", "text_hash")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch, serial):
    """Start no processes, which takes seconds."""
    monkeypatch.setattr(export, "LocalEngine", lambda *_: serial)
    monkeypatch.setattr(export, "_MOST_FILES", 3)


@pytest.fixture(scope="module")
def stored(cut_finely, catalogue):
    """Rows of the catalogue for documents in shards, by cluster, in the order of the shards."""
    rows = [row for row in catalogue(cut_finely) if row["cluster"]]
    rows.sort(key=lambda row: (row["cluster"], row["shard"], row["row"]))
    return {
        name: [row for row in rows if row["cluster"] == name]
        for name in Manifest.load(cut_finely).names
    }


def test_each_row_of_a_table_has_the_columns_of_its_document(cut_finely, stored, tmp_path):
    export_shards(cut_finely, tmp_path / "out", "parquet", columns=NAMES)
    for k, rows in enumerate(stored.values()):
        files = sorted((tmp_path / "out" / f"cluster_{k}").glob("*.parquet"))
        tables = [pq.read_table(path) for path in files]
        assert tables[0].schema.names == ["tokens", "token_count", "cluster_id", *NAMES]
        found = [row for table in tables for row in table.to_pylist()]
        assert [[row[n] for n in NAMES] for row in found] == [[r[n] for n in NAMES] for r in rows]
        assert [row["token_count"] + 1 for row in found] == [row["tokens"] for row in rows]


def test_each_line_has_the_columns_of_its_document(cut_finely, stored, tmp_path):
    export_shards(cut_finely, tmp_path / "out", "jsonl", text=True, columns=NAMES)
    lines = [
        json.loads(line)
        for path in sorted((tmp_path / "out").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    for k, rows in enumerate(stored.values()):
        ours = [line for line in lines if line["cluster_id"] == k]
        assert [line["id"] for line in ours] == [row["id"] for row in rows]
        assert [line["text_hash"] for line in ours] == [row["text_hash"].hex() for row in rows]


def test_shards_come_back_from_tables_with_columns(cut_finely, tmp_path):
    export_shards(cut_finely, tmp_path / "out", "parquet", columns=NAMES)
    manifest = import_corpus([str(tmp_path / "out")], tmp_path / "back", workers=1)
    clusters = [
        [(cluster.name, cluster.documents, cluster.tokens) for cluster in found.clusters]
        for found in (manifest, Manifest.load(cut_finely))
    ]
    assert clusters[0] == clusters[1]


def test_columns_that_rows_cannot_have_are_refused(cut_finely, tmp_path):
    with pytest.raises(UsageError, match=r"has no column page; it has id, cluster, why, copy_of"):
        export_shards(cut_finely, tmp_path / "a", "parquet", columns=["id", "page"])
    assert not (tmp_path / "a").exists()
    with pytest.raises(UsageError, match="--columns cannot add tokens; name each column once"):
        export_shards(cut_finely, tmp_path / "b", "jsonl", columns=["tokens"])
    with pytest.raises(UsageError, match="--to megatron has no columns; export columns to parquet"):
        export_shards(cut_finely, tmp_path / "c", "megatron", columns=["id"])


def test_the_command_adds_columns_to_an_export_of_all_documents(cut_finely, tmp_path):
    arguments = [str(cut_finely), "--to", "jsonl", "--columns", "id, source_count", "--out"]
    done = CliRunner().invoke(command, [*arguments, str(tmp_path / "out")])
    assert done.exit_code == 0
    first = (tmp_path / "out" / "part_0.tokenized.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["source_count"] == 1
    drawn = CliRunner().invoke(command, [*arguments, str(tmp_path / "b"), "--tokens", "100"])
    assert "--columns works only in an export of all documents" in str(drawn.exception)


def test_a_directory_without_a_catalogue_is_refused(cut_finely, tmp_path):
    out = shutil.copytree(cut_finely, tmp_path / "shards")
    shutil.rmtree(out / "documents")
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"] = {k: v for k, v in manifest["files"].items() if "documents/" not in k}
    (out / "manifest.json").write_text(json.dumps({**manifest, "parts": None}))
    with pytest.raises(UsageError, match="has no catalogue"):
        export_shards(out, tmp_path / "out", "jsonl", columns=["id"])


def test_a_catalogue_that_lacks_documents_is_named(cut_finely, tmp_path):
    out = shutil.copytree(cut_finely, tmp_path / "shards")
    (part,) = (out / "documents").glob("*.parquet")
    pq.write_table(pq.read_table(part).slice(2), part)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"][f"documents/{part.name}"] = hash_file(part)
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidDataError, match=r"lists [\d,]+ documents of shard \d+ of c\d\d"):
        export_shards(out, tmp_path / "out", "parquet", columns=["id"])
