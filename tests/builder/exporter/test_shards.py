"""Exporting: what others read, and what an import reads back to the same shards."""

import json
import struct
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from climbstream.builder.exporter import shards as export
from climbstream.builder.exporter.megatron import write_indexed
from climbstream.builder.exporter.shards import LAYOUTS, export_shards
from climbstream.builder.importer import ingest
from climbstream.builder.importer import pipeline as importing
from climbstream.builder.importer.pipeline import import_corpus
from climbstream.builder.importer.settings import ImportSettings
from climbstream.builder.writers import shards
from climbstream.loader.cli.main import run
from climbstream.loader.core.errors import IntegrityError, InvalidDataError, UsageError
from climbstream.loader.core.files import read_json
from climbstream.loader.formats.manifest import Manifest
from climbstream.loader.formats.mixture import Mixture

SAME = ("clusters", "dtype", "vocab_size", "eos_id", "tokenizer_hash", "license", "fingerprint")
"""What a round trip keeps; all but where the shards were made of."""


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch, serial):
    """Start no processes, which takes seconds; the commands do."""
    monkeypatch.setattr(export, "LocalEngine", lambda *_: serial)
    monkeypatch.setattr(importing, "open_engine", lambda *_, **__: serial)


def kept(manifest):
    """Return what a layout of rows of tokens keeps: it has no place for licences of documents."""
    clusters = [entry | {"licenses": None} for entry in manifest.to_json()["clusters"]]
    return {name: manifest.to_json()[name] for name in SAME} | {"clusters": clusters}


def shards_of(folder, documents, *, vocab_size=10, eos_id=9):
    """Import documents, lists of tokens by cluster, as a shard directory."""
    (folder / "rows").mkdir(parents=True)
    for cluster, rows in documents.items():
        lines = [json.dumps({"tokens": row, "cluster_id": cluster}) + "\n" for row in rows]
        path = folder / "rows" / f"cluster_id={cluster}" / "a.jsonl"
        path.parent.mkdir()
        path.write_text("".join(lines))
    settings = ImportSettings(vocab_size=vocab_size, eos_id=eos_id, license="CC0-1.0")
    import_corpus([str(folder / "rows")], folder / "shards", settings)
    return folder / "shards"


@pytest.fixture
def directory(tmp_path):
    """Two clusters of a few documents, and one of none."""
    return shards_of(tmp_path, {3: [[1, 2], [4]], 5: [], 12: [[5], [6, 7, 8], [1]]})


# Round trips.


def test_a_build_comes_back_from_the_layout_of_climblab(built, tmp_path):
    export_shards(str(built.directory), tmp_path / "lab", "parquet")
    manifest = import_corpus([str(tmp_path / "lab")], tmp_path / "back")
    assert kept(manifest) == kept(Manifest.load(built.directory))


def test_a_build_comes_back_from_the_layout_of_climbmix(cut_finely, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 4_000)
    export_shards(str(cut_finely), tmp_path / "mix", "jsonl")
    assert len(list((tmp_path / "mix").glob("part_*.tokenized.jsonl"))) > 2
    manifest = import_corpus([str(tmp_path / "mix")], tmp_path / "back")
    assert kept(manifest) == kept(Manifest.load(cut_finely))


@settings(max_examples=40)
@given(st.data())
def test_any_small_corpus_comes_back_from_the_layout_of_climblab(data):
    size = data.draw(st.sampled_from([3, 50_257, 65_537, 1 << 31]))
    end = data.draw(st.sampled_from([-1, 0, size - 1]))
    tokens = st.one_of(st.integers(0, size - 1), st.just(max(end, 0)))
    document = st.lists(tokens, min_size=1, max_size=6)
    numbers = st.one_of(st.integers(0, 120), st.sampled_from(["law", "sci fi", "sea"]))
    documents = data.draw(st.dictionaries(numbers, st.lists(document, max_size=5), min_size=1))
    if not any(documents.values()):
        documents[0] = [[0]]
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.setattr(ingest, "PARTITION_TOKENS", data.draw(st.integers(1, 20)))
        patch.setattr(shards, "SHARD_BYTES", data.draw(st.sampled_from([540, 600, 1 << 24])))
        directory = shards_of(folder, documents, vocab_size=size, eos_id=end)
        export_shards(str(directory), folder / "lab", "parquet")
        manifest = import_corpus([str(folder / "lab")], folder / "back")
        assert manifest.dtype == ("uint16" if size <= 1 << 16 else "uint32")
        assert kept(manifest) == kept(Manifest.load(directory))


# Layouts.


def test_parquet_is_the_layout_of_climblab(directory, tmp_path):
    export_shards(str(directory), tmp_path / "lab", "parquet")
    files = sorted(
        str(p.relative_to(tmp_path / "lab")) for p in (tmp_path / "lab").rglob("*.parquet")
    )
    assert files == [f"cluster_{c}/cluster_{c}_000.tokenized.parquet" for c in (12, 3, 5)]
    table = pq.read_table(tmp_path / "lab" / "cluster_12" / "cluster_12_000.tokenized.parquet")
    # The token that ends a document stands in no row.
    assert table.to_pylist() == [
        {"tokens": [5], "token_count": 1, "cluster_id": 12},
        {"tokens": [6, 7, 8], "token_count": 3, "cluster_id": 12},
        {"tokens": [1], "token_count": 1, "cluster_id": 12},
    ]


def test_jsonl_is_the_layout_of_climbmix(directory, tmp_path):
    export_shards(str(directory), tmp_path / "mix", "jsonl")
    (path,) = (tmp_path / "mix").glob("*.jsonl")
    assert path.name == "part_0.tokenized.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[0] == {"tokens": [1, 2], "token_count": 2, "cluster_id": 3}
    assert [row["cluster_id"] for row in rows] == [3, 3, 12, 12, 12]


def read_indexed(prefix):
    """Read a data set of Megatron, as its format is specified."""
    data = prefix.with_name(f"{prefix.name}.idx").read_bytes()
    assert data[:9] == b"MMIDIDX\x00\x00"
    version, code, count, documents = struct.unpack_from("<QBQQ", data, 9)
    assert version == 1
    kind = {8: "<u2", 4: "<i4"}[code]
    place = 34
    lengths = struct.unpack_from(f"<{count}i", data, place)
    pointers = struct.unpack_from(f"<{count}q", data, place + 4 * count)
    bounds = struct.unpack_from(f"<{documents}q", data, place + 12 * count)
    assert len(data) == place + 12 * count + 8 * documents
    assert bounds == tuple(range(count + 1))
    tokens = prefix.with_name(f"{prefix.name}.bin").read_bytes()
    return [
        np.frombuffer(tokens, kind, length, pointer).tolist()
        for length, pointer in zip(lengths, pointers, strict=True)
    ]


@pytest.mark.parametrize("size", [10, 1 << 17])
def test_megatron_reads_each_cluster(tmp_path, size):
    documents = {1: [[1, 2], [size - 2]], 2: [[4]]}
    directory = shards_of(tmp_path, documents, vocab_size=size)
    text = export_shards(str(directory), tmp_path / "meg", "megatron")
    assert read_indexed(tmp_path / "meg" / "c01") == [[1, 2, 9], [size - 2, 9]]
    assert read_indexed(tmp_path / "meg" / "c02") == [[4, 9]]
    assert text == f"0.714285714286 {tmp_path}/meg/c01 0.285714285714 {tmp_path}/meg/c02"
    # In the folder, its own paths, so that it may be moved.
    blend = (tmp_path / "meg" / "blend.txt").read_text()
    assert blend == "0.714285714286 c01 0.285714285714 c02\n"


def test_megatron_ends_as_many_documents_as_the_catalogue_has(
    cut_finely, tmp_path, catalogue, read_documents
):
    export_shards(str(cut_finely), tmp_path / "meg", "megatron")
    manifest = Manifest.load(cut_finely)
    ours = read_documents(cut_finely)
    rows = [row for row in catalogue(cut_finely) if not row["why"]]
    for name in manifest.names:
        theirs = read_indexed(tmp_path / "meg" / name)
        assert theirs == [
            d.tolist() for (cluster, _, _), d in sorted(ours.items()) if cluster == name
        ]
        lengths = [row["tokens"] for row in rows if row["cluster"] == name]
        assert sorted(map(len, theirs)) == sorted(lengths)
        assert sum(document.count(manifest.eos_id) for document in theirs) == len(lengths)


def test_documents_without_an_end_are_as_many_for_megatron_and_that_is_said(tmp_path, capfd):
    directory = shards_of(tmp_path, {1: [[1, 2], [3], [1]]}, eos_id=-1)
    export_shards(str(directory), tmp_path / "meg", "megatron")
    assert read_indexed(tmp_path / "meg" / "c01") == [[1, 2], [3], [1]]
    assert "documents have no end token, so Megatron" in capfd.readouterr().err


def test_a_document_that_does_not_end_is_not_exported(tmp_path):
    parts = [[np.array([1, 9], np.uint16)], [np.array([1], np.uint16)]]
    with pytest.raises(IntegrityError, match="a document of c01 does not end with token 9"):
        write_indexed(tmp_path / "c01", parts, "uint16", 9)
    assert list(tmp_path.iterdir()) == []


def test_no_word_for_megatron_has_a_space(tmp_path):
    directory = shards_of(tmp_path, {"sci fi": [[1]], "sci_fi": [[2], [3]]})
    words = export_shards(str(directory), tmp_path / "meg", "megatron").split()
    documents = [read_indexed(Path(prefix)) for prefix in words[1::2]]
    assert documents == [[[1, 9]], [[2, 9], [3, 9]]]
    with pytest.raises(UsageError, match="contains a space, and Megatron splits"):
        export_shards(str(directory), tmp_path / "my exports", "megatron")


def test_an_empty_cluster_is_an_empty_data_set_of_megatron(directory, tmp_path):
    export_shards(str(directory), tmp_path / "meg", "megatron")
    assert read_indexed(tmp_path / "meg" / "c05") == []


def test_another_mixture_writes_another_blend_and_nothing_else(directory, tmp_path, all_bytes):
    export_shards(str(directory), tmp_path / "meg", "megatron")
    before = all_bytes(tmp_path / "meg")
    mixture = Mixture.of({"c12": 1})
    assert (
        export_shards(str(directory), tmp_path / "meg", "megatron", mixture)
        == f"1 {tmp_path}/meg/c12"
    )
    after = all_bytes(tmp_path / "meg")
    assert [name for name in before if before[name] != after[name]] == ["blend.txt"]


def test_a_blend_of_a_cluster_without_documents_is_refused(directory, tmp_path):
    with pytest.raises(InvalidDataError, match="cluster c05 has weight 1 but no document"):
        export_shards(str(directory), tmp_path / "meg", "megatron", Mixture.of({"c05": 1}))
    assert not (tmp_path / "meg").exists()


def test_mosaic_is_a_yaml_of_streams(directory, tmp_path):
    mixture = Mixture.of({"c03": 1, "c12": 3})
    text = export_shards(str(directory), tmp_path / "yaml", "mosaic", mixture)
    streams = yaml.safe_load((tmp_path / "yaml" / "streams.yaml").read_text())["streams"]
    of_command = yaml.safe_load(text)["streams"]
    assert {name: s["local"] for name, s in streams.items()} == {
        name: f"cache/{name}" for name in streams
    }
    assert of_command["c03"] == {**streams["c03"], "local": f"{tmp_path}/yaml/cache/c03"}
    assert {name: stream["remote"] for name, stream in streams.items()} == {
        name: f"{directory}/clusters/{name}" for name in ("c03", "c12")
    }
    # Shares of documents: 5 tokens in 2 of them, 8 in 3.
    assert streams["c12"]["proportion"] / streams["c03"]["proportion"] == pytest.approx(
        (3 * 3 / 8) / (2 / 5)
    )


def test_the_command_names_the_file_of_a_mixture_and_what_its_paths_are_relative_to(
    directory, tmp_path, capsys
):
    out = tmp_path / "yaml"
    assert run(["export", str(directory), "--to", "mosaic", "--out", str(out)]) == 0
    said = f"{out / 'streams.yaml'} has the same mixture, with paths relative to {out}"
    shown = capsys.readouterr().err
    assert said in shown
    assert "tokens" not in shown  # no progress of tokens, because none is written


def test_a_mixture_has_no_place_in_a_layout_of_all_documents(directory, tmp_path):
    with pytest.raises(UsageError, match="--to parquet writes all documents"):
        export_shards(str(directory), tmp_path / "lab", "parquet", Mixture.of({"c03": 1}))


# What goes along, and what is left alone.


def test_licence_and_tokenizer_go_along(built, tmp_path):
    export_shards(str(built.directory), tmp_path / "lab", "parquet")
    card = (tmp_path / "lab" / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["license"] == "cc0-1.0"
    assert metadata["configs"][0] == {
        "config_name": "cluster_0",
        "data_files": "cluster_0/*.parquet",
    }
    tokenizer = (tmp_path / "lab" / "tokenizer.json").read_bytes()
    assert tokenizer == (built.directory / "tokenizer.json").read_bytes()


def test_an_export_that_was_killed_goes_on(cut_finely, tmp_path, monkeypatch, all_bytes):
    export_shards(str(cut_finely), tmp_path / "whole", "parquet")
    written = []

    def fail(task):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(task.path)
        return write(task)

    write = export.write_rows
    with monkeypatch.context() as patch:
        patch.setattr(export, "write_rows", fail)
        with pytest.raises(KeyboardInterrupt):
            export_shards(str(cut_finely), tmp_path / "cut", "parquet")
    assert not (tmp_path / "cut" / ".export.json").exists()
    times = [path.stat().st_mtime_ns for path in written]
    export_shards(str(cut_finely), tmp_path / "cut", "parquet")
    assert [path.stat().st_mtime_ns for path in written] == times
    assert all_bytes(tmp_path / "cut") == all_bytes(tmp_path / "whole")


def test_a_finished_export_is_left_as_it_is(directory, tmp_path, all_bytes, capsys):
    export_shards(str(directory), tmp_path / "lab", "parquet")
    before = all_bytes(tmp_path / "lab")
    export_shards(str(directory), tmp_path / "lab", "parquet")
    assert all_bytes(tmp_path / "lab") == before
    assert "is finished already" in capsys.readouterr().err
    assert read_json(tmp_path / "lab" / ".export.json")["to"] == "parquet"


def test_another_layout_and_other_files_are_refused(directory, tmp_path):
    export_shards(str(directory), tmp_path / "lab", "parquet")
    with pytest.raises(InvalidDataError, match="to was 'parquet' and is 'jsonl'"):
        export_shards(str(directory), tmp_path / "lab", "jsonl")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "part_0.tokenized.jsonl").write_text("mine")
    with pytest.raises(InvalidDataError, match=r"it holds part_0\.tokenized\.jsonl"):
        export_shards(str(directory), tmp_path / "mine", "jsonl")
    assert (tmp_path / "mine" / "part_0.tokenized.jsonl").read_text() == "mine"


def test_the_command_prints_the_blend(directory, tmp_path, climb):
    Mixture.of({"c03": 1}).save(tmp_path / "mixture.json")
    out = tmp_path / "meg"
    done = climb(
        "export",
        directory,
        "--to",
        "megatron",
        "--out",
        out,
        "--mixture",
        tmp_path / "mixture.json",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"1 {out}/c03\n"
    assert "export: 13/13 tokens" in done.stderr


def test_the_command_prints_how_datasets_loads_an_export(directory, tmp_path, climb):
    first = int(Manifest.load(directory).names[0].removeprefix("c"))
    for layout, name in (("parquet", f', "cluster_{first}"'), ("jsonl", "")):
        out = tmp_path / layout
        done = climb("export", directory, "--to", layout, "--out", out)
        assert done.returncode == 0, done.stderr
        assert f'with datasets: load_dataset("{out}"{name}, split="train")' in done.stderr


# What an export is loaded with.


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("to", ["jsonl", "parquet"])
def test_datasets_loads_the_folder_of_an_export(built, tmp_path, to, text):
    datasets = pytest.importorskip("datasets")
    out = tmp_path / "moved" / to
    export_shards(str(built.directory), tmp_path / to, to, text=text)
    out.parent.mkdir()
    (tmp_path / to).rename(out)
    names = ["default"] if to == "jsonl" else [f"cluster_{k}" for k in range(6)]
    tables = [
        datasets.load_dataset(str(out), name, split="train", cache_dir=str(tmp_path / "cache"))
        for name in names
    ]
    assert {*tables[0].column_names} == {"text" if text else "tokens", "token_count", "cluster_id"}
    manifest = Manifest.load(built.directory)
    assert sum(map(len, tables)) == sum(cluster.documents for cluster in manifest.clusters)


@pytest.mark.parametrize("to", LAYOUTS)
def test_the_card_of_every_export_names_its_files(built, tmp_path, to):
    export_shards(str(built.directory), tmp_path / to, to)
    card = (tmp_path / to / "README.md").read_text()
    (line,) = [line for line in card.splitlines() if line.startswith("Files: ")]
    for path in (tmp_path / to).rglob("*"):
        kind = {".bin": "PREFIX.bin", ".idx": "PREFIX.idx", ".jsonl": "part_*.tokenized.jsonl"}
        if path.suffix in kind:
            assert kind[path.suffix] in line
        elif path.name in ("blend.txt", "streams.yaml"):
            assert path.name in line
    if to == "megatron":
        assert "`c00`, `c01`" in line


def test_an_export_of_before_is_known_by_its_old_name(directory, tmp_path, all_bytes, capsys):
    out = tmp_path / "lab"
    export_shards(str(directory), out, "jsonl")
    (out / ".export.json").rename(out / "export.json")
    before = all_bytes(out)
    export_shards(str(directory), out, "jsonl")
    assert "is finished already" in capsys.readouterr().err
    assert all_bytes(out) == before
