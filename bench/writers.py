"""Measure what it takes to tokenise text and write shards; prints JSON lines for run.py.

What is measured: megabytes of text a CPU-second, on the same texts with the same tokenizer (a
byte-level BPE of 32,768 tokens, trained on them), one process each and one thread of the tokenizer.
All read the texts from memory and write to a temporary folder.

* tokenizers alone: batches of 1,000 texts, ids thrown away. It is the limit of the peers.
* fastokens alone: all texts at once, ids thrown away. It is the limit of climbstream.
* climbstream: the stages ``tokenise`` and ``write shards`` of a build, from partitions on the
  disk that were read and annotated before; MDS, zstd, hashes, 8 clusters.
* mosaicml-streaming: the tokenizer in the same batches, and ``MDSWriter`` with zstd and xxh3; one
  folder, as it knows no clusters.
* datatrove: its step ``DocumentTokenizer``; plain uint16 files, neither packed nor shuffled.

Peers have environments of their own in ``.venv-peers``, made once. What cannot be installed is left
out, and the table says why. Rounds take turns; the figure is the median.
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
    """Write the texts and the tokenizer; return the bytes of the texts."""
    texts = [d.text for d in installed_documents(megabytes=megabytes, seed=17)]
    (work / "texts.json").write_text(json.dumps(texts))
    train_tokenizer(texts[::4], 32_768).save(str(work / "tokenizer.json"))
    return sum(len(text.encode()) for text in texts)


def peers() -> Iterator[tuple[str, tuple[str, str]]]:
    """Give each peer's Python and program, once it is installed."""
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
    """CPU-seconds that ``program`` says it took."""
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
