"""Confirm: the candidates for the answer are run again, side by side, before one is chosen.

The best of many mixtures is mostly lucky. So the candidates and the token shares are run again with
new seeds, the same for all. Runs of one seed share part of their noise, and differences within a
seed are free of it. These differences are combined with the earlier results of the search.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.console import counted
from climbstream.loader.formats.mixture import Mixture

from .answer import BASE, Answer, Candidate, Confirmation
from .conclude import MIN_RAW_GAIN_SDS, upper_confidence_sd
from .observations import Observations
from .trials import Trial


def to_confirm(answer: Answer, base: Mixture) -> dict[str, Mixture]:
    """Return the mixtures to run again: ``baseline``, ``measured`` and ``predicted``, if different.

    Empty if only the token shares are left.
    """
    mixtures = {BASE: base} | {c.choice: c.mixture for c in answer.candidates}
    return mixtures if len(mixtures) > 1 else {}


def confirm(answer: Answer, base: Mixture, trials: Sequence[Trial], known: Observations) -> Answer:
    """Choose the answer again, after ``trials`` of the mixtures of `to_confirm`.

    Args:
        answer: The answer of the search so far.
        base: The token shares, within the limits.
        trials: Runs of the candidates; a seed with which one run failed does not count, nor do
            runs of other mixtures. A candidate without any run stays as it is, and is not chosen.
        known: The scored trials behind ``answer``, which say how scores are joined.
    """
    runs = _Runs.of(to_confirm(answer, base), trials, known)
    if not runs.seeds:
        return replace(answer, reason=f"{answer.reason} {_no_runs(trials)}")
    error = runs.error(*known.noise())
    candidates = [
        _weigh(each, runs.gain(each.choice), error) if each.choice in runs.totals else each
        for each in answer.candidates
    ]
    best = max(
        (candidate for candidate in candidates if candidate.choice in runs.totals),
        key=lambda candidate: candidate.gain or 0.0,
    )
    assert best.gain is not None
    sure = (
        runs.gain(best.choice) > 0
        and best.gain_sd is not None
        and best.gain > MIN_RAW_GAIN_SDS * best.gain_sd
    )
    choice, mixture = (best.choice, best.mixture) if sure else (BASE, base)
    return replace(
        answer,
        mixture=Mixture(mixture.weights, {"choice": choice}),
        choice=choice,
        gain=best.gain,
        gain_sd=best.gain_sd,
        candidates=candidates,
        confirmation=Confirmation(seeds=runs.seeds, scores=runs.scores),
    )


@dataclass(frozen=True, slots=True)
class _Runs:
    """Runs of the candidates and of the token shares with the same seeds."""

    seeds: list[int]
    """Seeds with which no run failed."""
    scores: dict[str, dict[str, list[float]]]
    """Scores by choice and target, one for each seed."""
    totals: dict[str, NDArray[np.float64]]
    """By choice, the joined score of each seed, in sd."""

    @classmethod
    def of(
        cls, mixtures: Mapping[str, Mixture], trials: Sequence[Trial], known: Observations
    ) -> Self:
        """Collect ``trials`` of ``mixtures``, joined as the scores in ``known`` are."""
        # Not all of them need be there: the log may be of another machine, whose arithmetic
        # differs in the last bit, or of another version.
        names = [n for n, mixture in mixtures.items() if any(mixture == t.mixture for t in trials)]
        by_seed: dict[int, dict[str, dict[str, float]]] = {}
        for trial in trials:
            for name in names:
                if trial.scores is not None and mixtures[name] == trial.mixture:
                    by_seed.setdefault(trial.seed, {})[name] = trial.scores
        whole = {s: runs for s, runs in sorted(by_seed.items()) if len(runs) == len(names)}
        if not whole or BASE not in names or len(names) == 1:
            return cls([], {}, {})
        scores = {
            name: {
                target: [runs[name][target] for runs in whole.values()] for target in known.targets
            }
            for name in names
        }
        totals = {
            name: known.joined(known.standard(np.array([*columns.values()]).T))
            for name, columns in scores.items()
        }
        return cls([*whole], scores, totals)

    def gain(self, choice: str) -> float:
        """Return by how much ``choice`` beats the token shares, in sd."""
        return float((self.totals[BASE] - self.totals[choice]).mean())

    def error(self, noise: float | None, repeats: int) -> float | None:
        """Return the sd of `gain`; None if it is unknown.

        ``noise`` is the sd of single runs in the search, with ``repeats`` degrees of freedom.
        """
        return seed_error(np.stack([*self.totals.values()]), noise, repeats)


def seed_error(scores: NDArray[np.float64], noise: float | None, repeats: int) -> float | None:
    """Return the sd of a difference between means of rows of ``scores``, None if nothing is known.

    Args:
        scores: ``[mixtures, seeds]``, runs side by side.
        noise: Sd of single runs in the search, in the unit of ``scores``.
        repeats: Degrees of freedom of ``noise``.
    """
    # What is left without the means of mixtures and of seeds is noise.
    rest = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    freedom = (rest.shape[0] - 1) * (rest.shape[1] - 1)
    squares = float((rest**2).sum())
    sds = [upper_confidence_sd(math.sqrt(squares / freedom), freedom)] if freedom else []
    if noise is not None:
        # Single runs have at least this noise, and all repeats together estimate it better than a
        # few pairs.
        pooled = (squares + repeats * noise**2) / (freedom + repeats)
        sds += [upper_confidence_sd(math.sqrt(pooled), freedom + repeats)]
    return min(sds) * math.sqrt(2 / scores.shape[1]) if sds else None


def _weigh(candidate: Candidate, gain: float, error: float | None) -> Candidate:
    """Combine the earlier gain of ``candidate`` with the ``gain`` of its new runs."""
    if error is None or candidate.gain is None or candidate.gain_sd is None:
        return replace(candidate, gain=gain, gain_sd=error)
    if abs(gain - candidate.gain) > MIN_RAW_GAIN_SDS * math.hypot(candidate.gain_sd, error):
        # The two gains contradict each other. Only the first was chosen as the best of many, so the
        # second counts.
        return replace(candidate, gain=gain, gain_sd=error)
    # equal runs leave no doubt, and would divide by it
    one, other = (max(sd, 1e-9) ** -2 for sd in (candidate.gain_sd, error))
    joined = (one * candidate.gain + other * gain) / (one + other)
    return replace(candidate, gain=joined, gain_sd=(one + other) ** -0.5)


def _no_runs(trials: Sequence[Trial]) -> str:
    """Say why ``trials`` confirm nothing."""
    failed = sum(trial.scores is None for trial in trials)
    if failed == len(trials):
        return "All runs to confirm that failed."
    return (
        f"Nothing confirms that: of {counted(len(trials), 'run')} for it {failed} failed, and no "
        "seed has scores of the token-share mixture and of every candidate that was run."
    )
