"""Proxies: small models, trained on one mixture each and scored on the targets."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from climbstream.loader import Mixture
from climbstream.loader.core.errors import ClimbError, NoSpaceError, OpenFilesError
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.search.evaluation.scoring import score_items
from climbstream.search.evaluation.targets import load_target
from climbstream.search.optimizer.trials import Trial
from climbstream.search.training.settings import TrainSettings
from climbstream.search.training.trainer import train_model

from .kept_proxies import keep_weights, load_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PRELOAD = ("transformers.models.llama.modeling_llama",)
"""Modules that take seconds to import. A `LocalEngine` imports them once for all proxies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyTask:
    """The settings of one model to train and to score."""

    directory: Path
    """Folder or URL of the shards."""
    mixture: Mixture
    seed: int
    settings: TrainSettings
    targets: tuple[str, ...]
    """Targets, as `load_target` reads them."""
    half: Literal["validation", "test"] = "validation"
    """Half of each target to score on: ``validation`` in a search, ``test`` in a comparison."""
    keep: Path | None = None
    """File to which the model parameters are written; None means that they are not kept."""

    @property
    def name(self) -> str:
        """Name of the proxy in messages."""
        about = self.mixture.about
        mixture = about.get("name") or f"trial {about.get('trial', '')}".rstrip()
        return f"{mixture}, seed {self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTask:
    """Input of `score_proxy`: a kept proxy of an earlier search, to score on other targets."""

    directory: Path
    trial: Trial
    weights: Path
    """File with the model parameters of the proxy."""
    settings: TrainSettings
    targets: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the proxy in messages."""
        return f"trial {self.trial.number}"


@dataclass(frozen=True, slots=True)
class ProxyResult:
    """The scores of a proxy, or the reason why it has none."""

    scores: dict[str, float] | None
    """Scores by target; a lower score is better (see `scoring`). None if the proxy failed."""
    why: str = ""
    costs: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Cost of each item by target: see ``costs`` of `Score`."""


def run_proxy(task: ProxyTask) -> ProxyResult:
    """Train and score one proxy on one thread.

    One thread per proxy is fastest if every core runs a proxy.
    """
    torch.set_num_threads(1)
    try:
        shards = ShardDirectory(task.directory)
        trained = train_model(shards, task.mixture, task.settings, task.seed)
    except (NoSpaceError, OpenFilesError):
        raise  # the mixture is not the cause: end the search, which can be resumed
    except ClimbError as error:
        return ProxyResult(None, str(error))
    result = _score(trained.model, shards, task)
    if task.keep is not None and result.scores is not None:
        keep_weights(trained.model, task.keep)
    return result


def score_proxy(task: ScoreTask) -> ProxyResult:
    """Score one proxy whose model parameters were kept, on one thread."""
    torch.set_num_threads(1)
    shards = ShardDirectory(task.directory)
    model = load_weights(task.weights, task.settings, shards.manifest.vocab_size)
    return _score(model, shards, task)


def _score(
    model: "PreTrainedModel", shards: ShardDirectory, task: ProxyTask | ScoreTask
) -> ProxyResult:
    """Score ``model`` on the targets of ``task``."""
    half = task.half if isinstance(task, ProxyTask) else "validation"
    tokenizer, end = shards.tokenizer(), shards.manifest.eos_id
    model.eval()
    scores, costs = {}, {}
    for spec in task.targets:
        target = load_target(task.directory, spec)
        scored = score_items(model, target, half, tokenizer, end, task.settings.seq_len)
        scores[spec], costs[spec] = scored.total, scored.costs
        if not math.isfinite(scores[spec]):
            return ProxyResult(None, f"the score on {spec} is not finite: {scores[spec]}")
    return ProxyResult(scores, costs=costs)


def hung_proxy(_: ProxyTask, error: ClimbError) -> ProxyResult:
    """Return a failed result for a proxy that hung, so that the search continues."""
    return ProxyResult(None, str(error))
