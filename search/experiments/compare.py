"""Compare mixtures: train models that differ only in mixture and seed, and score them.

Models are scored on the test half of each target, because a search uses only the other half.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from climbstream.loader import Manifest, Mixture
from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.local import LocalEngine
from climbstream.loader.core.errors import ClimbError, InvalidDataError
from climbstream.loader.core.files import append_line, lock, read_lines
from climbstream.loader.core.typed import Finite, Whole, convert, located
from climbstream.loader.formats.outputs import COMPARE
from climbstream.search.evaluation.comparison import Comparison
from climbstream.search.evaluation.targets import load_target, target_hashes
from climbstream.search.optimizer.items import TargetItems, objection, with_few_items
from climbstream.search.training.base_model import check_base
from climbstream.search.training.settings import TrainSettings

from .items import target_items
from .proxy import PRELOAD, ProxyTask, run_proxy

_RUNS = "runs.jsonl"
"""Name of the file with one line of scores for each finished run."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One finished run: a line of the file `_RUNS`."""

    mixture: str
    """Name of the mixture."""
    seed: Whole
    scores: dict[str, Finite]
    """Score on each target."""
    costs: dict[str, list[Finite]] = field(default_factory=dict)
    """Cost of each item (see `Score`) by target; empty if an earlier version wrote the line."""


def compare(
    directory: Path,
    mixtures: Mapping[str, Mixture],
    targets: Sequence[str],
    settings: TrainSettings,
    seeds: Sequence[int],
    out: Path,
    *,
    workers: int | None = None,
) -> dict[str, Comparison]:
    """Train and score models on each mixture; return a comparison of the mixtures for each target.

    One model is trained and scored for each pair of a mixture and a seed. Runs that are finished in
    ``out`` are not repeated.

    Raises:
        ClimbError: A run failed.
        InvalidDataError: ``out`` holds a comparison with different arguments.
    """
    check_base(settings.base, directory, settings.seq_len)
    plan = {
        "shards": Manifest.load(directory).fingerprint,
        "mixtures": {name: mixture.weights for name, mixture in mixtures.items()},
        "targets": target_hashes(directory, targets),
        "settings": settings.to_json(),
        "seeds": list(seeds),
    }
    tasks = [
        ProxyTask(
            directory=directory,
            mixture=Mixture(mixture.weights, {"name": name}),
            seed=seed,
            settings=settings,
            targets=tuple(targets),
            half="test",
        )
        for seed in seeds
        for name, mixture in mixtures.items()
    ]
    with lock(out):
        COMPARE.begin(out, plan)
        runs = _run_all(tasks, targets, out / _RUNS, workers)
    return {
        target: _comparison(
            target_items(load_target(directory, target), "test"),
            target,
            {name: [runs[name, seed] for seed in seeds] for name in mixtures},
        )
        for target in targets
    }


def _comparison(items: TargetItems, target: str, runs: Mapping[str, Sequence[_Run]]) -> Comparison:
    """Compare the ``runs`` of all mixtures on one target, which has these ``items``."""
    costs = {name: [run.costs.get(target, []) for run in of] for name, of in runs.items()}
    complete = all(len(row) == len(items.sizes) for rows in costs.values() for row in rows)
    pairs = permutations(runs, 2) if complete else ()
    return Comparison(
        {name: [run.scores[target] for run in of] for name, of in runs.items()},
        items.unit,
        items.text,
        {(a, b): items.gain_sd(np.array(costs[a]), np.array(costs[b])) for a, b in pairs},
        items.warning(target),
        objection(with_few_items({target: items})),
    )


def _run_all(
    tasks: Sequence[ProxyTask], targets: Sequence[str], log: Path, workers: int | None
) -> dict[tuple[str, int], _Run]:
    """Train and score the ``tasks`` that are not in ``log``; return all runs by mixture and seed.

    Raises:
        ClimbError: A run failed.
    """
    runs = {(run.mixture, run.seed): run for run in _read_runs(log, targets)}
    rest = [task for task in tasks if (task.mixture.about["name"], task.seed) not in runs]
    with (
        LocalEngine(workers, gpus=True, preload=PRELOAD) as pool,
        Progress("compare", len(tasks), "runs", len(runs)) as bar,
    ):
        for task, result in pool.run(run_proxy, rest):
            name = task.mixture.about["name"]
            if result.scores is None:
                raise ClimbError(f"the run of {name} with seed {task.seed}: {result.why}")
            costs = {t: [round(cost, 4) for cost in of] for t, of in result.costs.items()}
            run = _Run(name, task.seed, result.scores, costs)
            append_line(log, asdict(run))
            runs[name, task.seed] = run
            bar.add(1, name)
    return runs


def _read_runs(path: Path, targets: Sequence[str]) -> list[_Run]:
    """Read the finished runs; an empty list if the file is missing.

    Raises:
        InvalidDataError: A line holds no scores, or scores of targets other than ``targets``.
    """

    def read(value: Any) -> _Run:
        run = convert(value, _Run, "run of a comparison")
        if run.scores.keys() != set(targets):
            raise InvalidDataError(f"there are scores of {', '.join(run.scores) or 'nothing'}")
        return run

    lines = enumerate(read_lines(path), start=1)
    return [located(read, line, f"{path}, line {number}") for number, line in lines]
