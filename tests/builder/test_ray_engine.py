"""The Ray engine: the bytes of the local one, also when a node is lost in the middle."""

import os
import threading
import time

import pytest

from climbstream.builder.pipeline import build
from climbstream.builder.ray_engine import RayEngine
from climbstream.builder.settings import BuildSettings
from climbstream.loader.errors import ClimbError, InvalidDataError, UsageError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
]  # Ray has warnings of its own

SETTINGS = BuildSettings(
    clusters=4,
    micro_clusters=20,
    dims=16,
    vocab_size=1000,
    holdout=0.05,
    min_cluster_score={},
    min_document_score={},
)


@pytest.fixture
def cluster(monkeypatch):
    """A Ray cluster of two nodes, each with processes of its own; the second may be lost."""
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.second = cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def pid_of(_):
    time.sleep(0.2)
    return os.getpid()


def fail(task):
    if task == 3:
        raise InvalidDataError("record 3 is broken")
    return task


def die(_):
    os._exit(1)


def test_tasks_run_on_all_nodes_and_errors_are_those_of_the_task(cluster, tmp_path):
    (tmp_path / "shared").touch()
    with RayEngine(None, tmp_path / "shared") as engine:
        results = dict(engine.run(pid_of, iter(range(12))))
        assert sorted(results) == list(range(12))
        assert len(set(results.values())) >= 2
        with pytest.raises(InvalidDataError, match=r"^record 3 is broken$"):
            list(engine.run(fail, range(10)))
        with pytest.raises(
            ClimbError, match=r"lost on the Ray cluster, and 5 times again.*goes on"
        ):
            list(engine.run(die, [0]))
    with (
        RayEngine(2, tmp_path / "elsewhere") as engine,
        pytest.raises(UsageError, match=r"does not see .*elsewhere: all nodes .* must mount"),
    ):
        list(engine.run(pid_of, [1]))


def test_a_build_that_loses_a_node_ends_with_the_bytes_of_a_local_build(
    cluster, tmp_path, make_records, write_jsonl, all_bytes, monkeypatch
):
    records = make_records(each=150)
    sources = [str(write_jsonl(tmp_path / "in" / f"{i}.jsonl", records[i::8])) for i in range(8)]
    lost = []

    def lose_a_node():
        while not any((tmp_path / "ray").glob(".build/units/*/micro.npy")):
            time.sleep(0.01)
        cluster.remove_node(cluster.second, allow_graceful=False)
        lost.append(len([*(tmp_path / "ray").glob(".build/units/*/micro.npy")]))

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
