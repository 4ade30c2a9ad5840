"""Measure MixtureLoader beside other loaders of tokens; prints JSON lines for run.py.

What is measured: tokens a second of batches of 8 rows of 2,048 tokens, int64, on the tokens and by
the weights of corpus.py: 16 clusters of skewed size, three of weight zero. All on one rank and
without worker processes, each in a process of its own, from files that were just written, so that
the disk has no part in it. Each has the tokens in its own format, as its program in ``peers/``
says, and shuffles. No DataLoader stands between, which spares up to a third of the time, but for
one contender that says so, and rows are put into a batch with one copy. What happens before the
first 10,000 rows are served is not in the rate: opening, planning the first epoch, the first
decompression.

Those rows are looked at: type and shape of each batch, that each row is of one cluster, and of
which. So each row of the table "rows off" says how far the clusters' rows are from what the weights
ask for: half the sum of all differences, in rows, and in the note the largest of one cluster.
Rounds then take turns, each of as many rows as last about a CPU-second, and the last batch of each
is looked at again. A contender whose turn it is not is stopped, so that it does nothing ahead. The
rate is the median of the rounds, by CPU-seconds of the process, all its threads and processes.

Environments are made once, in ``.venv-peers`` (6 GB). 200 million tokens need 4 GB of disk while it
runs, and twice as much memory lets the files stay in it.

What is not measured: worker processes, which cost more CPU for the same rows (each batch goes
through a pipe), a cold disk, remote storage, several ranks.
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
TRIED = 512  # rows of the rounds that say how long a round may be
TORCH = "torch==2.13.0"
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Contender:
    """A loader; ``lacks`` was found in the source of just this version."""

    name: str
    program: str
    folder: str = ""
    """Its environment; empty: the one that runs this."""
    requirements: tuple[str, ...] = ()
    lacks: str = ""
    bar: int | None = None
    """How many times as fast ours is to be."""


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
    # Contenders that stand still would stay for ever.
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
    """Make the tokens: once as our shards, once bare, for the others to convert."""
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
    """A contender at work; it stands still unless it is asked."""

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
        """Let it obey one line, and return its answer."""
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
        """Let it end by itself, so that it cleans up, or make it."""
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
    """Serve rows by the weights, then by other weights, and compare with what both ask for."""
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
    """Let what a library leaves behind go with the work folder, and nothing ask a network."""
    return {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "HOME": str(work / "home"),
        "TMPDIR": str(work / "tmp"),
        "HF_HUB_OFFLINE": "1",
    }


if __name__ == "__main__":
    main()
