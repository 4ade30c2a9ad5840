"""Observations: the scores of trials, as arrays for predictors.

A trial is one mixture with the scores of a model that was trained on it. An sd is a standard
deviation.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.formats.mixture import Mixture

from .transfer import Columns, rows_of
from .trials import Trial

CEILING_PENALTY = 10.0
"""Penalty for a score above the ceiling of its target. For each sd by which a score exceeds the
ceiling, this number of sds is added to the total score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """Scored trials as arrays of ``n`` rows, ``K`` clusters and ``T`` targets."""

    trials: list[Trial]
    measured: int
    """Number of rows that are trials over the clusters of this search; these rows come first. The
    other rows are trials of an earlier search that correspond to no mixture of these clusters. Such
    rows are used only to fit predictors."""
    weights: NDArray[np.float64]
    """Weights, ``[n, K]``. Rows from ``measured`` on have the weights of the mixture of this
    search's clusters that is most similar to the mixture of the trial."""
    columns: NDArray[np.float64]
    """Inputs of the predictors for each row, ``[n, C]``: see `Columns`."""
    scores: NDArray[np.float64]
    """Scores, ``[n, T]``. Each target is standardised over the rows, and signed so that less is
    better."""
    total: NDArray[np.float64]
    """Total score of each row, ``[n]``: the result of `joined` for ``scores``."""
    importance: NDArray[np.float64]
    """Weight of each target in the mean over targets, ``[T]``, with sum 1."""
    ceilings: NDArray[np.float64]
    """Ceilings, ``[T]``: the largest standardised score on each target that a mixture should have.
    The ceiling of a target without a limit is infinite."""
    targets: dict[str, str]
    mean: NDArray[np.float64]
    """Mean score on each target in the target's own unit, ``[T]``."""
    scale: NDArray[np.float64]
    """Sd of the scores on each target in the target's own unit, ``[T]``. It has a negative sign if
    more is better."""

    @classmethod
    def of(
        cls,
        trials: Sequence[Trial],
        clusters: Sequence[str],
        targets: dict[str, str],
        importance: NDArray[np.float64],
        allowed: Mapping[str, float] | None = None,
        base: Mixture | None = None,
        columns: Columns | None = None,
        apart: Sequence[Trial] = (),
    ) -> Self:
        """Collect the trials that have scores.

        Args:
            trials: Trials of one search.
            clusters: Names of the clusters, in the order of the columns of ``weights``.
            targets: ``"min"`` or ``"max"`` by name of the target.
            importance: Weight of each target, ``[T]``, with sum 1.
            allowed: How much worse than with ``base`` a score may be, in the target's own unit, by
                name of the target.
            base: The mixture with which ``allowed`` compares. If it has no scores, no target has a
                limit.
            columns: Inputs of the predictors for a mixture; None means the weights of the mixture.
            apart: Scored trials over the clusters of an earlier search.
        """
        columns = columns or Columns(clusters)
        scored = [trial for trial in trials if trial.scores is not None]
        measured, weights = len(scored), rows_of(scored, clusters)
        seen = columns.of(weights)
        if apart:
            nearest, theirs = columns.of_old(apart)
            weights, seen = np.concatenate([weights, nearest]), np.concatenate([seen, theirs])
            scored += apart
        raw = np.array(
            [[trial.scores[name] for name in targets] for trial in scored if trial.scores],
            np.float64,
        ).reshape(-1, len(targets))
        mean = raw.mean(axis=0) if scored else np.zeros(len(targets))
        sd = raw.std(axis=0) if scored else np.zeros(len(targets))
        # By rounding, equal scores have an sd of an ulp or two. Do not divide by such an sd.
        sd[sd <= 1e-12 * np.abs(mean)] = 1.0
        scale = sd * [1.0 if way == "min" else -1.0 for way in targets.values()]
        scores = (raw - mean) / scale
        slack = np.array([(allowed or {}).get(name, math.inf) for name in targets])
        rows = [row for row, trial in enumerate(scored[:measured]) if trial.mixture == base]
        at_base = scores[rows].mean(axis=0) if rows else np.full(len(targets), math.inf)
        ceilings = at_base + slack / np.abs(scale)
        return cls(
            trials=scored,
            measured=measured,
            weights=weights,
            columns=seen,
            scores=scores,
            total=_joined(scores, importance, ceilings),
            importance=importance,
            ceilings=ceilings,
            targets=targets,
            mean=mean,
            scale=scale,
        )

    def joined(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Join standardised ``scores`` (``[m, T]``) to one total score per mixture; less is better.

        The total score is the mean over targets, weighted by importance, plus a penalty. The
        penalty is `CEILING_PENALTY` times the number of sds by which scores exceed the ceilings of
        their targets.
        """
        return _joined(scores, self.importance, self.ceilings)

    def standard(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standardise ``scores`` (``[m, T]``) that are in the targets' own units."""
        return (scores - self.mean) / self.scale

    def units(self, scores: NDArray[np.float64]) -> dict[str, float]:
        """Turn standardised ``scores`` (``[T]``) back into the targets' own units, by name."""
        return dict(zip(self.targets, (scores * self.scale + self.mean).tolist(), strict=True))

    def repeats(self) -> list[NDArray[np.int64]]:
        """Return, for each different mixture among the measured rows, the indexes of its rows.

        Mixtures are in the order of their first rows.
        """
        groups: dict[str, list[int]] = {}
        for row, trial in enumerate(self.trials[: self.measured]):
            groups.setdefault(trial.mixture.fingerprint, []).append(row)
        return [np.array(rows, np.int64) for rows in groups.values()]

    def noise(self) -> tuple[float | None, int]:
        """Estimate from repeats how much the mean score over targets differs between runs.

        Returns:
            Two numbers: the sd of the weighted mean score over targets between runs of the same
            mixture, and the degrees of freedom of this sd. The sd is None if no mixture has
            repeats.
        """
        return self._noise_of(self.scores @ self.importance)

    def noise_on(self, target: str) -> tuple[float | None, int]:
        """Return what `noise` returns, for the scores on one target alone."""
        return self._noise_of(self.scores[:, [*self.targets].index(target)])

    def _noise_of(self, scores: NDArray[np.float64]) -> tuple[float | None, int]:
        groups = self.repeats()
        freedom = self.measured - len(groups)
        squares = sum(float(((scores[g] - scores[g].mean()) ** 2).sum()) for g in groups)
        return (math.sqrt(squares / freedom) if freedom else None), freedom


def _joined(
    scores: NDArray[np.float64], importance: NDArray[np.float64], ceilings: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.asarray(
        scores @ importance + CEILING_PENALTY * np.maximum(scores - ceilings, 0.0).sum(axis=1),
        np.float64,
    )
