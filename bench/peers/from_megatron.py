"""Serve rows from megatron-core: GPTDatasets of indexed documents, blended by weights.

For each row, GPTDataset also makes labels, a loss mask and positions, which cannot be turned off;
they are left out of the batch. Attention masks are turned off. A blend must not have weights of
zero, so clusters of weight zero are left out.
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

BLENDED = 400_000  # number of rows that are planned before they are served


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
    """Return a stand-in with the attributes of a tokenizer that GPTDataset reads."""
    facts = {"class": "none"}
    return SimpleNamespace(vocab_size=1 << 16, eod=0, pad=-1, unique_identifiers=facts)


if __name__ == "__main__":
    run(convert, open_batches)
