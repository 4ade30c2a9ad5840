"""Serve rows from mosaicml-streaming: StreamingDataset over Streams with proportions.

climbstream's shards contain documents, which mosaicml-streaming does not pack into rows. So this
program converts the tokens to uncompressed MDS shards with one row per sample. The rate therefore
includes no packing.
"""

from collections.abc import Iterator
from pathlib import Path

import streaming
import torch
from worker import Corpus, batches_of, endless, run


def convert(corpus: Corpus, folder: Path) -> None:
    columns = {"tokens": f"ndarray:uint16:{corpus.seq_len}"}
    for name in corpus.weights:
        with streaming.MDSWriter(
            out=str(folder / name), columns=columns, size_limit=1 << 24
        ) as writer:
            for row in corpus.rows(name):
                writer.write({"tokens": row})


def open_batches(corpus: Corpus, folder: Path) -> Iterator[torch.Tensor]:
    dataset = streaming.StreamingDataset(
        streams=[
            streaming.Stream(local=str(folder / name), proportion=weight)
            for name, weight in corpus.weights.items()
        ],
        shuffle=True,
        batch_size=corpus.batch_rows,
    )
    return batches_of(corpus, (sample["tokens"] for sample in endless(dataset)))


if __name__ == "__main__":
    run(convert, open_batches)
