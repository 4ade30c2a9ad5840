"""Train a model on a mixture, for a fixed number of tokens that `MixtureLoader` serves.

The learning rate rises in the first part of the steps, then stays constant, and falls to zero in
the last part. So every run ends with an annealed model (MiniCPM, arXiv 2404.06395). The learning
rate of a step depends only on the number of the step, never on time.

On one machine, equal arguments give equal model parameters, even if a run was interrupted. With
another number of ranks, the batches are the same, but floats are added in a different order, so
that model parameters differ slightly.
"""

import math
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from climbstream.loader import Mixture, MixtureLoader
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import reading
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.renamed import renamed_parameters
from climbstream.loader.core.signals import Stopped, StopRequest
from climbstream.loader.core.typed import located
from climbstream.loader.core.workdir import check_same_config
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.monitoring.cluster_loss import ClusterLoss
from climbstream.loader.monitoring.metrics import Writer, append_metrics, say_ends, write_metrics
from climbstream.loader.reading.heldout_batches import HeldOutBatches
from climbstream.loader.reading.row_source import served_shares
from climbstream.loader.weights.schedule import Schedule

from .checkpoint import Checkpoint
from .distributed import ALONE, Job
from .learner import Learner
from .online_mixing import OnlineRule, row_means
from .settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = get_logger(__name__)

_METRICS_EVERY = 100
_MOST_HELDOUT = 1 << 20
"""Largest number of held-out tokens per measurement of the held-out loss. More tokens change the
loss little."""
_HELDOUT_PART = 16
"""Least number of training tokens per held-out token. A held-out token needs a third of the compute
of a training token."""
HELDOUT_EVERY = 500
"""Default number of steps between measurements of the held-out loss."""
SAVE_EVERY = 500
"""Default number of steps between checkpoints."""


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """The trained model of a run, its loss, and the tokens and epochs that the loader served."""

    model: "PreTrainedModel"
    loss: float
    """Mean training loss of the last tenth of the steps, in nats per token."""
    served: dict[str, int]
    """Number of served tokens by cluster."""
    epochs: dict[str, float]
    """Number of times that the run went through each cluster, by name of the cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunFiles:
    """Files that a run reads and writes; see `train_model`."""

    checkpoint: Path | None
    every: int
    weights_log: Path | None
    ledger: Path | None
    metrics: Path | None
    writers: Sequence[Writer]
    weights_file: Path | None
    heldout_every: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunPlan:
    """The settings of a run; see `train_model`."""

    shards: ShardDirectory
    mixture: Mixture | Schedule
    settings: TrainSettings
    seed: int
    max_epochs: float | None
    rule: OnlineRule | None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values, for a checkpoint."""
        rule = self.rule
        return {
            "shards": self.shards.manifest.fingerprint,
            **mixture_config(self.mixture),
            "settings": self.settings.to_json(),
            "seed": self.seed,
            **({} if self.max_epochs is None else {"max_epochs": self.max_epochs}),
            **({} if rule is None else {"rule": type(rule).__name__, "every": rule.every}),
        }


@renamed_parameters(log="weights_log", served="ledger")
def train_model(
    directory: str | Path | ShardDirectory,
    mixture: Mixture | Schedule,
    settings: TrainSettings,
    seed: int,
    *,
    job: Job = ALONE,
    checkpoint: Path | None = None,
    every: int = SAVE_EVERY,
    weights_log: Path | None = None,
    ledger: Path | None = None,
    metrics: Path | None = None,
    writers: Sequence[Writer] = (),
    max_epochs: float | None = None,
    weights_file: Path | None = None,
    heldout_every: int = HELDOUT_EVERY,
    rule: OnlineRule | None = None,
    on_step: Callable[[int, float], None] | None = None,
    stop: StopRequest | None = None,
) -> TrainedModel:
    """Train one model on the device of this process; return the model and its loss.

    On a GPU the model computes in bfloat16.

    Args:
        directory: Folder or URL of the shards.
        mixture: Weights of the clusters in ``directory``, or a schedule of weights.
        settings: Size of the model, number of tokens, and schedule of the learning rate.
        seed: Seed of the initial model parameters and of the order of the data.
        job: The ranks that train the model together. Each rank gets a part of every batch.
        checkpoint: File to which checkpoints are saved. If it exists, the run resumes from it.
        every: Number of steps between checkpoints.
        weights_log: File of the weights log.
        ledger: File of the ledger, which records the served rows.
        metrics: File to which a line is appended every 100 steps. A line has the numbers of
            `MixtureLoader.metrics`, the loss of the step, and the mean loss by cluster since the
            last line. If this file is given, a warning names the clusters that will be used up
            before the end of the run.
        writers: Writers that also receive the numbers of each line of ``metrics``.
        max_epochs: Largest number of epochs of a cluster. A cluster that has reached it gets no
            more rows, and the other clusters share its weight. None means no limit.
        weights_file: File through which new weights can be requested during the run. The command
            `climb weights` writes requests to it.
        heldout_every: Number of steps between measurements of the loss on held-out text; 0 means
            never. The loss is also measured after the last step. The lines of ``metrics`` have this
            loss by cluster under ``heldout_loss``.
        rule: Rule that changes the weights during training; the weights start at ``mixture``.
        on_step: Function that is called after each step, with the number of finished steps and the
            loss of this step in nats per token.
        stop: Object through which a stop can be requested. If a stop is requested on any rank, all
            ranks save after the same step and stop.

    Raises:
        Stopped: A stop was requested through ``stop``.
        InvalidDataError: The loss is not finite, or the checkpoint belongs to another run.
        UsageError: All clusters are used up before the end.
    """
    plan = _RunPlan(
        shards=ShardDirectory.open(directory),
        mixture=mixture,
        settings=settings,
        seed=seed,
        max_epochs=max_epochs,
        rule=rule,
    )
    files = _RunFiles(
        checkpoint=checkpoint,
        every=every,
        weights_log=weights_log,
        ledger=ledger,
        metrics=metrics,
        writers=writers,
        weights_file=weights_file,
        heldout_every=heldout_every,
    )
    training = _Training(plan, files, job)
    training.resume()
    return training.run(on_step, stop)


class _Training:
    """The state of one run of `train_model`."""

    def __init__(self, plan: _RunPlan, files: _RunFiles, job: Job) -> None:
        manifest = plan.shards.manifest
        self._plan, self._files, self._job = plan, files, job
        self._settings, self._rule = plan.settings, plan.rule
        # A proxy has no checkpoint, so its base model need not be hashed.
        self._config = plan.to_json() if files.checkpoint else {}
        self._learner = Learner(plan.settings, manifest.vocab_size, plan.seed, job)
        self._loader = MixtureLoader(
            plan.shards,
            plan.mixture,
            seq_len=plan.settings.seq_len,
            batch_rows=plan.settings.batch_rows,
            rank=job.rank,
            world_size=job.world_size,
            agreement=job.agreement(),
            seed=plan.seed,
            fraction=plan.settings.part,
            lanes=plan.settings.lanes,
            weights_log=files.weights_log,
            ledger=files.ledger,
            max_epochs=plan.max_epochs,
            weights_file=files.weights_file,
        )
        self._losses: list[float] = []
        self._rule_losses = ClusterLoss(self._loader.names)
        self._cluster_losses = ClusterLoss(self._loader.names)
        self._weights_version = -1
        self._heldout = self._open_heldout()

    def _open_heldout(self) -> HeldOutBatches | None:
        """Return batches of held-out text; None if the held-out loss is not measured.

        The text depends neither on the seed nor on the mixture.
        """
        every, loader = self._files.heldout_every, self._loader
        if self._files.metrics is None or every == 0:
            return None
        most = min(_MOST_HELDOUT, every * loader.batch_rows * loader.seq_len // _HELDOUT_PART)
        try:
            return loader.heldout(max_tokens=max(most, loader.seq_len * loader.world_size))
        except UsageError as error:
            if self._job.rank == 0:
                logger.info(f"no held-out loss is measured: {error}")
            return None

    def _heldout_loss(self) -> dict[str, float]:
        """Return the held-out loss by cluster. Every rank must call this at the same step."""
        losses = ClusterLoss(self._loader.names)
        for batch in self._heldout or ():
            tokens = batch["input_ids"].to(self._learner.device)
            losses.add(batch["cluster_ids"], row_means(self._learner.measure(tokens)))
        return losses.take(self._job.sum)

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one.

        Raises:
            InvalidDataError: The checkpoint belongs to another run, or is damaged.
        """
        path = self._files.checkpoint
        if path is None or not path.exists():
            return
        saved = Checkpoint.load(path, self._learner.device)
        check_same_config(saved.run, self._config, path)
        with reading(path, "checkpoint of this run"):
            located(self._restore, saved, str(path))
        if self._job.rank == 0:
            logger.info(
                f"continuing the run in {path.parent} from its last checkpoint, at step "
                f"{self._loader.step:,}"
            )

    def _restore(self, saved: Checkpoint) -> None:
        """Restore the loader, model, optimizer, rule and losses from ``saved``."""
        self._loader.load_state_dict(saved.loader)
        if len(saved.losses) != self._loader.step:
            raise ValueError(f"it has {len(saved.losses)} losses at step {self._loader.step}")
        parts = {name: getattr(saved, name) for name in self._learner.state_dict()}
        self._learner.load_state_dict(parts, self._loader.step)
        if self._rule is not None:
            if saved.rule is None or saved.heard is None:
                raise ValueError("it has no state of the rule that changes weights")
            self._rule.load_state_dict(saved.rule)
            self._rule_losses.load_state_dict(saved.heard)
        self._losses = saved.losses

    def run(
        self, on_step: Callable[[int, float], None] | None, stop: StopRequest | None
    ) -> TrainedModel:
        """Train to the last step, or raise `Stopped` when a stop is requested on any rank."""
        steps = self._settings.steps
        for step in range(self._loader.step, steps):
            if step % _METRICS_EVERY == 0:
                self._say_ends()
            stopping = self._step(step, asked=stop is not None and stop.number is not None)
            if on_step is not None:
                on_step(step + 1, self._losses[-1])
            if (step + 1) % _METRICS_EVERY == 0 or step + 1 == steps:
                self._write_metrics(last=step + 1 == steps)
            stops = stopping and step + 1 < steps
            if stops or (step + 1) % self._files.every == 0:
                self._save()
            if stops:
                assert stop is not None
                self._stop(step + 1, stop)
        self._loader.flush()
        last = self._losses[-max(1, steps // 10) :]
        model = self._learner.finish()
        return TrainedModel(
            model, sum(last) / len(last), self._loader.tokens_served, self._loader.epochs
        )

    def _step(self, step: int, *, asked: bool) -> bool:
        """Train on one batch; return whether any rank was ``asked`` to stop.

        Raises:
            UsageError: All clusters are used up.
            InvalidDataError: The loss is not finite.
        """
        if (rows := next(self._loader, None)) is None:
            raise UsageError(
                f"the data ends at step {step:,} of {self._settings.steps:,}: each cluster that "
                f"has weight was read {self._plan.max_epochs:g} times; allow more epochs, or train "
                "on fewer tokens"
            )
        batch, clusters = rows["input_ids"].to(self._learner.device), rows["cluster_ids"]
        of_tokens = self._learner.losses(batch)
        of_rows = row_means(of_tokens)
        if self._files.metrics is not None:
            self._cluster_losses.add(clusters, of_rows)
        loss = of_rows.mean()
        self._learner.learn(loss, step)
        # Sum the loss and the stop together, so that all ranks stop after the same step.
        both = torch.stack([loss.detach(), loss.new_tensor(float(asked))])
        total, stopping = self._job.sum(both).tolist()
        self._losses.append(total / self._job.world_size)
        if not math.isfinite(self._losses[-1]):
            raise InvalidDataError(
                f"the loss is not finite at step {step + 1} of {self._settings.steps}; "
                f"try a smaller learning rate than {self._settings.learning_rate:g}"
            )
        if self._rule is not None:
            self._rule_losses.add(clusters, self._rule.measure(batch, of_tokens))
            if (step + 1) % self._rule.every == 0:
                self._follow(self._rule)
        return bool(stopping)

    def _follow(self, rule: OnlineRule) -> None:
        """Let ``rule`` choose weights; set the new weights if they differ from the present weights.

        New weights are used from the next step. After a resume, the weights log may be ahead of the
        checkpoint; then it already has the weights for this step.
        """
        if (weights := rule.follow(self._rule_losses.take())) is not None:
            mixture = Mixture.of(weights)
            if mixture.fingerprint != self._loader.mixture.fingerprint:
                self._loader.set_weights(mixture, why=type(rule).__name__)

    def _say_ends(self) -> None:
        """Log which clusters will be used up before the end, if weights have changed."""
        if self._files.metrics is None or self._job.rank != 0:
            return
        metrics = self._loader.metrics()
        if metrics["weights"] != self._weights_version:
            say_ends(metrics, self._settings.steps)
        self._weights_version = int(metrics["weights"])

    def _write_metrics(self, *, last: bool) -> None:
        """Write a line of metrics on rank 0. Every rank must call this at the same step."""
        if self._files.metrics is None:
            return
        by_cluster = {"cluster_loss": self._cluster_losses.take(self._job.sum)}
        if self._heldout is not None and (last or self._is_heldout_due()):
            by_cluster["heldout_loss"] = self._heldout_loss()
        if self._job.rank == 0:
            metrics, loss = self._loader.metrics(), self._losses[-1]
            append_metrics(self._files.metrics, metrics, loss=loss, **by_cluster)
            write_metrics(metrics, *self._files.writers, loss=loss, **by_cluster)

    def _is_heldout_due(self) -> bool:
        """Return whether a multiple of ``heldout_every`` steps was passed since the last line."""
        every, step = self._files.heldout_every, self._loader.step
        return step // every > max(0, step - _METRICS_EVERY) // every

    def _save(self) -> None:
        """Write the checkpoint on rank 0, if the run has a checkpoint file."""
        if self._files.checkpoint is None or self._job.rank != 0:
            return
        rule = self._rule
        Checkpoint(
            run=self._config,
            **self._learner.state_dict(),
            loader=self._loader.state_dict(),
            losses=self._losses,
            rule=None if rule is None else rule.state_dict(),
            heard=None if rule is None else self._rule_losses.state_dict(),
        ).save(self._files.checkpoint)

    def _stop(self, step: int, stop: StopRequest) -> None:
        """Raise `Stopped` after ``step`` steps, as soon as rank 0 has saved the checkpoint."""
        self._loader.flush()
        self._job.of_first(None)  # wait, so that no rank ends before rank 0 has saved
        raise Stopped(
            stop.number or signal.SIGTERM,
            f"stopped after step {step:,} of {self._settings.steps:,}, saved in "
            f"{self._files.checkpoint}; run the same command again to continue from there",
        )


def mixture_config(mixture: Mixture | Schedule) -> dict[str, Any]:
    """Return the mixture or schedule of a run as JSON values, for its plan."""
    if isinstance(mixture, Schedule):
        return {"schedule": mixture.to_json()["schedule"]}
    return {"mixture": mixture.weights}


def default_mixture(directory: str | Path | ShardDirectory, settings: TrainSettings) -> Mixture:
    """Return the loader's default mixture: token shares; 0 for clusters too small for one row."""
    return served_shares(ShardDirectory.open(directory), settings.seq_len)
