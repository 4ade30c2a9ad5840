"""Measure two stages of a climbstream build: tokenise, and write the shards of eight clusters."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import cpu_seconds

from climbstream.builder.corpus.document import Document
from climbstream.builder.corpus.partition import UNIT_BYTES, Partition
from climbstream.builder.writers.encoder import installed_version
from climbstream.builder.writers.shards import write_clusters
from climbstream.builder.writers.tokenization import TokenTask, tokenize_partition

CLUSTERS = 8


class Serial:
    """An engine that runs tasks in this process."""

    def run(self, function, tasks):
        """Yield each task with its result."""
        for task in tasks:
            yield task, function(task)


def lay_down(folder, texts):
    waiting, size = [], 0
    for number, text in enumerate(texts):
        waiting.append(Document(id=str(number), text=text))
        size += len(text.encode())
        if size >= UNIT_BYTES or number == len(texts) - 1:
            partition = Partition(folder / f"00000-{number:07d}")
            partition.write_documents(waiting)
            partition.write("clusters", np.arange(len(waiting), dtype=np.int32) % CLUSTERS)
            yield partition
            waiting, size = [], 0


def build(partitions, tokenizer, out):
    for partition in partitions:
        tokenize_partition(TokenTask(partition, tokenizer, 0, installed_version()))
    return write_clusters(
        Serial(), partitions, out, [f"c{k:02d}" for k in range(CLUSTERS)], "uint16"
    )


work = Path(sys.argv[1])
texts = json.loads((work / "texts.json").read_text())
with tempfile.TemporaryDirectory() as name:
    partitions = list(lay_down(Path(name) / "units", texts))
    seconds, written = cpu_seconds(lambda: build(partitions, work / "tokenizer.json", Path(name)))
assert sum(cluster.entry.documents for cluster in written) == len(texts)
print(seconds)
