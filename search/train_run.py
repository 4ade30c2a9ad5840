"""A run of ``climb train``: one model in a folder, resumable, with its log and metrics."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from climbstream.loader import Manifest, Mixture
from climbstream.loader.errors import UsageError
from climbstream.loader.hub import pin
from climbstream.loader.ledger import LEDGER
from climbstream.loader.manifest import TOKENIZER
from climbstream.loader.metrics import METRICS
from climbstream.loader.plan import begin_or_continue
from climbstream.loader.progress import Progress, say
from climbstream.loader.request import LOG, REQUEST
from climbstream.loader.storage import lock, read_json, remove_temporaries, write_bytes, write_json

from .base import check_base
from .tokenizer import read_tokenizer
from .train import TrainSettings, train_model

_RESULT = "result.json"


def train_run(
    directory: str | Path,
    mixture: Mixture,
    settings: TrainSettings,
    seed: int,
    out: Path,
    max_epochs: float | None = None,
) -> dict[str, Any]:
    """Train one model and leave it in ``out/model``, as Hugging Face does; return the result.

    ``directory`` is a folder or URL of shards.

    Raises:
        InvalidDataError: ``out`` holds another run.
        LockedError: Another process works on it.
        UsageError: All clusters are used up before the end.
    """
    if isinstance(directory, str):
        directory = pin(directory)
    manifest = Manifest.load(directory)
    check_base(settings.base, directory, settings.seq_len)
    plan = {
        "train": 1,
        "shards": manifest.fingerprint,
        "mixture": mixture.weights,
        "settings": settings.to_json(),
        "seed": seed,
        **({} if max_epochs is None else {"max_epochs": max_epochs}),
    }
    with lock(out):
        remove_temporaries(out)
        if begin_or_continue(out, "run.json", plan):
            say(f"going on with the run in {out}")
        if (out / _RESULT).exists():
            result: dict[str, Any] = read_json(out / _RESULT)
            return result
        per_step = settings.seq_len * settings.batch_rows
        with Progress("train", settings.steps * per_step, "tokens") as progress:
            trained = train_model(
                directory,
                mixture,
                settings,
                seed,
                checkpoint=out / "checkpoint.pt",
                log=out / LOG,
                served=out / LEDGER,
                metrics=out / METRICS,
                max_epochs=max_epochs,
                weights_file=out / REQUEST,
                on_step=lambda _, loss: progress.add(per_step, f"loss {loss:.3f}"),
            )
        _save(trained.model, manifest.eos_id, out / "model")
        try:
            _save_tokenizer(read_tokenizer(directory), manifest.eos_id, out / "model")
        except UsageError as error:
            say(f"the model has no tokenizer beside it: {error}")
        result = {
            "loss": trained.loss,
            "steps": settings.steps,
            "tokens": settings.steps * per_step,
            "served": trained.served,
            "epochs": trained.epochs,
        }
        write_json(out / _RESULT, result)
        (out / "checkpoint.pt").unlink(missing_ok=True)
    return result


def _save(model: PreTrainedModel, end: int | None, out: Path) -> None:
    """Write the model as Hugging Face reads it."""
    # The defaults of Llama are tokens of its own vocabulary.
    for config in (model.config, model.generation_config):
        config.bos_token_id = config.eos_token_id = end
    model.save_pretrained(out)


def _save_tokenizer(tokenizer: Tokenizer, end: int | None, out: Path) -> None:
    """Write the tokenizer as Hugging Face reads it."""
    name = None if end is None else tokenizer.id_to_token(end)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=name).save_pretrained(out)
    # That library adds what ends a document to the tokenizer; ours is as it was.
    write_bytes(out / TOKENIZER, tokenizer.to_str(pretty=True).encode())
