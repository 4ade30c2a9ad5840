"""Importing: corpora that are clustered already become shards, with nothing clustered anew."""

import json
import re
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from climbstream.builder.corpus import sources as corpus_sources
from climbstream.builder.importer import ingest
from climbstream.builder.importer import pipeline as importing
from climbstream.builder.importer.pipeline import import_corpus
from climbstream.builder.importer.settings import ImportSettings
from climbstream.builder.writers.tokenizer import train_tokenizer
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import read_json
from climbstream.loader.formats.clusters import load_clusters
from climbstream.loader.formats.manifest import Manifest
from climbstream.loader.loader import MixtureLoader
from climbstream.loader.tools.verify import verify_directory

END = 50_256
"""GPT-2's end of a document."""


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch, serial):
    """Start no processes, which takes seconds; the command and the kill tests do."""
    monkeypatch.setattr(importing, "open_engine", lambda *_, **__: serial)


def rows_of(cluster, *documents):
    return [
        {"tokens": list(document), "token_count": len(document), "cluster_id": cluster}
        for document in documents
    ]


def write_parquet(path, rows, **types):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, **types), path)
    return path


@pytest.fixture
def lab(tmp_path):
    """A small ClimbLab: a folder a cluster, files in an order that sorts badly as text."""
    for cluster in (1, 2, 10):
        for part in range(2):
            path = tmp_path / "lab" / f"cluster_{cluster}"
            first = 100 * cluster + 10 * part
            rows = rows_of(cluster, [first], [first + 1] * 3, [first + 2] * 2)
            write_parquet(path / f"cluster_{cluster}_{part:03d}.tokenized.parquet", rows)
    (tmp_path / "lab" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Lab\n")
    return tmp_path / "lab"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def served(read_documents):
    """Return a function that reads the documents of each cluster, as lists."""

    def read(directory):
        found = defaultdict(list)
        for (cluster, _, _), document in sorted(read_documents(directory).items()):
            found[cluster].append(document.tolist())
        return dict(found)

    return read


def imports(out, *sources, workers=1, **settings):
    return import_corpus(
        [str(s) for s in sources], out, ImportSettings(**settings), workers=workers
    )


def reasons(manifest):
    return {why: size["documents"] for why, size in manifest.conservation[0]["dropped"].items()}


# Layouts.


def test_climblab_becomes_shards_in_the_order_of_its_files(lab, out, served):
    manifest = imports(out, lab)
    assert manifest.names == ["c01", "c02", "c10"]
    assert served(out)["c10"] == [
        [1000, END],
        [1001, 1001, 1001, END],
        [1002, 1002, END],
        [1010, END],
        [1011, 1011, 1011, END],
        [1012, 1012, END],
    ]
    assert (manifest.vocab_size, manifest.eos_id, manifest.dtype) == (50_257, END, "uint16")
    assert manifest.tokenizer_hash == ""
    assert verify_directory(out).faults == []


def test_files_that_tasks_hash_are_known_by_the_same_hashes(lab, out, tmp_path, monkeypatch):
    import_corpus([str(lab)], out)
    monkeypatch.setattr(corpus_sources, "_FEW_BYTES", 0)
    import_corpus([str(lab)], tmp_path / "again")
    assert Manifest.load(tmp_path / "again") == Manifest.load(out)


def test_climbmix_has_its_clusters_in_a_column(tmp_path, out, served, write_jsonl):
    rows = [row for i in range(12) for row in rows_of(1 + i % 3, [i, i])]
    for part in range(12):
        write_jsonl(tmp_path / "mix" / f"part_{part}.tokenized.jsonl", [rows[part]])
    manifest = imports(out, tmp_path / "mix")
    # part_10 comes after part_9.
    assert served(out)["c02"] == [[i, i, END] for i in (1, 4, 7, 10)]
    assert manifest.names == ["c01", "c02", "c03"]


def test_a_mirror_of_text_has_float_counts_and_is_tokenised(tmp_path, out, served, make_records):
    texts = [record["text"] for record in make_records(each=4)]
    rows = [
        {"text": text, "token_count": 7.0, "cluster_id": float(i * 2 // len(texts))}
        for i, text in enumerate(texts)
    ]
    manifest = imports(out, write_parquet(tmp_path / "a.parquet", rows), vocab_size=300)
    assert manifest.names == ["c00", "c01"]
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    found = served(out)
    read = [tokenizer.decode(ids) for name in manifest.names for ids in found[name]]
    assert read == texts
    assert manifest.conservation[0]["out"]["bytes"] == sum(len(text.encode()) for text in texts)
    assert sum(c.bytes for c in load_clusters(out)) == manifest.conservation[0]["out"]["bytes"]
    assert verify_directory(out).faults == []


def test_a_configuration_of_a_cluster_names_it(tmp_path, out, served):
    for cluster in (3, 11):
        rows = [{"tokens": [cluster], "token_count": 1}]
        write_parquet(tmp_path / "mix" / f"cluster_id={cluster}" / "0.tokenized.parquet", rows)
    imports(out, tmp_path / "mix")
    assert served(out) == {"c03": [[3, END]], "c11": [[11, END]]}


def test_a_mirror_that_lost_its_clusters_is_refused_with_the_remedy(tmp_path, out):
    path = write_parquet(tmp_path / "shard_00000.parquet", [{"text": "a"}, {"text": "b"}])
    with pytest.raises(InvalidDataError) as raised:
        imports(out, path)
    assert str(raised.value) == (
        f"nothing says which cluster the rows of {path} are in: it has the columns text, no "
        "cluster_id or cluster, and no folder above it is named cluster_N. Name the column with "
        "--cluster, or use --folders if each folder is a cluster. A shuffled mirror of ClimbMix "
        "has lost its clusters: import nvidia/Nemotron-ClimbMix itself, or cluster the text anew "
        "with climb build"
    )


def test_a_misspelt_column_of_the_cluster_gets_the_name_that_was_meant(tmp_path, out):
    path = write_parquet(tmp_path / "a.parquet", [{"text": "a", "label": "x"}])
    with pytest.raises(InvalidDataError, match=r"no lable, and .* Did you mean --cluster label\?"):
        imports(out, path, cluster="lable")


def test_any_column_may_be_the_cluster(tmp_path, out, make_records, write_jsonl):
    records = make_records(each=5)
    manifest = imports(
        out, write_jsonl(tmp_path / "a.jsonl", records), cluster="label", vocab_size=300
    )
    assert manifest.names == sorted({record["label"] for record in records})
    assert {c.documents for c in manifest.clusters} == {5}


def test_folders_may_be_the_clusters(tmp_path, out, write_jsonl):
    for name in ("law", "sci fi", "über"):
        write_jsonl(tmp_path / "data" / name / "a.jsonl", [{"text": f"of {name}"}] * 2)
    manifest = imports(out, tmp_path / "data", folders=True, vocab_size=300)
    assert manifest.names == ["law", "sci fi", "über"]


def test_a_cluster_that_cannot_be_a_folder_gets_another_name(tmp_path, out, write_jsonl):
    rows = [{"text": "a", "cluster": label} for label in ("sci/fi", "..", "law")]
    manifest = imports(out, write_jsonl(tmp_path / "a.jsonl", rows), vocab_size=300)
    assert manifest.names == ["_.._", "law", "sci_fi"]
    assert read_json(out / "clusters.json")["source"]["sci_fi"] == "sci/fi"


def test_two_clusters_never_share_a_name(tmp_path, out, write_jsonl):
    labels = ["a/b", "a:b", "Law", "law", "Cafe\u0301", "cafe_", "x" * 300, "x" * 301]
    rows = [{"text": "a", "cluster": label} for label in labels]
    names = imports(out, write_jsonl(tmp_path / "a.jsonl", rows), vocab_size=300).names
    assert len({name.casefold() for name in names}) == len(labels)
    assert {"Law", "cafe_"} < {*names}  # a label that is a name already keeps it
    assert {*read_json(out / "clusters.json")["source"].values()} == {*labels}
    assert verify_directory(out).faults == []


@pytest.mark.parametrize(
    "label",
    [
        *("9" * 4000, "9" * 5000, int("9" * 4000), "x" * 300, "ü" * 200, "😀" * 99, "²", 1e300, -3),
        *("con", "NUL.txt", "aux", "etc.", " . ", "-", "~", "../../up", "a\\b", "a\0b\x1b[31m"),
    ],
)
def test_any_label_becomes_a_folder_that_every_system_takes(tmp_path, out, write_jsonl, label):
    rows = [{"text": "a", "cluster": value} for value in ("law", label, 7)]
    names = imports(out, write_jsonl(tmp_path / "a.jsonl", rows), vocab_size=300).names
    assert len(names) == 3
    assert {"law", "7"} < {*names}
    (name,) = {*names} - {"law", "7"}
    assert len(name.encode()) <= 100
    assert re.fullmatch(r"[\w-][\w .-]*", name)
    assert name[-1] not in ". "
    assert name.partition(".")[0].lower() not in ("con", "nul", "aux")
    assert verify_directory(out).faults == []


def test_labels_with_lone_surrogates_are_clusters_of_their_own(tmp_path, out, write_jsonl):
    rows = [b'{"text": "a", "cluster": "\\ud80%d"}' % i for i in range(2)]
    names = imports(out, write_jsonl(tmp_path / "a.jsonl", rows), vocab_size=300).names
    assert names == ["_ud800", "_ud801"]


def test_a_label_of_thousands_of_digits_does_not_rename_the_others(tmp_path, out, write_jsonl):
    rows = [{"text": "a", "cluster": label} for label in (3, "12", "9" * 5000)]
    names = imports(out, write_jsonl(tmp_path / "a.jsonl", rows), vocab_size=300).names
    assert names[:2] == ["c03", "c12"]
    assert re.fullmatch("c9+-[0-9a-f]{8}", names[2])


@pytest.mark.parametrize(
    "label", [None, True, "", "  ", float("nan"), float("inf"), 2.5, [1], {"a": 1}, "x" * 10_001]
)
def test_a_row_whose_label_is_none_is_counted_and_said(tmp_path, out, write_jsonl, capfd, label):
    rows = [{"text": "a", "cluster": value} for value in (label, "law", label)]
    manifest = imports(out, write_jsonl(tmp_path / "a.jsonl", rows), vocab_size=300)
    assert [(c.name, c.documents) for c in manifest.clusters] == [("law", 1)]
    (reason,) = reasons(manifest)
    assert f"left out 2 rows: {reason}; the first is a.jsonl:1" in capfd.readouterr().err


def test_a_first_row_without_a_cluster_does_not_end_an_import(tmp_path, out, served, write_jsonl):
    rows = [{}, {"x": 1}, *rows_of(1, [5]), b'{"cluster_id": ' + b"9" * 5000 + b"}"]
    manifest = imports(out, write_jsonl(tmp_path / "part_0.tokenized.jsonl", rows))
    assert served(out) == {"c01": [[5, END]]}
    assert reasons(manifest) == {"no cluster": 2, "a number of thousands of digits": 1}


def test_a_count_of_any_type_does_not_end_an_import(tmp_path, out, served):
    rows = [{"tokens": [1, 2], "token_count": [1, 2], "cluster_id": 1}]
    imports(out, write_parquet(tmp_path / "0.tokenized.parquet", rows))
    assert served(out) == {"c01": [[1, 2, END]]}
    (listed,) = read_json(out / "bad_records.json")
    assert listed["reason"].startswith("taken, though token_count is ")


def test_a_cell_that_is_not_utf_8_costs_one_row(tmp_path, out):
    binary = pa.array([b"law", b"\xff", b"law"], pa.binary())
    text = pa.StringArray.from_buffers(3, *binary.buffers()[1:])
    table = pa.table({"text": ["a", "b", "c"], "cluster": text})
    pq.write_table(table, tmp_path / "a.parquet")
    manifest = imports(out, tmp_path / "a.parquet", vocab_size=300)
    assert [(c.name, c.documents) for c in manifest.clusters] == [("law", 2)]
    assert reasons(manifest) == {"not UTF-8": 1}


def test_a_column_of_identifiers_is_no_column_of_clusters(tmp_path, out, write_jsonl, monkeypatch):
    monkeypatch.setattr("climbstream.builder.cluster_names.MOST_CLUSTERS", 5)
    rows = [{"text": "a", "cluster": f"n{i}"} for i in range(6)]
    with pytest.raises(InvalidDataError, match="the rows name 6 clusters, n0, n1, n2 and so on"):
        imports(out, write_jsonl(tmp_path / "a.jsonl", rows), vocab_size=300)


def test_an_empty_cluster_stays_a_cluster(lab, out):
    schema = pa.schema([("tokens", pa.list_(pa.int32())), ("cluster_id", pa.int64())])
    write_parquet(lab / "cluster_5" / "cluster_5_000.tokenized.parquet", [], schema=schema)
    manifest = imports(out, lab)
    assert [(c.name, c.documents) for c in manifest.clusters] == [
        ("c01", 6),
        ("c02", 6),
        ("c05", 0),
        ("c10", 6),
    ]
    assert verify_directory(out).faults == []


# Tokens.


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.uint16(), pa.uint32()])
@pytest.mark.parametrize("many", [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 2)])
def test_tokens_may_be_of_any_whole_type(tmp_path, out, served, kind, many):
    schema = pa.schema([("tokens", many(kind)), ("cluster_id", pa.string())])
    rows = [{"tokens": [1, 40_000], "cluster_id": "1"}, {"tokens": [2, 3], "cluster_id": "1"}]
    path = write_parquet(tmp_path / "a.parquet", rows, schema=schema)
    imports(out, path, vocab_size=50_000, eos_id=-1)
    assert served(out) == {"c01": [[1, 40_000], [2, 3]]}


def test_a_large_vocabulary_is_stored_in_32_bits(tmp_path, out, served):
    path = write_parquet(tmp_path / "a.parquet", rows_of(1, [128_000], [5, 6]))
    manifest = imports(out, path, vocab_size=128_256, eos_id=128_001)
    assert manifest.dtype == "uint32"
    assert served(out) == {"c01": [[128_000, 128_001], [5, 6, 128_001]]}


def test_a_row_that_has_its_end_gets_no_other(tmp_path, out, served):
    path = write_parquet(tmp_path / "a.parquet", rows_of(1, [5, 9], [9], [5]))
    imports(out, path, vocab_size=10, eos_id=9)
    assert served(out) == {"c01": [[5, 9], [9], [5, 9]]}


def test_tokens_that_nobody_explains_are_refused(tmp_path, out):
    path = write_parquet(tmp_path / "a.parquet", rows_of(1, [5]))
    with pytest.raises(UsageError, match=r"nothing says what the tokens of .*a\.parquet mean"):
        imports(out, path)


def test_an_end_outside_the_vocabulary_is_refused(lab, out):
    with pytest.raises(InvalidDataError, match="token 50256, which should end documents, is not"):
        imports(out, lab, vocab_size=50_000)


def test_a_tokenizer_explains_the_tokens_and_names_the_clusters(tmp_path, out, make_records):
    records = make_records(each=10)
    tokenizer = train_tokenizer([record["text"] for record in records], 400)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    rows = [
        {"tokens": tokenizer.encode(record["text"]).ids, "cluster": record["label"]}
        for record in records
    ]
    path = write_parquet(tmp_path / "a.parquet", rows)
    manifest = imports(out, path, tokenizer=str(tmp_path / "tokenizer.json"))
    assert (manifest.vocab_size, manifest.eos_id) == (400, 0)
    by_name = {cluster.name: cluster for cluster in load_clusters(out)}
    assert {"planet", "comet", "orbit"} & {*by_name["space"].terms}
    texts = {record["text"] for record in records if record["label"] == "sea"}
    assert any(text.startswith(by_name["sea"].samples[0]["text"][:-1]) for text in texts)
    assert verify_directory(out).faults == []


def test_without_a_tokenizer_clusters_have_no_words(lab, out):
    imports(out, lab)
    for cluster, number in zip(load_clusters(out), (1, 2, 10), strict=True):
        assert (cluster.terms, cluster.samples, cluster.quality) == ((), (), {})
        assert cluster.micro == (number,)


# Rows that cannot be used.


def test_bad_rows_are_counted_by_reason_and_listed(tmp_path, out, served, write_jsonl):
    good = {"tokens": [1, 2], "cluster_id": 1}
    bad = [
        b'{"tokens": [1',
        b"[1]",
        b'"\xff"',
        {"cluster_id": 1},
        {"tokens": [], "cluster_id": 1},
        {"tokens": None, "cluster_id": 1},
        {"tokens": "1 2", "cluster_id": 1},
        {"tokens": [1.5], "cluster_id": 1},
        {"tokens": [True], "cluster_id": 1},
        {"tokens": [1, None], "cluster_id": 1},
        {"tokens": [[1], [2, 3]], "cluster_id": 1},
        {"tokens": [2**70], "cluster_id": 1},
        {"tokens": [-1], "cluster_id": 1},
        {"tokens": [50_257], "cluster_id": 1},
        {"tokens": [1]},
        {"tokens": [1], "cluster_id": 1.5},
        {"tokens": [1], "cluster_id": float("nan")},
        {"tokens": [1], "cluster_id": [1]},
    ]
    path = write_jsonl(tmp_path / "part_0.tokenized.jsonl", [good, *bad, good])
    manifest = imports(out, path)
    assert served(out) == {"c01": [[1, 2, END]] * 2}
    assert reasons(manifest) == {
        "a cluster that cannot be a label, such as true or 2.5": 2,
        "a token outside the vocabulary of 50,257": 2,
        "no cluster": 2,
        "no column 'tokens'": 1,
        "no tokens": 1,
        "not JSON": 1,
        "not UTF-8": 1,
        "not an object": 1,
        "tokens is not a list of whole numbers": 7,
    }
    listed = read_json(out / "bad_records.json")
    assert [row["origin"] for row in listed] == [
        f"part_0.tokenized.jsonl:{i}" for i in range(2, 20)
    ]
    assert verify_directory(out).faults == []


def test_a_row_in_the_folder_of_another_cluster_is_left_out(lab, out):
    rows = rows_of(2, [5]) + rows_of(7, [6])
    write_parquet(lab / "cluster_2" / "cluster_2_002.tokenized.parquet", rows)
    assert reasons(imports(out, lab)) == {"cluster_id contradicts the folder": 1}


def test_a_row_that_is_miscounted_is_taken_and_listed(tmp_path, out, served, write_jsonl):
    counts = [2, 2.0, 3, 1.5, None, float("nan"), "2"]
    rows = [{"tokens": [1, 2], "token_count": count, "cluster_id": 1} for count in counts]
    imports(out, write_jsonl(tmp_path / "part_0.tokenized.jsonl", rows))
    assert len(served(out)["c01"]) == len(counts)
    listed = read_json(out / "bad_records.json")
    assert [row["origin"][-1] for row in listed] == ["3", "4", "5", "6", "7"]
    assert listed[0]["reason"] == "taken, though token_count is 3 of 2 tokens"


def test_a_corpus_without_a_usable_row_is_refused(tmp_path, out, write_jsonl):
    path = write_jsonl(tmp_path / "part_0.tokenized.jsonl", [{"tokens": [], "cluster_id": 1}] * 3)
    with pytest.raises(InvalidDataError, match="no row of 1 file can be used; 3: no tokens"):
        imports(out, path)


def test_rows_without_tokens_and_text_are_refused_with_their_columns(tmp_path, out, write_jsonl):
    path = write_jsonl(tmp_path / "a.jsonl", [{"body": "x", "cluster": 1}])
    with pytest.raises(
        UsageError, match="have the columns body, cluster, and neither 'tokens' nor 'text'"
    ):
        imports(out, path)


def test_a_file_that_is_no_parquet_is_named(lab, out, capsys):
    (lab / "cluster_2" / "cluster_2_001.tokenized.parquet").write_bytes(b"PAR1 and no more")
    imports(out, lab)
    said = capsys.readouterr().err
    name = "cluster_2/cluster_2_001.tokenized.parquet"
    assert f"left out 1 file: cut short, or damaged ({name}: " in said


# Licences.


def test_the_licence_of_the_card_is_carried_over(lab, out):
    assert imports(out, lab).license == "cc-by-nc-4.0"


def test_the_card_is_found_above_the_folder_of_a_cluster(lab, out):
    assert imports(out, lab / "cluster_1" / "*.parquet").license == "cc-by-nc-4.0"


def test_a_stated_licence_never_takes_the_place_of_the_card(lab, out, capsys):
    manifest = imports(out, lab, license="cc-by-4.0")
    assert manifest.license == "cc-by-nc-4.0, cc-by-4.0"
    assert "the card states the licence cc-by-nc-4.0; cc-by-4.0 is added" in capsys.readouterr().err


def test_licences_of_rows_are_joined(tmp_path, out, write_jsonl):
    rows = [{"text": "a", "cluster": 1, "license": name} for name in ("MIT", "CC0-1.0", "MIT")]
    assert (
        imports(out, write_jsonl(tmp_path / "a.jsonl", rows), vocab_size=300).license
        == "MIT, CC0-1.0"
    )


def test_a_licence_that_nobody_states_is_unknown(lab, out, capsys):
    (lab / "README.md").write_text("# Lab\n")
    assert imports(out, lab).license == "unknown"
    assert "the corpus states no licence" in capsys.readouterr().err


def test_a_card_that_cannot_be_read_is_no_card_without_licence(lab, out):
    (lab / "README.md").write_text("---\nlicense: [cc\n---\n")
    with pytest.raises(InvalidDataError, match=r"the metadata of .*README\.md is not YAML"):
        imports(out, lab)


# What an import leaves.


def test_every_document_stands_in_the_catalogue(lab, out, catalogue, served):
    imports(out, lab)
    rows = catalogue(out)
    assert len(rows) == 18
    found = served(out)
    for row in rows:
        assert len(found[row["cluster"]][row["row"]]) == row["tokens"]
        assert (row["why"], row["shard"], row["overall"], row["bytes"]) == (None, 0, None, None)
    first = next(row for row in rows if row["cluster"] == "c10")
    assert first["origin"] == first["id"] == "cluster_10/cluster_10_000.tokenized.parquet:1"
    assert (first["micro"], first["label"]) == (10, "10")


def test_an_import_of_many_units_and_shards_loses_nothing(
    tmp_path, out, served, catalogue, write_jsonl, monkeypatch
):
    from climbstream.builder.writers import shards

    monkeypatch.setattr(ingest, "PARTITION_TOKENS", 50)
    monkeypatch.setattr(shards, "SHARD_BYTES", 900)
    rng = np.random.default_rng(0)
    expected = defaultdict(list)
    for part in range(4):
        rows = []
        for _ in range(60):
            cluster, document = rng.integers(1, 4), rng.integers(0, 9, rng.integers(1, 30))
            rows += rows_of(int(cluster), document.tolist())
            expected[f"c{cluster:02d}"].append([*document.tolist(), 9])
        write_jsonl(tmp_path / "mix" / f"part_{part}.jsonl", rows)
    imports(out, tmp_path / "mix", vocab_size=10, eos_id=9)
    assert served(out) == expected
    assert [path.name for path in (out / "documents").iterdir()] == ["part-00000.parquet"]
    assert max(row["shard"] for row in catalogue(out)) > 3
    assert verify_directory(out).faults == []


def test_an_import_streams_through_the_loader(lab, out):
    imports(out, lab)
    loader = MixtureLoader(out, {"c01": 1, "c10": 3}, seq_len=4, batch_rows=4, seed=0, lanes=1)
    batch = next(iter(loader))
    assert sorted(batch["cluster_ids"].tolist()) == [0, 2, 2, 2]


# Going on.


def test_an_import_that_is_finished_is_left_as_it_is(lab, out, all_bytes, capsys):
    imports(out, lab)
    before = all_bytes(out)
    imports(out, lab)
    assert all_bytes(out) == before
    assert "is finished already" in capsys.readouterr().err


def test_other_settings_are_refused_by_name(lab, out):
    imports(out, lab)
    with pytest.raises(InvalidDataError, match=r"--eos-id was not given and is 0"):
        imports(out, lab, eos_id=0)


def test_other_files_are_never_touched(lab, out):
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidDataError, match=r"is not empty: it holds thesis\.txt"):
        imports(out, lab)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


# The command.


def test_the_command_shows_what_was_imported(lab, out, climb):
    done = climb("import", lab, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "those of GPT-2: a vocabulary of 50,257, and token 50256 ends a document" in done.stderr
    assert "licence: cc-by-nc-4.0" in done.stdout
    shown = climb("inspect", out)
    assert shown.returncode == 0
    assert "c10" in shown.stdout
    value = json.loads(climb("import", lab, "--out", out, "--json").stdout)
    assert [cluster["name"] for cluster in value["clusters"]] == ["c01", "c02", "c10"]


def test_the_command_shows_no_traceback(tmp_path, climb):
    done = climb("import", tmp_path / "none", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
