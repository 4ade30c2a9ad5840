"""Measure how fast a model of sentence-transformers embeds, and how much of its work is padding.

The model has the shape of all-MiniLM-L6-v2 (6 layers of width 384, at most 256 tokens), and random
weights; its speed does not depend on the weights. The texts are documents from installed Python
packages. The bench embeds them in batches of 64 with one thread, in three orders:

* as in the corpus: no order;
* by characters: what sentence-transformers does itself with the texts of one call;
* by tokens: as the tokenizer counts them, after texts were cut to the model's limit.

Padding is the number of padding tokens, divided by the number of all other tokens. Speeds are in
documents per second by the clock; each is the median over the rounds. ``load`` is the time in which
a new process imports the library and loads the model, which a task pays if no process keeps it.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measure import in_turn, report

from climbstream.builder.corpus.installed import installed_documents
from climbstream.builder.features.encoder import BATCH, HEAD
from climbstream.builder.writers.tokenizer import train_tokenizer

ROUNDS = 3
LAYERS, WIDTH, TOKENS = 6, 384, 256
UNSORTED, CHARACTERS, EXACT = "as in the corpus", "by characters", "by tokens"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=1000)
    options, _ = parser.parse_known_args()
    import torch

    torch.set_num_threads(1)
    texts = [d.text[:HEAD] for d in installed_documents(megabytes=options.documents / 100, seed=17)]
    texts = texts[: options.documents]
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), texts)
        measure_orders(Path(folder) / "model", texts)
        measure_load(Path(folder) / "model")


def make_model(folder: Path, texts: Sequence[str]) -> None:
    """Write a model with random weights to ``folder/model``."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(17)
    trained = train_tokenizer(texts, 30_000)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=12,
        intermediate_size=4 * WIDTH,
    )
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    words = Transformer(str(folder / "bert"), max_seq_length=TOKENS)
    pooling = Pooling(words.get_embedding_dimension())
    SentenceTransformer(modules=[words, pooling], device="cpu").save(str(folder / "model"))


def measure_orders(place: Path, texts: Sequence[str]) -> None:
    """Embed ``texts`` in each order, and report speed and padding."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(place), device="cpu")
    counts = model.tokenizer(list(texts), truncation=True, max_length=TOKENS)["input_ids"]
    tokens = np.array([len(ids) for ids in counts])
    orders = {
        UNSORTED: np.arange(len(texts)),
        CHARACTERS: np.argsort([-len(text) for text in texts], kind="stable"),
        EXACT: np.argsort(-tokens, kind="stable"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in orders}
    for number in range(ROUNDS):
        for name in in_turn(orders, number):
            begun = time.perf_counter()
            for rows in batches(orders[name]):
                model.encode([texts[row] for row in rows], batch_size=BATCH)
            seconds[name].append(time.perf_counter() - begun)
    for name, order in orders.items():
        padded = sum(int(tokens[rows].max()) * len(rows) for rows in batches(order))
        speed = len(texts) / statistics.median(seconds[name])
        rates = sorted(len(texts) / each for each in seconds[name])
        report(f"embed, {name}", speed, "doc/s", f"{rates[0]:.1f} to {rates[-1]:.1f}")
        report(f"padding, {name}", padded / tokens.sum() - 1, "", f"{tokens.sum():,} tokens")
    cut = float(np.mean(tokens == TOKENS))
    report("documents that the model cuts", cut, "", f"at {TOKENS} tokens")


def batches(order: np.ndarray[Any, Any]) -> Iterable[np.ndarray[Any, Any]]:
    return (order[begin : begin + BATCH] for begin in range(0, len(order), BATCH))


def measure_load(place: Path) -> None:
    """Report the time in which a new process loads the model."""
    program = "import sys; from climbstream.builder.features import encoder; encoder.load_model"
    seconds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        command = [sys.executable, "-c", f"{program}('st:' + sys.argv[1])", str(place)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - begun)
    note = f"{min(seconds):.1f} to {max(seconds):.1f}"
    report("load the model in a new process", statistics.median(seconds), "s", note)


if __name__ == "__main__":
    main()
