"""Serve rows from litdata as from_litdata does, but through litdata's StreamingDataLoader.

The StreamingDataLoader tracks its position. The last batch of an iteration may be short, and is
then left out.
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
