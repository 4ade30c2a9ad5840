"""``hf://`` through the real client, against a double of the Hub's HTTP interface on loopback."""

import json
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest

from climbstream.loader import MixtureLoader

REPO = "someone/shards"
TRAIN = """
import sys
from climbstream.loader import MixtureLoader
loader = MixtureLoader(sys.argv[1], seq_len=16, batch_rows=8, seed=5, cache=sys.argv[2])
print(sum(int(next(loader)["input_ids"].sum()) for _ in range(40)))
"""
READ = """
import sys
from climbstream.loader.store import Store
try:
    print(len(Store.of(sys.argv[1], all_seconds=20).read(sys.argv[2])))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


class Hub:
    """A data set repository with one revision, ``main``."""

    def __init__(self, folder):
        self.sent = Counter()
        self.failing = Counter()
        """How often the content of a path is to fail with 503."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def entry(self, path):
                file = folder / path
                if file.is_dir():
                    return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
                return {"type": "file", "path": path, "oid": "1" * 40, "size": file.stat().st_size}

            def reply(self, body, status=200, **headers):
                self.send_response(status)
                for name, value in {"Content-Length": len(body), **headers}.items():
                    self.send_header(name.replace("_", "-"), str(value))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def reply_json(self, value):
                self.reply(json.dumps(value).encode(), Content_Type="application/json")

            def do_POST(self):
                form = self.rfile.read(int(self.headers["Content-Length"]))
                if "/paths-info/" in self.path:
                    json_form = self.headers["Content-Type"].startswith("application/json")
                    asked = json.loads(form) if json_form else parse_qs(form.decode())
                    paths = [path for path in asked["paths"] if (folder / path).exists()]
                    self.reply_json([self.entry(path) for path in paths])
                else:
                    self.reply(b"", 404)

            def do_GET(self):
                path = unquote(urlsplit(self.path).path)
                if path in (f"/api/datasets/{REPO}", f"/api/datasets/{REPO}/revision/main"):
                    self.reply_json({"id": REPO, "sha": "2" * 40, "siblings": []})
                elif path.startswith(tree := f"/api/datasets/{REPO}/tree/main"):
                    below = folder / path.removeprefix(tree).strip("/")
                    names = sorted(p.relative_to(folder).as_posix() for p in below.iterdir())
                    self.reply_json([self.entry(name) for name in names])
                elif path.startswith(resolve := f"/datasets/{REPO}/resolve/main/"):
                    self.content(path.removeprefix(resolve))
                else:
                    self.reply(b"", 404, X_Error_Code="RepoNotFound")

            def do_HEAD(self):
                self.do_GET()

            def content(self, path):
                if not (folder / path).is_file():
                    self.reply(b"", 404, X_Error_Code="EntryNotFound")
                elif hub.failing[path]:
                    hub.failing[path] -= 1
                    self.reply(b"", 403 if hub.failing[path] > 100 else 500)
                else:
                    data = (folder / path).read_bytes()
                    if self.command == "GET":
                        hub.sent[path] += len(data)
                    self.reply(data, ETag=f'"{"1" * 40}"', X_Repo_Commit="2" * 40)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        """End the server."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def shards(tmp_path_factory, make_shards, counted_documents):
    lengths = {"c00": [50, 70, 90] * 20, "my c1": [200] * 30}
    return make_shards(tmp_path_factory.mktemp("shards"), counted_documents(lengths))


@pytest.fixture
def hub(shards):
    hub = Hub(shards.directory)
    yield hub
    hub.close()


@pytest.fixture
def run(hub, tmp_path):
    """Return a function that runs Python with ``hub`` as the Hub; it is chosen at import."""

    def call(code, *arguments):
        environment = {
            "PATH": "/usr/bin:/bin",
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HOME": str(tmp_path / "hf"),
            "HOME": str(tmp_path),
        }
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return call


URL = f"hf://datasets/{REPO}"


@pytest.mark.slow
def test_a_loader_serves_the_same_from_the_hub_and_fetches_each_byte_once(
    hub, run, shards, tmp_path
):
    remote = run(TRAIN, URL, str(tmp_path / "cache"))
    local = MixtureLoader(
        shards.directory, seq_len=16, batch_rows=8, seed=5, cache=tmp_path / "local"
    )
    assert int(remote) == sum(int(np.sum(next(local)["input_ids"].numpy())) for _ in range(40))
    fetched = {path: size for path, size in hub.sent.items() if path.endswith(".zstd")}
    assert fetched
    for path, size in fetched.items():
        assert size == (shards.directory / path).stat().st_size


@pytest.mark.slow
def test_what_the_hub_does_not_have_is_missing(run):
    assert run(READ, URL, "none").startswith("FileNotFoundError: ")
    assert run(READ, "hf://datasets/someone/else", "none").startswith("FileNotFoundError: ")


@pytest.mark.slow
def test_a_hub_that_fails_for_a_while_is_asked_again_and_one_that_refuses_is_not(hub, run, shards):
    size = (shards.directory / "manifest.json").stat().st_size
    hub.failing["manifest.json"] = 2
    assert run(READ, URL, "manifest.json") == str(size)
    hub.failing["manifest.json"] = 1000
    said = run(READ, URL, "manifest.json")
    assert said.startswith(f"RemoteError: {URL}/manifest.json was refused at try 1")
    assert "403" in said
