"""Sources in S3 are read with boto3, and are the same documents as those of a folder."""

import re

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_server import BUCKET
from small_build import SMALL_BUILD

from climbstream.builder import build
from climbstream.builder.corpus.sources import survey
from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.errors import RemoteError, UsageError
from climbstream.loader.storage.s3_files import S3Files


@pytest.fixture
def put(s3, request):
    S3Files.clear_instance_cache()  # of the server of another module
    prefix = re.sub(r"\W", "_", request.node.name)
    client = boto3.client("s3")

    def put(name, body):
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=body)
        return f"s3://{BUCKET}/{prefix}"

    return put


@pytest.fixture
def files(tmp_path, make_records, write_jsonl):
    records = make_records(each=20)
    table = [{"text": record["text"], "id": record["id"]} for record in records[30:]]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "b.parquet", row_group_size=7)
    return {
        "a.jsonl": write_jsonl(tmp_path / "a.jsonl", records[:30]).read_bytes(),
        "more/b.parquet": (tmp_path / "b.parquet").read_bytes(),
    }


def places(url):
    found, left_out = survey([url])
    return [source.place for source in found], [bad.origin.rpartition("/")[2] for bad in left_out]


def test_a_folder_a_glob_and_a_file_are_found(put, files):
    for name, body in {**files, "more/": b"", "notes.bin": b"?"}.items():
        url = put(name, body)
    assert places(url) == (["a.jsonl", "more/b.parquet"], ["notes.bin"])
    assert places(f"{url}/*.jsonl")[0] == ["a.jsonl"]
    assert places(f"{url}/**/*.parquet")[0] == ["more/b.parquet"]
    assert places(f"{url}/more/b.parquet")[0] == ["b.parquet"]
    with pytest.raises(UsageError, match="nosuch is not a file, folder or glob"):
        survey([f"{url}/nosuch"])


def test_a_build_reads_the_documents_of_a_folder(
    put, files, tmp_path, monkeypatch, serial, catalogue
):
    for name, body in files.items():
        url = put(name, body)
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / name).write_bytes(body)
    monkeypatch.setattr("climbstream.builder.pipeline.open_engine", lambda *_, **_more: serial)
    rows = []
    for number, source in enumerate((url, str(tmp_path / "local"))):
        build([source], tmp_path / str(number), BuildSettings(**SMALL_BUILD))
        rows.append([{**row, "source": ""} for row in catalogue(tmp_path / str(number))])
    assert rows[0] == rows[1]


def test_a_version_is_the_etag_and_not_the_place(put):
    first, second = put("a.jsonl", b"{}"), put("b.jsonl", b"{}")
    third = put("c.jsonl", b"[]")
    (a,), (b,), (c,) = (
        survey([f"{url}/{name}.jsonl"])[0]
        for url, name in ((first, "a"), (second, "b"), (third, "c"))
    )
    assert a.fingerprint == b.fingerprint != c.fingerprint


def test_a_range_is_read_again_while_the_server_fails(put, s3):
    body = bytes(range(256)) * 100
    url = put("a.bin", body)
    times = []

    def misbehave(method, path):
        if method == "GET" and path.endswith("a.bin") and len(times) < 2:
            times.append(path)
            return 503
        return None

    s3.misbehave = misbehave
    with S3Files().open(url + "/a.bin") as file:
        file.seek(1000)
        assert file.read(500) == body[1000:1500]
    assert len(times) == 2


def test_an_object_that_is_replaced_while_it_is_read_is_named(put):
    url = put("a.jsonl", b"1" * 100)
    with S3Files().open(url + "/a.jsonl") as file:
        put("a.jsonl", b"2" * 100)
        with pytest.raises(RemoteError, match=r"a\.jsonl was replaced while it was read; run"):
            file.read()


def test_a_bucket_that_there_is_not_and_a_refusal_are_named(put, s3):
    url = put("a.jsonl", b"{}")
    with pytest.raises(RemoteError, match="there is no bucket nosuchbucket; make it"):
        survey(["s3://nosuchbucket/x"])
    s3.misbehave = lambda method, path: 403
    with pytest.raises(RemoteError, match=r"S3 refused to .*; use credentials that allow s3:List"):
        survey([url])
