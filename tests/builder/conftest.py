"""What the tests of the builder share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forkserver_preload import BUILD, preload
from serial_pool import SerialPool


@pytest.fixture(scope="session", autouse=True)
def _preloaded() -> None:
    """Import what a build needs once for all its processes."""
    preload(BUILD)


@pytest.fixture(scope="session")
def read_documents() -> Callable[[Path], dict[tuple[str, int, int], np.ndarray[Any, Any]]]:
    """Return a function that reads all tokens of a shard directory, by cluster, shard and row."""
    return _read_documents


@pytest.fixture(scope="session")
def cut_finely(tmp_path_factory, make_records, write_jsonl) -> Path:
    """A finished build of many small units and shards."""
    from climbstream.builder import pipeline
    from climbstream.builder.corpus import ingest
    from climbstream.builder.settings import BuildSettings
    from climbstream.builder.writers import shards

    folder = tmp_path_factory.mktemp("fine")
    source = write_jsonl(folder / "topics.jsonl", make_records(each=20))
    settings = BuildSettings(
        clusters=3, micro_clusters=9, vocab_size=400, min_cluster_score={}, min_document_score={}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "open_engine", lambda *_, **__: SerialPool())
        patch.setattr(ingest, "UNIT_BYTES", 9_000)
        patch.setattr(shards, "SHARD_BYTES", 4_000)
        pipeline.build([str(source)], folder / "shards", settings)
    return folder / "shards"


@pytest.fixture(scope="session")
def serial() -> SerialPool:
    """Return an engine that runs tasks in this process."""
    return SerialPool()


@pytest.fixture(scope="module")
def engines(serial: SerialPool) -> Iterator[None]:
    """Run the tasks of builds and appends in this process, in all tests of a module."""
    from climbstream.builder import appender, pipeline

    with pytest.MonkeyPatch.context() as patch:
        for module in (pipeline, appender):
            patch.setattr(module, "open_engine", lambda *_, **__: serial)
        yield


@pytest.fixture(scope="session")
def all_bytes() -> Callable[[Path], dict[str, bytes]]:
    """Return a function that reads every file under a directory, by its path there."""
    return _all_bytes


@pytest.fixture(scope="session")
def catalogue() -> Callable[[Path], list[dict[str, Any]]]:
    """Return a function that reads the rows of the catalogue of a shard directory."""
    return _catalogue


def _read_documents(directory: Path) -> dict[tuple[str, int, int], np.ndarray[Any, Any]]:
    from climbstream.loader.formats.manifest import Manifest, cluster_folder, load_index
    from climbstream.loader.formats.mds.compression import decompress
    from climbstream.loader.formats.mds.reader import parse_shard

    manifest = Manifest.load(directory)
    documents = {}
    for cluster in manifest.clusters:
        folder = cluster_folder(directory, cluster.name)
        for shard, entry in enumerate(load_index(directory, manifest, cluster).shards):
            raw = decompress((folder / entry.zip_basename).read_bytes(), entry)
            view = parse_shard(np.frombuffer(raw, np.uint8), entry, manifest.dtype)
            for row in range(entry.samples):
                documents[cluster.name, shard, row] = view.document(row, manifest.dtype)
    return documents


def _all_bytes(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def _catalogue(directory: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    parts = sorted((directory / "documents").glob("part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]
