"""Hostile servers: whatever HTTP, S3 and the Hub answer, a read ends soon, small, and says why."""

import gzip
import os
import resource
import socketserver
import threading
import time
from pathlib import Path

import pytest
from answers import BOMB, BROKEN, ENDLESS, FOREIGN, OK, PATIENT, REFUSALS, redirect, sized

from climbstream.loader.core.errors import IntegrityError, RemoteError
from climbstream.loader.storage.hub import find_commit, patiently
from climbstream.loader.storage.store import Store

# boto3 leaves the socket of an answer that it cannot read to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CONTENT = bytes(range(256)) * 4
COMMIT = "a" * 40
SECRET = "hf_secret0123456789"
KINDS = ["http", "s3", "hf"]
TOO_LARGE = ["body", "body of a length", "chunks"]


class HostileServer:
    """Answers as its list says, byte by byte, and then with the content."""

    def __init__(self):
        self.answers, self.asked, self.headers = [], [], []
        self._round = 0
        site = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                while line := self.rfile.readline():
                    site.asked.append(line.decode("latin-1").split()[1])
                    head = b""
                    while (header := self.rfile.readline()) not in (b"\r\n", b""):
                        head += header
                    site.headers.append(head.decode("latin-1").lower())
                    if site.answers:
                        begun = site._round
                        for block in site.answers.pop(0):
                            if site._round != begun:
                                return
                            self.wfile.write(block)
                        return
                    self.wfile.write(OK + b"Content-Length: %d\r\n\r\n" % len(CONTENT) + CONTENT)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # clients that hang up are what is tested

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def prepare(self, answers):
        """Answer so from now on; hang up on those that still read an endless answer."""
        self._round += 1
        self.answers[:] = answers

    def close(self):
        """End the server."""
        self._round += 1
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch):
    server = HostileServer()
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "HF_TOKEN": SECRET,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield server
    server.close()


def open_store(kind, server, seconds=20.0, each=1.0):
    place = {
        "http": server.url,
        "s3": "s3://bucket/web",
        "hf": f"hf://datasets/someone/web@{COMMIT}",
    }[kind]
    return Store.of(place, try_seconds=each, all_seconds=seconds)


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_without_end_costs_one_try_and_little_memory(server, kind, subtests):
    store = open_store(kind, server)
    patient = open_store(kind, server, 30, each=30)
    patient.read("file")  # what the first read imports takes seconds
    for name, answer in ENDLESS.items():
        with subtests.test(name):
            server.prepare([answer()])
            begin, before = time.monotonic(), resident()
            if name in (*TOO_LARGE, "bomb of gzip") and (kind, name) != ("s3", "bomb of gzip"):
                # Bytes end it and not time, which 8 MB may take on a busy machine.
                with pytest.raises(IntegrityError, match="at most 8,388,608 bytes"):
                    patient.read("file", 1 << 23)
            elif name == "body of a refusal":
                with pytest.raises(RemoteError, match=r"refused at try 1, .*403"):
                    patient.read("file", 1 << 23)
            elif name == "bomb of gzip":
                # S3 packs nothing for the way: a file is what was stored.
                assert patient.read("file", 1 << 23) == BOMB
            else:
                assert store.read("file", 1 << 23) == CONTENT
            assert time.monotonic() - begin < 15
            assert resident() - before < 1 << 27


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_is_none_is_tried_again_and_no_credentials_are_blamed(
    server, kind, subtests
):
    store = open_store(kind, server)
    for name, answer in BROKEN.items():
        with subtests.test(name):
            server.prepare([[answer]] * (22 if name == "redirect to the same" else 1))
            asked = len(server.asked)
            assert store.read("file") == CONTENT
            assert len(server.asked) > asked + 1


@pytest.mark.parametrize("kind", KINDS)
def test_answers_that_are_none_for_ever_end_in_one_line_that_blames_no_credentials(server, kind):
    names = ["nothing", "length of letters", "chunk of no size", "page to log in", "no such range"]
    for name in names:
        server.prepare([[BROKEN[name]]] * 99)
        with pytest.raises(RemoteError, match=r"file could not be read in .*, the last, ") as error:
            open_store(kind, server, 1.2).read("file")
        said = str(error.value)
        assert "credentials" not in said
        assert SECRET not in said
        assert said.isprintable()
        assert len(said) < 700


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PATIENT)
def test_a_pause_that_is_longer_than_the_deadline_ends_at_once_and_is_named(server, kind, name):
    server.answers.append([PATIENT[name]])
    begin = time.monotonic()
    with pytest.raises(RemoteError, match=r"try 1, the last, .* and asked for a pause of [\d,]+ s"):
        open_store(kind, server, 30).read("file")
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_is_named_with_what_helps(server, kind):
    for status, answer in REFUSALS.items():
        server.prepare([[answer]])
        with pytest.raises(RemoteError, match=f"was refused at try 1, .*{status}") as error:
            open_store(kind, server).read("file")
        assert ("credentials" in str(error.value)) == (status in (401, 403))
        assert ("proxy" in str(error.value)) == (status == 407)


@pytest.mark.parametrize("kind", ["http", "s3"])
@pytest.mark.parametrize("location", FOREIGN)
def test_a_redirect_leads_to_no_other_server(server, kind, location):
    server.prepare([[redirect(location)]] * 9999)
    with pytest.raises(RemoteError) as error:
        open_store(kind, server, 1.2).read("file")
    assert "secret@" not in str(error.value)
    assert "Connect" not in str(error.value)


@pytest.mark.parametrize("location", FOREIGN[:3])
def test_the_hub_leads_to_no_other_protocol(server, location):
    server.answers.append([redirect(location)])
    with pytest.raises(RemoteError, match="leads to another server, "):
        open_store("hf", server).read("file")


def test_the_hub_leads_to_another_server_that_is_not_told_the_token(server):
    other = HostileServer()
    try:
        server.answers.append([redirect(f"{other.url}/x".encode())])
        assert open_store("hf", server).read("file") == CONTENT
        assert f"authorization: bearer {SECRET}" in server.headers[0]
        assert other.asked == ["/x"]
        assert "authorization" not in other.headers[0]
    finally:
        other.close()


def test_no_redirect_leads_from_https_to_http():
    from climbstream.loader.storage.readers import _next_place

    with pytest.raises(RemoteError, match=r"http://host/x, and was not followed"):
        _next_place("https://host/file", 302, {"Location": "http://host/x"}, elsewhere=True)


@pytest.mark.parametrize("kind", ["http", "hf"])
def test_what_a_server_packs_for_the_way_is_unpacked(server, kind):
    server.answers.append([sized(OK + b"Content-Encoding: gzip\r\n", gzip.compress(CONTENT))])
    assert open_store(kind, server).read("file") == CONTENT
    assert "accept-encoding: identity" in server.headers[0]


@pytest.mark.parametrize("kind", ["http", "hf"])
def test_a_file_that_a_server_says_is_packed_stays_as_it_is_stored(server, kind):
    server.answers.append([sized(OK + b"Content-Encoding: zstd\r\n", b"stored")])
    assert open_store(kind, server).read("shard.mds.zstd") == b"stored"


@pytest.mark.parametrize(
    "body",
    [b"null", b"[]", b"{}", b'{"sha": 1}', b'{"sha', b"\xff\xfe[", b"[" * 200_000, b"9" * 9000],
)
def test_an_answer_of_the_hub_that_makes_no_sense_is_tried_again_and_named(server, body):
    answer = sized(OK + b"Content-Type: application/json\r\n", body)
    server.prepare([[answer]] * 99)
    with pytest.raises(RemoteError, match=r"the Hub did not find main of someone/web in .*") as e:
        find_commit("someone/web", None, patience=1.0)
    assert "HF_TOKEN" not in str(e.value)
    assert len(server.asked) > 1


def test_an_error_of_a_call_that_is_not_the_hubs_is_not_tried_again():
    with pytest.raises(ZeroDivisionError):
        patiently("count", lambda: os.getpid() // 0)
