"""Measure the tokenizer alone, the least work of every program that tokenises with tokenizers."""

import json
import sys
from pathlib import Path

from measure import cpu_seconds
from tokenizers import Tokenizer

work = Path(sys.argv[1])
texts = json.loads((work / "texts.json").read_text())
tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))


def encode() -> None:
    for first in range(0, len(texts), 1000):
        batch = tokenizer.encode_batch_fast(texts[first : first + 1000], add_special_tokens=False)
        for encoding in batch:
            _ = encoding.ids


print(cpu_seconds(encode)[0])
