"""Two of a command on one folder: one works, or both are right; nothing is damaged."""

import json
import shutil
import subprocess

import pytest
from climb_command import ClimbProcess, run_climb

pytestmark = pytest.mark.slow


def both(*arguments):
    """Start a command twice; return codes and what was said."""
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    started = [ClimbProcess(*arguments, **pipes) for _ in range(2)]
    said = [process.communicate(timeout=240)[1] for process in started]
    return sorted(process.returncode for process in started), "\n".join(said)


def hold(codes, said):
    assert codes in ([0, 0], [0, 6]), said
    if codes == [0, 6]:
        assert "error: another process works on" in said


def files(folder):
    """Files by name, but the words for Megatron, which hold the name of the folder."""
    there = [path for path in folder.rglob("*") if path.is_file() and path.name != "blend.txt"]
    return {path.name: path.read_bytes() for path in there}


@pytest.fixture(scope="module")
def source(tmp_path_factory, make_records, write_jsonl):
    folder = tmp_path_factory.mktemp("corpus")
    settings = {"clusters": 2, "micro_clusters": 6, "dims": 8, "vocab_size": 400}
    settings |= {"min_cluster_score": {}, "min_document_score": {}}
    (folder / "settings.json").write_text(json.dumps(settings))
    return write_jsonl(folder / "topics.jsonl", make_records(each=8, seed=3))


def test_two_builds(climb, source, tmp_path):
    config = source.parent / "settings.json"
    hold(*both("build", source, "--out", tmp_path / "out", "--config", config, "--workers=1"))
    assert climb("verify", tmp_path / "out").returncode == 0


def test_two_appends(climb, built, source, tmp_path):
    shards = shutil.copytree(built.directory, tmp_path / "shards")
    hold(*both("build", source, "--append", "--out", shards, "--workers=1"))
    assert climb("verify", shards).returncode == 0


def test_verify_while_documents_are_appended(climb, built, source, tmp_path):
    shards = shutil.copytree(built.directory, tmp_path / "shards")
    command = ["build", source, "--append", "--out", shards, "--workers=1"]
    with ClimbProcess(*command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as append:
        while append.poll() is None:
            done = climb("verify", shards)
            assert done.returncode in (0, 4), done.stderr
            assert done.returncode == 0 or "appended meanwhile" in done.stdout
    assert append.returncode == 0
    assert climb("verify", shards).returncode == 0


def test_two_pulls(climb, built, tmp_path):
    hold(*both("pull", built.directory, tmp_path / "out"))
    assert climb("verify", tmp_path / "out").returncode == 0


@pytest.mark.parametrize("layout", ["jsonl", "parquet", "megatron"])
def test_two_exports(built, tmp_path, layout):
    options = ["export", built.directory, "--to", layout, "--workers=1", "--out"]
    assert run_climb(*options, tmp_path / "alone").returncode == 0
    hold(*both(*options, tmp_path / "out"))
    alone, out = (files(tmp_path / name) for name in ("alone", "out"))
    assert out == alone


def test_two_trainings(built, tmp_path):
    options = ["train", built.directory, "--tokens", 8192, "--seq-len", 64, "--out"]
    hold(*both(*options, tmp_path / "out"))
    assert (tmp_path / "out" / "model" / "config.json").exists()


def test_two_searches(built, tmp_path):
    options = "--budget 2 --proxy-tokens 512 --confirm 0 --workers 1 --target label=sea"
    command = ["search", built.directory, *options.split(), "--preset", "random", "--out"]
    hold(*both(*command, tmp_path / "out"))
    done = run_climb(*command, tmp_path / "alone")
    assert done.returncode == 0, done.stderr
    for name in ("mixture.json", "trials.jsonl"):
        ours, theirs = ((tmp_path / out / name).read_bytes() for out in ("out", "alone"))
        assert ours == theirs


def test_two_fits(tmp_path):
    rows = [f"{i / 11:.3f},{1 - i / 11:.3f},{(i / 11 - 0.4) ** 2}" for i in range(12)]
    (tmp_path / "runs.csv").write_text("\n".join(["w_a,w_b,loss", *rows]))
    command = ["fit", tmp_path / "runs.csv", "--target", "loss", "--out"]
    hold(*both(*command, tmp_path / "out"))
    assert run_climb(*command, tmp_path / "out").returncode == 0
