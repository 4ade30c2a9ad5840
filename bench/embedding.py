"""Measure how fast a model of sentence-transformers embeds, and how much of its work is padding.

The model has the shape of all-MiniLM-L6-v2 (6 layers of width 384, at most 256 tokens) and random
weights, on which the speed does not depend. The texts are documents from installed Python packages.
The bench embeds them on the CPU, with one thread, in batches of 64, in three orders:

* as in the corpus;
* by characters: the order in which sentence-transformers itself embeds the texts of one call;
* by tokens, as many as the model uses of each text: the order in which climbstream embeds.

Speeds are in documents per CPU-second; each figure is the median over the rounds. Padding is the
number of padding tokens, divided by the number of all other tokens. It is also computed, without a
model, for models that use more tokens of a text. The last line is the CPU time in which a new
process imports the library and loads the model.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from measure import cpu_seconds, in_turn, report
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from climbstream.builder.corpus.installed import installed_documents
from climbstream.builder.features.encoder import BATCH, HEAD
from climbstream.builder.writers.tokenizer import train_tokenizer

ROUNDS = 3
LAYERS, WIDTH, TOKENS = 6, 384, 256
LONGER = (512, 2048)
"""Limits of tokens for which padding is only computed."""
Tokens = NDArray[np.int64]
UNSORTED, CHARACTERS, EXACT = "as in the corpus", "by characters", "by tokens"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=1000)
    options, _ = parser.parse_known_args()
    torch.set_num_threads(1)
    texts = [d.text[:HEAD] for d in installed_documents(megabytes=options.documents / 100, seed=17)]
    texts = texts[: options.documents]
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), texts)
        measure_orders(Path(folder) / "model", texts)
        measure_load(Path(folder) / "model")


def make_model(folder: Path, texts: Sequence[str]) -> None:
    """Write a model with random weights to ``folder/model``."""
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
    model = SentenceTransformer(str(place), device="cpu")
    counting, whole = cpu_seconds(
        lambda: model.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
    )
    report("count the tokens", len(texts) / counting, "doc/CPU-s", "once, for the order by tokens")
    tokens = np.array([len(ids) for ids in whole])
    seconds: dict[str, list[float]] = {name: [] for name in (UNSORTED, CHARACTERS, EXACT)}
    for number in range(ROUNDS):
        for name in in_turn(seconds, number):
            order = order_of(name, texts, np.minimum(tokens, TOKENS))
            used, _ = cpu_seconds(lambda rows=order: embed(model, texts, rows))
            seconds[name].append(used)
    for name, rounds in seconds.items():
        speed = len(texts) / statistics.median(rounds)
        note = f"{len(texts) / max(rounds):.2f} to {len(texts) / min(rounds):.2f}"
        report(f"embed, {name}", speed, "doc/CPU-s", note)
    for limit in (TOKENS, *LONGER):
        used_tokens = np.minimum(tokens, limit)
        cut = np.mean(tokens > limit)
        for name in seconds:
            share = padding(used_tokens, order_of(name, texts, used_tokens))
            note = f"{100 * cut:.0f} % of the documents are longer"
            report(f"padding at {limit} tokens, {name}", share, "", note)


def order_of(name: str, texts: Sequence[str], tokens: Tokens) -> Tokens:
    """Return the numbers of ``texts`` in the order ``name``; the longest are first."""
    if name == UNSORTED:
        return np.arange(len(texts))
    lengths = tokens if name == EXACT else np.array([len(text) for text in texts])
    return np.argsort(-lengths, kind="stable")


def embed(model: SentenceTransformer, texts: Sequence[str], order: Tokens) -> None:
    for rows in batches(order):
        model.encode([texts[row] for row in rows], batch_size=BATCH, show_progress_bar=False)


def padding(tokens: Tokens, order: Tokens) -> float:
    """Return the number of padding tokens, divided by the number of all other tokens."""
    padded = sum(int(tokens[rows].max()) * len(rows) for rows in batches(order))
    return float(padded / tokens.sum() - 1)


def batches(order: Tokens) -> Iterator[Tokens]:
    return (order[begin : begin + BATCH] for begin in range(0, len(order), BATCH))


def measure_load(place: Path) -> None:
    """Report the CPU time in which a new process loads the model."""
    program = (
        "import sys; from climbstream.builder.features.encoder import load_model; "
        "load_model('st:' + sys.argv[1])"
    )
    command = [sys.executable, "-c", program, str(place)]
    seconds, _ = cpu_seconds(lambda: subprocess.run(command, check=True, capture_output=True))
    report("load the model in a new process", seconds, "CPU-s", "one process")


if __name__ == "__main__":
    main()
