"""Stores: folders and URLs read alike; what fails is tried again for so long, and then named."""

import os
import re
import socket
import socketserver
import threading
import time
from itertools import pairwise

import fsspec
import pytest

from climbstream.loader.core.errors import IntegrityError, InvalidDataError, RemoteError, UsageError
from climbstream.loader.core.files import read_json
from climbstream.loader.formats.manifest import Manifest
from climbstream.loader.storage.store import Store

CONTENT = bytes(range(256)) * 4
SOON = 10.0
"""Seconds within which a busy machine ends what has a deadline of at most 5 s. Without a deadline
it waits for minutes, or for ever."""


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
    assert time.monotonic() - begin < SOON
    tries = len(site.asked)
    # The pauses before the fourth are 3.5 s together at most, so the third is never the last.
    assert tries >= 4
    assert re.fullmatch(
        rf"{site.url}/web/clusters/file could not be read in \d\.\d s: try {tries}, the last, "
        r"ended with HTTP status 500; check that the store can be reached, then start "
        "again",
        str(error.value),
    )
    assert "try 3 ended with HTTP status 500" in capsys.readouterr().err


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
    assert time.monotonic() - begin < SOON


def test_a_store_that_trickles_ends_at_the_deadline(site):
    site.misbehave = lambda path, times: "trickle"
    begin = time.monotonic()
    with pytest.raises(RemoteError, match="clusters/file could not be read"):
        remote(f"{site.url}/web", 1.5, 0.5).read("clusters/file")
    assert time.monotonic() - begin < SOON
    assert site.sent


def test_a_client_that_keeps_no_deadline_is_left_to_itself(monkeypatch):
    files = fsspec.filesystem("memory")
    monkeypatch.setattr(files, "open", lambda path: time.sleep(2 * SOON))
    begin = time.monotonic()
    with pytest.raises(RemoteError, match=r"the last, ended with TimeoutError: no answer within"):
        remote("memory://web", 1.0, 0.2).read("file")
    assert time.monotonic() - begin < SOON


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


# What is no file, and what is no answer.


@pytest.mark.parametrize("kind", ["fifo", "/dev/zero", "folder", "socket"])
def test_what_is_no_regular_file_is_refused_at_once(folder, kind):
    path = folder / "odd"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    else:
        path.symlink_to(kind)
    begin = time.monotonic()
    for read in (Store.of(folder).read, lambda name: read_json(folder / name)):
        with pytest.raises(InvalidDataError, match=rf"{path} is a .*, and not a regular file"):
            read("odd")
    assert time.monotonic() - begin < SOON


def test_a_file_that_says_it_is_empty_is_read_no_further_than_allowed():
    with pytest.raises(IntegrityError, match="such a file has at most 5 bytes"):
        Store.of("/proc/self").read("status", 5)


OK = b"HTTP/1.1 200 OK\r\n"
LATER = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\nRetry-After: "
HOSTILE = {
    "nothing": b"",
    "garbage": b"\x00\xff\xfe\n\n",
    "text": b"hello\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status of letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "status 0": b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
    "strange version": b"HTTP/9.9 200 OK\r\nContent-Length: 1\r\n\r\nx",
    "no version": b"200 OK\r\n\r\nx",
    "half a status line": b"HTTP/1.1 20",
    "half a header": OK + b"Content-Le",
    "header without a colon": OK + b"Content-Length 4\r\n\r\nabcd",
    "header with a zero byte": OK + b"X: a\x00b\r\nContent-Length: 4\r\n\r\nabcd",
    "endless header": OK + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
    "many headers": OK + b"".join(b"X-%d: y\r\n" % i for i in range(50_000)),
    "negative length": OK + b"Content-Length: -5\r\n\r\nabcd",
    "length of letters": OK + b"Content-Length: abc\r\n\r\nabcd",
    "length of a strange digit": OK + b"Content-Length: \xc2\xb2\r\n\r\nab",
    "two lengths": OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "length and chunks": OK + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab",
    "more promised than sent": OK + b"Content-Length: 9999\r\n\r\nabcd",
    "huge length": OK + b"Content-Length: 99999999999999999999\r\n\r\nabcd",
    "chunk of no size": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabcd\r\n",
    "chunk cut short": OK + b"Transfer-Encoding: chunked\r\n\r\n10\r\nabcd",
    "chunks without end": OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n",
    "negative chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n-4\r\nabcd\r\n0\r\n\r\n",
    "huge chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabcd",
    "unknown packing": OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    "switched protocol": b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\n",
    "no content": b"HTTP/1.1 204 None\r\n\r\n",
    "a part": b"HTTP/1.1 206 Part\r\nContent-Length: 4\r\nContent-Range: bytes 0-3/9\r\n\r\nabcd",
    "not modified": b"HTTP/1.1 304 Same\r\n\r\n",
    "redirect to nowhere": b"HTTP/1.1 302 Go\r\nContent-Length: 0\r\n\r\n",
    "redirect in a circle": b"HTTP/1.1 302 Go\r\nLocation: file\r\nContent-Length: 0\r\n\r\n",
    "redirect that is no address": b"HTTP/1.1 302 Go\r\nLocation: http://[\r\n\r\n",
    "server error": b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "strange status": b"HTTP/1.1 599 Oh\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "later, a strange digit": LATER + b"\xc2\xb2\r\n\r\n",
    "later, another script": LATER + "٣".encode() + b"\r\n\r\n",
    "later, before now": LATER + b"Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n",
    "later, no date": LATER + b"Thu, 99 Foo 1970 77:00:00 GMT\r\n\r\n",
    "later, negative": LATER + b"-5\r\n\r\n",
    "later, not finite": LATER + b"inf\r\n\r\n",
    "later, empty": LATER + b"\r\n\r\n",
}
REFUSALS = {
    "redirect to another host": b"http://localhost:9/x",
    "redirect to another scheme": b"https://127.0.0.1:9/x",
    "redirect to a file": b"file:///etc/passwd",
}


@pytest.fixture
def raw_site():
    """A server that gives the answers in its list, byte by byte as they are, then the content."""
    answers, asked = [], []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            asked.append(1)
            good = OK + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(CONTENT) + CONTENT
            self.wfile.write(answers.pop(0) if answers else good)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        server.answers, server.asked = answers, asked
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield server
        server.shutdown()


@pytest.mark.parametrize("name", HOSTILE)
def test_one_answer_that_is_none_is_tried_again(raw_site, name):
    raw_site.answers.append(HOSTILE[name])
    begin = time.monotonic()
    assert remote(raw_site.url, 10, 3).read("file") == CONTENT
    assert len(raw_site.asked) >= 2
    assert time.monotonic() - begin < SOON


@pytest.mark.parametrize("name", REFUSALS)
def test_a_redirect_to_another_server_is_not_followed_and_named(raw_site, name):
    head = b"HTTP/1.1 302 Go\r\nContent-Length: 0\r\nLocation: "
    raw_site.answers.append(head + REFUSALS[name] + b"\r\n\r\n")
    with pytest.raises(RemoteError, match=rf"leads to another server, {REFUSALS[name].decode()},"):
        remote(raw_site.url, 5).read("file")
    assert len(raw_site.asked) == 1


def test_a_body_without_end_is_read_no_further_than_allowed(raw_site):
    raw_site.answers.append(OK + b"\r\n" + bytes(1 << 20))
    with pytest.raises(IntegrityError, match="such a file has at most 1,000 bytes"):
        remote(raw_site.url, 5).read("file", 1000)


def test_a_pause_that_a_server_asks_for_as_a_date_is_kept_by_its_clock(raw_site):
    date = b"Thu, 01 Jan 2037 00:00:02 GMT\r\nDate: Thu, 01 Jan 2037 00:00:00 GMT\r\n\r\n"
    raw_site.answers.append(LATER + date)
    begin = time.monotonic()
    assert remote(raw_site.url, 10).read("file") == CONTENT
    assert 2 <= time.monotonic() - begin < SOON


def test_a_url_without_a_manifest_is_no_interrupted_build(site):
    with pytest.raises(InvalidDataError, match=r"it has no manifest\.json; check the address$"):
        Manifest.load(f"{site.url}/nope")
