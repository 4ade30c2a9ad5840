"""Measure the CPU time to tokenise text and write shards; print JSON lines for run.py.

Speeds are in megabytes of text per CPU-second. All contenders have the same texts and the same
tokenizer (a byte-level BPE of 32,768 tokens, trained on a quarter of the texts). Each contender
runs in one process with one thread of the tokenizer, and writes to a temporary folder. climbstream
reads the texts from disk; the other contenders have them in memory.

* tokenizers alone: encode batches of 1,000 texts, and discard the ids; the upper limit for
  mosaicml-streaming and datatrove.
* fastokens alone: encode all texts at once, and discard the ids; the upper limit for climbstream.
* climbstream: the stages ``tokenise`` and ``write shards`` of a build, from partitions that were
  written to disk before; the output has 8 clusters, as MDS with zstd and hashes.
* mosaicml-streaming: the tokenizer on batches of 1,000 texts, and ``MDSWriter`` with zstd and xxh3;
  the output is one folder, as MDSWriter has no clusters.
* datatrove: its step ``DocumentTokenizer``; the output is uint16 files, neither compressed nor
  shuffled.

Each peer has a separate environment in ``.venv-peers``, which is made once. A peer that cannot be
installed is left out, and the table has the reason. Contenders run in turn; each figure is the
median over the rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

from measure import in_turn, report

from climbstream.builder.corpus.installed import installed_documents
from climbstream.builder.writers.tokenizer import train_tokenizer

HERE = Path(__file__).parent
ROUNDS = 3
ALONE, FAST, OURS = "tokenizers alone", "fastokens alone", "climbstream"
PEERS = {
    "mosaicml-streaming 0.13.0": (
        "write_streaming",
        ("torch==2.13.0", "mosaicml-streaming==0.13.0", "tokenizers>=0.20"),
    ),
    "datatrove 0.10.1": ("write_datatrove", ("datatrove==0.10.1", "tokenizers==0.23.3")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=float, default=16)
    options, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        size = make_texts(work, options.megabytes) / 1e6
        programs = {
            ALONE: (sys.executable, "write_nothing"),
            FAST: (sys.executable, "write_nothing_fast"),
            OURS: (sys.executable, "write_climbstream"),
            **dict(peers()),
        }
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        for number in range(ROUNDS):
            for name in in_turn(programs, number):
                python, program = programs[name]
                seconds[name].append(measure(python, program, work))
    limit = statistics.median(seconds[ALONE])
    for name, rounds in seconds.items():
        median = statistics.median(rounds)
        note = f"{100 * limit / median:.0f} % of tokenizers alone"
        spread = f"{size / max(rounds):.2f} to {size / min(rounds):.2f}"
        report(f"tokenise and write, {name}", size / median, "MB/CPU-s", f"{note}; {spread}")


def make_texts(work: Path, megabytes: float) -> int:
    """Write the texts and the tokenizer to ``work``; return the UTF-8 bytes of the texts."""
    texts = [d.text for d in installed_documents(megabytes=megabytes, seed=17)]
    (work / "texts.json").write_text(json.dumps(texts))
    train_tokenizer(texts[::4], 32_768).save(str(work / "tokenizer.json"))
    return sum(len(text.encode()) for text in texts)


def peers() -> Iterator[tuple[str, tuple[str, str]]]:
    """Install each peer, and yield its name with its Python and its program."""
    for name, (program, requirements) in PEERS.items():
        folder = HERE.parent / ".venv-peers" / program.replace("_", "-")
        try:
            subprocess.run(
                [str(HERE / "environment.sh"), str(folder), *requirements],
                check=True,
                env={**os.environ, "PYTHON": sys.executable},
                stdout=sys.stderr,
                stderr=PIPE,
            )
        except subprocess.CalledProcessError as error:
            why = error.stderr.decode().strip().splitlines()[-1:]
            report(f"tokenise and write, {name}", None, "", f"not installed: {' '.join(why)}")
        else:
            yield name, (str(folder / "bin" / "python"), program)


def measure(python: str, program: str, work: Path) -> float:
    """Run ``program``, and return the CPU-seconds that it prints."""
    done = subprocess.run(
        [python, str(HERE / "peers" / f"{program}.py"), str(work)],
        stdout=PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": str(HERE),
            "RAYON_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        },
    )
    if done.returncode:
        sys.exit(f"{program} failed")
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
