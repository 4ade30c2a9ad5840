"""Confirm: run the candidates for the answer again, then choose the answer.

A candidate is the mixture with the best measured score, or the one with the best predicted score.

The score of the best of many measured mixtures is mostly luck. So the candidates and the token
shares are run again with new seeds, and every mixture has the same new seeds. Runs of different
mixtures with the same seed share part of their noise. This part cancels in the difference between
their scores. The mean of these differences is combined with the earlier gain from the search.
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
    """Return the mixtures to run again, by choice: ``baseline``, ``measured`` and ``predicted``.

    A candidate that is the token shares is left out. The result is empty if no candidate is left.
    """
    mixtures = {BASE: base} | {c.choice: c.mixture for c in answer.candidates}
    return mixtures if len(mixtures) > 1 else {}


def confirm(answer: Answer, base: Mixture, trials: Sequence[Trial], known: Observations) -> Answer:
    """Return the answer, chosen again with ``trials`` of the mixtures of `to_confirm`.

    Args:
        answer: The answer of the search so far.
        base: The token shares, moved within the limits.
        trials: Runs of the candidates and the token shares. If a run with a seed failed, all runs
            with that seed are ignored. Runs of other mixtures are also ignored. A candidate without
            any run keeps its gain, and is not chosen.
        known: The scored trials from which ``answer`` was chosen. They determine how the scores on
            several targets are joined.
    """
    runs = _Runs.of(to_confirm(answer, base), trials, known)
    if not runs.seeds:
        return replace(answer, reason=f"{answer.reason} {_no_runs(trials)}")
    error = runs.error(*known.noise())
    candidates = [
        _weigh(each, runs.gain(each.choice), error, runs.gains(each.choice, known))
        if each.choice in runs.totals
        else each
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
    """Runs of the candidates and of the token shares, with the seeds that all mixtures have."""

    seeds: list[int]
    """Seeds with which no run failed."""
    scores: dict[str, dict[str, list[float]]]
    """Scores by choice and target, one score for each of ``seeds``."""
    totals: dict[str, NDArray[np.float64]]
    """Joint score over all targets for each of ``seeds``, in sd, by choice."""

    @classmethod
    def of(
        cls, mixtures: Mapping[str, Mixture], trials: Sequence[Trial], known: Observations
    ) -> Self:
        """Collect the ``trials`` of ``mixtures``; scores of targets are joined as in ``known``."""
        # Some mixtures may have no trial, if the log comes from another version or from a machine
        # whose arithmetic differs in the last bit.
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
        """Return the mean gain of ``choice`` over the token shares, in sd; negative if worse."""
        return float((self.totals[BASE] - self.totals[choice]).mean())

    def gains(self, choice: str, known: Observations) -> dict[str, tuple[float, float | None]]:
        """Return the mean gain of ``choice`` and its sd by target, in sd; None means unknown."""
        gains = {}
        for target, scale in zip(known.targets, known.scale.tolist(), strict=True):
            scores = {name: np.array(of[target]) / scale for name, of in self.scores.items()}
            error = seed_error(np.stack([*scores.values()]), *known.noise_on(target))
            gains[target] = float((scores[BASE] - scores[choice]).mean()), error
        return gains

    def error(self, noise: float | None, repeats: int) -> float | None:
        """Return the sd of the result of `gain`; None if the sd is unknown.

        ``noise`` is the sd of single runs in the search, with ``repeats`` degrees of freedom.
        """
        return seed_error(np.stack([*self.totals.values()]), noise, repeats)


def seed_error(scores: NDArray[np.float64], noise: float | None, repeats: int) -> float | None:
    """Return the sd of the difference between the mean scores, over all seeds, of any two mixtures.

    Args:
        scores: Scores of all mixtures with the same seeds, ``[mixtures, seeds]``.
        noise: Sd of single runs in the search, in the unit of ``scores``; None if unknown.
        repeats: Degrees of freedom of ``noise``.

    Returns:
        The sd; None if ``scores`` has a single seed or mixture and ``noise`` is unknown.
    """
    # Subtract the means of mixtures and of seeds; the rest is noise.
    rest = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    freedom = (rest.shape[0] - 1) * (rest.shape[1] - 1)
    squares = float((rest**2).sum())
    sds = [upper_confidence_sd(math.sqrt(squares / freedom), freedom)] if freedom else []
    if noise is not None:
        # Runs that share a seed have at most the noise of single runs. So pool all repeats: their
        # sd is more precise than an sd from a few pairs.
        pooled = (squares + repeats * noise**2) / (freedom + repeats)
        sds += [upper_confidence_sd(math.sqrt(pooled), freedom + repeats)]
    return min(sds) * math.sqrt(2 / scores.shape[1]) if sds else None


def _weigh(
    candidate: Candidate,
    gain: float,
    error: float | None,
    gains: Mapping[str, tuple[float, float | None]],
) -> Candidate:
    """Return ``candidate`` with its earlier gains joined with those of its new runs.

    Args:
        candidate: The candidate before the new runs.
        gain: Joint gain in the new runs.
        error: Sd of ``gain``; None if unknown.
        gains: Gain in the new runs on each target, and its sd.
    """
    joined, joined_sd = _join(candidate.gain, candidate.gain_sd, gain, error)
    each = {
        target: (one, sd)
        for target, before in candidate.gains.items()
        for one, sd in [_join(*before, *gains[target])]
        if sd is not None
    }
    return replace(candidate, gain=joined, gain_sd=joined_sd, gains=each, expected=candidate.gain)


def _join(
    before: float | None, before_sd: float | None, gain: float, error: float | None
) -> tuple[float, float | None]:
    """Return an earlier gain joined with the ``gain`` of new runs, and the sd of the result."""
    if error is None or before is None or before_sd is None:
        return gain, error
    if abs(gain - before) > MIN_RAW_GAIN_SDS * math.hypot(before_sd, error):
        # The two gains contradict each other. The earlier gain was chosen as the best of many, and
        # the gain of the new runs was not. So only the gain of the new runs is used.
        return gain, error
    # An sd is 0 if all runs have equal scores; the floor avoids a division by 0.
    one, other = (max(sd, 1e-9) ** -2 for sd in (before_sd, error))
    return (one * before + other * gain) / (one + other), (one + other) ** -0.5


def _no_runs(trials: Sequence[Trial]) -> str:
    """Return a sentence that explains why ``trials`` confirm nothing."""
    failed = sum(trial.scores is None for trial in trials)
    if failed == len(trials):
        return "All new runs, which were to confirm that, failed."
    return (
        f"New runs could not confirm that: of {counted(len(trials), 'run')}, {failed} failed, and "
        "no seed has scores of the token-share mixture and of every candidate that was run."
    )
