"""A bucket is listed whole, and no object in it is ever replaced."""

import time

import boto3
import pytest

from climbstream.loader.core.errors import RemoteError, UsageError
from climbstream.loader.core.files import hash_bytes
from climbstream.loader.storage import bucket as buckets
from climbstream.loader.storage.bucket import Bucket, Stored


@pytest.fixture
def bucket(s3, request):
    return Bucket(f"s3://bucket/{request.node.name}")


def put(bucket, name, data):
    return bucket.put(name, data, hash_bytes(data))


def content(bucket, name):
    key = f"{bucket.url.removeprefix('s3://bucket/')}/{name}"
    return boto3.client("s3").get_object(Bucket="bucket", Key=key)["Body"].read()


def test_an_object_is_written_once_and_carries_its_hash(bucket):
    assert bucket.find("a b/ö.bin") is None
    assert put(bucket, "a b/ö.bin", b"first")
    assert not put(bucket, "a b/ö.bin", b"later")
    assert content(bucket, "a b/ö.bin") == b"first"
    assert bucket.find("a b/ö.bin") == Stored(5, hash_bytes(b"first"))
    bucket.remove("a b/ö.bin")
    bucket.remove("a b/ö.bin")
    assert bucket.list() == {}


def test_a_list_has_all_pages_and_no_neighbour(bucket, monkeypatch):
    for name in ("a", "b/c", "b/d", "e"):
        put(bucket, name, b"12345"[: len(name)])
    neighbour = Bucket(f"{bucket.url}2")
    put(neighbour, "a", b"")
    boto3.client("s3").put_object(
        Bucket="bucket", Key=f"{bucket.url.removeprefix('s3://bucket/')}/", Body=b""
    )
    whole = bucket._client.list_objects_v2
    monkeypatch.setattr(bucket._client, "list_objects_v2", lambda **how: whole(MaxKeys=2, **how))
    assert bucket.list() == {"a": 1, "b/c": 3, "b/d": 3, "e": 1}


def test_an_object_without_our_hash_is_known_by_that(bucket):
    key = f"{bucket.url.removeprefix('s3://bucket/')}/theirs"
    boto3.client("s3").put_object(Bucket="bucket", Key=key, Body=b"12345")
    assert bucket.find("theirs") == Stored(5, None)


def test_a_file_is_sent_again_while_the_server_fails_for_a_moment(s3, bucket, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    left = [503, 500, 409, 503]
    s3.misbehave = lambda method, path: left.pop() if method == "PUT" and left else None
    assert bucket.put("file", tmp_path / "file", hash_bytes(b"content"))
    assert not left
    assert content(bucket, "file") == b"content"


def test_an_answer_that_is_lost_leaves_the_object_that_was_sent(s3, bucket):
    lost = [True]
    s3.lose = lambda method, path: method == "PUT" and bool(lost) and lost.pop()
    assert not put(bucket, "file", b"content")
    assert bucket.find("file") == Stored(7, hash_bytes(b"content"))


@pytest.fixture
def small_parts(monkeypatch):
    """Files of 1,000 bytes are large, and have parts of 300."""
    from moto.s3 import models

    monkeypatch.setattr(models, "S3_UPLOAD_PART_MIN_SIZE", 1)
    monkeypatch.setattr(buckets, "LARGE", 1000)
    monkeypatch.setattr(buckets, "_PART", 300)


def uploads():
    return boto3.client("s3").list_multipart_uploads(Bucket="bucket").get("Uploads", [])


def test_a_large_file_goes_in_parts_and_replaces_nothing(s3, bucket, tmp_path, small_parts):
    data = bytes(range(256)) * 4
    (tmp_path / "large").write_bytes(data)
    left = [503, 503]
    s3.misbehave = lambda method, path: left.pop() if method == "PUT" and left else None
    assert bucket.put("large", tmp_path / "large", hash_bytes(data))
    assert sum(method == "PUT" and status == 200 for method, _, status in s3.asked) == 4
    assert content(bucket, "large") == data
    assert bucket.find("large") == Stored(1024, hash_bytes(data))
    (tmp_path / "other").write_bytes(data[::-1])
    assert not bucket.put("large", tmp_path / "other", hash_bytes(data[::-1]))
    assert content(bucket, "large") == data
    assert uploads() == []


def test_parts_of_a_file_that_is_given_up_are_removed(s3, bucket, tmp_path, small_parts):
    (tmp_path / "large").write_bytes(b"x" * 1500)
    puts = []

    def refuse_the_third(method, path):
        puts.extend([path] * (method == "PUT"))
        return 403 if method == "PUT" and len(puts) == 3 else None

    s3.misbehave = refuse_the_third
    with pytest.raises(RemoteError, match=r"S3 refused to write part 3 of s3://bucket/.*/large"):
        bucket.put("large", tmp_path / "large", "")
    assert uploads() == []
    assert bucket.list() == {}


def test_an_end_of_parts_whose_answer_is_lost_leaves_the_object(s3, bucket, tmp_path, small_parts):
    (tmp_path / "large").write_bytes(b"x" * 1500)
    posts = []

    def lose_the_end(method, path):
        posts.extend([path] * (method == "POST"))
        return method == "POST" and len(posts) == 2

    s3.lose = lose_the_end
    bucket.put("large", tmp_path / "large", hash_bytes(b"x" * 1500))
    assert len(posts) == 3
    assert bucket.find("large") == Stored(1500, hash_bytes(b"x" * 1500))


# Errors say what to do.


def test_a_bucket_that_there_is_not_is_named_with_the_remedy(s3):
    with pytest.raises(
        RemoteError,
        match=r"S3 cannot list s3://nowhere/x: there is no bucket nowhere; make it .*mb",
    ):
        Bucket("s3://nowhere/x").list()


def test_who_may_not_write_is_told_what_it_takes(s3, bucket):
    s3.misbehave = lambda method, path: 403 if method == "PUT" else None
    with pytest.raises(
        RemoteError, match=r"S3 refused to write s3://.*/a: .*AccessDenied.*; use .*s3:PutObject"
    ):
        put(bucket, "a", b"")


def test_a_store_that_does_not_know_what_is_asked_is_not_asked_again(s3, bucket):
    s3.misbehave = lambda method, path: 501 if method == "PUT" else None
    with pytest.raises(RemoteError, match=r"S3 refused to write s3://.*/a: .*as told"):
        put(bucket, "a", b"")
    assert len(s3.asked) == 1


def test_a_store_that_goes_on_failing_is_given_up(s3, request):
    s3.misbehave = lambda method, path: 503
    bucket = Bucket(f"s3://bucket/{request.node.name}", patience=0.05)
    with pytest.raises(
        RemoteError, match=r"S3 did not list s3://.*: try \d+ ended with .*SlowDown"
    ):
        bucket.list()


def test_a_server_that_has_never_answered_is_given_up_soon(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    begun = time.monotonic()
    with pytest.raises(RemoteError, match=r"S3 cannot be reached: try \d, after \d"):
        Bucket("s3://never-asked/x").list()
    assert time.monotonic() - begun < 20


def test_without_credentials_nothing_is_asked(s3, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with pytest.raises(UsageError, match=r"no credentials to write to S3 with: set AWS_PROFILE"):
        Bucket("s3://bucket/x")
    assert s3.asked == []


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "s3://b", "s3://bucket//x", "s3://bucket/x?y"])
def test_a_url_without_a_place_in_a_bucket_is_refused(url):
    with pytest.raises(UsageError, match=r"names no place in a bucket; write s3://BUCKET/NAME"):
        Bucket(url)
