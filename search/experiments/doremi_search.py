"""DoReMi on shards: train two models, the reference and the follower, to find a mixture.

The reference is trained on the token shares, before the follower. The excess loss of a cluster is
the loss of the follower minus the loss of the reference. While the follower is trained, the weights
of clusters with a high excess loss are raised. The result is the mean of the follower's mixtures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from climbstream.loader import Manifest, Mixture
from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.local import LocalEngine, own_device
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import lock, read_json, reading, write_json
from climbstream.loader.core.log import get_logger
from climbstream.loader.core.typed import Finite, convert, located
from climbstream.loader.formats.directory import ShardDirectory
from climbstream.loader.formats.outputs import DOREMI as FOLDER
from climbstream.loader.weights.request import LOG
from climbstream.search.evaluation.targets import target_hashes
from climbstream.search.optimizer.presets import DOREMI
from climbstream.search.training.base_model import check_base
from climbstream.search.training.checkpoint import load_tensors, save_tensors
from climbstream.search.training.doremi import DoReMi
from climbstream.search.training.learner import first_model
from climbstream.search.training.settings import TrainSettings
from climbstream.search.training.trainer import default_mixture, train_model

from .cost import CostPlan, plan_doremi
from .proxy import PRELOAD, ProxyTask, run_proxy

logger = get_logger(__name__)

_EVERY = 10
"""Number of steps between choices of weights."""
_SAVED = 100
"""Number of steps between checkpoints."""
_RESULT, _MIXTURE, _REFERENCE = "result.json", "mixture.json", "reference.pt"
_BEGUN = ("reference.begun.pt", "follower.begun.pt")
"""Names of the checkpoint files of the reference and the follower while they are trained."""


if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTask:
    """Settings of the reference and the follower; the argument of `train_both`."""

    directory: Path
    """Folder or URL of the shards."""
    prior: Mixture
    """The token shares."""
    settings: TrainSettings
    seed: int
    out: Path
    """Folder of the search."""


@dataclass(frozen=True, slots=True)
class _Result:
    mixture: dict[str, Any]
    scores: dict[str, dict[str, Finite]]
    warnings: list[str] = field(default_factory=list)


def run_doremi(
    directory: Path,
    targets: Sequence[str],
    out: Path,
    settings: TrainSettings,
    seed: int = 0,
    *,
    workers: int | None = None,
    check: Callable[[], Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Find DoReMi's mixture for the shards in ``directory``.

    If a search was begun in ``out``, it continues; if it has ended, its result is returned.

    The mixture does not depend on ``targets``. Without targets, two models are trained: the
    reference and the follower. With targets, two proxies are also trained, for comparison: one on
    DoReMi's mixture, one on the token shares. Both are scored on the targets.

    ``check`` is called before an unfinished search begins or continues; it returns warnings, and
    stops the search if it raises an error. The files ``weights.jsonl`` (of the follower),
    ``result.json`` and ``mixture.json`` are written to ``out``.

    Returns:
        JSON values under three keys. ``mixture`` is DoReMi's mixture. ``warnings`` are those that
        ``check`` returned. ``scores`` has the scores of two proxies by target: under ``mixture``,
        those of the proxy on DoReMi's mixture; under ``token_shares``, those of the proxy on the
        token shares. Without targets, ``scores`` is empty.

    Raises:
        UsageError: A target does not exist, or there are too few steps to choose weights.
        InvalidDataError: ``out`` holds another search, or a model could not be trained.
        LockedError: Another process works on ``out``.
    """
    shards = ShardDirectory(directory)
    manifest = shards.manifest
    texts = target_hashes(directory, targets)
    _check_settings(directory, settings)
    plan = {
        "doremi": 1,
        "shards": manifest.fingerprint,
        "targets": texts,
        "settings": settings.to_json(),
        "seed": seed,
    }
    with lock(out):
        if FOLDER.begin(out, plan):
            logger.info(f"continuing the search in {out}")
        if (out / _RESULT).exists():
            return _read_result(out / _RESULT)
        prior = default_mixture(shards, settings)
        warnings = list(check()) if check is not None else []
        task = ModelTask(directory=directory, prior=prior, settings=settings, seed=seed, out=out)
        with LocalEngine(workers, gpus=True, preload=PRELOAD) as pool:
            ((_, average),) = pool.run(train_both, [task])
            about = {"preset": DOREMI, **manifest.found_on}
            mixture = Mixture(average.weights, about | ({"warnings": warnings} if warnings else {}))
            scores = _score(pool, task, mixture, targets)
        mixture.save(out / _MIXTURE)
        result = {"mixture": mixture.to_json(), "scores": scores, "warnings": warnings}
        write_json(out / _RESULT, result)
        for name in _BEGUN:
            (out / name).unlink(missing_ok=True)
    return result


def dry_doremi(
    directory: Path,
    targets: Sequence[str],
    out: Path,
    settings: TrainSettings,
    *,
    workers: int | None = None,
) -> CostPlan:
    """Return the estimated cost of `run_doremi` on this machine; write nothing.

    One training step is measured for this.

    Raises:
        UsageError: A target does not exist, or there are too few steps to choose weights.
    """
    target_hashes(directory, targets)
    _check_settings(directory, settings)
    with LocalEngine(workers, gpus=True, preload=PRELOAD) as pool:
        return plan_doremi(directory, targets, settings, pool, done=(out / _RESULT).exists())


def _check_settings(directory: Path, settings: TrainSettings) -> None:
    """Raise `UsageError` if `check_base` does, or if there are too few steps to change weights."""
    check_base(settings.base, directory, settings.seq_len)
    if settings.steps < _EVERY:
        raise UsageError(
            f"{settings.tokens:,} tokens are only {settings.steps} steps, and DoReMi chooses "
            f"weights every {_EVERY} steps; give "
            f"{_EVERY * settings.seq_len * settings.batch_rows:,} tokens or more"
        )


def train_both(task: ModelTask) -> Mixture:
    """Train the reference, then the follower; return the mean of the follower's mixtures.

    If a checkpoint exists, a model continues from it. The engine calls this function in a separate
    process. If this process hangs, the engine ends it and calls the function once more.
    """
    with Progress("doremi", 2 * task.settings.steps, "steps") as bar:
        rule = DoReMi(_reference(task, bar), task.prior, every=_EVERY)
        train_model(
            task.directory,
            task.prior,
            task.settings,
            task.seed,
            checkpoint=task.out / _BEGUN[1],
            every=_SAVED,
            weights_log=task.out / LOG,
            rule=rule,
            on_step=lambda _, loss: bar.add(1, f"follower, loss {loss:.3f}"),
        )
    return rule.average


def _reference(task: ModelTask, bar: Progress) -> "PreTrainedModel":
    """Return the reference on the device of this process; train it if it is not saved yet."""
    path = task.out / _REFERENCE
    model = first_model(task.settings, Manifest.load(task.directory).vocab_size, task.seed)
    if path.exists():
        with reading(path, "reference of this search"):
            model.load_state_dict(load_tensors(path))
        bar.skip(task.settings.steps)
    else:
        model = train_model(
            task.directory,
            task.prior,
            task.settings,
            task.seed,
            checkpoint=task.out / _BEGUN[0],
            every=_SAVED,
            on_step=lambda _, loss: bar.add(1, f"reference, loss {loss:.3f}"),
        ).model
        save_tensors(model.state_dict(), path)
    torch.nn.Module.to(model, own_device())
    return model


def _score(
    pool: LocalEngine, task: ModelTask, mixture: Mixture, targets: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Train proxies on ``mixture`` and on the token shares, and score both on ``targets``.

    Returns the scores under ``mixture`` and ``token_shares``, by target; {} without targets.

    Raises:
        InvalidDataError: A proxy could not be trained.
    """
    names = {"mixture": mixture, "token_shares": task.prior} if targets else {}
    tasks = [
        ProxyTask(
            directory=task.directory,
            mixture=Mixture(each.weights, {"name": name}),
            seed=task.seed,
            settings=task.settings,
            targets=tuple(targets),
        )
        for name, each in names.items()
    ]
    scores = {}
    for proxy, result in pool.run(run_proxy, tasks):
        if result.scores is None:
            raise InvalidDataError(f"a proxy could not be scored: {result.why}")
        scores[proxy.mixture.about["name"]] = result.scores
    return dict(sorted(scores.items()))


def _read_result(path: Path) -> dict[str, Any]:
    """Read the result file of a finished search.

    Raises:
        InvalidDataError: The file does not hold a result of `run_doremi`.
    """
    value = located(_result_from_json, read_json(path), str(path))
    located(Mixture.from_json, value.mixture, f"{path}: mixture")
    return {"mixture": value.mixture, "scores": value.scores, "warnings": value.warnings}


def _result_from_json(value: Any) -> _Result:
    return convert(value, _Result, "result of DoReMi")
