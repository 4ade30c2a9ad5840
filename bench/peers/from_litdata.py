"""Rows from litdata: CombinedStreamingDataset over token chunks, TokensLoader, StreamingDataLoader.

When one data set has been gone through, CombinedStreamingDataset by weights ends; then it is begun
again. The last batch before that may lack rows, and is left out.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import litdata
import torch
from worker import Corpus, endless, run, stack

COMPRESSION: str | None = None
CHUNK_ROWS = 4096  # 16 MiB of uint16, as large as ours


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
    datasets = [
        litdata.StreamingDataset(
            str(folder / name),
            item_loader=litdata.TokensLoader(block_size=corpus.seq_len),
            shuffle=True,
            drop_last=True,
        )
        for name in corpus.weights
    ]
    combined = litdata.CombinedStreamingDataset(
        datasets, weights=list(corpus.weights.values()), iterate_over_all=False
    )
    loader = litdata.StreamingDataLoader(
        combined, batch_size=corpus.batch_rows, collate_fn=stack, drop_last=True
    )
    return (batch for batch in endless(loader) if len(batch) == corpus.batch_rows)


if __name__ == "__main__":
    run(convert, open_batches)
