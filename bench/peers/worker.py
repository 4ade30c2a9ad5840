"""The common part of the programs of all contenders of peers.py; it needs numpy and torch.

``PROGRAM convert WORK`` converts the tokens in the folder WORK to the contender's own format.
``PROGRAM serve WORK`` then reads commands, one per line, from standard input, and answers each
command with one line of JSON:

* ``look N``: serve N rows, and check the type and shape of every batch and that every row is of one
  cluster. The answer is the number of rows of each cluster.
* ``time N``: serve N rows, and check only the last batch. The answer is the CPU-seconds without
  the check.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import cpu_seconds


class Corpus:
    """The weights and the tokens that all contenders serve; uint16 on disk, by cluster."""

    def __init__(self, work: Path) -> None:
        value = json.loads((work / "corpus.json").read_text())
        self.weights: dict[str, float] = value["weights"]
        """Weights by cluster, which sum to 1; some are zero."""
        self.seq_len: int = value["seq_len"]
        self.batch_rows: int = value["batch_rows"]
        self.first_mark: int = value["first_mark"]
        self._work = work

    def tokens(self, name: str) -> Any:
        """Return all tokens of a cluster, uint16 ``[n]``."""
        return np.load(self._work / "tokens" / f"{name}.npy")

    def documents(self, name: str) -> list[Any]:
        """Return the documents of a cluster, each uint16 ``[n]``."""
        lengths = np.load(self._work / "tokens" / f"{name}.lengths.npy")
        return np.split(self.tokens(name), np.cumsum(lengths)[:-1])

    def rows(self, name: str) -> Any:
        """Return the tokens of a cluster as rows, uint16 ``[n, seq_len]``.

        Tokens at the end that do not fill a row are left out.
        """
        tokens = self.tokens(name)
        rows = len(tokens) // self.seq_len
        return tokens[: rows * self.seq_len].reshape(rows, self.seq_len)


Convert = Callable[[Corpus, Path], None]
Open = Callable[[Corpus, Path], Iterator[torch.Tensor]]


def run(convert: Convert | None, open_batches: Open) -> None:
    """Run the command line of a contender's program.

    Args:
        convert: Function that writes the corpus in the contender's format to a folder; None if the
            contender converts nothing.
        open_batches: Function that returns an iterator over int64 batches, given the folder.
    """
    step, work = sys.argv[1], Path(sys.argv[2])
    corpus = Corpus(work)
    folder = work / Path(sys.argv[0]).stem
    # Only answers are written to standard output; output of libraries goes to standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if step == "convert":
        if convert:
            folder.mkdir()
            convert(corpus, folder)
        return
    # For batches this small, more threads do not reduce the CPU-seconds.
    torch.set_num_threads(1)
    batches = open_batches(corpus, folder)
    for line in sys.stdin:
        command, number = line.split()
        steps = int(number) // corpus.batch_rows
        if command == "look":
            seen = np.zeros(len(corpus.weights), int)
            for _ in range(steps):
                np.add.at(seen, look(corpus, next(batches)), 1)
            print(json.dumps(seen.tolist()), file=answers)
        else:
            seconds, batch = cpu_seconds(lambda steps=steps: serve(batches, steps))
            look(corpus, batch)
            print(json.dumps(seconds), file=answers)


def serve(batches: Iterator[torch.Tensor], steps: int) -> torch.Tensor:
    for _ in range(steps):
        batch = next(batches)
    return batch


def look(corpus: Corpus, batch: torch.Tensor) -> Any:
    """Return the cluster number of each row; fail if the batch has a wrong type or shape.

    It also fails if a row has marks of several clusters.
    """
    shape = (corpus.batch_rows, corpus.seq_len)
    assert tuple(batch.shape) == shape, f"a batch of {tuple(batch.shape)}, not {shape}"
    assert batch.dtype == torch.int64, f"a batch of {batch.dtype}, not int64"
    rows = batch.numpy()
    assert rows.min() >= 0
    marks = np.where(rows < corpus.first_mark, 1 << 20, rows).min(axis=1) - corpus.first_mark
    assert (marks == rows.max(axis=1) - corpus.first_mark).all(), "a row of several clusters"
    return marks


def batches_of(corpus: Corpus, rows: Iterator[Any]) -> Iterator[torch.Tensor]:
    """Yield int64 batches of rows of any integer type, with one copy of each row."""
    while True:
        yield widen(list(islice(rows, corpus.batch_rows)))


def widen(rows: list[Any]) -> torch.Tensor:
    batch = np.empty((len(rows), len(rows[0])), np.int64)
    for row, out in zip(rows, batch, strict=True):
        out[:] = row
    return torch.from_numpy(batch)


def endless(dataset: Any) -> Iterator[Any]:
    """Yield the items of ``dataset``, and iterate over it again whenever it ends."""
    while True:
        yield from dataset
