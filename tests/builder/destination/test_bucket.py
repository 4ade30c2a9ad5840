"""What is built for a bucket is there whole or not at all, with the bytes of a local build."""

import re
import shutil
import signal
import threading
from functools import partial

import boto3
import pytest
from climb_command import ClimbProcess
from small_build import SMALL_BUILD

from climbstream.builder import append, build, dry_run, import_corpus, pipeline
from climbstream.builder.destination.destination import open_destination
from climbstream.builder.destination.upload import CLAIM, Upload
from climbstream.builder.importer import pipeline as importer
from climbstream.builder.settings import BuildSettings
from climbstream.loader import MixtureLoader
from climbstream.loader.core.errors import (
    IntegrityError,
    InvalidDataError,
    LockedError,
    RemoteError,
    UsageError,
)
from climbstream.loader.core.files import write_json
from climbstream.loader.formats.manifest import MANIFEST, Manifest
from climbstream.loader.storage.bucket import Bucket
from climbstream.loader.tools.verify import verify_directory

SETTINGS = BuildSettings(**SMALL_BUILD)


@pytest.fixture
def prefix(s3, request):
    return re.sub(r"\W", "_", request.node.name)


@pytest.fixture
def url(prefix):
    return f"s3://bucket/{prefix}"


@pytest.fixture(scope="module")
def source(tmp_path_factory, make_records, write_jsonl):
    path = tmp_path_factory.mktemp("corpus") / "topics.jsonl"
    return str(write_jsonl(path, make_records(each=20)))


@pytest.fixture(scope="module")
def local(tmp_path_factory, source, serial, all_bytes):
    """The bytes of a build in a folder."""
    out = tmp_path_factory.mktemp("local") / "shards"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "open_engine", lambda *_, **_more: serial)
        build([source], out, SETTINGS)
    return all_bytes(out)


@pytest.fixture
def scratch(tmp_path):
    return tmp_path / "scratch"


@pytest.fixture
def build_here(serial, monkeypatch, source, scratch):
    """Return a function that builds the corpus for a URL, in this process."""
    monkeypatch.setattr(pipeline, "open_engine", lambda *_, **_more: serial)
    return partial(build, [source], settings=SETTINGS, scratch=scratch)


def with_bytes(directory, names):
    return {name: (directory / name).read_bytes() for name in names}


# The whole way.


def test_a_build_for_a_bucket_has_the_bytes_of_one_in_a_folder(
    s3, prefix, url, build_here, local, scratch, caplog, tmp_path
):
    manifest = build_here(url)
    assert s3.objects(prefix) == local
    assert Manifest.load(url) == manifest
    assert [*scratch.iterdir()] == []
    size = sum(map(len, local.values()))
    assert f"{url}: {len(local)} files, {size:,} bytes; sent now: {len(local)}" in caplog.text
    assert verify_directory(url).faults == []
    loader = MixtureLoader(url, seq_len=16, batch_rows=8, cache_dir=tmp_path / "cache")
    assert next(loader)["input_ids"].shape == (8, 16)


def test_a_build_that_is_finished_in_the_bucket_is_not_made_again(
    s3, prefix, url, build_here, source, scratch, caplog
):
    build_here(url)
    s3.asked.clear()
    caplog.clear()
    build_here(url)
    assert f"{url} is built already" in caplog.text
    assert s3.written(prefix) == []
    with pytest.raises(UsageError, match=rf"{url} is built already; name a new folder or URL"):
        dry_run([source], url, SETTINGS, scratch=scratch)
    others = BuildSettings(**{**SMALL_BUILD, "clusters": 4})
    with pytest.raises(InvalidDataError, match=rf"{url} was begun differently: .*clusters was 3"):
        build_here(url, settings=others)
    assert [*scratch.iterdir()] == []


def test_a_dry_run_for_a_bucket_writes_nothing_there_and_a_build_goes_on(
    s3, prefix, url, build_here, source, scratch, local, caplog
):
    assert dry_run([source], url, SETTINGS, scratch=scratch)["clusters"] == 3
    assert s3.written(prefix) == []
    build_here(url)
    assert re.search(rf"continuing the build in {scratch}", caplog.text)
    assert s3.objects(prefix) == local


def test_an_import_for_a_bucket_has_the_bytes_of_one_in_a_folder(
    s3, prefix, url, serial, monkeypatch, write_jsonl, tmp_path, all_bytes
):
    monkeypatch.setattr(importer, "open_engine", lambda *_, **_more: serial)
    rows = [{"text": f"story {n}", "cluster": n % 2} for n in range(6)]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    import_corpus([source], tmp_path / "local")
    import_corpus([source], url, scratch=tmp_path / "scratch")
    assert s3.objects(prefix) == all_bytes(tmp_path / "local")
    s3.asked.clear()
    import_corpus([source], url, scratch=tmp_path / "scratch")
    assert s3.written(prefix) == []


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 0.5, 1])
def test_a_command_that_is_killed_while_it_sends_goes_on(
    s3, prefix, url, source, local, scratch, tmp_path, climb, at
):
    write_json(tmp_path / "settings.json", SETTINGS.to_json())
    command = ["build", source, "--out", url, "--scratch", str(scratch), "--workers", "1"]
    command += ["--config", str(tmp_path / "settings.json")]
    last = 1 + round(at * (len(local) - 1))  # with the plan, which is the first
    with ClimbProcess(*command) as process:

        def kill(method, path):
            new = method == "PUT" and CLAIM not in path
            if new and len(s3.written(prefix)) >= last:
                process.send_signal(signal.SIGKILL)
                return 503
            return None

        s3.misbehave = kill
        process.wait()
    s3.misbehave = lambda method, path: None
    there = s3.objects(prefix)
    assert CLAIM in there
    assert MANIFEST not in there
    done = climb("inspect", url)
    assert (done.returncode, done.stdout) == (3, "")
    done = climb(*command)
    assert done.returncode == 0, done.stderr
    assert s3.objects(prefix) == local
    if at:
        assert f"{len(there) - 1} of {len(local)} files are already there\n" in done.stderr
    assert f"sent now: {len(local) - len(there) + 1}" in done.stderr
    assert done.stdout.splitlines()[-1] == f"{url} · report: {url}/report.html"
    assert [*scratch.iterdir()] == []
    assert climb("verify", url).returncode == 0


# Sending.


@pytest.fixture
def send(url, cut_finely):
    """Return a function that sends a directory of many files to the URL."""
    return lambda directory=cut_finely: Upload(Bucket(url), directory).send()


def test_whoever_reads_meanwhile_finds_no_directory_or_a_whole_one(
    s3, prefix, send, all_bytes, cut_finely
):
    send()
    assert s3.objects(prefix) == all_bytes(cut_finely)
    written = s3.written(prefix)
    assert len(written) == len({*written}) == len(all_bytes(cut_finely))
    assert written[-1] == MANIFEST


def test_what_was_refused_at_any_file_goes_on_with_the_others(
    s3, prefix, url, send, all_bytes, cut_finely, caplog
):
    whole = all_bytes(cut_finely)
    for most in range(0, len(whole), 5):
        s3.misbehave = lambda method, path, most=most: (
            403 if method == "PUT" and len(s3.written(prefix)) >= most else None
        )
        with pytest.raises(RemoteError, match="S3 refused to write"):
            send()
        with pytest.raises(InvalidDataError, match=f"{url} is not a shard directory"):
            Manifest.load(url)
    before = len(s3.objects(prefix))
    s3.misbehave = lambda method, path: None
    caplog.clear()
    send()
    assert f"{before} of {len(whole)} files are already there\n" in caplog.text
    assert f"sent now: {len(whole) - before}" in caplog.text
    assert s3.objects(prefix) == whole
    assert len(s3.written(prefix)) == len(whole), "some file was sent twice"


def test_a_server_that_is_overloaded_is_asked_again(s3, prefix, send, all_bytes, cut_finely):
    asked = []

    def slow_down(method, path):
        asked.append(path)
        return 503 if len(asked) % 3 else None

    s3.misbehave = slow_down
    send()
    s3.misbehave = lambda method, path: None
    assert s3.objects(prefix) == all_bytes(cut_finely)


def test_answers_that_are_lost_lose_no_file(s3, prefix, send, all_bytes, cut_finely):
    lost = set()

    def lose(method, path):
        new = method == "PUT" and path not in lost
        lost.add(path)
        return new

    s3.lose = lose
    send()
    s3.lose = lambda method, path: False
    assert s3.objects(prefix) == all_bytes(cut_finely)


def test_two_who_send_the_same_at_once_write_each_file_once(
    s3, prefix, send, all_bytes, cut_finely
):
    errors = []

    def run():
        try:
            send()
        except Exception as error:
            errors.append(error)

    both = [threading.Thread(target=run) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert errors == []
    assert s3.objects(prefix) == all_bytes(cut_finely)
    written = s3.written(prefix)
    assert len(written) == len({*written})


def test_an_object_that_is_not_of_the_directory_stops_it_and_stays(s3, prefix, url, send):
    boto3.client("s3").put_object(Bucket="bucket", Key=f"{prefix}/notes.txt", Body=b"mine")
    with pytest.raises(
        InvalidDataError, match=rf"{url} contains notes\.txt, which does not belong"
    ):
        send()
    assert s3.objects(prefix) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("name", ["clusters.json", MANIFEST])
def test_an_object_with_the_size_but_not_the_hash_is_not_replaced(
    s3, prefix, url, send, cut_finely, name
):
    theirs = b"?" * (cut_finely / name).stat().st_size
    boto3.client("s3").put_object(Bucket="bucket", Key=f"{prefix}/{name}", Body=theirs)
    with pytest.raises(
        InvalidDataError, match=rf"{url}/{name} exists, and differs from .*{name}; it is"
    ):
        send()
    assert s3.objects(prefix)[name] == theirs


def test_a_file_that_changed_after_the_build_is_not_sent(s3, prefix, send, cut_finely, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(cut_finely, copy)
    (copy / "clusters.json").write_bytes(b"{}")
    with pytest.raises(
        IntegrityError, match=r"copy/clusters\.json: expected hash \w+, got \w+; rem"
    ):
        send(copy)
    assert "clusters.json" not in s3.objects(prefix)
    assert MANIFEST not in s3.objects(prefix)


def test_a_list_that_lacks_a_file_keeps_the_manifest_back(s3, prefix, url, cut_finely, monkeypatch):
    bucket = Bucket(url)
    monkeypatch.setattr(bucket, "list", dict)
    with pytest.raises(IntegrityError, match=rf"in {url}, \d+ of \d+ files are missing"):
        Upload(bucket, cut_finely).send()
    assert MANIFEST not in s3.objects(prefix)


# Before anything is built.


def test_objects_of_others_are_named_before_anything_is_built(s3, prefix, url, build_here, scratch):
    boto3.client("s3").put_object(Bucket="bucket", Key=f"{prefix}/notes.txt", Body=b"mine")
    with pytest.raises(
        InvalidDataError,
        match=rf"{url} contains notes\.txt, but neither {MANIFEST} nor .*; name a",
    ):
        build_here(url)
    assert s3.objects(prefix) == {"notes.txt": b"mine"}
    assert not scratch.exists()


def test_another_build_that_was_begun_there_is_named_before_anything_is_built(
    s3, prefix, url, build_here, scratch, tmp_path
):
    s3.misbehave = lambda method, path: 403 if method == "PUT" and CLAIM not in path else None
    with pytest.raises(RemoteError, match="S3 refused to write"):
        build_here(url)
    s3.misbehave = lambda method, path: None
    others = BuildSettings(**{**SMALL_BUILD, "clusters": 4})
    before = s3.objects(prefix)
    with pytest.raises(InvalidDataError, match=rf"{url} was begun differently: .*clusters was 3"):
        build_here(url, settings=others, scratch=tmp_path / "elsewhere")
    assert [*(tmp_path / "elsewhere").iterdir()] == []
    assert s3.objects(prefix) == before


def test_a_place_that_cannot_be_written_is_named_before_anything_is_built(
    s3, prefix, url, build_here, scratch
):
    s3.misbehave = lambda method, path: 403 if method == "PUT" else None
    with pytest.raises(RemoteError, match=rf"S3 refused to write {url}/{CLAIM}: .*s3:PutObject"):
        build_here(url)
    assert [*scratch.iterdir()] == []


def test_a_store_that_replaces_objects_is_refused(s3, prefix, url, build_here, scratch):
    s3.deaf = True
    with pytest.raises(UsageError, match=rf"the store of {url} ignores If-None-Match"):
        build_here(url)
    assert s3.objects(prefix) == {}
    assert [*scratch.iterdir()] == []


def test_a_build_that_nothing_came_of_leaves_the_place_to_others(
    s3, prefix, url, build_here, source, scratch
):
    with pytest.raises(InvalidDataError, match="nothing"):
        build_here(url, settings=BuildSettings(**SMALL_BUILD, text="nothing"))
    assert s3.objects(prefix) == {}
    assert [*scratch.iterdir()] == []


def test_a_scratch_folder_is_in_the_cache_unless_it_is_named(url, monkeypatch, tmp_path):
    monkeypatch.setenv("CLIMBSTREAM_CACHE", str(tmp_path / "cache"))
    named = tmp_path / "named"
    for scratch, folder in ((None, tmp_path / "cache" / "scratch"), (named, named)):
        with open_destination(url, scratch) as destination:
            assert destination.folder.parents[1] == folder


def test_a_scratch_folder_is_for_one_process_at_a_time(url, scratch):
    with open_destination(url, scratch), pytest.raises(LockedError), open_destination(url, scratch):
        pass


def test_what_others_put_into_the_scratch_folder_stays(s3, url, build_here, scratch, caplog):
    s3.misbehave = lambda method, path: 403 if method == "PUT" and CLAIM not in path else None
    with pytest.raises(RemoteError, match="S3 refused to write"):
        build_here(url)
    (place,) = scratch.iterdir()
    (place / "notes.txt").write_text("mine")
    s3.misbehave = lambda method, path: None
    build_here(url)
    assert [path.name for path in place.iterdir()] == ["notes.txt"]
    assert f"{place} is not removed, because it contains notes.txt" in caplog.text


def test_a_plan_that_may_not_be_deleted_stays_and_does_no_harm(
    s3, prefix, url, build_here, scratch, local, caplog
):
    s3.misbehave = lambda method, path: 403 if method == "DELETE" else None
    build_here(url)
    assert (
        f"{url}/{CLAIM} could not be removed, which does no harm: S3 refused to delete"
        in caplog.text
    )
    assert s3.objects(prefix).keys() == {*local, CLAIM}
    s3.misbehave = lambda method, path: None
    build_here(url)
    assert s3.objects(prefix) == local


# What is no place to build in.


def test_a_directory_behind_a_url_is_not_appended_to(url, source):
    with pytest.raises(
        UsageError, match=rf"needs a folder, and {url} is a URL.*climb pull {url} DIR"
    ):
        append([source], url)


@pytest.mark.parametrize("out", ["hf://someone/web", "gs://bucket/x", "https://host/x"])
def test_other_urls_are_no_place_to_build_in(out, source):
    with pytest.raises(UsageError, match=rf"--out is a folder or s3://BUCKET/NAME, not {out}"):
        build([source], out)


def test_scratch_is_for_buckets(tmp_path, source):
    with pytest.raises(UsageError, match=r"--scratch is for an --out of s3://"):
        build([source], tmp_path / "out", scratch=tmp_path)
