"""Records: what is broken in a file costs itself, in every format; cells are text."""

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder.corpus import csv_records, json_records, unpack
from climbstream.builder.corpus.csv_records import read_csv_records
from climbstream.builder.corpus.ingest import ReadReport, read_source
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.read_report import BadRecord
from climbstream.builder.corpus.sources import find_sources
from climbstream.builder.settings import BuildSettings


@pytest.fixture
def read(tmp_path):
    """Return a function that reads one file: what its documents say, and the report."""

    def read_one(path: Path, **settings):
        (source,) = find_sources([str(path)])
        report = read_source(source, 0, tmp_path / "units", BuildSettings(**settings))
        assert ReadReport.from_json(json.loads(json.dumps(report.to_json()))) == report
        units = [Partition(tmp_path / "units" / name) for name in report.units]
        return [
            row for u in units for row in u.columns("id", "text", "label", "license").to_pylist()
        ], report

    return read_one


def texts(rows):
    return [row["text"] for row in rows]


# Text that is a table.


def test_cells_are_text_whatever_they_look_like(read, tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n001,NA\n,null\n1.0,1e3\n2,True\n")
    rows, report = read(tmp_path / "a.csv")
    assert [(row["id"], row["text"]) for row in rows] == [
        ("001", "NA"),
        ("a.csv:2", "null"),
        ("1.0", "1e3"),
        ("2", "True"),
    ]
    assert not report.bad


BROKEN_ROWS = {
    b"2,two,more": "not as many fields as the header",
    b"2": "not as many fields as the header",
    b'2,"two': "quotes that do not match",
    b'2,"t"wo': "quotes that do not match",
    b"2,t\xffwo": "not UTF-8",
    b"2,t\0wo": "NUL character in text",
}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("row", BROKEN_ROWS)
def test_a_broken_row_costs_itself_and_is_named_by_its_place(read, tmp_path, row, end):
    rows = [b"\xef\xbb\xbfid,text", b"1,one", row, b"3,three", b'4,"fo\nur"', b"5,five"]
    (tmp_path / "a.csv").write_bytes(end.join(rows))
    read_rows, report = read(tmp_path / "a.csv")
    assert texts(read_rows) == ["one", "three", "fo\nur", "five"]
    assert report.bad == {BROKEN_ROWS[row]: 1}
    assert report.listed[0]["origin"].startswith("a.csv:2")


def test_a_quote_that_is_never_closed_costs_its_line_alone(read, tmp_path):
    lines = ["id,text", *(f"{i},text {i}" for i in range(1000))]
    lines[501] = '500,"never closed'
    (tmp_path / "a.csv").write_text("\n".join(lines))
    rows, report = read(tmp_path / "a.csv")
    assert len(rows) == 999
    assert report.examples == {"quotes that do not match": "a.csv:501 (line 502)"}


def test_a_field_may_be_large_and_the_second_column_of_a_name_is_another(read, tmp_path):
    (tmp_path / "a.tsv").write_text(f"text\ttext\n{'x' * 500_000}\tother\n")
    rows, _ = read(tmp_path / "a.tsv")
    assert texts(rows) == ["x" * 500_000]


CELLS = [
    b"a",
    b",",
    b'"',
    b'""',
    b"\n",
    b"\r\n",
    b"\r",
    b"\xff",
    b"\xef\xbb\xbf",
    b"1,2\n",
    b'"x\ny"',
]


@given(st.lists(st.sampled_from(CELLS), max_size=30))
def test_rows_of_text_are_the_same_in_blocks_of_any_size(cells):
    def rows(block):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_records, "_BLOCK", block)
            stream = io.BufferedReader(io.BytesIO(b"h,k\n" + b"".join(cells)))
            return [*read_csv_records(stream, "a.csv", 1_000, ",")]

    whole = rows(1 << 16)
    assert all(rows(block) == whole for block in (1, 2, 3, 7))


def test_a_line_that_is_too_long_costs_itself(monkeypatch):
    monkeypatch.setattr(csv_records, "_BLOCK", 8)
    data = b"h,k\n1,2\n" + b"x" * 5_000 + b"\n3,4\n" + b'"' + b"y\n" * 2_000 + b"5,6\n"
    stream = io.BufferedReader(io.BytesIO(data))
    rows = [value for _, value in read_csv_records(stream, "a.csv", 100, ",")]
    assert [row for row in rows if isinstance(row, dict)] == [
        {"h": h, "k": k} for h, k in ("12", "34", "56")
    ]
    assert rows[1] == BadRecord("a.csv:2 (line 3)", "quotes that do not match")
    assert len(rows) == 3 + 1 + 2_000


# Tables.


def test_bytes_are_text_if_they_are_utf8_and_lists_are_joined(read, tmp_path):
    table = pa.table(
        {
            "id": pa.array([1, None, 3]),
            "text": pa.array([b"one", b"tw\xff", b"three"], pa.binary()),
            "label": pa.array(["law", "tax", "law"]).dictionary_encode(),
            "license": [["MIT", "CC0-1.0"], [], None],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    rows, report = read(tmp_path / "a.parquet")
    assert rows == [
        {"id": "1", "text": "one", "label": "law", "license": "MIT, CC0-1.0"},
        {"id": "3", "text": "three", "label": "law", "license": ""},
    ]
    assert report.bad == {"not UTF-8": 1}


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.large_binary()]
)
def test_every_kind_of_text_column_is_read(read, tmp_path, kind):
    values = ["one", "zwei ä"]
    data = [v.encode() for v in values] if pa.types.is_large_binary(kind) else values
    pq.write_table(pa.table({"text": pa.array(data, kind)}), tmp_path / "a.parquet")
    assert texts(read(tmp_path / "a.parquet")[0]) == values


def test_a_damaged_part_of_a_table_costs_its_rows(read, tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"text": [f"row {i} " * 9 for i in range(40)]}), path, row_group_size=10
    )
    begin = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[begin : begin + 99] = b"\xff" * 99
    path.write_bytes(data)
    rows, report = read(path)
    assert len(rows) == 30
    assert report.bad == {"in a damaged part of a file": 10}
    assert report.examples == {"in a damaged part of a file": "a.parquet:11"}


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.json", "a.arrow", "a.txt", "a.jsonl.gz"])
def test_an_empty_file_costs_nothing_and_is_named(read, tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    rows, report = read(tmp_path / name)
    assert (rows, report.bad) == ([], {})
    assert report.examples == {"empty": name}


@pytest.mark.parametrize("code", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'id,text\r\n1,eins 名\r\n2,"zwei\nDrei 😀"\r\n'),
        ("a.csv", 'id\ttext\r\n1\teins 名\r\n2\t"zwei\nDrei 😀"\r\n'),
        ("a.tsv", 'id\ttext\r\n1\teins 名\r\n2\t"zwei\nDrei 😀"\r\n'),
        ("a.jsonl", '{"text": "eins 名"}\n{"text": "zwei\\nDrei 😀"}\n'),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_text_in_utf16_with_a_byte_order_mark_is_read(read, tmp_path, name, content, code, pack):
    (tmp_path / name).write_bytes(pack(f"\ufeff{content}".encode(code)))
    rows, report = read(tmp_path / name)
    assert texts(rows) == ["eins 名", "zwei\nDrei 😀"]
    assert not report.bad


@given(st.text(), st.integers(1, 5))
def test_utf16_becomes_the_same_text_in_blocks_of_any_size(text, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unpack, "_BUFFER", block)
        stream = io.BufferedReader(unpack._Utf8(io.BytesIO(text.encode("utf-16"))), block)
        assert stream.read().decode() == text


def test_half_a_character_of_utf16_is_damage_that_is_said(read, tmp_path):
    (tmp_path / "a.txt").write_bytes("eins zwei".encode("utf-16")[:-1])
    assert read(tmp_path / "a.txt")[1].files == {"cut short, or damaged": 1}


@pytest.mark.parametrize("delimiter", list(",;\t|"))
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_the_delimiter_is_the_one_of_the_header(read, tmp_path, delimiter, ending):
    lines = [["id", '"a,b;c|d"', "text"], ["1", "", '"eins, 1; |\nzwei"'], ["2", "x", "drei"]]
    content = "\n".join(delimiter.join(line) for line in lines)
    (tmp_path / f"a.{ending}").write_text(content)
    rows, report = read(tmp_path / f"a.{ending}")
    assert texts(rows) == ["eins, 1; |\nzwei", "drei"]
    assert not report.bad


def test_a_header_with_the_delimiter_of_the_ending_keeps_it(read, tmp_path):
    (tmp_path / "a.csv").write_text("text,a;b;c\neins,1;2\n")
    assert texts(read(tmp_path / "a.csv")[0]) == ["eins"]


def test_a_part_without_rows_is_named(read, tmp_path):
    pq.write_table(pa.table({"text": pa.array([], "string")}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[1].files == {"without a record": 1}


def test_columns_within_columns_are_named_by_their_path(read, tmp_path):
    records = [
        {"content": {"text": f"t {i}", "meta": {"set": "law"}}, "a.b": "own"} for i in range(2)
    ]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    settings = {"text": "content.text", "label": "content.meta.set", "license": "a.b"}
    rows, report = read(tmp_path / "a.parquet", **settings)
    assert [(r["text"], r["label"], r["license"]) for r in rows] == [
        ("t 0", "law", "own"),
        ("t 1", "law", "own"),
    ]
    assert report.met == {"content.text": 1, "content.meta.set": 1, "a.b": 1}


# JSON of any layout.

HOSTILE = [
    *(b"NaN", b"-Infinity", b"1e400", b"-1e-400", b"1" * 30, b"1" * 4_301, b"9" * 400 + b".5"),
    *(b"-0", b"-0.0", b"0.1e1", b"01", b"1.", b"{}", b"{} {}", b"[1,]", b'{"a":1,"a":2}', b"\x0c1"),
    *(b'"\\ud83d"', b'"\\ude00\\ud83d"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\xed\xa0\x80"'),
    *(b'"\x01"', b'"\xff"', b'"\\x"', b"nul", b""),
    *(b"[" * n + b"]" * n for n in (100, 900, 2_000, 100_000)),
]


def outcome(parse, line):
    """What ``parse`` makes of ``line``, so that NaN and -0.0 are told apart from others."""
    return repr(parse(line, "a.jsonl:1"))


@pytest.mark.parametrize("line", HOSTILE, ids=lambda line: repr(line[:20]))
def test_a_hostile_line_of_json_is_what_python_makes_of_it(line):
    assert outcome(json_records._parse, line) == outcome(json_records._parse_slowly, line)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
    st.booleans(),
    st.data(),
)
def test_any_line_of_json_is_what_python_makes_of_it_damaged_or_not(value, escaped, data):
    line = json.dumps(value, ensure_ascii=escaped).encode(errors="surrogatepass")
    at = data.draw(st.integers(0, len(line)))
    damaged = line[:at] + data.draw(st.binary(max_size=2)) + line[at + 1 :]
    for each in (line, damaged):
        assert outcome(json_records._parse, each) == outcome(json_records._parse_slowly, each)


RECORDS = [{"text": f'text {i} \u2028 \\ "{{', "meta": {"list": [{"a": i}]}} for i in range(900)]
LAYOUTS = {
    "array": json.dumps(RECORDS),
    "array over lines": json.dumps(RECORDS, indent=2),
    "array of lines": "[\n" + ",\n".join(map(json.dumps, RECORDS)) + "\n]\n",
    "objects over lines": "\n".join(json.dumps(record, indent=2) for record in RECORDS),
    "objects in a row": "".join(map(json.dumps, RECORDS)),
    "not ascii": json.dumps(RECORDS, ensure_ascii=False),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_json_of_any_layout_is_read(read, tmp_path, layout, pack):
    (tmp_path / "a.json").write_bytes(pack(LAYOUTS[layout].encode()))
    rows, report = read(tmp_path / "a.json")
    assert texts(rows) == [record["text"] for record in RECORDS]
    assert [row["id"] for row in rows[:2]] == ["a.json:1", "a.json:2"]
    assert not report.bad


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'[{"text":"a"},{"text":oops,"m":{"x":1}},{"text":"b"}]', ["a", "b"]),
        (b'[{"text":"a"},{"text":"b\xff"},{"text":"c"}]', ["a", "c"]),
        (b'[{"text":"a"},{"text":"b"},{"text":"cut', ["a", "b"]),
        (b'{\n"text": "a"\n}\n{\n"text": "b" "x"\n}\n{\n"text": "c"\n}', ["a", "c"]),
        (b'[{"text":"a"},' + b'{"a":' * 100_000 + b'],{"text":"b"}]', ["a", "b"]),
        (b'[{"text":"a"},{"n":' + b"1" * 5000 + b'},{"text":"b"}]', ["a", "b"]),
    ],
)
def test_broken_json_costs_a_record_and_not_the_file(read, tmp_path, content, expected):
    (tmp_path / "a.json").write_bytes(content)
    rows, report = read(tmp_path / "a.json")
    assert texts(rows) == expected
    assert report.bad


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_spaces_between_the_names_of_columns_do_not_count(tmp_path, read, ending):
    path = tmp_path / f"a.{ending}"
    record = {"Text": "a text of some words", "key": "k"}
    if ending == "csv":
        path.write_text("Text,key\na text of some words,k\n")
    elif ending == "jsonl":
        path.write_text(json.dumps(record))
    else:
        pq.write_table(pa.Table.from_pylist([record]), path)
    rows, _ = read(path, text="text, Text", id="url, key")
    assert [(row["id"], row["text"]) for row in rows] == [("k", "a text of some words")]
