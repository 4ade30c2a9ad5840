"""Plain torch and DDP, with live weights and exact resume on any number of processes.

    torchrun --nproc-per-node 2 examples/torch_ddp.py shards/web runs/a --steps 1000

If the job was stopped, run the same command again: the job continues from its last checkpoint, and
reads the batches that an uninterrupted job would read. --nproc-per-node may then be another number
that divides 8. Ctrl-C and SIGTERM save a checkpoint before the job ends. While the job runs,
`climb weights runs/a c03=0.4` changes the weights, at the same step on all ranks.
`climb audit runs/a` checks which rows the job read.
"""

import argparse
import signal
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from climbstream.loader import Agreement, MixtureLoader


class Model(nn.Module):
    """A small decoder; yours goes here."""

    def __init__(self, vocab_size: int, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, width)
        self.block = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0, batch_first=True)
        self.head = nn.Linear(width, vocab_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the loss, in nats per token."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        logits = self.head(self.block(self.embed(tokens), mask, is_causal=True))
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def note_signals() -> list[int]:
    """Return a list that collects Ctrl-C and SIGTERM, which no longer end the process."""
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signals.append(number))
    return signals


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shards")
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
    args = parser.parse_args()

    dist.init_process_group("gloo")  # nccl with GPUs; ranks come from torchrun's environment
    rank, world_size = dist.get_rank(), dist.get_world_size()
    loader = MixtureLoader(
        args.shards,
        seq_len=64,
        batch_rows=16,  # of all ranks together
        rank=rank,
        world_size=world_size,
        weights_log=args.run / "weights.jsonl",
        weights_file=args.run / "weights.request.json",
        ledger=args.run / "served.jsonl",
        agreement=Agreement(),
    )
    torch.manual_seed(0)
    model = DistributedDataParallel(Model(loader.manifest.vocab_size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    checkpoint = args.run / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.module.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["loader"])

    signals, ended = note_signals(), loader.step >= args.steps
    while not ended:
        loss = model(next(loader)["input_ids"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        # A signal reaches the ranks at different steps, so they exchange it with the loss.
        sums = torch.stack([loss.detach() / world_size, loss.new_tensor(len(signals))])
        dist.all_reduce(sums)
        mean, stopping = sums.tolist()
        ended = stopping > 0 or loader.step == args.steps
        if rank == 0:
            print(f"step {loader.step}: loss {mean:.9g}", flush=True)
        if rank == 0 and (loader.step % args.every == 0 or ended):
            # The loader's state is the same on every rank.
            parts = {"model": model.module, "optimizer": optimizer, "loader": loader}
            new = args.run / "checkpoint.new"
            torch.save({name: part.state_dict() for name, part in parts.items()}, new)
            new.replace(checkpoint)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
