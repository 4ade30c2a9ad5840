"""Small shard directories for the tests of the loader."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from climbstream.loader.core.files import hash_bytes, write_bytes
from climbstream.loader.formats.manifest import ClusterEntry, Manifest, cluster_folder
from climbstream.loader.formats.mds.compression import compress
from climbstream.loader.formats.mds.entry import ShardEntry
from climbstream.loader.formats.mds.index import Index
from climbstream.loader.formats.mds.writer import describe_shard, encode_document, encode_shard


@dataclass(frozen=True)
class Shards:
    """A shard directory, and what was put into it."""

    directory: Path
    manifest: Manifest
    indexes: dict[str, Index]
    documents: dict[str, list[np.ndarray[Any, Any]]]

    def folder(self, name: str) -> Path:
        """Folder of a cluster."""
        return cluster_folder(self.directory, name)

    def packed(self, name: str, shard: int = 0) -> Path:
        """File of a compressed shard."""
        return self.folder(name) / self.indexes[name].shards[shard].zip_basename


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIMBSTREAM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def make_shards() -> Callable[..., Shards]:
    """Return a function that writes a shard directory."""
    return _make_shards


@pytest.fixture(scope="session")
def counted_documents() -> Callable[..., dict[str, list[np.ndarray[Any, Any]]]]:
    """Return a function that makes documents whose tokens count up: a token says where it is."""
    return _counted_documents


@pytest.fixture(scope="session")
def batch_digest() -> Callable[..., str]:
    """Return a function that hashes a global batch, whoever holds which of its rows."""
    return _batch_digest


def _make_shards(
    directory: Path,
    documents: Mapping[str, Sequence[Any]],
    *,
    dtype: str = "uint16",
    shard_bytes: int = 600,
    vocab_size: int = 60_000,
    eos_id: int | None = 0,
) -> Shards:
    """Write ``documents``, token arrays by cluster, as shards of about ``shard_bytes``."""
    indexes, clusters = {}, []
    kept = {
        name: [np.asarray(document, dtype) for document in theirs]
        for name, theirs in documents.items()
    }
    for name, theirs in kept.items():
        folder = cluster_folder(directory, name)
        index = Index.of(dtype, _write_shards(folder, theirs, dtype, shard_bytes))
        write_bytes(folder / "index.json", index.to_bytes())
        clusters.append(
            ClusterEntry(
                name=name,
                tokens=index.tokens,
                documents=index.samples,
                index_hash=hash_bytes(index.to_bytes()),
            )
        )
        indexes[name] = index
    manifest = Manifest(
        clusters=tuple(clusters),
        dtype=dtype,
        vocab_size=vocab_size,
        eos_id=eos_id,
        tokenizer_hash="0" * 32,
        build="1" * 32,
        license="CC0-1.0",
    )
    manifest.save(directory)
    return Shards(directory, manifest, indexes, kept)


def _write_shards(
    folder: Path, documents: Iterable[Any], dtype: str, shard_bytes: int
) -> Iterator[ShardEntry]:
    """Write one cluster; a shard is closed when it has passed ``shard_bytes``."""
    number, samples, lengths = 0, [], []
    waiting = list(documents)
    while waiting:
        document = waiting.pop(0)
        samples.append(encode_document(document))
        lengths.append(len(document))
        if not waiting or sum(map(len, samples)) >= shard_bytes:
            raw = encode_shard(samples, dtype)
            packed = compress(raw)
            entry = describe_shard(f"shard.{number:05}.mds", lengths, raw, packed)
            write_bytes(folder / entry.zip_basename, packed)
            yield entry
            number, samples, lengths = number + 1, [], []


def _counted_documents(
    lengths: Mapping[str, Sequence[int]],
) -> dict[str, list[np.ndarray[Any, Any]]]:
    """Number the tokens of all clusters through, so that no two are the same."""
    documents: dict[str, list[np.ndarray[Any, Any]]] = {}
    token = 0
    for name, theirs in lengths.items():
        documents[name] = []
        for length in theirs:
            documents[name].append(np.arange(token, token + length))
            token += length
    return documents


def _batch_digest(*parts: Mapping[str, Any]) -> str:
    """Hash the rows, with their clusters, that the ``parts`` of a global batch hold together."""
    rows = [
        (int(cluster), row.tobytes())
        for part in parts
        for cluster, row in zip(
            part["cluster_ids"].tolist(), part["input_ids"].numpy(), strict=True
        )
    ]
    return hash_bytes(repr(sorted(rows)).encode())


class Site:
    """A real HTTP server on loopback: it serves a folder, and misbehaves as it is told."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        """Paths, in the order in which they were asked for."""
        self.sent: Counter[str] = Counter()
        """Bytes of bodies, by path."""
        self.misbehave: Callable[[str, int], str | int | bytes | None] = lambda path, times: None
        """What to do with the n-th request for a path, from 1: a status; bytes to send instead;
        ``cut``, ``trickle``, ``silent``, or another place; None: as it should be."""
        self.over = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                path = unquote(urlsplit(self.path).path).lstrip("/")
                site.asked.append(path)
                what = site.misbehave(path, site.asked.count(path))
                file = folder / path
                data = file.read_bytes() if file.is_file() else None
                if isinstance(what, bytes):
                    data, what = what, None
                if what == "silent":
                    site.over.wait()
                    return
                if isinstance(what, str) and what.startswith("http"):
                    self.head(302, 0, location=what)
                elif isinstance(what, int) or data is None:
                    self.head(what if isinstance(what, int) else 404, 0)
                elif not body:
                    self.head(200, len(data))
                else:
                    self.head(200, len(data))
                    self.send(path, data, what)

            def head(self, status: int, size: int, location: str = "") -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(size))
                if location:
                    self.send_header("Location", location)
                self.end_headers()

            def send(self, path: str, data: bytes, what: object) -> None:
                if what == "cut":
                    data, self.close_connection = data[: len(data) // 2], True
                step = 1 if what == "trickle" else len(data)
                for at in range(0, len(data), step):
                    self.wfile.write(data[at : at + step])
                    site.sent[path] += len(data[at : at + step])
                    if what == "trickle":
                        self.wfile.flush()
                        if site.over.wait(0.05):
                            return

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients that hang up are what is tested

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """End the server and whatever it still holds back."""
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Site]]:
    """Return a function that serves a folder over HTTP."""
    sites = []

    def start(folder: Path) -> Site:
        sites.append(Site(folder))
        return sites[-1]

    yield start
    for site in sites:
        site.close()
