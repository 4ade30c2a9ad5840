"""Comparison: mean gain of one mixture over another, its standard error, and the verdict.

Runs of one seed begin with the same weights. So mixtures are compared in pairs of one seed, which
cancels part of the noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scores of several mixtures on one target, bits per byte, lower is better."""

    scores: dict[str, list[float]]
    """Scores by name of mixture, one for each seed, in the same order of seeds."""

    def mean(self, name: str) -> tuple[float, float]:
        """Mean score of a mixture and its standard error."""
        return mean_and_error(self.scores[name])

    def gain(self, name: str, over: str) -> tuple[float, float]:
        """Mean paired gain of one mixture over another (positive: better), and its error."""
        pairs = zip(self.scores[over], self.scores[name], strict=True)
        return mean_and_error([theirs - ours for theirs, ours in pairs])

    def verdict(self, name: str) -> tuple[bool, str]:
        """Say in a sentence whether ``name`` beats all others by more than two standard errors."""
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


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error; the error of a single value is unknown, so infinite."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return fmean(values), error
