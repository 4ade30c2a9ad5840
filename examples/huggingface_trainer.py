"""The Trainer of transformers, with exact resume of the data.

    python examples/huggingface_trainer.py shards/web runs/b --steps 1000
    torchrun --nproc-per-node 2 examples/huggingface_trainer.py shards/web runs/b --steps 1000

If the run was stopped, run the same command again: the run continues from its last complete
checkpoint, and reads the batches that an uninterrupted run would read. While the run goes on,
`climb weights runs/b c03=0.4` changes the weights, and `climb monitor runs/b` shows the loss, the
shares and, with --heldout-tokens, the held-out loss of each cluster. `climb audit runs/b` checks
which rows the run read.
"""

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState

from climbstream.loader import (
    Agreement,
    ClusterLoss,
    MixtureDataset,
    MixtureLoader,
    append_metrics,
)


class MixtureTrainer(Trainer):
    """A Trainer that gets its batches unchanged from the loader."""

    def get_train_dataloader(self) -> DataLoader:
        """Return the data without accelerate, which would fetch a batch ahead of the training."""
        return DataLoader(self.train_dataset, batch_size=None, collate_fn=model_inputs)


class SaveLoader(TrainerCallback, ExportableState):
    """Keeps the loader's state in ``trainer_state.json``, the last file of a checkpoint."""

    def __init__(self, loader: MixtureLoader) -> None:
        self.loader = loader

    def state(self) -> dict:
        """Return the state, which is the same on every rank, for ``trainer_state.json``."""
        return {"args": {}, "attributes": {"loader": self.loader.state_dict()}}

    def on_train_begin(self, args, state, control, **_) -> None:  # noqa: ARG002
        """Load the state of the checkpoint from which the Trainer continues."""
        if state.global_step:
            saved = state.stateful_callbacks[type(self).__name__]
            self.loader.load_state_dict(saved["attributes"]["loader"])
            print(f"goes on from step {state.global_step}")


class WriteMetrics(TrainerCallback):
    """Writes lines of metrics to ``file``, which `climb monitor` reads."""

    def __init__(self, loader: MixtureLoader, file: Path, heldout_tokens: int) -> None:
        self.loader, self.file, self.heldout_tokens = loader, file, heldout_tokens
        self.heldout: dict[str, float] = {}

    def on_step_end(self, args, state, control, model, **_) -> None:  # noqa: ARG002
        """Measure the held-out loss whenever a checkpoint is due; all ranks do it together."""
        if self.heldout_tokens and state.global_step % args.save_steps == 0:
            self.heldout = heldout_loss(model, self.loader, self.heldout_tokens)

    def on_log(self, args, state, control, logs, **_) -> None:  # noqa: ARG002
        """Write a line whenever the Trainer logs the training loss."""
        if "loss" in logs and state.is_world_process_zero:
            metrics, self.heldout, heldout = self.loader.metrics(), {}, self.heldout
            append_metrics(self.file, metrics, loss=logs["loss"], heldout_loss=heldout)


def heldout_loss(model, loader: MixtureLoader, max_tokens: int) -> dict[str, float]:
    """Return the mean loss on the held-out text of each cluster, in nats per token."""
    losses = ClusterLoss(loader.names)
    model.eval()
    with torch.no_grad():
        for batch in loader.heldout(max_tokens=max_tokens):  # this rank's part
            tokens = batch["input_ids"].to(model.device)
            logits = model(input_ids=tokens).logits[:, :-1].transpose(1, 2)
            each = cross_entropy(logits, tokens[:, 1:], reduction="none")
            losses.add(batch["cluster_ids"], each.mean(dim=1))
    model.train()
    return losses.take(sum_over_ranks)


def sum_over_ranks(sums: torch.Tensor) -> torch.Tensor:
    """Add up the tensors of all ranks."""
    if dist.is_initialized():
        dist.all_reduce(sums)
    return sums


def last_checkpoint(run: Path) -> Path | None:
    """Return the last checkpoint that is complete: the Trainer writes its own state last."""
    for path in sorted(run.glob("checkpoint-*"), key=checkpoint_step, reverse=True):
        try:
            TrainerState.load_from_json(path / TRAINER_STATE_NAME)
        except (OSError, ValueError):
            continue  # the run ended while this file was written
        return path
    return None


def checkpoint_step(path: Path) -> int:
    """Return the step at which a checkpoint was made."""
    return int(path.name.rpartition("-")[2])


def model_inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return only the fields that the model takes."""
    return {name: batch[name] for name in ("input_ids", "labels")}


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shards")
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--heldout-tokens", type=int, default=0, help="0: no held-out loss")
    given = parser.parse_args()

    args = TrainingArguments(
        str(given.run),
        max_steps=given.steps,
        save_steps=given.every,
        logging_steps=1,
        learning_rate=3e-3,
        ignore_data_skip=True,  # the loader continues at the right batch by itself
        report_to="none",
        use_cpu=not torch.cuda.is_available(),  # else several ranks without a GPU count as one
    )
    rank, world_size = args.process_index, args.world_size
    batch_rows = 16  # of all ranks together
    args.per_device_train_batch_size = batch_rows // world_size  # for the logged samples per second
    loader = MixtureLoader(
        given.shards,
        seq_len=64,
        batch_rows=batch_rows,
        rank=rank,
        world_size=world_size,
        fields=["labels"],
        weights_log=given.run / "weights.jsonl",
        weights_file=given.run / "weights.request.json",
        ledger=given.run / "served.jsonl",
        agreement=Agreement(),
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 4}
    vocab_size = loader.manifest.vocab_size
    model = LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, num_hidden_layers=2, **sizes))
    callbacks = [
        SaveLoader(loader),
        WriteMetrics(loader, given.run / "metrics.jsonl", given.heldout_tokens),
    ]
    trainer = MixtureTrainer(model, args, train_dataset=MixtureDataset(loader), callbacks=callbacks)
    last = last_checkpoint(given.run)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    loader.flush()  # writes the last steps to the ledger


if __name__ == "__main__":
    main()
