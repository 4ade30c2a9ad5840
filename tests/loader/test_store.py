"""Stores: folders and URLs read alike; what fails is tried again for so long, and then named."""

import re
import socket
import threading
import time
from itertools import pairwise

import fsspec
import pytest

from climbstream.loader.errors import RemoteError, UsageError
from climbstream.loader.store import Store

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "web" / "clusters").mkdir(parents=True)
    (tmp_path / "web" / "clusters" / "file").write_bytes(CONTENT)
    return tmp_path / "web"


@pytest.fixture
def site(folder, serve):
    return serve(folder.parent)


@pytest.fixture
def black_hole():
    """Address of a server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def accept():
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/web"
        for connection in kept:
            connection.close()
        server.shutdown(socket.SHUT_RDWR)


def remote(url, seconds=2.0, try_seconds=1.0):
    return Store.of(url, try_seconds=try_seconds, all_seconds=seconds)


# Where it is.


def test_a_path_a_text_and_a_file_url_are_the_same_folder(folder):
    for place in (folder, str(folder), f"{folder}/", f"file://{folder}"):
        store = Store.of(place)
        assert store.name == str(store) == str(folder)
        assert (store / "clusters").read("file") == CONTENT


def test_a_store_is_taken_as_it_is(folder):
    store = Store.of(folder)
    assert Store.of(store) is store


def test_a_url_is_read(site):
    store = remote(f"{site.url}/web/")
    assert store.name == f"{site.url}/web"
    assert str(store / "clusters") == f"{site.url}/web/clusters"
    assert (store / "clusters").read("file") == CONTENT
    assert store.read("clusters/file") == CONTENT


def test_memory_is_read():
    fsspec.filesystem("memory").pipe("/web/clusters/file", CONTENT)
    assert (Store.of("memory://web") / "clusters").read("file") == CONTENT


@pytest.mark.parametrize("place", ["{folder}", "memory://nowhere", "{url}/web"])
def test_what_is_missing_is_missing_everywhere_and_is_not_asked_for_again(place, folder, site):
    store = remote(place.format(folder=folder, url=site.url))
    with pytest.raises(FileNotFoundError) as error:
        store.read("clusters/none")
    assert error.value.filename == f"{store}/clusters/none"
    assert len(site.asked) == (1 if site.url in store.name else 0)


def test_a_url_of_an_unknown_kind_is_refused_with_those_that_are_known():
    with pytest.raises(UsageError, match=r"gopher://x cannot be read: .*s3://, hf:// or https://"):
        Store.of("gopher://x")


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [("s3://bucket/web", "boto3", "s3"), ("https://host/web", "aiohttp", "http")],
)
def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch, url, module, extra):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(UsageError, match=rf"{module}.*pip install 'climbstream\[{extra}\]'"):
        Store.of(url)


def test_a_query_is_refused_without_repeating_it():
    with pytest.raises(UsageError, match="https://host/web was given with a query") as error:
        Store.of("https://host/web?sig=secret")
    assert "secret" not in str(error.value)


# What fails.


@pytest.mark.parametrize("trouble", [500, 503, 429, 408, "cut"])
def test_a_passing_failure_is_tried_again(site, trouble):
    site.misbehave = lambda path, times: trouble if times < 3 else None
    assert remote(f"{site.url}/web", 10).read("clusters/file") == CONTENT
    assert len(site.asked) == 3


def test_pauses_grow_between_tries(site):
    begun = []

    def fail(path, times):
        begun.append(time.monotonic())
        return 503 if times < 4 else None

    site.misbehave = fail
    assert remote(f"{site.url}/web", 20).read("clusters/file") == CONTENT
    pauses = [b - a for a, b in pairwise(begun)]
    for number, pause in enumerate(pauses):
        assert 0.25 * 2**number <= pause < 0.5 * 2**number + 0.5


def test_a_store_that_fails_for_ever_is_named_with_tries_time_and_the_last_error(site, capsys):
    site.misbehave = lambda path, times: 500
    begin = time.monotonic()
    with pytest.raises(RemoteError) as error:
        remote(f"{site.url}/web", 5).read("clusters/file")
    assert time.monotonic() - begin < 6
    tries = len(site.asked)
    # The pauses before the fourth are 3.5 s together at most, so the third is never the last.
    assert tries >= 4
    assert re.fullmatch(
        rf"{site.url}/web/clusters/file could not be read in \d\.\d s: try {tries}, the last, "
        r"ended with ClientResponseError: 500, .*; see that the store can be reached, then start "
        "again",
        str(error.value),
    )
    assert "try 3 ended with ClientResponseError: 500" in capsys.readouterr().err


def test_a_refusal_is_not_tried_again(site):
    site.misbehave = lambda path, times: 403
    with pytest.raises(
        RemoteError, match=r"file was refused at try 1, .*403.*; check .* your credentials may read"
    ):
        remote(f"{site.url}/web").read("clusters/file")
    assert len(site.asked) == 1


def test_a_black_hole_ends_at_the_deadline(black_hole):
    begin = time.monotonic()
    with pytest.raises(RemoteError, match=r"file could not be read in .* s: try \d, .*Timeout"):
        remote(black_hole, 1.5, 0.5).read("file")
    assert time.monotonic() - begin < 2


def test_a_store_that_trickles_ends_at_the_deadline(site):
    site.misbehave = lambda path, times: "trickle"
    begin = time.monotonic()
    with pytest.raises(RemoteError, match="clusters/file could not be read"):
        remote(f"{site.url}/web", 1.5, 0.5).read("clusters/file")
    assert time.monotonic() - begin < 2
    assert site.sent


def test_a_client_that_keeps_no_deadline_is_left_to_itself(monkeypatch):
    files = fsspec.filesystem("memory")
    monkeypatch.setattr(files, "open", lambda path: time.sleep(5))
    begin = time.monotonic()
    with pytest.raises(RemoteError, match=r"the last, ended with TimeoutError: no answer within"):
        remote("memory://web", 1.0, 0.2).read("file")
    assert time.monotonic() - begin < 1.5


def test_a_store_that_nobody_runs_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(RemoteError, match=rf"127\.0\.0\.1:{port}/web/file could not be read"):
        remote(f"http://127.0.0.1:{port}/web", 1).read("file")


def test_credentials_are_in_no_message(site, capsys):
    address = site.url.replace("http://", "http://me:secret@")
    store = remote(f"{address}/web", 3)
    site.misbehave = lambda path, times: 500
    with pytest.raises(RemoteError) as failed:
        store.read("clusters/file")
    signed = f"{site.url}/elsewhere?X-Amz-Signature=secret"
    site.misbehave = lambda path, times: 403 if path == "elsewhere" else signed
    with pytest.raises(RemoteError, match="elsewhere") as refused:
        store.read("clusters/file")
    said = f"{store}{failed.value}{refused.value}{capsys.readouterr().err}"
    assert site.url in said
    assert "secret" not in said
