"""Measure mosaicml-streaming: the tokenizer on batches of texts, and MDSWriter."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import cpu_seconds
from streaming import MDSWriter
from tokenizers import Tokenizer

work = Path(sys.argv[1])
texts = json.loads((work / "texts.json").read_text())
tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
end = tokenizer.token_to_id("<|endoftext|>")


def write(out: str) -> None:
    with MDSWriter(
        out=out,
        columns={"tokens": "ndarray:uint16"},
        compression="zstd:3",
        hashes=["xxh3_128"],
        size_limit=1 << 24,
    ) as writer:
        for first in range(0, len(texts), 1000):
            batch = tokenizer.encode_batch_fast(
                texts[first : first + 1000], add_special_tokens=False
            )
            for encoding in batch:
                writer.write({"tokens": np.array([*encoding.ids, end], np.uint16)})


with tempfile.TemporaryDirectory() as name:
    print(cpu_seconds(lambda: write(name))[0])
