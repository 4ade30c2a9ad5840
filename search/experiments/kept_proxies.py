"""Kept proxies: the saved models of a search, which can be scored on other targets.

A proxy is a small model that is trained on one mixture. The file ``proxies/0007.pt`` in the folder
of a search has the model parameters of trial 7. They are in bfloat16, two bytes per parameter: 0.5
MB for the smallest model with a vocabulary of 2,048. The rounding to bfloat16 changes scores by
less than a hundredth of the difference between proxies (docs/decisions/searching.md).
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from climbstream.loader.core.engines.local import own_device
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.files import reading
from climbstream.loader.formats.outputs import PROXIES, SEARCH, TRIALS, contents_of
from climbstream.search.optimizer.trials import Trial, TrialLog
from climbstream.search.training.checkpoint import load_tensors, save_tensors
from climbstream.search.training.learner import first_model
from climbstream.search.training.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def weights_file(out: Path, trial: int) -> Path:
    """Return the path of the kept model parameters of a trial of the search in ``out``."""
    return out / PROXIES / f"{trial:04d}.pt"


def keep_weights(model: "PreTrainedModel", path: Path) -> None:
    """Convert ``model`` to bfloat16 in place, and write its model parameters to ``path``.

    Raises:
        NoSpaceError: The disk has too little free space for the file.
    """
    torch.nn.Module.to(model, dtype=torch.bfloat16)
    save_tensors(model.state_dict(), path)


def load_weights(path: Path, settings: TrainSettings, vocab_size: int) -> "PreTrainedModel":
    """Return the model whose parameters `keep_weights` wrote, converted to float32.

    Raises:
        InvalidDataError: The file does not hold the parameters of a model with ``settings``.
    """
    device = torch.device(own_device())
    model = first_model(settings, vocab_size, 0)
    with reading(path, "file of the parameters of such a proxy"):
        model.load_state_dict(load_tensors(path))
    torch.nn.Module.to(model, device)
    model.eval()
    return model


def kept_files(out: Path) -> dict[int, Path]:
    """Return the files of kept proxies of the search in ``out`` by trial number, lowest first."""
    files = (out / PROXIES).glob("[0-9]*.pt")
    return dict(sorted((int(path.stem), path) for path in files if path.stem.isdecimal()))


def prune(out: Path, most: int) -> int:
    """Remove kept proxies until the rest take at most ``most`` bytes; return the number removed.

    Kept proxies are to be scored on other targets. For this, proxies of the first trials are the
    most useful: their mixtures differ widely, and one of these mixtures is the token shares. The
    mixtures of later trials are all close to the best mixture for the targets of the search in
    ``out``, so their proxies are removed first.
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
    """Return the scored trials of the search in ``old`` whose proxies are kept.

    Raises:
        UsageError: ``old`` holds no search, or the search kept no proxies.
        InvalidDataError: The log of trials is damaged.
    """
    if not SEARCH.has(old):
        raise UsageError(
            f"--retarget {old} is {contents_of(old) or 'no search'}. Name the --out of a climb "
            "search"
        )
    trials = [trial for trial in TrialLog.open(old / TRIALS).trials if trial.scores is not None]
    files = kept_files(old)
    kept = [trial for trial in trials if trial.number in files]
    if not kept:
        raise UsageError(
            f"the search in {old} keeps no parameters of its {len(trials)} proxies, so other "
            "targets cannot be scored; begin a search with --keep-proxies 1G, which keeps them"
        )
    return kept
