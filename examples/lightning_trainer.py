"""Lightning, with live weights and exact resume of the data, alone or with DDP.

    python examples/lightning_trainer.py shards/web runs/c --steps 1000
    torchrun --nproc-per-node 2 examples/lightning_trainer.py shards/web runs/c --steps 1000

If the run was stopped, run the same command again: the run continues from its last checkpoint, and
reads the batches that an uninterrupted run would read. --nproc-per-node may then be another number
that divides 8. While the run goes on, `climb weights runs/c c03=0.4` changes the weights, and
`climb monitor runs/c` shows the loss and the shares.
"""

import argparse
import os
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from climbstream.loader import (
    Agreement,
    Manifest,
    MixtureDataset,
    MixtureLoader,
    append_metrics,
)


class Steps(MixtureDataset):
    """The batches of a run as one epoch, whose state Lightning keeps in its checkpoints.

    It has a length, because from data without a length, Lightning fetches a batch ahead of the
    training, and saves the state after that batch.
    """

    def __init__(self, loader: MixtureLoader, steps: int) -> None:
        super().__init__(loader)
        self.steps = steps

    def __len__(self) -> int:
        return self.steps


class Data(LightningDataModule):
    """Makes the loader when rank and world size are known."""

    def __init__(self, shards: str, run: Path, steps: int) -> None:
        super().__init__()
        self.shards, self.run, self.steps = shards, run, steps

    def train_dataloader(self) -> Steps:
        """Return the data as it is: a loader knows its rank, and needs no sampler."""
        self.loader = MixtureLoader(
            self.shards,
            seq_len=64,
            batch_rows=16,  # of all ranks together
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            weights_log=self.run / "weights.jsonl",
            weights_file=self.run / "weights.request.json",
            ledger=self.run / "served.jsonl",
            agreement=Agreement(),
        )
        return Steps(self.loader, self.steps)


class Model(LightningModule):
    """A small model; yours goes here."""

    def __init__(self, vocab_size: int, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, width)
        self.mix = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocab_size)

    def training_step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss, in nats per token."""
        tokens = batch["input_ids"]
        logits = self.head(self.mix(self.embed(tokens[:, :-1]))[0])
        return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    def on_train_batch_end(self, outputs: dict[str, torch.Tensor], *_) -> None:
        """Print the mean loss of all ranks, and write it for `climb monitor`."""
        loss = self.trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="mean")
        if self.trainer.is_global_zero:
            print(f"step {self.global_step}: loss {loss.item():.9g}", flush=True)
            data = self.trainer.datamodule
            if self.global_step % 10 == 0:
                append_metrics(data.run / "metrics.jsonl", data.loader.metrics(), loss=loss.item())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shards")
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
    args = parser.parse_args()

    torch.manual_seed(0)
    model = Model(Manifest.load(args.shards).vocab_size)
    trainer = Trainer(
        accelerator="cpu",  # or gpu
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),  # as many as torchrun started
        strategy="ddp" if "LOCAL_WORLD_SIZE" in os.environ else "auto",
        max_steps=args.steps,
        logger=False,
        enable_progress_bar=False,
        callbacks=[
            ModelCheckpoint(
                args.run,
                "checkpoint",  # a new checkpoint replaces the old one when it is complete
                every_n_train_steps=args.every,
                enable_version_counter=False,
            )
        ],
    )
    last = args.run / "checkpoint.ckpt"
    data = Data(args.shards, args.run, args.steps)
    trainer.fit(model, datamodule=data, ckpt_path=last if last.exists() else None)


if __name__ == "__main__":
    main()
