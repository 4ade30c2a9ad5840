"""Measure the DocumentTokenizer of datatrove, which writes uint16 files."""

import json
import sys
import tempfile
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.tokens import DocumentTokenizer
from measure import cpu_seconds

work = Path(sys.argv[1])
texts = json.loads((work / "texts.json").read_text())
documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]


def write(out: str) -> None:
    step = DocumentTokenizer(
        output_folder=out,
        tokenizer_name_or_path=str(work / "tokenizer.json"),
        eos_token="<|endoftext|>",
        shuffle_documents=False,
        batch_size=1000,
    )
    step.run(iter(documents), rank=0, world_size=1)


with tempfile.TemporaryDirectory() as name:
    print(cpu_seconds(lambda: write(name))[0])
