"""Compare mixtures: the same model, equal tokens, several seeds; mean and standard error.

Runs of one seed share the fresh weights, so mixtures are compared in pairs, which cancels part of
the noise. Scores are on the half of the target that the search has not seen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from climbstream.loader import Manifest, Mixture
from climbstream.loader.errors import ClimbError
from climbstream.loader.plan import begin_or_continue
from climbstream.loader.pool import Pool
from climbstream.loader.progress import Progress
from climbstream.loader.storage import append_line, lock, read_lines, remove_temporaries

from .base import check_base
from .proxy import ProxyTask, run_proxy
from .target import target_hashes
from .train import TrainSettings


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scores of several mixtures on one target, bits per byte, lower is better."""

    scores: dict[str, list[float]]
    """By name of mixture: one score a seed, in the same order of seeds."""

    def mean(self, name: str) -> tuple[float, float]:
        """Mean score of a mixture and its standard error."""
        return mean_and_error(self.scores[name])

    def gain(self, name: str, over: str) -> tuple[float, float]:
        """Mean paired gain of one mixture over another, positive if better, and its error."""
        pairs = zip(self.scores[over], self.scores[name], strict=True)
        return mean_and_error([theirs - ours for theirs, ours in pairs])

    def verdict(self, name: str) -> tuple[bool, str]:
        """Whether ``name`` beats all others by more than two standard errors, in a sentence."""
        parts, holds = [], True
        for other in self.scores:
            if other == name:
                continue
            gain, error = self.gain(name, other)
            holds &= gain > 2 * error
            parts.append(f"{other} by {gain:+.4f} ± {error:.4f}")
        seeds = len(self.scores[name])
        text = f"bits per byte, mean gain and its standard error over {seeds} paired seeds"
        if holds:
            return True, f"The {name} mixture beats {' and '.join(parts)} ({text})."
        return False, (
            f"The {name} mixture does not beat every other by two standard errors: "
            f"{', '.join(parts)} ({text}). Give the search a larger budget or larger proxies, "
            "or take the simpler mixture."
        )


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
    """Train and score each of ``mixtures`` with each of ``seeds``; go on if it was begun.

    Returns a comparison for each of ``targets``.

    Raises:
        ClimbError: A run failed.
        InvalidDataError: ``out`` holds another comparison.
    """
    check_base(settings.base, directory, settings.seq_len)
    plan = {
        "shards": Manifest.load(directory).fingerprint,
        "mixtures": {name: mixture.weights for name, mixture in mixtures.items()},
        "targets": target_hashes(directory, targets),
        "settings": settings.to_json(),
        "seeds": list(seeds),
    }
    with lock(out):
        remove_temporaries(out)
        begin_or_continue(out, "compare.json", plan)
        log = out / "runs.jsonl"
        done = {(run["mixture"], run["seed"]): run["scores"] for run in read_lines(log)}
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
            if (name, seed) not in done
        ]
        total = len(mixtures) * len(seeds)
        with Pool(workers, gpus=True) as pool, Progress("compare", total, "runs", len(done)) as bar:
            for task, result in pool.run(run_proxy, tasks):
                name = task.mixture.about["name"]
                if result.scores is None:
                    raise ClimbError(f"the run of {name} with seed {task.seed}: {result.why}")
                done[name, task.seed] = result.scores
                append_line(log, {"mixture": name, "seed": task.seed, "scores": result.scores})
                bar.add(1, name)
    return {
        target: Comparison(
            {name: [done[name, seed][target] for seed in seeds] for name in mixtures}
        )
        for target in targets
    }


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error; the error of a single value is not known, so infinite."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return fmean(values), error
