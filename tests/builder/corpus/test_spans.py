"""Spans: a file that is read in parts gives what it gives as a whole, wherever it is cut."""

import gzip
import json
from itertools import chain, count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder import pipeline
from climbstream.builder.corpus import ingest, spans
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.read_report import LISTED
from climbstream.builder.corpus.records import Columns, read_records
from climbstream.builder.corpus.sources import Source
from climbstream.builder.corpus.spans import count_lines, cut_source
from climbstream.builder.settings import BuildSettings

FIRST = b'{"text": "first"}'
LINES = st.one_of(
    st.sampled_from(
        [b"", b"\r", b"\xef\xbb\xbf", b" ", b'{"text": "cut', b'{"text": "t\xffo"}', b"null\r"]
    ),
    st.text(max_size=9)
    .map(lambda t: json.dumps({"text": t}, ensure_ascii=False))
    .map(lambda line: line.encode(errors="replace")),
    st.binary(max_size=9).map(lambda data: data.replace(b"\n", b"")),
)


def source_of(path: Path) -> Source:
    form = {".txt": "txt", ".parquet": "parquet"}.get(path.suffix, "jsonl")
    return Source(str(path), path.name, form, "", path.stat().st_size)


def read_whole(source):
    return [*read_records(source, ["text"], Columns())]


def read_in_spans(source, size):
    """Return the records of the spans of ``source``, cut after ``size`` bytes."""
    cut, before = cut_source(source, size, text_lines=True), 0
    parts = []
    for span in cut:
        begun = spans.replace(span, before=before) if source.format != "parquet" else span
        parts.append([*read_records(source, ["text"], Columns(), span=begun)])
        before += count_lines(source, span) if source.format != "parquet" else 0
    return parts


@given(st.lists(LINES, max_size=6), st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.data())
@pytest.mark.parametrize("ending", ["jsonl", "txt"])
def test_lines_are_the_same_wherever_a_file_is_cut(
    tmp_path_factory, ending, lines, newline, closed, data
):
    path = tmp_path_factory.mktemp("any") / f"a.{ending}"
    path.write_bytes(newline.join([FIRST, *lines]) + newline * closed)
    source = source_of(path)
    size = data.draw(st.integers(1, path.stat().st_size + 1))
    assert [*chain(*read_in_spans(source, size))] == read_whole(source)


@pytest.mark.parametrize("around", [-1, 0, 1])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_cut_at_a_newline_or_beside_it_costs_and_doubles_nothing(tmp_path, newline, around):
    path = tmp_path / "a.txt"
    path.write_bytes("é".encode().join([b"ab", b"cd"]) + newline + b"second" + newline * 3 + b"z")
    cut = path.read_bytes().index(b"\n") + around
    parts = read_in_spans(source_of(path), cut)
    assert [*chain(*parts)] == [("a.txt:1", "abécd"), ("a.txt:2", "second"), ("a.txt:5", "z")]


def test_a_line_longer_than_several_spans_belongs_to_the_one_in_which_it_begins(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\n" + b"b" * 100 + b"\nc\n")
    parts = read_in_spans(source_of(path), 10)
    assert [len(part) for part in parts] == [2, *[0] * 9, 1]


@given(
    st.lists(st.text(max_size=5), min_size=1, max_size=20), st.integers(1, 5), st.integers(1, 300)
)
def test_rows_are_the_same_whatever_row_groups_are_read_together(
    tmp_path_factory, texts, group, size
):
    path = tmp_path_factory.mktemp("any") / "a.parquet"
    texts = [text.encode(errors="replace").decode() for text in texts]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=group)
    assert [*chain(*read_in_spans(source_of(path), size))] == read_whole(source_of(path))


def test_what_has_no_place_to_cut_is_read_whole(tmp_path):
    line = FIRST + b"\n"
    contents = {
        "packed.jsonl.gz": gzip.compress(line * 9),
        "packed.jsonl": gzip.compress(line * 9),
        "array.json": b"[" + FIRST + b",\n" + FIRST + b"]",
        "values.json": b'{\n"text":\n"a"\n}\n{\n"text": "b"\n}',
        "torn.parquet": b"PAR1 torn PAR1",
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        assert cut_source(source_of(tmp_path / name), 4, text_lines=True) == []
    (tmp_path / "a.txt").write_bytes(line * 9)
    assert cut_source(source_of(tmp_path / "a.txt"), 4, text_lines=False) == []


# A corpus.


@pytest.fixture
def read(tmp_path, serial, monkeypatch):
    """Return a function that reads files: rows and report, and vectors if there are some."""
    number = count()

    def read_all(*paths, span=1 << 30, directory=None, **settings):
        monkeypatch.setattr(spans, "SPAN_BYTES", span)
        directory = directory or tmp_path / f"units{next(number)}"
        sources = [source_of(path) for path in paths]
        report = ingest.read_corpus(serial, sources, directory, BuildSettings(**settings), least=1)
        units = [Partition(directory / name) for name in report.units]
        columns = ("id", "text", "label", "license", "origin")
        return [row for unit in units for row in unit.columns(*columns).to_pylist()], report

    return read_all


def test_documents_and_what_is_said_of_the_rest_are_those_of_an_uncut_file(
    read, tmp_path, write_jsonl
):
    records = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(40)]
    bad = [b"broken"] * (LISTED + 7)
    path = write_jsonl(tmp_path / "a.jsonl", [*records[:20], b"", *bad, *records[20:], {"x": 1}])
    other = write_jsonl(tmp_path / "b.jsonl", records)
    rows, whole = read(path, other)
    for span in (1, 100, 1_000):
        cut_rows, cut = read(path, other, span=span)
        assert cut_rows == rows
        assert len(cut.units) > len(whole.units)
        cut.units = whole.units
        assert cut == whole


def test_partitions_follow_the_order_of_the_corpus_and_know_their_source(read, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(map(str, range(50))))
    (tmp_path / "b.txt").write_text("last")
    rows, report = read(tmp_path / "a.txt", tmp_path / "b.txt", span=30, text_lines=True)
    assert [row["text"] for row in rows] == [*map(str, range(50)), "last"]
    assert report.units == sorted(report.units)
    assert [name.split("-")[0] for name in report.units[-2:]] == ["00000", "00001"]


def test_a_cut_file_without_a_record_is_named_once(read, tmp_path, write_jsonl):
    (tmp_path / "a.txt").write_bytes(b"\n" * 100)
    (tmp_path / "b.txt").write_bytes(b"one")
    _, report = read(tmp_path / "a.txt", tmp_path / "b.txt", span=10, text_lines=True)
    assert report.examples == {"without a record": "a.txt"}
    assert report.files == {"without a record": 1}


def test_vectors_are_as_long_as_the_first_of_the_file_in_every_span(read, tmp_path, write_jsonl):
    records = [{"text": f"text {i}", "v": [1.0] * (3 + (i % 7 == 3))} for i in range(20)]
    path = write_jsonl(tmp_path / "a.jsonl", records)
    for span in (1 << 30, 70, 40):
        rows, report = read(path, span=span, embed="column:v")
        assert len(rows) == 17
        assert report.bad == {"4 numbers in v, not 3": 3}


def test_a_span_that_was_read_is_not_read_again_and_a_file_neither(read, tmp_path, write_jsonl):
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": f"text {i}"} for i in range(20)])
    rows, first = read(path, span=100, directory=tmp_path / "units")
    (tmp_path / "units" / "00000.json").unlink()
    (tmp_path / "units" / "00000-00001.json").unlink()
    before = (tmp_path / "units" / "00000-00000.json").stat().st_mtime_ns
    assert read(path, span=100, directory=tmp_path / "units") == (rows, first)
    assert (tmp_path / "units" / "00000-00000.json").stat().st_mtime_ns == before
    size = path.stat().st_size
    path.write_bytes(b"x" * size)
    assert read(path, span=100, directory=tmp_path / "units") == (rows, first)


def test_a_large_file_that_cannot_be_cut_is_named(read, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ingest, "_LARGE", 10)
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(b'{"text": "one"}\n' * 9))
    read(tmp_path / "a.jsonl", span=10)
    said = capsys.readouterr().err
    assert (
        "only one worker can read each of 1 large file (a.jsonl, 0 MB). Several workers can" in said
    )


@pytest.mark.slow
def test_a_build_has_the_same_bytes_whoever_reads_the_spans_and_the_shards_of_an_uncut_one(
    tmp_path, make_records, write_jsonl, all_bytes, serial, monkeypatch
):
    records = make_records(each=60)
    write_jsonl(tmp_path / "in" / "a.jsonl", records[::2])
    pq.write_table(
        pa.Table.from_pylist(records[1::2]), tmp_path / "in" / "b.parquet", row_group_size=20
    )
    settings = BuildSettings(
        clusters=3, micro_clusters=9, dims=16, vocab_size=600, min_cluster_score={},
        min_document_score={},
    )  # fmt: skip
    built = {}
    for name, span, workers in (("whole", 1 << 30, 2), ("one", 5_000, 1), ("two", 5_000, 2)):
        monkeypatch.setattr(spans, "SPAN_BYTES", span)
        pipeline.build([str(tmp_path / "in")], tmp_path / name, settings, workers=workers)
        built[name] = all_bytes(tmp_path / name)
    assert built["one"] == built["two"]
    shards = {name for name in built["whole"] if name.startswith("clusters/")}
    assert shards
    assert {name: built["one"][name] for name in shards} == {
        name: built["whole"][name] for name in shards
    }
    assert built["one"]["tokenizer.json"] == built["whole"]["tokenizer.json"]
