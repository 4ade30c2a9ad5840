"""Train a model on a mixture: a fixed number of tokens, through `MixtureLoader`.

Warm-up, stable, decay: the rate rises over the first part of the steps, stays, and falls to zero
at the last one, so that a run always ends annealed (MiniCPM, arXiv 2404.06395). Tokens count, never
the clock. Equal arguments give equal weights on one machine, whether a run was interrupted or not;
another number of ranks changes no batch, but the order in which floats are added.
"""

import math
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from climbstream.loader import Mixture, MixtureLoader
from climbstream.loader.core.engines.local import own_device
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.renamed import renamed_parameters
from climbstream.loader.core.signals import Stopped, StopRequest
from climbstream.loader.core.workdir import check_same_config
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.monitoring.cluster_loss import ClusterLoss
from climbstream.loader.monitoring.metrics import Writer, append_metrics, say_ends, write_metrics
from climbstream.loader.reading.row_source import served_shares
from climbstream.loader.weights.schedule import Schedule

from .base_model import load_base
from .checkpoint import load_tensors, save_tensors
from .distributed import ALONE, Job
from .model import make_model
from .online_mixing import OnlineRule, row_means, token_losses
from .settings import TrainSettings
from .weight_average import WeightAverage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_METRICS_EVERY = 100


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What a run ended with."""

    model: "PreTrainedModel"
    loss: float
    """Mean loss of the last tenth of the steps, nats a token."""
    served: dict[str, int]
    """Tokens by cluster."""
    epochs: dict[str, float]


@renamed_parameters(log="weights_log", served="ledger")
def train_model(
    directory: str | Path | ShardDirectory,
    mixture: Mixture | Schedule,
    settings: TrainSettings,
    seed: int,
    *,
    job: Job = ALONE,
    checkpoint: Path | None = None,
    every: int = 500,
    weights_log: Path | None = None,
    ledger: Path | None = None,
    metrics: Path | None = None,
    writers: Sequence[Writer] = (),
    max_epochs: float | None = None,
    weights_file: Path | None = None,
    rule: OnlineRule | None = None,
    on_step: Callable[[int, float], None] | None = None,
    stop: StopRequest | None = None,
) -> TrainedModel:
    """Train one model, on the device of this process (`own_device`); in bfloat16 on a GPU.

    Args:
        directory: Shards, a folder or URL.
        mixture: Weights over its clusters, or a schedule of them.
        settings: Model and schedule.
        seed: Of the fresh weights and of the order of the data.
        job: The ranks that train it together; each has a part of every batch.
        checkpoint: File to save to, and to go on from if it exists.
        every: Steps between saves.
        weights_log: File of the weights log.
        ledger: File of the ledger of what is served.
        metrics: File to append `MixtureLoader.metrics` and the loss to, of all and by cluster,
            every 100 steps; what will be used up before the end is said then.
        writers: To write the same numbers to, at the same steps.
        max_epochs: How often a cluster may be gone through; then the others share its weight.
        weights_file: File in which other weights may be asked for, as `climb weights` does.
        rule: Changes the weights while the model trains, beginning with ``mixture``.
        on_step: Called with the number of steps done and the last loss, nats a token.
        stop: When it was made of any rank, all save after the same step, and stop.

    Raises:
        Stopped: As ``stop`` asked.
        InvalidDataError: The loss is not finite, or the checkpoint is of another run.
        UsageError: All clusters are used up before the end.
    """
    shards = ShardDirectory.open(directory)
    manifest = shards.manifest
    run: dict[str, Any] = {}
    if checkpoint is not None:  # a proxy has none, and need not hash its base for it
        run = {
            "shards": manifest.fingerprint,
            **mixture_config(mixture),
            "settings": settings.to_json(),
            "seed": seed,
            **({} if max_epochs is None else {"max_epochs": max_epochs}),
            **({} if rule is None else {"rule": type(rule).__name__, "every": rule.every}),
        }
    device = torch.device(own_device())
    model = first_model(settings, manifest.vocab_size, seed)
    torch.nn.Module.to(model, device)  # what wraps `to` in a pretrained model hides its arguments
    trained = job.spread(model)
    tail = WeightAverage(model, settings)
    optimizer = AdamW(model.parameters(), settings.learning_rate, (0.9, 0.95), weight_decay=0.1)
    schedule = LambdaLR(optimizer, settings.rate)
    loader = MixtureLoader(
        shards,
        mixture,
        seq_len=settings.seq_len,
        batch_rows=settings.batch_rows,
        rank=job.rank,
        world_size=job.world_size,
        agreement=job.agreement(),
        seed=seed,
        fraction=settings.part,
        weights_log=weights_log,
        ledger=ledger,
        max_epochs=max_epochs,
        weights_file=weights_file,
    )
    losses: list[float] = []
    heard = ClusterLoss(loader.names)
    if checkpoint is not None and checkpoint.exists():
        saved = load_tensors(checkpoint, device)
        check_same_config(saved["run"], run, checkpoint)
        model.load_state_dict(saved["model"])
        tail.load_state_dict(saved["tail"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        loader.load_state_dict(saved["loader"])
        losses = saved["losses"]
        if rule is not None:
            rule.load_state_dict(saved["rule"])
            heard.load_state_dict(saved["heard"])
    by_cluster = ClusterLoss(loader.names)
    version = -1
    for step in range(loader.step, settings.steps):
        if metrics is not None and job.rank == 0 and step % _METRICS_EVERY == 0:
            version = _look_ahead(loader, version, settings.steps)
        if (given := next(loader, None)) is None:
            raise UsageError(
                f"the data ends at step {step:,} of {settings.steps:,}: all clusters with weight "
                f"were gone through {max_epochs:g} times; allow more epochs, or fewer tokens"
            )
        batch = given["input_ids"].to(device)
        with _precision(device):
            logits = trained(input_ids=batch).logits
        of_tokens = token_losses(logits, batch)
        of_rows = row_means(of_tokens)
        if metrics is not None:
            by_cluster.add(given["cluster_ids"], of_rows)
        loss = of_rows.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        tail.add(step)
        asked = float(stop is not None and stop.number is not None)
        # One sum for both, so that all ranks hear of it at the same step.
        total, stopping = job.sum(torch.stack([loss.detach(), loss.new_tensor(asked)])).tolist()
        losses.append(total / job.world_size)
        if not math.isfinite(losses[-1]):
            raise InvalidDataError(
                f"the loss is not finite at step {step + 1} of {settings.steps}; "
                f"try a smaller learning rate than {settings.learning_rate:g}"
            )
        if rule is not None:
            heard.add(given["cluster_ids"], rule.measure(batch, of_tokens))
            if (step + 1) % rule.every == 0:
                _follow(loader, rule.follow(heard.take()), type(rule).__name__)
        if on_step is not None:
            on_step(step + 1, losses[-1])
        if metrics is not None and ((step + 1) % _METRICS_EVERY == 0 or step + 1 == settings.steps):
            cluster_loss = by_cluster.take(job.sum)
            if job.rank == 0:
                found = loader.metrics()
                append_metrics(metrics, found, loss=losses[-1], cluster_loss=cluster_loss)
                found |= {"loss": losses[-1], "cluster_loss": cluster_loss}
                write_metrics(found, *writers)
        stops = bool(stopping) and step + 1 < settings.steps
        if checkpoint is not None and job.rank == 0 and (stops or (step + 1) % every == 0):
            state = {
                "run": run,
                "model": model.state_dict(),
                "tail": tail.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "loader": loader.state_dict(),
                "losses": losses,
            }
            if rule is not None:
                state |= {"rule": rule.state_dict(), "heard": heard.state_dict()}
            save_tensors(state, checkpoint)
        if stops:
            loader.flush()
            job.of_first(None)  # nobody ends before it is saved
            assert stop is not None
            raise Stopped(
                stop.number or signal.SIGTERM,
                f"stopped after step {step + 1:,} of {settings.steps:,}, saved in {checkpoint}; "
                "run the same command again to go on there",
            )
    loader.flush()
    tail.put()
    last = losses[-max(1, settings.steps // 10) :]
    return TrainedModel(model, sum(last) / len(last), loader.tokens_served, loader.epochs)


def first_model(settings: TrainSettings, vocab_size: int, seed: int) -> "PreTrainedModel":
    """Make the model that a run begins with.

    Raises:
        UsageError: The base does not fit, or there is no such size.
    """
    if settings.base is not None:
        return load_base(settings.base, vocab_size, settings.seq_len)
    return make_model(settings.model, vocab_size, settings.seq_len, seed)


def mixture_config(mixture: Mixture | Schedule) -> dict[str, Any]:
    """Say in the plan of a run what it is trained on."""
    if isinstance(mixture, Schedule):
        return {"schedule": mixture.to_json()["schedule"]}
    return {"mixture": mixture.weights}


def default_mixture(directory: str | Path | ShardDirectory, settings: TrainSettings) -> Mixture:
    """Return what the loader serves by default: token shares of clusters that have a row."""
    return served_shares(ShardDirectory.open(directory), settings.seq_len)


def _precision(device: torch.device) -> AbstractContextManager[object]:
    """Compute in bfloat16 on a GPU; weights, sums of losses and the optimizer stay float32."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def _follow(loader: MixtureLoader, weights: Mapping[str, float] | None, why: str) -> None:
    """Let ``weights`` hold from the next step on, unless they do.

    After a resume the log may be ahead of the checkpoint: then it has them for this step already.
    """
    if weights is None:
        return
    mixture = Mixture.of(weights)
    if mixture.fingerprint != loader.mixture.fingerprint:
        loader.set_weights(mixture, why=why)


def _look_ahead(loader: MixtureLoader, version: int, end: int) -> int:
    """Say what will be used up before ``end``, if weights are not those of ``version`` any more."""
    found = loader.metrics()
    if found["weights"] != version:
        say_ends(found, end)
    return int(found["weights"])
