"""Serve rows from litdata: CombinedStreamingDataset of token chunks, read by TokensLoader.

With weights, CombinedStreamingDataset ends when one of its data sets is used up; then this program
iterates over it again.
"""

from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import litdata
import torch
from worker import Corpus, batches_of, run

COMPRESSION: str | None = None
CHUNK_ROWS = 4096  # 16 MiB of uint16, as large as climbstream's shards


def convert(corpus: Corpus, folder: Path) -> None:
    for name in corpus.weights:
        litdata.optimize(
            fn=partial(documents, corpus),
            inputs=[name],
            output_dir=str(folder / name),
            chunk_size=CHUNK_ROWS * corpus.seq_len,
            compression=COMPRESSION,
            compression_level="chunk",
            item_loader=litdata.TokensLoader(),
            num_workers=1,
            verbose=False,
        )


def documents(corpus: Corpus, name: str) -> Iterator[torch.Tensor]:
    yield from map(torch.from_numpy, corpus.documents(name))


def open_batches(corpus: Corpus, folder: Path) -> Iterator[torch.Tensor]:
    return batches_of(corpus, rows(combine(corpus, folder)))


def combine(corpus: Corpus, folder: Path) -> litdata.CombinedStreamingDataset:
    datasets = [
        litdata.StreamingDataset(
            str(folder / name),
            item_loader=litdata.TokensLoader(block_size=corpus.seq_len),
            shuffle=True,
            drop_last=True,
        )
        for name in corpus.weights
    ]
    return litdata.CombinedStreamingDataset(
        datasets, weights=list(corpus.weights.values()), iterate_over_all=False
    )


def rows(combined: litdata.CombinedStreamingDataset) -> Iterator[Any]:
    for epoch in count(1):
        combined.set_epoch(epoch)
        yield from combined


if __name__ == "__main__":
    run(convert, open_batches)
