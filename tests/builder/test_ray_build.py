"""A build on a Ray cluster ends with the bytes of a local one, also when a node is lost."""

import threading
import time

import pytest
from small_build import ON_A_CLUSTER

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.pipeline import build
from climbstream.builder.settings import BuildSettings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
]  # Ray has warnings of its own

SETTINGS = BuildSettings(**ON_A_CLUSTER)


def test_a_build_that_loses_a_node_ends_with_the_bytes_of_a_local_build(
    cluster, tmp_path, make_records, write_jsonl, all_bytes, monkeypatch
):
    records = make_records(each=150)
    sources = [str(write_jsonl(tmp_path / "in" / f"{i}.jsonl", records[i::8])) for i in range(8)]
    lost = []

    def annotated():
        units = (tmp_path / "ray").glob(".build/units/*-*/")
        return sum(Partition(unit).has("micro") for unit in units)

    def lose_a_node():
        while not annotated():
            time.sleep(0.01)
        cluster.remove_node(cluster.second, allow_graceful=False)
        lost.append(annotated())

    watcher = threading.Thread(target=lose_a_node, daemon=True)
    watcher.start()
    build(sources, tmp_path / "ray", SETTINGS, engine="ray")
    watcher.join()
    assert lost[0] < 8, "the node was lost too late to matter"
    build(sources, tmp_path / "local", SETTINGS, workers=2)
    ray_bytes, local = all_bytes(tmp_path / "ray"), all_bytes(tmp_path / "local")
    assert {name: ray_bytes.get(name) == data for name, data in local.items()} == dict.fromkeys(
        local, True
    )
    assert sorted(ray_bytes) == sorted(local)
