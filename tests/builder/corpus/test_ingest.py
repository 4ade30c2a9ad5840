"""The corpus: what is a source, what is a document of it, and what becomes of the rest."""

import bz2
import csv
import gzip
import itertools
import json
import lzma
import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder.corpus import ingest
from climbstream.builder.corpus.ingest import ReadReport, read_source
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.read_report import LISTED
from climbstream.builder.corpus.sources import find_sources
from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.errors import RemoteError, UsageError

RECORDS = [
    {"id": f"n{i}", "text": f"text {i},\nline \u2028 two", "label": "a", "license": "CC0-1.0"}
    for i in range(3)
]
COLUMNS = ("id", "text", "label", "license")
PACKS = {".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Return a function that reads sources: the rows of their documents, and the report."""

    def read_all(*names, **settings):
        directory = tmp_path_factory.mktemp("units")
        report = ReadReport()
        for number, source in enumerate(find_sources([str(name) for name in names])):
            report.add(read_source(source, number, directory, BuildSettings(**settings)))
        units = [Partition(directory / name) for name in report.units]
        rows = [row for unit in units for row in unit.columns(*COLUMNS, "origin").to_pylist()]
        return rows, report

    return read_all


def without_origin(rows):
    return [{name: row[name] for name in COLUMNS} for row in rows]


# Formats.


@pytest.mark.parametrize("suffix", ["jsonl", "json", "ndjson", "jsonl.gz", "jsonl.zst", "JSONL"])
def test_lines_of_json_are_read_plain_and_packed(read, tmp_path, write_jsonl, suffix):
    rows, report = read(write_jsonl(tmp_path / f"a.{suffix}", RECORDS))
    assert without_origin(rows) == RECORDS
    assert not report.bad


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zst", zstandard.compress)])
def test_a_file_of_several_packs_is_read_to_its_end(read, tmp_path, suffix, pack):
    parts = [pack(json.dumps(record).encode() + b"\n") for record in RECORDS]
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(b"".join(parts))
    assert without_origin(read(tmp_path)[0]) == RECORDS


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst", "jsonl.bz2", "jsonl.xz"])
@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_pack_that_is_cut_short_costs_what_follows_and_is_named(
    read, tmp_path, write_jsonl, suffix, keep
):
    path = write_jsonl(
        tmp_path / "cut.jsonl", [*RECORDS, {"text": random.randbytes(1 << 21).hex()}]
    )
    packs = {**PACKS, ".gz": gzip.compress, ".zst": zstandard.compress}
    data = packs[Path(suffix).suffix](path.read_bytes())
    path.unlink()
    (tmp_path / f"cut.{suffix}").write_bytes(data[: int(len(data) * keep)])
    rows, report = read(tmp_path)
    assert without_origin(rows) == RECORDS
    reason = "cut short, or damaged; the records before the damage are used"
    assert report.files == {reason: 1}
    assert report.examples[reason].startswith(f"cut.{suffix}: ")


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst", "parquet", "arrow", "csv"])
def test_a_file_that_is_not_what_its_name_says_is_no_document(read, tmp_path, suffix):
    (tmp_path / f"odd.{suffix}").write_bytes(b"\xff\xfe\0 this is none of them\n" * 9)
    rows, report = read(tmp_path / f"odd.{suffix}")
    assert not rows
    assert report.bad.total() + report.files.total() > 0


def test_a_text_file_is_a_document(read, tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone\n\ntwo \u2028 \x0b still two\r\nthree\n".encode())
    (tmp_path / "b.txt").write_bytes(b"\n \n")
    rows, report = read(tmp_path / "a.txt", tmp_path / "b.txt")
    texts = [(row["id"], row["text"]) for row in rows]
    assert texts == [("a.txt", "one\n\ntwo \u2028 \x0b still two\nthree")]
    assert report.bad == {"empty text": 1}


def test_it_is_said_what_is_a_document_of_text_files(tmp_path, serial, capsys):
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    sources = find_sources([str(tmp_path / "a.txt")])
    for number, lines in enumerate((False, True)):
        settings = BuildSettings(text_lines=lines)
        ingest.read_corpus(serial, sources, tmp_path / f"units{number}", settings, least=1)
    said = capsys.readouterr().err
    assert "1 text file (a.txt): each file is a document (with --text-lines: each" in said
    assert "1 text file (a.txt): each line is a document (without --text-lines" in said
    assert "read 1 document, " in said
    assert "read 3 documents" in said


def test_with_text_lines_a_text_file_holds_a_document_a_line(read, tmp_path):
    (tmp_path / "a.txt").write_bytes("one\n\ntwo \u2028 \x0b still two\r\nthree".encode())
    rows, _ = read(tmp_path / "a.txt", text_lines=True)
    assert [(row["id"], row["text"]) for row in rows] == [
        ("a.txt:1", "one"),
        ("a.txt:3", "two \u2028 \x0b still two"),
        ("a.txt:4", "three"),
    ]


def test_a_line_of_a_text_file_that_is_not_utf8_is_left_out_as_such(read, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\nt\xffo\n \t\nthree\n")
    rows, report = read(tmp_path / "a.txt", text_lines=True)
    assert [row["text"] for row in rows] == ["one", "three"]
    assert report.bad == {"not UTF-8": 1, "empty text": 1}


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.csv.zst", "a [1].csv"])
def test_a_table_of_text_is_read(read, tmp_path, name):
    with (tmp_path / "plain").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t" if "tsv" in name else ",")
        writer.writeheader()
        writer.writerows(RECORDS)
    data = (tmp_path / "plain").read_bytes()
    packs = {".gz": gzip.compress, ".zst": zstandard.compress}
    (tmp_path / name).write_bytes(packs.get(Path(name).suffix, bytes)(data))
    rows, _ = read(tmp_path / name)
    assert without_origin(rows) == RECORDS
    assert [row["origin"] for row in rows] == [f"{name}:{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize("kind", ["parquet", "arrow stream", "arrow file"])
def test_a_table_of_arrow_is_read(read, tmp_path, kind):
    table = pa.Table.from_pylist([*RECORDS, {"text": None}, {"text": "the last"}])
    path = tmp_path / f"a.{kind.split()[0]}"
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        new = pa.ipc.new_stream if kind.endswith("stream") else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as file, new(file, table.schema) as writer:
            writer.write_table(table)
    rows, report = read(path)
    assert without_origin(rows[:3]) == RECORDS
    assert (rows[3]["id"], rows[3]["text"]) == (f"{path.name}:5", "the last")
    assert report.bad == {"text is not a string": 1}


def test_the_text_that_is_installed_is_a_source(read):
    rows, report = read("python:0.1")
    assert report.documents == len(rows) > 3
    assert len(report.labels) > 3


# Sources.


def test_a_folder_is_its_files_of_known_formats_in_the_order_of_names(read, tmp_path, write_jsonl):
    for name in ("b.jsonl", "a.jsonl.gz", "deep/down/c.txt.zst", "deep/d.jsonl"):
        write_jsonl(tmp_path / name, [{"text": f"the text of {name}"}])
    for name in ("README.md", "deep/picture.png", "jsonl"):
        (tmp_path / name).write_bytes(b"\xff")
    rows, report = read(tmp_path)
    assert [row["origin"] for row in rows] == [
        "a.jsonl.gz:1",
        "b.jsonl:1",
        "deep/d.jsonl:1",
        "deep/down/c.txt.zst",
    ]
    assert not report.bad


def test_a_glob_is_the_files_that_it_matches(tmp_path, write_jsonl):
    for name in ("a1.jsonl", "a2.jsonl", "b1.jsonl"):
        write_jsonl(tmp_path / name, RECORDS)
    found = find_sources([f"{tmp_path}/a*.jsonl"])
    assert [Path(source.name).name for source in found] == ["a1.jsonl", "a2.jsonl"]


def test_a_file_whose_name_is_a_glob_is_itself(read, tmp_path, write_jsonl):
    path = write_jsonl(tmp_path / "part [1] *.jsonl", RECORDS)
    assert without_origin(read(path)[0]) == RECORDS


def test_a_source_is_known_by_its_bytes(tmp_path, write_jsonl):
    names = [str(write_jsonl(tmp_path / name, RECORDS)) for name in ("a.jsonl", "b.jsonl")]
    first, second = find_sources(names)
    assert first.fingerprint == second.fingerprint
    write_jsonl(tmp_path / "b.jsonl", RECORDS[:2])
    assert find_sources(names)[1].fingerprint != second.fingerprint


def test_the_order_in_which_sources_are_named_does_not_matter(tmp_path, write_jsonl):
    names = [str(write_jsonl(tmp_path / name, RECORDS)) for name in ("b.jsonl", "a.jsonl")]
    assert find_sources(names) == find_sources(sorted(names))


def test_a_source_that_is_named_twice_is_read_once(read, tmp_path, write_jsonl):
    path = write_jsonl(tmp_path / "a.jsonl", RECORDS)
    assert without_origin(read(path, tmp_path, path)[0]) == RECORDS


def test_files_of_one_name_in_several_folders_keep_their_documents_apart(
    read, tmp_path, write_jsonl
):
    for year in ("2024", "2025"):
        write_jsonl(tmp_path / year / "part.jsonl", [{"text": f"{year}, {i}"} for i in range(3)])
    rows, _ = read(tmp_path)
    assert len({row["id"] for row in rows}) == 6
    assert {row["id"] for row in rows} == {row["origin"] for row in rows}
    assert rows[0]["id"] == "2024/part.jsonl:1"


@pytest.mark.parametrize("name", ["nowhere.jsonl", "nowhere*", "empty"])
def test_a_name_that_matches_nothing_is_refused_with_what_could_be_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UsageError, match=rf"{name.replace('*', '.')} is not a file, folder or glob with .*parquet"
    ):
        find_sources([str(tmp_path / name)])


def test_an_unknown_format_is_refused_with_those_that_are_known(tmp_path):
    (tmp_path / "a.docx").write_bytes(b"1")
    with pytest.raises(
        UsageError, match=r"a\.docx has an unknown format; a build reads arrow, csv,"
    ):
        find_sources([str(tmp_path / "a.docx")])


def test_an_unknown_protocol_is_refused():
    with pytest.raises(UsageError, match=r"nope://bucket/a\.jsonl: .*nope"):
        find_sources(["nope://bucket/a.jsonl"])


def test_a_size_that_is_no_number_is_refused():
    with pytest.raises(UsageError, match="write python: or python:MEGABYTES"):
        find_sources(["python:much"])


def test_a_hub_that_does_not_answer_is_a_remote_error(read, monkeypatch):
    import datasets

    def unreachable(*_, **__):
        raise ConnectionError("cannot be reached")

    monkeypatch.setattr(datasets, "load_dataset_builder", unreachable)
    with pytest.raises(RemoteError, match="hub:some/data cannot be read: cannot be reached"):
        read("hub:some/data")


# Documents.


@pytest.mark.parametrize(
    ("name", "becomes"),
    [
        ("a", "a"),
        (7, "7"),
        (0, "0"),
        ("\ud83d", "?"),
        (1.5, "1.5"),
        (2.0, "2"),
        (["a", 7], "a, 7"),
        *((nothing, "here.jsonl:1") for nothing in (None, "", True, [], {}, float("nan"))),
    ],
)
def test_a_document_without_a_name_is_named_by_its_place(
    read, tmp_path, write_jsonl, name, becomes
):
    line = json.dumps({"id": name, "text": "a text"}).encode()
    rows, _ = read(write_jsonl(tmp_path / "here.jsonl", [line]))
    assert rows[0]["id"] == becomes
    assert rows[0]["origin"] == "here.jsonl:1"


def test_columns_can_be_chosen(read, tmp_path, write_jsonl):
    record = {"key": 1, "body": "a text", "domain": "law", "terms": "MIT", "text": "not this"}
    rows, _ = read(
        write_jsonl(tmp_path / "a.jsonl", [record]),
        text="body",
        id="key",
        label="domain",
        license="terms",
    )
    assert without_origin(rows) == [{"id": "1", "text": "a text", "label": "law", "license": "MIT"}]


def test_of_several_columns_the_first_that_a_record_has_is_read(read, tmp_path, write_jsonl):
    lines = [
        {"content": "first", "text": None, "url": "u1"},
        {"text": "second", "content": "no", "id": "i2", "url": "u2"},
        {"text,content": "third", "text": "no"},
        {"body": "fourth"},
    ]
    table = pa.table({"content": ["fifth"], "url": ["u5"], "more": [1]})
    pq.write_table(table, tmp_path / "b.parquet")
    (tmp_path / "c.txt").write_text("sixth")
    sources = [write_jsonl(tmp_path / "a.jsonl", lines), tmp_path / "b.parquet", tmp_path / "c.txt"]
    rows, report = read(*sources, text="text,content", id="id,url")
    assert [(row["id"], row["text"]) for row in rows] == [
        ("u1", "first"),
        ("i2", "second"),
        ("a.jsonl:3", "third"),
        ("u5", "fifth"),
        ("c.txt", "sixth"),
    ]
    assert report.bad == {"no column 'text' or 'content'": 1}


def test_a_column_that_is_not_there_is_named(read, tmp_path, write_jsonl):
    _, report = read(write_jsonl(tmp_path / "a.jsonl", RECORDS), text="body")
    assert report.bad == {"no column 'body'": 3}


def test_an_append_is_not_said_to_end_for_a_column_that_it_does_not_need(
    serial, tmp_path, write_jsonl, caplog
):
    place = write_jsonl(tmp_path / "a.jsonl", [{"text": f"words {n}"} for n in range(60)])
    settings = BuildSettings(keep=["meta.kind"])
    ingest.read_corpus(serial, find_sources([str(place)]), tmp_path / "units", settings, least=1)
    assert "has the column 'meta.kind', which the setting keep names" in caplog.text
    assert "Documents without it are appended all the same" in caplog.text
    assert "ends with an error" not in caplog.text


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_any_text_comes_back_as_it_was(read, tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    path.write_bytes("\n".join(lines).encode())
    rows, report = read(path)
    assert [row["text"] for row in rows] == [text for text in texts if text.strip()]
    assert report.documents + report.bad.total() == len(texts)


@given(st.lists(st.binary()))
def test_no_bytes_end_the_reading(read, tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    path.write_bytes(b"\n".join([b'{"text": "first"}', *lines, b'{"text": "last"}']))
    rows, _ = read(path)
    assert [rows[0]["text"], rows[-1]["text"]] == ["first", "last"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "cut', "not JSON"),
        (b'{"text": "two"} {"text": "objects"}', "not JSON"),
        (b'{"text": "t\xffo"}', "not UTF-8"),
        (b'{"text": "a \xed\xa0\x80 surrogate"}', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[1, 2]", "not an object"),
        (b"null", "not an object"),
        (b'{"id": "a"}', "no column 'text'"),
        (b'{"text": null}', "text is not a string"),
        (b'{"text": NaN}', "text is not a string"),
        (b'{"text": {"t": "deep"}}', "text is not a string"),
        (b'{"text": ""}', "empty text"),
        (b'{"text": " \\n\\u00a0\\u2028"}', "empty text"),
        (b'{"text": "a\\u0000b"}', "NUL character in text"),
        (b'{"text": "a \\ud83d b"}', "lone surrogate in text"),
        (b'{"text": "' + "é".encode() * 51 + b'"}', "longer than 100 bytes"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else value,
)
def test_a_bad_record_is_left_out_and_listed_with_its_place(
    read, tmp_path, write_jsonl, line, reason
):
    good = {"text": "stands"}
    rows, report = read(write_jsonl(tmp_path / "a.jsonl", [good, line, good]), max_bytes=100)
    assert [row["origin"] for row in rows] == ["a.jsonl:1", "a.jsonl:3"]
    assert report.bad == {reason: 1}
    assert report.listed == [{"origin": "a.jsonl:2", "reason": reason}]


def test_a_document_of_just_the_most_bytes_stays(read, tmp_path, write_jsonl):
    rows, _ = read(write_jsonl(tmp_path / "a.jsonl", [{"text": "é" * 50}]), max_bytes=100)
    assert len(rows) == 1


def test_empty_lines_are_no_records(read, tmp_path, write_jsonl):
    path = write_jsonl(tmp_path / "a.jsonl", [b"", {"text": "one"}, b"\r", b"", {"text": "two"}])
    rows, report = read(path)
    assert [row["origin"] for row in rows] == ["a.jsonl:2", "a.jsonl:5"]
    assert report.stage()["in"]["documents"] == 2


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
def test_a_byte_order_mark_and_windows_line_ends_are_no_text(read, tmp_path, write_jsonl, mark):
    lines = [mark + json.dumps({"id": name, "text": "a text"}).encode() + b"\r" for name in "ab"]
    rows, report = read(write_jsonl(tmp_path / "a.jsonl", lines))
    assert [row["id"] for row in rows] == ["a", "b"]
    assert not report.bad


def test_all_bad_records_are_counted_and_the_first_of_a_source_are_listed(
    read, tmp_path, write_jsonl
):
    path = write_jsonl(tmp_path / "a.jsonl", [b"bad"] * (LISTED + 50) + [{"text": "good"}])
    _, report = read(path)
    assert report.bad == {"not JSON": LISTED + 50}
    assert len(report.listed) == LISTED
    stage = report.stage()
    assert (stage["in"]["documents"], stage["out"]["documents"]) == (LISTED + 51, 1)
    assert stage["dropped"] == {"not JSON": {"documents": LISTED + 50}}


# Units.


def test_documents_are_laid_down_in_units_of_bounded_size(read, tmp_path, write_jsonl, monkeypatch):
    monkeypatch.setattr(ingest, "UNIT_BYTES", 1000)
    records = [{"id": f"{i}", "text": f"{i:0100}", "label": "ab"[i % 2]} for i in range(25)]
    rows, report = read(write_jsonl(tmp_path / "a.jsonl", records))
    assert report.units == ["00000-00000", "00000-00001", "00000-00002"]
    assert [row["id"] for row in rows] == [record["id"] for record in records]
    assert (report.documents, report.bytes) == (25, 2500)
    assert report.labels == {"a": 1300, "b": 1200}


def test_a_source_that_was_read_to_its_end_is_not_read_again(tmp_path, write_jsonl):
    path = write_jsonl(tmp_path / "a.jsonl", [*RECORDS, b"bad"])
    (source,) = find_sources([str(path)])
    first = read_source(source, 0, tmp_path / "units", BuildSettings())
    path.unlink()
    again = read_source(source, 0, tmp_path / "units", BuildSettings())
    assert again == first
    assert isinstance(again.bad, Counter)


# Records of every kind that is broken or hostile.


def allowed(expected: str) -> set[str]:
    """What may become of a record, by what the list of them says of it."""
    words = {
        "rejected": ("reject",),
        "accepted": ("accept", "clean", "coerce", "assign", "re-id", "either value", "low quality"),
        "skipped": ("skip",),
    }
    return {outcome for outcome, said in words.items() if any(word in expected for word in said)}


def test_broken_and_hostile_records_are_taken_or_left_as_is_expected(read, shared_corpus):
    rows, report = read(shared_corpus / "bad_records.jsonl.zst", label="source")
    outcomes = {int(row["origin"].rpartition(":")[2]): "accepted" for row in rows}
    outcomes |= {int(bad["origin"].rpartition(":")[2]): "rejected" for bad in report.listed}
    with (shared_corpus / "bad_records.expected.tsv").open() as file:
        expected = {int(row["line"]): row for row in csv.DictReader(file, delimiter="\t")}
    wrong = {
        line: (outcome, row["expected"], row["why"])
        for line, row in expected.items()
        if (outcome := outcomes.get(line, "skipped")) not in allowed(row["expected"])
    }
    # Its source and licence are lists and objects, which cost no document.
    assert wrong.pop(31)[0] == "accepted"
    assert not wrong
    assert len(outcomes) == len(rows) + len(report.listed) == 35
    assert report.bad.total() == len(report.listed)
    texts = {int(row["origin"].rpartition(":")[2]): row["text"] for row in rows}
    assert "\u2028" in texts[32]
    assert all(a < b for a, b in itertools.pairwise(texts))


def test_a_label_may_be_the_folder_of_the_file(tmp_path):
    for place, text in (("law/a.txt", "one"), ("law/b.csv", "text\ntwo"), ("tax/a.txt", "three")):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(text)
    (tmp_path / "tax/c.jsonl").write_text('{"text": "four", "folder": "own"}\n')
    sources = find_sources([str(tmp_path)])
    labels = {}
    for number, source in enumerate(sources):
        report = read_source(source, number, tmp_path / "units", BuildSettings(label="folder"))
        assert report.met["folder"] == 1
        for name in report.units:
            rows = Partition(tmp_path / "units" / name).columns("text", "label").to_pylist()
            labels |= {row["text"]: row["label"] for row in rows}
    assert labels == {"one": "law", "two": "law", "three": "tax", "four": "own"}
