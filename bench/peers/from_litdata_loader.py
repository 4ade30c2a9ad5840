"""Rows from litdata as in from_litdata, through its StreamingDataLoader, which keeps its state.

The last batch before it ends may lack rows, and is left out.
"""

from collections.abc import Iterator
from pathlib import Path

import litdata
import torch
from from_litdata import combine
from worker import Corpus, endless, run, widen


def open_batches(corpus: Corpus, folder: Path) -> Iterator[torch.Tensor]:
    loader = litdata.StreamingDataLoader(
        combine(corpus, folder.parent / "from_litdata"),
        batch_size=corpus.batch_rows,
        collate_fn=widen,
        drop_last=True,
    )
    return (batch for batch in endless(loader) if len(batch) == corpus.batch_rows)


if __name__ == "__main__":
    run(None, open_batches)
