"""Serve rows from datatrove, with one DatatroveFolderDataset per cluster.

datatrove cannot mix data sets. So this program draws the rows, before they are served: clusters at
random by weight, and rows of a cluster in random order.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from datatrove.utils.dataset import DatatroveFolderDataset
from torch.utils.data import ConcatDataset
from worker import Corpus, endless, run

DRAWN = 400_000  # number of rows that are drawn before they are served


def convert(corpus: Corpus, folder: Path) -> None:
    for name in corpus.weights:
        (folder / name).mkdir()
        corpus.tokens(name).tofile(folder / name / "tokens.ds")


def open_batches(corpus: Corpus, folder: Path) -> Iterator[torch.Tensor]:
    # DatatroveFolderDataset returns one token more than its seq_len, for the labels.
    parts = [
        DatatroveFolderDataset(str(folder / name), corpus.seq_len - 1) for name in corpus.weights
    ]
    concatenated = ConcatDataset(parts)
    drawn = endless(draw(list(corpus.weights.values()), [len(part) for part in parts]))
    while True:
        rows = [concatenated[row]["input_ids"] for row in islice(drawn, corpus.batch_rows)]
        yield torch.stack(rows)


def draw(weights: list[float], rows: list[int]) -> list[int]:
    random = np.random.default_rng(17)
    clusters = random.choice(len(weights), DRAWN, p=weights)
    drawn = np.empty(DRAWN, int)
    for cluster, first in enumerate(np.cumsum([0, *rows[:-1]])):
        (places,) = np.nonzero(clusters == cluster)
        epochs = -(-len(places) // rows[cluster])
        order = [random.permutation(rows[cluster]) for _ in range(epochs)]
        if order:
            drawn[places] = first + np.concatenate(order)[: len(places)]
    return drawn.tolist()


if __name__ == "__main__":
    run(convert, open_batches)
