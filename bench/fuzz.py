"""Damage files of each format and check that errors are clear: ``--minutes N --seed S``.

A case changes one file of a small build, run or corpus, and calls a command or reader on that file
in a separate process. A case fails if the process exits with 1, prints a traceback or an escape
sequence, takes more than 10 s, grows by more than 1 GB, is ended by a signal, or changes a file
that it should not change. The input of a failed case is kept. A case depends only on its seed,
format and number. Case 0 of a format leaves the file unchanged, and must succeed.
"""

import argparse
import hashlib
import importlib
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mutate
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import zstandard

from climbstream.builder import appender, pipeline
from climbstream.builder.clustering.fit import read_fit
from climbstream.builder.corpus import ingest
from climbstream.builder.corpus.sources import find_sources
from climbstream.builder.exporter import shards as export
from climbstream.builder.exporter.job import ExportJob
from climbstream.builder.exporter.mixture import export_mixture
from climbstream.builder.importer import pipeline as importing
from climbstream.builder.settings import BuildSettings
from climbstream.loader import Manifest, Mixture, MixtureLoader
from climbstream.loader.cli import main as cli
from climbstream.loader.core.files import hash_bytes, hash_json, read_json
from climbstream.loader.core.log import show_messages
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.grouping import Grouping
from climbstream.loader.formats.manifest import COLUMNS
from climbstream.loader.monitoring.metrics import append_metrics
from climbstream.loader.state import LoaderState
from climbstream.loader.tools.regroup import regroup
from climbstream.loader.weights.request import (
    REQUEST,
    open_weights_log,
    write_clusters,
    write_request,
)
from climbstream.loader.weights.schedule import Schedule
from climbstream.loader.weights.update import WeightsUpdate
from climbstream.search import Search
from climbstream.search.cli import fit as fit_cli
from climbstream.search.evaluation.targets import load_target
from climbstream.search.experiments.evidence import load_cells, save_cells

PRELOAD = (
    "climbstream.builder.cli.build",
    "climbstream.builder.cli.exchange",
    "climbstream.builder.report.report",
    "climbstream.loader.cli.shards",
    "climbstream.loader.cli.runs",
    "climbstream.loader.audit.auditor",
    "climbstream.loader.audit.explain",
    "climbstream.loader.tools.verify",
)
"""Modules that commands import when they are called; they are imported once, not in each case."""
SECONDS = 10
GROWTH = 1 << 30
SETTINGS: dict[str, Any] = {
    "text_lines": True,
    "clusters": 3,
    "micro_clusters": 6,
    "dims": 8,
    "vocab_size": 300,
    "holdout": 0.2,
    "min_cluster_score": {},
    "min_document_score": {},
}
LOADER: dict[str, Any] = {"seq_len": 32, "batch_rows": 8}
WORDS = (
    "harbour sail anchor tide reef flour butter oven whisk dough orbit comet galaxy rocket the of"
).split()


class Format(NamedTuple):
    """A format, the function that damages it, and the calls that read it."""

    files: str
    """Glob pattern, relative to the folder of the case; one matching file is changed."""
    change: mutate.Mutator
    """Function that returns changed bytes of the file."""
    calls: tuple[str | Callable[[], object], ...]
    """Arguments of ``climb``, or functions; one call is chosen for each case."""
    parts: str = "shards"
    """Files and folders of the base that the case needs, separated by spaces."""
    writes: str = ""
    """Files and folders that a call may write, separated by spaces."""


class Case(NamedTuple):
    """The outcome of one case."""

    fault: str
    """Description of the failure; empty if the case passed."""
    said: str
    """Output of the process."""
    call: str
    """The call, as text."""


class Serial:
    """An engine that runs tasks in this process, as a pool would add a second to each case."""

    def __enter__(self) -> "Serial":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, function: Callable[[Any], Any], tasks: Any, *_: Any, **__: Any) -> Iterator[Any]:
        """Yield each task with its result."""
        for task in tasks:
            yield task, function(task)


def read_sources(*names: str) -> None:
    """Read a corpus as a build does."""
    settings = BuildSettings(**SETTINGS)
    ingest.read_corpus(Serial(), find_sources(names), Path("out/units"), settings)


def serve(**more: Any) -> None:
    """Serve three batches with a loader that has ``more`` arguments."""
    loader = MixtureLoader("shards", **LOADER, **more)
    for _ in range(3):
        next(loader)


def resume() -> None:
    """Load the state of a run, and serve the three batches after it."""
    loader = MixtureLoader("shards", **LOADER)
    loader.load_state_dict(read_json(Path("run/state.json")))
    for _ in range(3):
        next(loader)


def search() -> None:
    """Open the log of a search, and ask for the next mixtures."""
    found = Search(["c00", "c01", "c02"], {"a": "min"}, budget=12, log="search/trials.jsonl")
    found.ask()


def read_cells() -> None:
    """Read the cells of which the clusters of a search consist."""
    cells = load_cells(Path("search"))
    cells.by_cell()
    cells.by_micro([])


def read_state() -> None:
    """Read the state of a run."""
    LoaderState.from_json(read_json(Path("run/state.json")))


READ = ("inspect shards", "verify shards", "inspect shards --json", serve)
RUN = (
    "audit run --shards shards",
    "explain run --step 2 --shards shards",
    "weights run",
    "weights run --json",
    "monitor run --json",
)
RESUMED = partial(serve, weights_log="run/weights.jsonl", ledger="run/served.jsonl")
_BUILD = "build {} --out out --config settings.json"
_FIT = "fit {} --target loss"


def _sources(ending: str, change: mutate.Mutator) -> Format:
    name = f"corpus.{ending}"
    read = partial(read_sources, name)
    return Format(
        name, change, (read, read, read, _BUILD.format(name)), f"{name} settings.json", "out"
    )


def _packed(packing: str) -> Format:
    change = partial(mutate.change_packed, inner=mutate.change_lines, suffix=packing)
    return _sources(f"jsonl.{packing}", change)


FORMATS: dict[str, Format] = {
    "manifest": Format("shards/manifest.json", mutate.change_json, READ),
    "index": Format("shards/clusters/*/index.json", mutate.change_json, READ),
    "columns": Format("shards/shards.columns", mutate.change_shard_columns, READ),
    "shard": Format("shards/clusters/*/*.zstd", mutate.change_shard, ("verify shards", serve)),
    "clusters": Format("shards/clusters.json", mutate.change_json, READ[:3]),
    "tokenizer": Format(
        "shards/tokenizer.json",
        mutate.change_json,
        ("verify shards", "export shards --to jsonl --text --workers 1 --out out"),
        writes="out",
    ),
    "heldout": Format(
        "shards/heldout.jsonl.zst",
        partial(mutate.change_packed, inner=mutate.change_lines, suffix="zst"),
        ("verify shards", lambda: load_target(Path("shards"), "cluster=c00")),
    ),
    "documents": Format(
        "shards/documents/*.parquet",
        mutate.change_parquet,
        ("verify shards", "explain run --step 2 --shards shards"),
        "shards run",
    ),
    "centroids": Format(
        "shards/centroids.npy",
        mutate.change_npy,
        ("verify shards", "append"),
        "shards corpus.tsv",
        "shards",
    ),
    "model": Format(
        "shards/model.npz",
        mutate.change_npz,
        ("verify shards", "append"),
        "shards corpus.tsv",
        "shards",
    ),
    "grouping": Format(
        "shards/groupings/two/grouping.json",
        mutate.change_json,
        (
            "inspect shards/groupings/two",
            "verify shards",
            lambda: next(MixtureLoader("shards/groupings/two", **LOADER)),
        ),
    ),
    "run clusters": Format(
        "run/weights.clusters.json",
        mutate.change_json,
        ("weights run c00=0.4", "weights run"),
        "run shards",
        "run",
    ),
    "mixture": Format(
        "mixture.json",
        mutate.change_json,
        (
            "export shards --to mosaic --mixture mixture.json --out out",
            "pull shards out --mixture mixture.json",
            partial(serve, weights="mixture.json"),
        ),
        "mixture.json shards",
        "out",
    ),
    "weights log": Format(
        "run/weights.jsonl", mutate.change_lines, (*RUN, RESUMED), "run shards", "run"
    ),
    "request": Format(
        "run/weights.request.json",
        mutate.change_json,
        (*RUN[2:], partial(serve, weights_file="run/weights.request.json")),
        "run shards",
        "run/weights.clusters.json",
    ),
    "served": Format(
        "run/served.jsonl", mutate.change_lines, (*RUN[:2], RUN[4], RESUMED), "run shards", "run"
    ),
    "metrics": Format("run/metrics.jsonl", mutate.change_lines, (RUN[4],), "run"),
    "state": Format("run/state.json", mutate.change_json, (resume, read_state), "run shards"),
    "schedule": Format(
        "schedule.json",
        mutate.change_json,
        (lambda: serve(weights=Schedule.load(Path("schedule.json"))),),
        "schedule.json shards",
    ),
    "trials": Format("search/trials.jsonl", mutate.change_lines, (search,), "search", "search"),
    "search cells": Format("search/cells.json", mutate.change_json, (read_cells,), "search"),
    "tasks": Format(
        "tasks.jsonl",
        mutate.change_lines,
        (
            lambda: load_target(Path("shards"), "tasks.jsonl"),
            lambda: load_target(Path("shards"), "error=tasks.jsonl"),
        ),
        "tasks.jsonl",
    ),
    "settings": Format(
        "settings.json",
        mutate.change_json,
        (_BUILD.format("corpus.tsv"),),
        "corpus.tsv settings.json",
        "out",
    ),
    "plan": Format(
        "half/.build/plan.json",
        mutate.change_json,
        ("build corpus.tsv --out half --config settings.json",),
        "half corpus.tsv settings.json",
        "half",
    ),
    "pull plan": Format(
        "pulled/pull.json", mutate.change_json, ("pull shards pulled",), "shards pulled", "pulled"
    ),
    "export": Format(
        "exported/.export.json",
        mutate.change_json,
        ("export shards --to jsonl --text --workers 1 --out exported",),
        "shards exported",
        "exported",
    ),
    "drawn": Format(
        "drawn/.drawn.json",
        mutate.change_json,
        ("export shards --to jsonl --text --tokens 500 --workers 1 --out drawn",),
        "shards drawn",
        "drawn",
    ),
    "fit": Format(
        "model.npz", mutate.change_npz, (lambda: read_fit(Path("model.npz")),), "model.npz"
    ),
    "fit table": Format(
        "runs.csv",
        mutate.change_table,
        (partial(fit_cli.read_runs, (Path("runs.csv"),), ["loss"], None),),
        "runs.csv",
    ),
    "fit tables": Format(
        "[ws]*s.csv",
        mutate.change_table,
        (partial(fit_cli.read_runs, (Path("weights.csv"), Path("scores.csv")), ["loss"], None),),
        "weights.csv scores.csv",
    ),
    "import parquet": Format(
        "clustered.parquet",
        mutate.change_parquet,
        ("import clustered.parquet --out out --vocab-size 300 --eos-id -1",),
        "clustered.parquet",
        "out",
    ),
    "import jsonl": Format(
        "clustered.jsonl",
        mutate.change_lines,
        ("import clustered.jsonl --out out --vocab-size 300 --eos-id -1",),
        "clustered.jsonl",
        "out",
    ),
    "jsonl": _sources("jsonl", mutate.change_lines),
    "json": _sources("json", mutate.change_json),
    "csv": _sources("csv", mutate.change_table),
    "tsv": _sources("tsv", partial(mutate.change_table, delimiter="\t")),
    "txt": _sources("txt", mutate.change_bytes),
    "parquet": _sources("parquet", mutate.change_parquet),
    "arrow": _sources("arrow", mutate.change_arrow),
    **{packing: _packed(packing) for packing in mutate.PACKINGS},
}


def make_base(base: Path) -> None:
    """Write the intact files of all formats to ``base``, from which cases are copied."""
    rng = random.Random(0)
    records = [
        {
            "id": f"d{i}",
            "text": " ".join(rng.choices(WORDS[i % 3 * 5 :][:7] + WORDS, k=80)),
            "label": f"l{i % 3}",
        }
        for i in range(36)
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    table = pa.Table.from_pylist(records)
    for name, data in {
        "jsonl": lines,
        "json": json.dumps(records).encode(),
        "txt": "\n\n".join(record["text"] for record in records).encode(),
        "arrow": mutate.arrow_bytes(table),
        **{f"jsonl.{name}": pack(lines) for name, (pack, _) in mutate.PACKINGS.items()},
    }.items():
        (base / f"corpus.{name}").write_bytes(data)
    for ending, mark in (("csv", ","), ("tsv", "\t")):
        rows = [mark.join(records[0]), *(mark.join(record.values()) for record in records)]
        (base / f"corpus.{ending}").write_text("\n".join(rows) + "\n")
    pq.write_table(table, base / "corpus.parquet")
    clustered = [
        {"cluster_id": i % 3, "tokens": [(i * j) % 300 for j in range(50)]} for i in range(30)
    ]
    pq.write_table(pa.Table.from_pylist(clustered), base / "clustered.parquet")
    (base / "clustered.jsonl").write_text("".join(json.dumps(row) + "\n" for row in clustered))
    (base / "settings.json").write_text(json.dumps(SETTINGS))
    pipeline.build([str(base / "corpus.tsv")], base / "shards", BuildSettings(**SETTINGS))
    names = Manifest.load(base / "shards").names
    regroup(base / "shards", "two", Grouping({"a": tuple(names[:1]), "b": tuple(names[1:])}))
    half = base / "half" / ".build"
    half.mkdir(parents=True)
    plan = Manifest.load(base / "shards").provenance
    (half / "plan.json").write_text(json.dumps(plan))
    (base / "pulled").mkdir()
    shards = {"pull": 1, "shards": Manifest.load(base / "shards").fingerprint}
    (base / "pulled" / "pull.json").write_text(json.dumps(shards))
    shutil.copy(base / "shards" / "model.npz", base)
    shards = ShardDirectory(base / "shards")
    job = ExportJob(shards=shards, out=base / "drawn", to="jsonl", text=True, workers=1)
    export_mixture(job, tokens=500)
    export.export_shards(shards, base / "exported", "jsonl", text=True, workers=1)
    make_run(base)
    make_tables(base)


def make_run(base: Path) -> None:
    """Write the folders of a loader's run and of a search."""
    run, names = base / "run", Manifest.load(base / "shards").names
    Mixture.uniform(names).save(base / "mixture.json")
    loader = MixtureLoader(
        base / "shards", **LOADER, weights_log=run / "weights.jsonl", ledger=run / "served.jsonl"
    )
    for step in range(6):
        next(loader)
        append_metrics(
            run / "metrics.jsonl", loader.metrics(), loss=4.0, cluster_loss={names[0]: 4.0}
        )
        if step == 3:
            loader.set_weights(dict.fromkeys(names, 1.0), ramp=2, why="even")
    (run / "state.json").write_text(json.dumps(loader.state_dict()))
    loader.flush()
    write_clusters(run / REQUEST, names)
    log = open_weights_log(run)
    write_request(run, WeightsUpdate(Mixture.uniform(names), 2, "again"), log.head)
    entries = [
        {"step": 0, "weights": {names[0]: 1}},
        {"step": 1, "weights": {names[1]: 1}, "ramp": 2},
    ]
    (base / "schedule.json").write_text(json.dumps({"version": 1, "schedule": entries}))
    (base / "search").mkdir()
    found = Search(
        ["c00", "c01", "c02"], {"a": "min"}, budget=12, log=base / "search" / "trials.jsonl"
    )
    for number, mixture in enumerate(found.ask()[:4]):
        found.tell(mixture, {"a": 1.0 + number / 10})
    save_cells(ShardDirectory(base / "shards"), base / "search")


def make_tables(base: Path) -> None:
    """Write tables of runs, and a file of questions."""
    rng = random.Random(0)
    heads, rows = ["run", "w_a", "w_b", "loss"], []
    for number in range(12):
        a = rng.random()
        rows.append([f"r{number}", a, 1 - a, 2 + a * a])
    for name, columns in (("runs", [0, 1, 2, 3]), ("weights", [0, 1, 2]), ("scores", [0, 3])):
        text = "\n".join(",".join(str(row[c]) for c in columns) for row in [heads, *rows])
        (base / f"{name}.csv").write_text(text + "\n")
    tasks = [
        {"query": f"{i} is", "choices": ["odd", "even"], "gold": (i + 1) % 2} for i in range(8)
    ]
    (base / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))


def mend_hashes(folder: Path) -> None:
    """Recompute hashes of changed files, so that readers get past the hashes to the change."""
    manifest_file = folder / "shards" / "manifest.json"
    with suppress(Exception):
        manifest = json.loads(manifest_file.read_bytes())
        for cluster in manifest["clusters"]:
            index_file = folder / "shards" / "clusters" / cluster["name"] / "index.json"
            with suppress(Exception):
                _mend_index(index_file)
            cluster["index_hash"] = hash_bytes(index_file.read_bytes())
        columns = folder / "shards" / COLUMNS
        if columns.exists():
            manifest["files"][COLUMNS] = hash_bytes(columns.read_bytes())
        pairs: list[Any] = [[c["name"], c["index_hash"]] for c in manifest["clusters"]]
        manifest["fingerprint"] = hash_json([*pairs, manifest["dtype"]])
        manifest_file.write_text(json.dumps(manifest))
    for name in ("weights", "served"):
        with suppress(Exception):
            _mend_chain(folder / "run" / f"{name}.jsonl")


def forget_columns(shards: Path) -> None:
    """Remove ``shards.columns``, so that readers use the ``index.json`` of each cluster."""
    manifest = json.loads((shards / "manifest.json").read_bytes())
    del manifest["files"][COLUMNS]
    (shards / "manifest.json").write_text(json.dumps(manifest))
    (shards / COLUMNS).unlink()


def _mend_index(file: Path) -> None:
    index = json.loads(file.read_bytes())
    for shard in index["shards"]:
        packed = (file.parent / shard["zip_data"]["basename"]).read_bytes()
        shard["zip_data"] |= {"bytes": len(packed), "hashes": {"xxh3_128": hash_bytes(packed)}}
        raw = zstandard.decompress(packed)
        shard["raw_data"] |= {"bytes": len(raw), "hashes": {"xxh3_128": hash_bytes(raw)}}
    file.write_text(json.dumps(index))


def _mend_chain(file: Path) -> None:
    lines, head = [], ""
    for line in file.read_bytes().splitlines():
        value = json.loads(line)
        value["prev"] = head
        value.pop("hash", None)
        head = hash_json(value)
        lines.append(json.dumps({**value, "hash": head}))
    file.write_text("".join(f"{line}\n" for line in lines))


def make_case(base: Path, folder: Path, name: str, rng: random.Random, number: int) -> Path:
    """Copy the files of a case to ``folder`` and change one; return the path of that file."""
    form = FORMATS[name]
    folder.mkdir(parents=True)
    for part in form.parts.split():
        copy = shutil.copytree if (base / part).is_dir() else shutil.copyfile
        copy(base / part, folder / part)
    (folder / "notes.txt").write_text("of somebody else")
    (folder / ".tmp-notes").write_text("of somebody else too")
    if name == "index":
        forget_columns(folder / "shards")
    file = rng.choice(sorted(folder.glob(form.files)))
    if number:
        file.write_bytes(form.change(rng, file.read_bytes()))
        if rng.random() < 0.7:
            mend_hashes(folder)
    return file


def run_case(base: Path, folder: Path, seed: int, name: str, number: int) -> Case:
    """Make a case in ``folder``, run its call in a separate process, and return the outcome."""
    rng = random.Random(f"{seed} {name} {number}")
    form = FORMATS[name]
    make_case(base, folder, name, rng, number)
    call = (
        form.calls[number % len(form.calls)] if number < len(form.calls) else rng.choice(form.calls)
    )
    before = _hashes(folder, form.writes)
    grown = _resident()
    process = os.fork()
    if not process:
        _child(call, folder)
    status, usage = _wait(process)
    said = (folder / "said").read_bytes()
    fault = ""
    if os.WIFSIGNALED(status):
        by = signal.Signals(os.WTERMSIG(status))
        fault = f"no end after {SECONDS} s" if by == signal.SIGKILL else f"killed by {by.name}"
    elif os.WEXITSTATUS(status) == 1 or b"Traceback" in said or b"internal" in said:
        fault = "internal error"
    elif usage.ru_maxrss * 1024 - grown > GROWTH:
        fault = f"grew by {(usage.ru_maxrss * 1024 - grown) >> 20} MiB"
    elif b"\x1b" in said:
        fault = "an escape sequence in what is said"
    elif (after := _hashes(folder, form.writes)) != before:
        fault = f"changed {', '.join(sorted(set(before.items()) ^ set(after.items()))[0])}"
    elif not number and os.WEXITSTATUS(status):
        fault = f"exit {os.WEXITSTATUS(status)} for a file as it was"
    text = call if isinstance(call, str) else _name(call)
    return Case(fault, said.decode(errors="replace"), text)


def _wait(process: int) -> tuple[int, resource.struct_rusage]:
    """Wait for a child process, and kill it after `SECONDS`; return its status and usage.

    Time in which the child was ready but waited for a processor does not count.
    """
    began, others = time.monotonic(), 0.0
    child = os.pidfd_open(process)
    try:
        while (left := began + SECONDS + others - time.monotonic()) > 0:
            if select.select([child], [], [], left)[0]:
                break
            schedule = Path(f"/proc/{process}/schedstat")
            others = int(schedule.read_text().split()[1]) / 1e9
        else:
            os.kill(process, signal.SIGKILL)
    finally:
        os.close(child)
    _, status, usage = os.wait4(process, 0)
    return status, usage


def _name(call: Any) -> str:
    """Return the name of a function, with the arguments of a `partial`."""
    if isinstance(call, partial):
        return f"{call.func.__name__}{call.args or ''}{call.keywords or ''}"
    return str(call.__name__)


def _child(call: str | Callable[[], object], folder: Path) -> None:
    """Run a call in this process, a fork of the main process, and end the process."""
    code = 1
    try:
        os.chdir(folder)
        os.environ["CLIMBSTREAM_CACHE"] = str(folder / "cache")
        said = os.open("said", os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout = os.fdopen(1, "w", errors="surrogateescape")
        sys.stderr = os.fdopen(2, "w", errors="backslashreplace")
        most = _virtual() + 4 * GROWTH
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = _call(call)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _call(call: str | Callable[[], object]) -> int:
    for module in (pipeline, appender, importing):
        module.open_engine = lambda *_, **__: Serial()  # type: ignore[attr-defined]
    export.LocalEngine = lambda *_, **__: Serial()  # type: ignore[assignment,misc]
    known = cli._ours

    def ours(error: Exception, arguments: Any) -> Any:
        if (one := known(error, arguments)) is None:
            traceback.print_exc()
        return one

    cli._ours = ours
    if call == "append":
        call = "build corpus.tsv --append --out shards"
    if isinstance(call, str):
        return cli.run(call.split())
    # For an exception of a reader, exit as the command line does for that exception.
    function = call

    def read(_: object) -> int:
        function()
        return 0

    cli.call = read  # type: ignore[assignment]
    return cli.run([])


def _hashes(folder: Path, writes: str) -> dict[str, str]:
    """Return the hashes, by path, of all files of a case except those that may change."""
    mine = [folder / name for name in ("said", "cache", *writes.split())]
    return {
        str(path.relative_to(folder)): hashlib.sha1(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not any(path.is_relative_to(name) for name in mine)
    }


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _virtual() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", action="append", choices=FORMATS, help="default: all")
    parser.add_argument("--case", type=int, help="number of the one case to run")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "fuzz-failures")
    options = parser.parse_args()
    names = options.format or list(FORMATS)
    cases, failures, seconds = Counter(), Counter(), Counter()
    torch.set_num_threads(1)
    show_messages()
    for module in PRELOAD:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory(prefix="climbstream-fuzz-") as place:
        base = Path(place) / "base"
        base.mkdir()
        os.environ["CLIMBSTREAM_CACHE"] = str(Path(place) / "cache")
        for module in (pipeline, appender, importing):
            module.open_engine = lambda *_, **__: Serial()
        make_base(base)
        end = time.monotonic() + 60 * options.minutes
        number = options.case or 0
        while time.monotonic() < end:
            for name in names:
                began = time.monotonic()
                if began > end and number:
                    break
                folder = Path(place) / "case"
                case = run_case(base, folder, options.seed, name, number)
                cases[name] += 1
                seconds[name] += time.monotonic() - began
                if case.fault:
                    failures[name] += 1
                    kept = options.keep / f"{name.replace(' ', '-')}-{options.seed}-{number}"
                    shutil.rmtree(kept, ignore_errors=True)
                    shutil.copytree(folder, kept)
                    last = case.said.strip().splitlines()[-1:] or [""]
                    print(
                        f"{name} {number}: {case.fault}: {case.call}: {last[0][:300]}\n  {kept}",
                        flush=True,
                    )
                shutil.rmtree(folder)
            if options.case is not None:
                break
            number += 1
    print(f"\n{'format':16} {'cases':>7} {'failures':>9} {'seconds':>8}")
    for name in names:
        print(f"{name:16} {cases[name]:7,} {failures[name]:9,} {seconds[name]:8.1f}")
    print(f"{'all':16} {cases.total():7,} {failures.total():9,} {sum(seconds.values()):8.1f}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
