"""Observations: what trials tell, as arrays for predictors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.formats.mixture import Mixture

from .trials import Trial

CEILING_PENALTY = 10.0
"""Sd of the mean score that a mixture pays for each sd above a ceiling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """Scored trials as arrays of ``n`` rows, ``K`` clusters and ``T`` targets."""

    trials: list[Trial]
    weights: NDArray[np.float64]
    """``[n, K]``."""
    scores: NDArray[np.float64]
    """``[n, T]``, each target standardised and signed so that less is better."""
    total: NDArray[np.float64]
    """``[n]``, ``scores`` as `joined`."""
    importance: NDArray[np.float64]
    """``[T]``, weight of each target in the mean of all, sum 1."""
    ceilings: NDArray[np.float64]
    """``[T]``, standardised scores that a mixture may not pass; infinite where all is allowed."""
    targets: dict[str, str]
    mean: NDArray[np.float64]
    """``[T]``, in the targets' own units."""
    scale: NDArray[np.float64]
    """``[T]``, standard deviation in the targets' own units; negative if more is better."""

    @classmethod
    def of(
        cls,
        trials: Sequence[Trial],
        clusters: Sequence[str],
        targets: dict[str, str],
        importance: NDArray[np.float64],
        allowed: Mapping[str, float] | None = None,
        base: Mixture | None = None,
    ) -> Self:
        """Collect the trials that have scores.

        Args:
            trials: Of one search.
            clusters: Names, in the order of the columns.
            targets: ``"min"`` or ``"max"`` by name.
            importance: ``[T]``, sum 1.
            allowed: By how much a target may be worse than with ``base``, in its own units.
            base: Until it has scores, everything is allowed.
        """
        scored = [trial for trial in trials if trial.scores is not None]
        weights = [trial.mixture.array(clusters) for trial in scored]
        raw = np.array(
            [[trial.scores[name] for name in targets] for trial in scored if trial.scores],
            np.float64,
        ).reshape(-1, len(targets))
        mean = raw.mean(axis=0) if scored else np.zeros(len(targets))
        sd = raw.std(axis=0) if scored else np.zeros(len(targets))
        # Rounding leaves equal scores an sd of an ulp or two, which is not worth blowing up.
        sd[sd <= 1e-12 * np.abs(mean)] = 1.0
        scale = sd * [1.0 if way == "min" else -1.0 for way in targets.values()]
        scores = (raw - mean) / scale
        slack = np.array([(allowed or {}).get(name, math.inf) for name in targets])
        rows = [row for row, trial in enumerate(scored) if trial.mixture == base]
        at_base = scores[rows].mean(axis=0) if rows else np.full(len(targets), math.inf)
        ceilings = at_base + slack / np.abs(scale)
        return cls(
            trials=scored,
            weights=np.array(weights, np.float64).reshape(-1, len(clusters)),
            scores=scores,
            total=_joined(scores, importance, ceilings),
            importance=importance,
            ceilings=ceilings,
            targets=targets,
            mean=mean,
            scale=scale,
        )

    def joined(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Join standardised ``scores`` (``[m, T]``) to one number a mixture, less is better.

        Their mean, weighted by importance; and `CEILING_PENALTY` for each sd above a ceiling.
        """
        return _joined(scores, self.importance, self.ceilings)

    def standard(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standardise ``scores`` (``[m, T]``) that are in the targets' own units."""
        return (scores - self.mean) / self.scale

    def units(self, scores: NDArray[np.float64]) -> dict[str, float]:
        """Turn standardised ``scores`` (``[T]``) back into the targets' own units, by name."""
        return dict(zip(self.targets, (scores * self.scale + self.mean).tolist(), strict=True))

    def repeats(self) -> list[NDArray[np.int64]]:
        """Group the rows by mixture, in the order of their first trials."""
        groups: dict[str, list[int]] = {}
        for row, trial in enumerate(self.trials):
            groups.setdefault(trial.mixture.fingerprint, []).append(row)
        return [np.array(rows, np.int64) for rows in groups.values()]

    def noise(self) -> tuple[float | None, int]:
        """Estimate the sd of the mean score between runs of one mixture, from the repeats.

        Returns:
            The sd, None without repeats, and its degrees of freedom.
        """
        groups = self.repeats()
        freedom = len(self.trials) - len(groups)
        mean = self.scores @ self.importance
        squares = sum(float(((mean[g] - mean[g].mean()) ** 2).sum()) for g in groups)
        return (math.sqrt(squares / freedom) if freedom else None), freedom


def _joined(
    scores: NDArray[np.float64], importance: NDArray[np.float64], ceilings: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.asarray(
        scores @ importance + CEILING_PENALTY * np.maximum(scores - ceilings, 0.0).sum(axis=1),
        np.float64,
    )
