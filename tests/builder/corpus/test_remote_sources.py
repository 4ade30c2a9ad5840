"""Sources on servers: each file is one, known by its version, and read in spans."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from climbstream.builder.corpus import ingest, spans
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.sources import find_sources
from climbstream.builder.settings import BuildSettings
from climbstream.loader.core.errors import ClimbError


class Site:
    """Serves files by name over HTTP, whole or in parts, with an ETag."""

    def __init__(self):
        self.files, self.sent = {}, 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, *, body):
                data = site.files.get(self.path.lstrip("/"))
                if data is None:
                    self.send_error(404)
                    return
                part, status = data, 200
                if asked := self.headers.get("Range"):
                    first, last = asked.removeprefix("bytes=").split("-")
                    part, status = data[int(first) : int(last or len(data)) + 1], 206
                self.send_response(status)
                self.send_header("Content-Length", str(len(part)))
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("ETag", f'"{hash(data):x}"')
                if status == 206:
                    self.send_header("Content-Range", f"bytes {asked[6:]}/{len(data)}")
                self.end_headers()
                if body:
                    self.wfile.write(part)
                    site.sent += len(part)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        """End the server."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def site():
    site = Site()
    yield site
    site.close()


def test_a_file_on_a_server_is_known_by_its_version_and_size(site):
    site.files = {"a.jsonl": b'{"text": "one"}\n', "b.jsonl": b'{"text": "one"}\n'}
    names = [f"{site.url}/a.jsonl", f"{site.url}/b.jsonl"]
    first, second = find_sources(names)
    assert (first.name, first.size) == (names[0], 16)
    assert first.fingerprint == second.fingerprint
    site.files["b.jsonl"] = b'{"text": "two"}\n'
    assert find_sources(names)[1].fingerprint != second.fingerprint
    assert find_sources(names)[0].fingerprint == first.fingerprint


def test_a_file_that_a_server_has_not_is_named(site):
    with pytest.raises(ClimbError, match=r"none\.jsonl"):
        find_sources([f"{site.url}/none.jsonl"])


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.parquet"])
def test_files_on_a_server_are_read_in_spans(
    site, name, tmp_path, write_jsonl, serial, monkeypatch
):
    records = [{"text": f"text {i}"} for i in range(50)]
    write_jsonl(tmp_path / name, records)
    if name == "a.parquet":
        pq.write_table(pa.Table.from_pylist(records), tmp_path / name, row_group_size=10)
    site.files[name] = (tmp_path / name).read_bytes()
    sources = find_sources([f"{site.url}/{name}"])
    rows = {}
    for span in (1 << 30, 100):
        monkeypatch.setattr(spans, "SPAN_BYTES", span)
        folder = tmp_path / str(span)
        report = ingest.read_corpus(serial, sources, folder, BuildSettings(text_lines=True))
        assert (len(report.units) > 1) == (span == 100)
        units = [Partition(folder / unit) for unit in report.units]
        rows[span] = [row for unit in units for row in unit.columns("id", "text").to_pylist()]
    assert rows[100] == rows[1 << 30]
    assert len(rows[100]) == 50
