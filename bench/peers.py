"""Compare the speed of MixtureLoader with that of other token loaders; print JSON lines for run.py.

The bench measures tokens per second in int64 batches of 8 rows of 2,048 tokens. The tokens and
weights are those of corpus.py: 16 clusters of skewed sizes, three of them of weight zero. Each
loader, called a contender, runs on one rank in a separate process, without worker processes. It
reads files that were just written, so that the disk is not measured. Each contender has the tokens
in its own format, as its program in ``peers/`` describes, and shuffles them. Each row is copied
once. Batches are made without a DataLoader, which saves up to a third of the time; only one
contender uses a DataLoader, as its name says. The rate does not include the time until the first
10,000 rows are served, in which files are opened, the first epoch is planned, and the first shards
are decompressed.

The first 10,000 rows are checked: the type and shape of each batch, and that each row is of a
single cluster. The lines "rows off" of the table compare the number of rows of each cluster with
the number that the weights ask for. The value is half the sum of the absolute differences; the note
has the largest difference of a cluster.

Then the contenders run in turn. In each round a contender serves rows for about one CPU-second, and
its last batch is checked. The processes of the other contenders are stopped meanwhile, so that they
cannot work ahead. A rate is the median over the rounds. CPU-seconds are those of all threads and
processes of the contender.

Environments are made once, in ``.venv-peers`` (6 GB). While it runs, the bench needs 4 GB of disk
for 200 million tokens, and 8 GB of memory to keep these files in the page cache.

Not measured: a cold disk, remote storage, several ranks, and worker processes. Worker processes use
more CPU time for the same rows, because each batch is sent through a pipe.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
from corpus import FIRST_MARK, SEQ_LEN, WEIGHTS, make_documents, make_shards
from measure import in_turn, report

from climbstream.loader import MixtureLoader

BATCH_ROWS = 8
LOOKED_AT = (1_000, 10_000)
ROUND_SECONDS = 1.0
TRIED = 512  # rows of the first measurement, by which the rows per round are chosen
TORCH = "torch==2.13.0"
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Contender:
    """A loader to measure, in one version."""

    name: str
    program: str
    """Name of its program in ``peers/``, without suffix."""
    folder: str = ""
    """Folder of its environment in ``.venv-peers``; empty for the environment of this bench."""
    requirements: tuple[str, ...] = ()
    """Packages to install in its environment."""
    lacks: str = ""
    """Why weights cannot change while it runs, according to the source of this version."""
    bar: int | None = None
    """Least ratio of climbstream's rate to its rate; None if there is no bar."""


OURS = Contender("climbstream", "from_climbstream")
LITDATA = (
    "litdata",
    ("litdata==0.2.76", "zstd==1.5.7.2"),
    "copies the weights when iteration begins",
    15,
)
PEERS = (
    Contender("litdata 0.2.76", "from_litdata", *LITDATA),
    Contender("litdata 0.2.76, its DataLoader", "from_litdata_loader", *LITDATA),
    Contender("litdata 0.2.76, zstd chunks", "from_litdata_zstd", *LITDATA),
    Contender(
        "mosaicml-streaming 0.13.0",
        "from_streaming",
        "streaming",
        ("mosaicml-streaming==0.13.0",),
        "fixes proportions when it is made",
        100,
    ),
    Contender(
        "datasets 5.2.0",
        "from_datasets",
        "datasets",
        ("datasets==5.2.0",),
        "draws all rows of an epoch when it is made",
    ),
    Contender(
        "datatrove 0.10.1",
        "from_datatrove",
        "datatrove",
        ("datatrove==0.10.1",),
        "mixes nothing: the bench draws the rows",
    ),
    Contender(
        "megatron-core 0.16.1",
        "from_megatron",
        "megatron",
        ("megatron-core==0.16.1",),
        "plans the whole run when it is made; also makes labels, masks, positions",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=200_000_000, help="tokens to make up")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count")
    options = parser.parse_args()
    # Exit normally on SIGTERM, as stopped contenders would otherwise never end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        make_work(work, options.tokens)
        running = dict(start_all(work))
        try:
            measure_mixtures(running)
            measure_rates(running, options.rounds)
        finally:
            for process in running.values():
                process.end()
        measure_live_weights(work)


def make_work(work: Path, tokens: int) -> None:
    """Write the tokens as climbstream's shards, and as plain arrays for the peers to convert."""
    make_shards(work / "shards", tokens)
    (work / "tokens").mkdir()
    for name, documents in make_documents(tokens):
        parts = list(documents)
        np.save(work / "tokens" / f"{name}.npy", np.concatenate(parts))
        np.save(work / "tokens" / f"{name}.lengths.npy", [len(part) for part in parts])
    value = {
        "weights": asked(WEIGHTS),
        "seq_len": SEQ_LEN,
        "batch_rows": BATCH_ROWS,
        "first_mark": FIRST_MARK,
    }
    (work / "corpus.json").write_text(json.dumps(value))
    for folder in ("home", "tmp"):
        (work / folder).mkdir()


def start_all(work: Path) -> Iterator[tuple[Contender, "Process"]]:
    yield OURS, Process(OURS, Path(sys.executable), work)
    for peer in PEERS:
        try:
            python = make_environment(peer)
            command = program(peer, python, "convert", work)
            subprocess.run(
                command, check=True, env=environ(work), stdout=subprocess.DEVNULL, stderr=PIPE
            )
            yield peer, Process(peer, python, work)
        except subprocess.CalledProcessError as error:
            lines = error.stderr.decode(errors="replace").splitlines()
            why = [line for line in lines if "error" in line.lower()] or [str(error)]
            report(f"{peer.name}: left out", None, "", why[-1])


class Process:
    """The process of a contender, which is stopped (SIGSTOP) except while it answers `ask`."""

    def __init__(self, contender: Contender, python: Path, work: Path) -> None:
        command = program(contender, python, "serve", work)
        self._name = contender.name
        self._said = work / f"{contender.program}.txt"
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                command, env=environ(work), stdin=PIPE, stdout=PIPE, stderr=said, text=True
            )
        self._process.send_signal(signal.SIGSTOP)

    def ask(self, command: str, rows: int) -> Any:
        """Send a command with a number of rows to the contender, and return its answer."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write(f"{command} {rows}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit(f"{self._name} failed:\n{self._said.read_text()}")
        self._process.send_signal(signal.SIGSTOP)
        return json.loads(answer)

    def end(self) -> None:
        """Let the process end by itself, so that it cleans up; kill it after 30 s."""
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def measure_mixtures(running: dict[Contender, Process]) -> None:
    weights = np.array(list(asked(WEIGHTS).values()))
    for contender, process in running.items():
        seen = np.zeros(len(weights), int)
        for before, rows in zip((0, *LOOKED_AT), LOOKED_AT, strict=False):
            seen += process.ask("look", rows - before)
            assert seen.sum() == rows
            report_off(f"{contender.name}: rows off after {rows:,}", seen, rows * weights)


def measure_rates(running: dict[Contender, Process], rounds: int) -> None:
    tried = {contender: process.ask("time", TRIED) for contender, process in running.items()}
    rows = {
        contender: max(TRIED, int(TRIED * ROUND_SECONDS / seconds) // BATCH_ROWS * BATCH_ROWS)
        for contender, seconds in tried.items()
    }
    rates: dict[Contender, list[float]] = {contender: [] for contender in running}
    by_name = {contender.name: contender for contender in running}
    for number in range(rounds + 1):
        for name in in_turn(by_name, number):
            contender = by_name[name]
            seconds = running[contender].ask("time", rows[contender])
            if number:  # the first round warms up
                rates[contender].append(rows[contender] * SEQ_LEN / seconds / 1e6)
    for contender, rate in rates.items():
        notes = [f"{min(rate):.3g} to {max(rate):.3g}"]
        if contender is not OURS:
            ratios = [ours / theirs for ours, theirs in zip(rates[OURS], rate, strict=True)]
            bar = "" if contender.bar is None else f", the bar is {contender.bar}"
            notes = [f"ours is {statistics.median(ratios):.2g} times as fast{bar}", *notes]
            notes.append(f"weights not live: {contender.lacks}")
        what = f"{contender.name}: rows [{BATCH_ROWS}, {SEQ_LEN}]"
        report(what, statistics.median(rate), "Mtok/s", "; ".join(notes))


def measure_live_weights(work: Path) -> None:
    """Report rows off after serving with two weights in turn, changed while the loader runs.

    The rows of each cluster are compared with the sum of the rows that the two weights ask for.
    """
    loader = MixtureLoader(
        work / "shards", WEIGHTS, seq_len=SEQ_LEN, batch_rows=BATCH_ROWS, cache_dir=work / "cache"
    )
    others = dict(zip(WEIGHTS, reversed(WEIGHTS.values()), strict=True))
    seen, due = np.zeros(len(WEIGHTS), int), np.zeros(len(WEIGHTS))
    for weights in (WEIGHTS, others):
        loader.set_weights(weights)
        for _ in range(LOOKED_AT[0] // BATCH_ROWS):
            np.add.at(seen, next(loader)["cluster_ids"].numpy(), 1)
        due += LOOKED_AT[0] * np.array(list(asked(weights).values()))
    what = f"{OURS.name}: rows off after {LOOKED_AT[0]:,}, and as many by other weights, live"
    report_off(what, seen, due)


def report_off(what: str, seen: Any, due: Any) -> None:
    off = np.abs(seen - due)
    note = f"at most {off.max():.1f} of a cluster"
    if unwanted := seen[due == 0].sum():
        note += f"; {unwanted} of weight zero"
    report(what, off.sum() / 2, "rows", note)


def asked(weights: dict[str, float]) -> dict[str, float]:
    whole = sum(weights.values())
    return {name: weight / whole for name, weight in weights.items()}


def make_environment(peer: Contender) -> Path:
    folder = HERE.parent / ".venv-peers" / peer.folder
    command = [str(HERE / "environment.sh"), str(folder), TORCH, *peer.requirements]
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run(command, check=True, env=environment, stdout=sys.stderr, stderr=PIPE)
    return folder / "bin" / "python"


def program(contender: Contender, python: Path, step: str, work: Path) -> list[str]:
    return [str(python), str(HERE / "peers" / f"{contender.program}.py"), step, str(work)]


def environ(work: Path) -> dict[str, str]:
    """Return environment variables that keep files of libraries in ``work`` and disable the Hub."""
    return {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "HOME": str(work / "home"),
        "TMPDIR": str(work / "tmp"),
        "HF_HUB_OFFLINE": "1",
    }


if __name__ == "__main__":
    main()
