"""A run of ``climb train``: trains one model, logs metrics to a folder, and can be resumed."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from climbstream.loader import Manifest, Mixture, MixtureLoader
from climbstream.loader.audit.ledger import LEDGER
from climbstream.loader.core.console import Progress
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.files import lock, read_json, write_bytes, write_json, writing
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.signals import StopRequest
from climbstream.loader.core.typed import Count, Finite, convert, located
from climbstream.loader.core.waits import SlowStepWatch
from climbstream.loader.formats.manifest import TOKENIZER
from climbstream.loader.formats.outputs import RESULT, TRAIN
from climbstream.loader.formats.tokenizer import read_tokenizer
from climbstream.loader.monitoring.metrics import METRICS, Writer
from climbstream.loader.storage.hub import pin
from climbstream.loader.weights.request import LOG, REQUEST
from climbstream.loader.weights.schedule import Schedule

from .base_model import check_base
from .checkpoint import tensor_bytes
from .distributed import Job, join_job
from .settings import TrainSettings
from .trainer import HELDOUT_EVERY, SAVE_EVERY, TrainedModel, mixture_config, train_model

logger = get_logger(__name__)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CHECKPOINT = "checkpoint.pt"


def train_run(
    directory: str | Path,
    mixture: Mixture | Schedule | None,
    settings: TrainSettings,
    seed: int,
    out: Path,
    max_epochs: float | None = None,
    writers: Sequence[Writer] = (),
    save_every: int = SAVE_EVERY,
    heldout_every: int = HELDOUT_EVERY,
) -> dict[str, Any]:
    """Train one model, and write it to ``out/model`` in Hugging Face's format.

    The settings are checked against the shards before anything is written. Under torchrun, all
    ranks train one model. If the run is resumed, the number of ranks may differ.

    Args:
        directory: Folder or URL of the shards.
        mixture: Weights of the clusters, or a schedule of weights; None means the token shares.
        settings: Model and schedule of the learning rate.
        seed: Seed of the initial model parameters and of the order of the data.
        out: Folder of the run.
        max_epochs: Largest number of epochs of a cluster; None means no limit.
        writers: Writers that also receive the lines of ``out/metrics.jsonl``.
        save_every: Number of steps between checkpoints. A checkpoint is also saved when a signal
            asks the run to stop.
        heldout_every: Number of steps between measurements of the loss on held-out text; 0 means
            never.

    Returns:
        The result, with the keys ``loss``, ``steps``, ``tokens``, ``served`` and ``epochs``. For
        ``loss``, ``served`` and ``epochs`` see `TrainedModel`.

    Raises:
        InvalidDataError: ``out`` holds another run.
        LockedError: Another process works on ``out``.
        UsageError: All clusters are used up before the end, or settings contradict each other.
    """
    with join_job() as job:
        if isinstance(directory, str):
            directory = job.of_first(pin(directory) if job.rank == 0 else "")
        manifest = Manifest.load(directory)
        mixture = mixture or manifest.token_shares
        check_base(settings.base, directory, settings.seq_len)
        run = _Run(
            directory, manifest, mixture, settings, seed, out, max_epochs, save_every, heldout_every
        )
        if not TRAIN.has(out):
            _check_settings(run, job)
        with lock(out) if job.rank == 0 else nullcontext():
            if job.rank == 0:
                _begin(run)
            if job.of_first((out / RESULT).exists()):
                return _read_result(out / RESULT)
            trained = _train(run, job, writers)
            result = _Result(
                trained.loss, settings.steps, run.tokens, trained.served, trained.epochs
            )
            if job.rank == 0:
                _leave(trained.model, directory, manifest.eos_id, out)
                write_json(out / RESULT, asdict(result))
                (out / _CHECKPOINT).unlink(missing_ok=True)
            # Other ranks return only after rank 0 has written everything.
            return dict(job.of_first(asdict(result)))


@dataclass(frozen=True, slots=True)
class _Run:
    """The settings of a run, its shards, and its folder."""

    directory: str | Path
    manifest: Manifest
    mixture: Mixture | Schedule
    settings: TrainSettings
    seed: int
    out: Path
    max_epochs: float | None
    save_every: int
    heldout_every: int

    @property
    def tokens_per_step(self) -> int:
        """Number of tokens per step, over all ranks."""
        return self.settings.seq_len * self.settings.batch_rows

    @property
    def tokens(self) -> int:
        """Number of tokens of the whole run."""
        return self.settings.steps * self.tokens_per_step

    def plan(self) -> dict[str, Any]:
        """Return the settings that must be the same when the run is resumed."""
        return {
            "train": 1,
            "shards": self.manifest.fingerprint,
            **mixture_config(self.mixture),
            "settings": self.settings.to_json(),
            "seed": self.seed,
            **({} if self.max_epochs is None else {"max_epochs": self.max_epochs}),
        }


def _check_settings(run: _Run, job: Job) -> None:
    """Open a loader with these settings, so that its errors are raised before anything is written.

    Raises:
        UsageError: Settings contradict each other, or do not match the number of ranks.
        InvalidDataError: A cluster that is unknown, or has too few tokens for one row, has a weight
            above 0.
    """
    if run.save_every < 1:
        raise UsageError(f"save_every is {run.save_every}; it must be 1 step or more")
    if run.heldout_every < 0:
        raise UsageError(f"heldout_every is {run.heldout_every}; it must be 0, for never, or more")
    MixtureLoader(
        run.directory,
        run.mixture,
        seq_len=run.settings.seq_len,
        batch_rows=run.settings.batch_rows,
        rank=job.rank,
        world_size=job.world_size,
        seed=run.seed,
        fraction=run.settings.part,
        lanes=run.settings.lanes,
        max_epochs=run.max_epochs,
    )


def _begin(run: _Run) -> None:
    """Write the plan of ``run``, or check the plan in its folder.

    If the run has ended, or must begin again for lack of a checkpoint, the log says so.
    """
    if not TRAIN.begin(run.out, run.plan(), folders=("model",)):
        return
    if (run.out / RESULT).exists():
        logger.info(f"the run in {run.out} has ended; its result is shown again")
    elif not (run.out / _CHECKPOINT).exists():
        logger.info(
            f"the run in {run.out} has no {_CHECKPOINT}: it was stopped before its first "
            "checkpoint, or the file was removed. So it begins again from step 0; --save-every "
            "saves sooner"
        )


def _train(run: _Run, job: Job, writers: Sequence[Writer]) -> TrainedModel:
    """Train the model of ``run``; rank 0 shows the progress."""
    shown = 0

    def show(step: int, loss: float) -> None:
        nonlocal shown
        watch.begin(f"step {step + 1:,}")
        if bar is not None:
            tokens = (step - shown) * run.tokens_per_step
            # The first step is left out of the rate, as it takes longer: memory and threads start.
            if shown:
                bar.add(tokens, f"loss {loss:.3f}")
            else:
                bar.skip(tokens)
            shown = step

    with (
        StopRequest() as stop,
        SlowStepWatch(f"rank {job.rank} waits for other ranks, a disk or a store") as watch,
        Progress("train", run.tokens, "tokens") if job.rank == 0 else nullcontext() as bar,
    ):
        return train_model(
            run.directory,
            run.mixture,
            run.settings,
            run.seed,
            job=job,
            checkpoint=run.out / _CHECKPOINT,
            every=run.save_every,
            weights_log=run.out / LOG,
            ledger=run.out / LEDGER,
            metrics=run.out / METRICS,
            writers=writers,
            max_epochs=run.max_epochs,
            weights_file=run.out / REQUEST,
            heldout_every=run.heldout_every,
            on_step=show,
            stop=stop,
        )


@dataclass(frozen=True, slots=True)
class _Result:
    loss: Finite
    steps: Count
    tokens: Count
    served: dict[str, Count]
    epochs: dict[str, Finite]


def _read_result(path: Path) -> dict[str, Any]:
    """Read the result of a finished run.

    Raises:
        InvalidDataError: The file holds no result of a run.
    """
    return asdict(located(_result_from_json, read_json(path), str(path)))


def _result_from_json(value: Any) -> _Result:
    return convert(value, _Result, "result of a run")


def _leave(model: "PreTrainedModel", directory: str | Path, end: int | None, out: Path) -> None:
    """Write the model and its tokenizer to ``out/model``."""
    _save(model, end, out / "model")
    try:
        _save_tokenizer(read_tokenizer(directory), end, out / "model")
    except UsageError as error:
        logger.warning(f"the model has no tokenizer beside it: {error}")


def _save(model: "PreTrainedModel", end: int | None, out: Path) -> None:
    """Write the model in Hugging Face's format."""
    # The defaults of a Llama config are tokens of Llama's own vocabulary.
    for config in (model.config, model.generation_config):
        config.bos_token_id = config.eos_token_id = end
    from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415 - as below

    disable_progress_bar()
    with writing(out, size=tensor_bytes(model.state_dict())):
        model.save_pretrained(out)


def _save_tokenizer(tokenizer: Tokenizer, end: int | None, out: Path) -> None:
    """Write the tokenizer in Hugging Face's format."""
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415 - takes seconds; used once

    name = None if end is None else tokenizer.id_to_token(end)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=name).save_pretrained(out)
    # transformers adds the end token to the tokenizer file; write the original file instead.
    write_bytes(out / TOKENIZER, tokenizer.to_str(pretty=True).encode())
