"""The mean of paired differences, its standard error, and whether a t-test tells it from 0."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import ttest_1samp

from climbstream.search.predictors.base import Floats

CONFIDENCE = 0.95
"""Confidence with which a mean difference is told from 0 (two-sided t-test)."""


@dataclass(frozen=True)
class MeanDifference:
    """The mean of paired differences, its standard error, and its interval of `CONFIDENCE`."""

    mean: float
    error: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 if the mean is above 0 with `CONFIDENCE`, -1 if it is below 0, and 0 if it is open."""
        return int(self.low > 0) - int(self.high < 0)


def mean_difference(differences: Sequence[float] | Floats) -> MeanDifference:
    """Return what ``differences`` show; of fewer than two, or of equal ones, the sign is open."""
    values = np.asarray(differences, float)
    if len(values) < 2 or np.ptp(values) == 0:
        return MeanDifference(float(values.mean()), float("nan"), -np.inf, np.inf)
    low, high = ttest_1samp(values, 0.0).confidence_interval(CONFIDENCE)
    return MeanDifference(float(values.mean()), standard_error(values), float(low), float(high))


def standard_error(values: Sequence[float] | Floats) -> float:
    """Return the standard error of the mean of ``values``; NaN for fewer than two."""
    if len(values) < 2:
        return float("nan")
    return float(np.std(values, ddof=1) / len(values) ** 0.5)
