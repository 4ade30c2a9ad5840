"""Kept proxies: weights of the proxies of a search, with which other targets are scored.

The file ``proxies/0007.pt`` in the folder of a search has the weights of trial 7 in bfloat16, two
bytes each: 0.5 MB for the smallest model with a vocabulary of 2,048. Scores change by less than
a hundredth of what they differ by between proxies (docs/decisions/searching.md).
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from climbstream.loader.core.engines.local import own_device
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.files import reading
from climbstream.loader.formats.outputs import PROXIES, TRIALS
from climbstream.search.optimizer.trials import Trial, TrialLog
from climbstream.search.training.checkpoint import load_tensors, save_tensors
from climbstream.search.training.learner import first_model
from climbstream.search.training.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def weights_file(out: Path, trial: int) -> Path:
    """Return where the weights of a trial of the search in ``out`` lie."""
    return out / PROXIES / f"{trial:04d}.pt"


def keep_weights(model: "PreTrainedModel", path: Path) -> None:
    """Write the weights of ``model``, which become bfloat16.

    Raises:
        NoSpaceError: The disk has no room for them.
    """
    torch.nn.Module.to(model, dtype=torch.bfloat16)
    save_tensors(model.state_dict(), path)


def load_weights(path: Path, settings: TrainSettings, vocab_size: int) -> "PreTrainedModel":
    """Return the model whose weights `keep_weights` wrote, in float32.

    Raises:
        InvalidDataError: The file holds no weights of such a model.
    """
    device = torch.device(own_device())
    model = first_model(settings, vocab_size, 0)
    with reading(path, "file of the weights of such a proxy"):
        model.load_state_dict(load_tensors(path))
    torch.nn.Module.to(model, device)
    model.eval()
    return model


def kept_files(out: Path) -> dict[int, Path]:
    """Return the files of weights of the search in ``out`` by number of the trial, in order."""
    files = (out / PROXIES).glob("[0-9]*.pt")
    return dict(sorted((int(path.stem), path) for path in files if path.stem.isdecimal()))


def prune(out: Path, most: int) -> int:
    """Remove the weights of the latest trials until all have ``most`` bytes; return how many.

    The first trials are spread widely, and have the token shares. The later ones stand close to
    what was best for the targets of that search.
    """
    total = removed = 0
    for path in kept_files(out).values():
        total += (size := path.stat().st_size)
        if total > most:
            total -= size
            path.unlink()
            removed += 1
    return removed


def kept_trials(old: Path) -> list[Trial]:
    """List the trials of the search in ``old`` whose weights are kept.

    Raises:
        UsageError: There is no search, or it keeps no weights.
        InvalidDataError: Its log is damaged.
    """
    trials = [trial for trial in TrialLog.open(old / TRIALS).trials if trial.scores is not None]
    files = kept_files(old)
    kept = [trial for trial in trials if trial.number in files]
    if not kept:
        raise UsageError(
            f"the search in {old} keeps no weights of its {len(trials)} proxies, so other targets "
            "cannot be scored; begin a search with --keep-proxies 1G, which keeps them"
        )
    return kept
