"""CostPlan: an estimate of what a search or a run costs in models, tokens, FLOPs, time and disk.

A proxy is a small model that a search trains on one mixture.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from climbstream.loader import Manifest, Mixture, MixtureLoader
from climbstream.loader.core.console import duration, text_table
from climbstream.loader.core.engines.engine import Engine
from climbstream.loader.core.log import get_logger
from climbstream.loader.weights.schedule import Schedule
from climbstream.search.evaluation.targets import load_target
from climbstream.search.optimizer.items import TargetItems
from climbstream.search.optimizer.search import Search
from climbstream.search.training.base_model import check_base
from climbstream.search.training.settings import TrainSettings
from climbstream.search.training.step_cost import StepCost, StepTask, measure_step

from .items import target_items
from .settings import SearchSettings

logger = get_logger(__name__)

MEASURED_FROM = 2_000
"""A search shows an estimate of its cost before it begins if its proxies together take at least
this number of training steps. To make the estimate, the search measures the time of a training
step; this measurement takes a second or two."""
_MEASURES = "measuring the time of a training step; this can take a minute"
_NOT_COUNTED = (
    "start of the processes, fits of predictors, and the check whether the shards contain items "
    "of new targets (--skip-check leaves this check out)"
)
_FORWARD = 1 / 3
"""FLOPs of a forward pass as a fraction of the FLOPs of a training step."""
_BYTES_PER_TOKEN = 3
"""Typical number of UTF-8 bytes per token, to estimate the number of tokens of a text."""
_TRIAL_BYTES = 400
"""Bytes of a trial in the logs of a search, without its weights and without the scores of items."""
_WEIGHT_BYTES, _COST_BYTES = 36, 9
"""Bytes of one mixture weight, and of the score of one item, in the logs of a search."""
_KEPT_BYTES = 2
"""Bytes per model parameter of a proxy that is kept."""
_CHECKPOINT_COPIES = 4
"""Number of arrays in a checkpoint that are as large as the model: the parameters, their mean and
the two moments of Adam."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostPlan:
    """The models that a search or a run trains, and their estimated cost."""

    models: int
    """Number of models that are trained and scored, or only scored."""
    done: int
    """Number of models that are trained already."""
    enqueued: int = 0
    """How many of the models that are left are trained on mixtures of the user."""
    left: int
    """Largest number of models that are still to be trained."""
    scored: int = 0
    """Number of models that another search trained and kept, so that they are only scored."""
    confirm: int
    """Largest number of models that are trained only to confirm the answer."""
    beside: int = 0
    """How many of ``models`` confirmed an earlier answer, or were trained in another search whose
    trials this search uses. They count neither in the budget nor in ``confirm``."""
    not_counted: str = ""
    """What ``seconds`` leaves out, as text; "" if nothing is left out."""
    steps: int
    """Training steps per model."""
    tokens: int
    """Number of tokens that all models together are trained on."""
    tokens_left: int
    """The part of ``tokens`` for the models that are still to be trained."""
    parameters: int
    """Number of parameters per model."""
    flops: float
    """Floating-point operations of training and scoring all models."""
    step_seconds: float
    """Measured time of a training step, in seconds."""
    workers: int
    """Number of models that are trained at the same time."""
    seconds: float
    """Estimated time in seconds for the models that are not finished yet."""
    disk_bytes: int
    """Estimated size of the output folder, in bytes."""
    targets: dict[str, str] = field(default_factory=dict)
    """Number and size of the items of each target, such as ``7 documents, 21 kB of text``."""
    warnings: tuple[str, ...] = ()
    """A warning for each target that has too few items."""

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return asdict(self)

    def text(self, out: Path) -> str:
        """Return the plan as text for a terminal; ``out`` is the output folder."""
        what = f"{self.models:,}"
        if self.confirm:
            what += f", of which at most {self.confirm} confirm the answer"
        if self.beside:
            what += (
                f"; {self.beside:,} confirmed earlier answers or come from another search, and do "
                "not count in the budget"
            )
        if self.enqueued:
            what += f"; {self.enqueued:,} of the budget for mixtures of --enqueue"
        if self.done:
            what += f"; {self.done:,} are trained already"
            if self.left:
                what += f", and {'at most ' if self.confirm else ''}{self.left:,} are left"
        if self.scored:
            what += f"; {self.scored:,} are kept by another search, and only scored"
        left_of_all = ""
        if self.tokens_left < self.tokens:
            left_of_all = f", {_short(self.tokens_left)} of them by the models that are left"
        at_once = f", {self.workers} at a time" if self.workers > 1 else ""
        left = (
            f"about {duration(self.seconds)}{at_once}, from the time of a training step measured "
            f"on this machine, {_step(self.step_seconds)}"
        )
        rows = [
            ("models", what),
            ("size", f"{_short(self.parameters)} parameters, {self.steps:,} steps each"),
            ("tokens", f"{_short(self.tokens)} trained on in all{left_of_all}"),
            ("FLOPs", f"{self.flops:.2g}{' in all' if left_of_all else ''}"),
            ("time", left),
            *([("not counted", self.not_counted)] if self.not_counted else []),
            ("disk", f"about {_short(self.disk_bytes)}B in {out}, {_free(out)} free there"),
            *((f"target {name}", what) for name, what in self.targets.items()),
        ]
        table = text_table(("plan", ""), rows, left=2)
        return "\n".join([table, *(f"warning: {warning}" for warning in self.warnings)])


def plan_search(
    directory: Path,
    targets: Sequence[str],
    settings: SearchSettings,
    search: Search,
    engine: Engine,
    keep_proxies: int = 0,
    kept: int = 0,
) -> CostPlan:
    """Return the estimated cost of a search, from one measured step of a proxy; write nothing.

    ``search`` is the search, opened on its log. The step is measured in a process of
    ``engine``, like the processes that train proxies.
    ``keep_proxies`` is the largest number of bytes that kept proxies may take. The first ``kept``
    proxies were trained and kept by another search, so they are only scored.
    """
    workers = engine.workers
    manifest = Manifest.load(directory)
    proxy = settings.rehearsal()
    confirm, log = search.to_confirm, search.log
    beside = len(log.earlier) - log.spent
    models = max(search.planned, kept) + confirm + beside
    scored = {spec: target_items(load_target(directory, spec)) for spec in targets}
    done = len(log.trials)
    cost = _step_cost(proxy, manifest, engine)
    trained = max(0, models - kept)
    left, unscored = max(0, models - max(done, kept)), max(0, kept - done)
    tokens_each = proxy.steps * proxy.seq_len * proxy.batch_rows
    scoring = _scoring_steps(scored, proxy)
    turns = (proxy.steps + scoring) * -(-left // workers) + scoring * -(-unscored // workers)
    items = sum(len(each.sizes) for each in scored.values())
    a_trial = _TRIAL_BYTES + _WEIGHT_BYTES * len(manifest.clusters) + _COST_BYTES * items
    return CostPlan(
        models=models,
        done=done,
        scored=unscored,
        confirm=confirm,
        beside=beside,
        not_counted=_NOT_COUNTED,
        steps=proxy.steps,
        enqueued=search.waiting,
        left=left,
        tokens=trained * tokens_each,
        tokens_left=left * tokens_each,
        parameters=cost.parameters,
        flops=(trained * proxy.steps + models * scoring) * cost.flops,
        step_seconds=cost.seconds,
        workers=min(workers, left or unscored) or 1,
        seconds=cost.seconds * turns,
        disk_bytes=2 * models * a_trial
        + min(keep_proxies, _KEPT_BYTES * trained * cost.parameters),
        targets={spec: each.text for spec, each in scored.items()},
        warnings=tuple(w for spec, each in scored.items() if (w := each.warning(spec))),
    )


def plan_doremi(
    directory: Path,
    targets: Sequence[str],
    settings: TrainSettings,
    engine: Engine,
    *,
    done: bool = False,
) -> CostPlan:
    """Return the estimated cost of DoReMi, from one measured step.

    The step is measured in a process of ``engine``. ``done`` says whether the search has ended.
    """
    manifest = Manifest.load(directory)
    scored = {spec: target_items(load_target(directory, spec)) for spec in targets}
    cost = _step_cost(settings, manifest, engine)
    both = settings.steps * (2 + _FORWARD)
    proxy = settings.steps + _scoring_steps(scored, settings) if targets else 0.0
    models = 4 if targets else 2
    tokens = models * settings.steps * settings.seq_len * settings.batch_rows
    workers = min(engine.workers, 2) if targets else 1
    return CostPlan(
        models=models,
        done=models if done else 0,
        left=0 if done else models,
        confirm=0,
        steps=settings.steps,
        tokens=tokens,
        tokens_left=0 if done else tokens,
        parameters=cost.parameters,
        flops=(both + 2 * proxy) * cost.flops,
        step_seconds=cost.seconds,
        workers=workers,
        seconds=0.0 if done else cost.seconds * (both + 2 / workers * proxy),
        disk_bytes=0 if done else 4 * cost.parameters * 2 * _CHECKPOINT_COPIES,
        targets={spec: each.text for spec, each in scored.items()},
        warnings=tuple(w for spec, each in scored.items() if (w := each.warning(spec))),
    )


def plan_train(
    directory: str | Path, mixture: Mixture | Schedule | None, settings: TrainSettings
) -> CostPlan:
    """Return the estimated cost of `train_run` on this machine, from one measured step.

    Raises:
        UsageError: A setting is invalid.
        InvalidDataError: A cluster that is unknown, or has too few tokens for one row, has a weight
            above 0.
    """
    manifest = Manifest.load(directory)
    check_base(settings.base, directory, settings.seq_len)
    MixtureLoader(directory, mixture, seq_len=settings.seq_len, batch_rows=settings.batch_rows)
    logger.info(_MEASURES)
    cost = measure_step(StepTask(settings=settings, vocab_size=manifest.vocab_size))
    tokens = settings.steps * settings.seq_len * settings.batch_rows
    return CostPlan(
        models=1,
        done=0,
        left=1,
        confirm=0,
        steps=settings.steps,
        tokens=tokens,
        tokens_left=tokens,
        parameters=cost.parameters,
        flops=settings.steps * cost.flops,
        step_seconds=cost.seconds,
        workers=1,
        seconds=cost.seconds * settings.steps,
        disk_bytes=4 * cost.parameters * (1 + 2 * _CHECKPOINT_COPIES)
        + settings.steps * len(manifest.clusters),
    )


def _step_cost(proxy: TrainSettings, manifest: Manifest, engine: Engine) -> StepCost:
    """Measure the cost of a step of ``proxy`` in a process of ``engine``."""
    logger.info(_MEASURES)
    task = StepTask(settings=proxy, vocab_size=manifest.vocab_size, threads=1)
    ((_, cost),) = engine.run(measure_step, [task])
    return cost


def _scoring_steps(scored: dict[str, TargetItems], proxy: TrainSettings) -> float:
    """Estimate the cost of scoring one proxy on all targets, as a number of training steps."""
    tokens = sum(float(each.sizes.sum()) for each in scored.values()) / _BYTES_PER_TOKEN
    return _FORWARD * tokens / (proxy.seq_len * proxy.batch_rows)


def _step(seconds: float) -> str:
    """Return the time of a step as text.

    >>> _step(2.19), _step(0.149), _step(0.00052)
    ('2.2 s', '149 ms', '0.52 ms')
    """
    return duration(seconds) if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _short(value: float) -> str:
    """Return a number as text with a metric prefix, to which a unit can be appended.

    >>> _short(11_081_000), _short(999_936), _short(12)
    ('11.1 M', '1 M', '12 ')
    """
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.0f} "


def _free(out: Path) -> str:
    """Return, as text, the free bytes of the file system that has, or will have, ``out``."""
    place = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    return f"{_short(shutil.disk_usage(place).free)}B"
