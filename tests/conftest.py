"""What the tests of all folders share: a corpus with known topics, and what was built of it."""

import gzip
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zstandard
from climb_command import run_climb
from forkserver_preload import BUILD, preload
from hypothesis import settings

# As many test processes as cores, with as many threads each, would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A job in the background of a script ignores Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# The first call of a compiled function takes seconds, so no example has a deadline of its own.
settings.register_profile("climbstream", deadline=None)
settings.load_profile("climbstream")

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
"""Real text, where it lies beside the checkout."""

Record = dict[str, Any]

TOPICS = {
    "sea": "harbour sail anchor tide reef captain vessel deck mast lighthouse cargo gull wave",
    "kitchen": "flour butter oven whisk dough sugar recipe bowl simmer garlic onion pepper cake",
    "space": "planet orbit comet telescope galaxy rocket satellite lunar gravity asteroid nebula",
    "law": "statute court tenant clause appeal judge verdict contract plaintiff section fine",
    "garden": "seed soil compost prune blossom hedge tulip shovel weed orchard greenhouse root",
    "music": "violin chord tempo melody opera drummer rhythm concerto flute choir ballad octave",
}
FRAMES = (
    "The {0} was by the {1}, and there they had all the {2} that one can want for the day.",
    "It is said that a {0} without a {1} has no use for the {2}, but this is not what we found.",
    "When she asked about the {0}, he gave her the {1} and went out to look for another {2}.",
    "In the first year they had only one {0}; now there are {3} of them, each with its own {1}.",
    "Some would have the {0} before the {1}, as their fathers did, because the {2} comes last.",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files that take longest first, so that all processes end at about the same time.

    A slow test counts as one, and one with a time limit of its own as many as its minutes.
    """
    weights: Counter[Path] = Counter()
    for item in items:
        if item.get_closest_marker("slow"):
            limit = item.get_closest_marker("timeout")
            weights[item.path] += limit.args[0] // 60 if limit else 1
    items.sort(key=lambda item: -weights[item.path])


@dataclass(frozen=True)
class Built:
    """A shard directory, what it was built of, and how."""

    directory: Path
    source: Path
    records: list[Record]
    """The records of the source, without bad ones."""
    settings: dict[str, Any]


@pytest.fixture(scope="session", autouse=True)
def _messages() -> None:
    """Let tests see on stderr what the command shows there."""
    from climbstream.loader.core.log import show_messages

    show_messages()


@pytest.fixture(scope="session")
def shared_corpus() -> Path:
    """Folder of the real text; without it the test is skipped."""
    if not CORPUS.is_dir():
        pytest.skip(f"there is no {CORPUS}")
    return CORPUS


@pytest.fixture(scope="session")
def make_records() -> Callable[..., list[Record]]:
    """Return a function that makes records of the six topics, mixed."""
    return _make_records


@pytest.fixture(scope="session")
def write_jsonl() -> Callable[[Path, Iterable[Any]], Path]:
    """Return a function that writes records, or lines of bytes, as the name of the file says."""
    return _write_jsonl


@pytest.fixture(scope="session")
def climb() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the real command."""
    return run_climb


@pytest.fixture(scope="session")
def fault_shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that fails the nth call of a kind; without a compiler the test is skipped."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("there is no C compiler")
    library = tmp_path_factory.mktemp("shim") / "fail_nth.so"
    source = Path(__file__).parent / "faults" / "fail_nth.c"
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


@pytest.fixture(scope="session")
def scalars() -> Callable[[Path], dict[str, dict[int, float]]]:
    """Return what reads a folder as TensorBoard does: numbers by step, by name."""
    return _scalars


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A finished build with copies, repeated identifiers, junk, bad records and a holdout."""
    # Imported here, so that a test run without these tests does not pay for it.
    from climbstream.builder.pipeline import build
    from climbstream.builder.settings import BuildSettings

    preload(BUILD)
    records = _make_records()
    copies = [{**record, "id": f"copy of {record['id']}"} for record in records[5:10]]
    twins = [{**record, "text": f"{record['text']} So it was."} for record in records[20:23]]
    junk = [
        {"id": f"junk{i}", "text": f"{i} || 0 0 1 || ==== " * 40, "label": "junk"} for i in range(4)
    ]
    records += copies + twins + junk
    settings: dict[str, Any] = {
        "clusters": 6,
        "micro_clusters": 24,
        "dims": 16,
        "vocab_size": 600,
        "holdout": 0.1,
        "min_cluster_score": {},
        "min_document_score": {"overall": 0.3},
    }
    source = tmp_path_factory.mktemp("corpus") / "topics.jsonl"
    out = tmp_path_factory.mktemp("built") / "shards"
    _write_jsonl(source, [*records, b'{"id": "cut', {"id": "nothing", "text": " "}])
    build([str(source)], out, BuildSettings(**settings), workers=2)
    return Built(out, source, records, settings)


def _make_records(each: int = 60, seed: int = 0) -> list[Record]:
    rng = random.Random(seed)
    records = []
    for topic, words in TOPICS.items():
        for number in range(each):
            sentences = [
                rng.choice(FRAMES).format(*rng.sample(words.split(), 3), rng.randrange(99))
                for _ in range(rng.randrange(4, 9))
            ]
            text = " ".join(sentences)
            records.append(
                {"id": f"{topic}-{number}", "text": text, "label": topic, "license": "CC0-1.0"}
            )
    rng.shuffle(records)
    return records


def _write_jsonl(path: Path, records: Iterable[Any]) -> Path:
    data = b"".join(
        (r if isinstance(r, bytes) else json.dumps(r, ensure_ascii=False).encode()) + b"\n"
        for r in records
    )
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = zstandard.compress(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _scalars(folder: Path) -> dict[str, dict[int, float]]:
    accumulator = importlib.import_module(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator
    read = accumulator(str(folder)).Reload()
    return {
        name: {event.step: event.value for event in read.Scalars(name)}
        for name in read.Tags()["scalars"]
    }


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


@pytest.fixture(scope="module")
def s3_server():
    """An S3 server that the environment, which processes inherit, points to."""
    # Imported here, so that a test run without these tests does not pay for moto.
    from s3_server import s3_server

    with s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_server, monkeypatch):
    """The S3 server, which behaves well again after the test; a request is soon repeated."""
    monkeypatch.setattr("climbstream.loader.storage.retry.FIRST_PAUSE", 0.01)
    yield s3_server
    s3_server.behave()


@pytest.fixture
def browser(tmp_path):
    """Return a browser without a window."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless",
        "--no-sandbox" if os.geteuid() == 0 else "--mute-audio",
        "--disable-gpu",
        "--disable-quic",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--window-size=1200,1300",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(argument)
    service = webdriver.ChromeService(executable_path=driver)
    found = webdriver.Chrome(options=options, service=service)
    yield found
    found.quit()
