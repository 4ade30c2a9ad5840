"""Rows from megatron-core: GPTDatasets blended by weights, over indexed data sets of documents.

It makes labels, a loss mask and positions of each row too, which cannot be turned off; they are
left out of the batch, and attention masks are turned off. A blend has no weights of zero, so those
are left out.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
from worker import Corpus, endless, run

BLENDED = 400_000  # rows planned ahead


def convert(corpus: Corpus, folder: Path) -> None:
    for name in corpus.weights:
        builder = IndexedDatasetBuilder(str(folder / f"{name}.bin"), dtype=np.uint16)
        for document in corpus.documents(name):
            builder.add_document(document, [len(document)])
        builder.finalize(str(folder / f"{name}.idx"))


def open_batches(corpus: Corpus, folder: Path) -> Iterator[torch.Tensor]:
    live = {name: weight for name, weight in corpus.weights.items() if weight}
    config = GPTDatasetConfig(
        random_seed=17,
        sequence_length=corpus.seq_len,
        blend=([str(folder / name) for name in live], list(live.values())),
        split="1,0,0",
        tokenizer=tokenizer(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    blended, *_ = BlendedMegatronDatasetBuilder(
        GPTDataset, [BLENDED, 0, 0], lambda: True, config
    ).build()
    planned = endless(range(BLENDED))
    while True:
        yield torch.stack([blended[row]["tokens"] for row in islice(planned, corpus.batch_rows)])


def tokenizer() -> Any:
    """Answer what a GPTDataset asks of a tokenizer."""
    facts = {"class": "none"}
    return SimpleNamespace(vocab_size=1 << 16, eod=0, pad=-1, unique_identifiers=facts)


if __name__ == "__main__":
    run(convert, open_batches)
