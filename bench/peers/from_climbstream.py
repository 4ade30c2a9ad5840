"""Serve rows from MixtureLoader, whose shards are decompressed in a cache."""

from collections.abc import Iterator
from pathlib import Path

import torch
from worker import Corpus, run

from climbstream.loader import MixtureLoader


def open_batches(corpus: Corpus, folder: Path) -> Iterator[torch.Tensor]:
    loader = MixtureLoader(
        folder.parent / "shards",
        corpus.weights,
        seq_len=corpus.seq_len,
        batch_rows=corpus.batch_rows,
        cache_dir=folder.parent / "cache",
    )
    for batch in loader:
        yield batch["input_ids"]


if __name__ == "__main__":
    run(None, open_batches)
