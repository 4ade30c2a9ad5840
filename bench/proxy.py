"""Compare the training speed of a proxy that reads from the loader with one that reads from memory.

Both proxies have the same model, settings and batches. The batches in memory are a list that is
filled before the measurement. The shards contain 4 MB of text that comes with Python, with a
vocabulary of 1,024 tokens, and the cache is warm. Speeds are in tokens per CPU-second of the
process. The two proxies are trained in turn, and numbers are medians over the rounds.

Bar: with the loader, the speed is at least 90 % of the speed from memory.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import cpu_seconds, in_turn, report

from climbstream.loader import Manifest, MixtureLoader
from climbstream.search.training import trainer
from climbstream.search.training.settings import TrainSettings
from climbstream.search.training.trainer import train_model

STEPS = {"tiny": 400, "mini": 150}


class FromMemory:
    """Replacement of the loader that serves a list of batches."""

    def __init__(self, batches: list[Any], names: list[str]) -> None:
        self.batches, self.names = batches, names
        self.step, self.tokens_served, self.epochs = 0, {}, {}

    def __next__(self) -> Any:
        self.step += 1
        return self.batches[self.step - 1]

    def flush(self) -> None:
        """Do nothing; the trainer calls this method of the loader."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    options, _ = parser.parse_known_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        shards = Path(name) / "shards"
        climb = Path(sys.executable).with_name("climb")
        command = [climb, "build", "python:4", "--out", shards, "--vocab-size", "1024"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        for model in STEPS:
            measure(shards, model, options.rounds)


def measure(shards: Path, model: str, rounds: int) -> None:
    shares = Manifest.load(shards).token_shares
    rows = TrainSettings(tokens=1_000_000)
    settings = TrainSettings(tokens=STEPS[model] * rows.seq_len * rows.batch_rows, model=model)
    loader = MixtureLoader(
        shards, shares, seq_len=settings.seq_len, batch_rows=settings.batch_rows, seed=0
    )
    batches = [next(loader) for _ in range(settings.steps)]

    def fed_from(source: Any) -> float:
        trainer.MixtureLoader = source  # type: ignore[misc]
        try:
            return train_model(shards, shares, settings, 0).loss
        finally:
            trainer.MixtureLoader = MixtureLoader  # type: ignore[misc]

    contenders = {
        "fed by the loader": partial(fed_from, MixtureLoader),
        "fed from memory": partial(fed_from, lambda *_, **__: FromMemory(batches, loader.names)),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    losses = {}
    for number in range(rounds + 1):
        for name in in_turn(contenders, number):
            seconds, losses[name] = cpu_seconds(contenders[name])
            if number:  # the first round warms up
                rates[name].append(settings.tokens / seconds / 1e3)
    assert len(set(losses.values())) == 1, "both have trained the same model"
    ratio = statistics.median(a / b for a, b in zip(*rates.values(), strict=True))
    for name, values in rates.items():
        note = f"{ratio:.1%} of it; the bar is 90%" if "loader" in name else ""
        report(f"{model}, {name}", statistics.median(values), "ktok/s", note)


if __name__ == "__main__":
    main()
