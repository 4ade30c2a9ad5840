"""Surrogate: predicts the total score of mixtures, with predictors of each target.

The total score joins the scores on all targets to one number (`Observations.joined`).
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from climbstream.search.predictors.base import NORMAL_95, Floats, Make, Skill
from climbstream.search.predictors.gaussian_process import Feature, GaussianProcess
from climbstream.search.predictors.stacking import Stack, share_by_error

from .observations import Observations
from .transfer import Columns


class Surrogate:
    """Predicts the scores of mixtures from the trials, with one `Stack` per target.

    Args:
        known: Scored trials, at least one.
        makes: Predictors to stack.
        seed: Seed of the folds of cross-validation.
        features: Features by target, then by name of the feature. For each feature, one more
            Gaussian process is stacked, whose mean is the feature.
        columns: Inputs of the predictors for a mixture; None means the weights of the mixture.
    """

    def __init__(
        self,
        known: Observations,
        makes: Sequence[Make],
        seed: int,
        features: Mapping[str, Mapping[str, Feature]] | None = None,
        columns: Columns | None = None,
    ) -> None:
        self.known = known
        self._makes, self._seed = makes, seed
        self._columns = columns or Columns([])
        self.stacks: list[Stack] = []
        for target, column in zip(known.targets, known.scores.T, strict=True):
            guesses = (features or {}).get(target, {})
            seen = {on: self._columns.feature(guess) for on, guess in guesses.items()}
            stack = Stack(_with(makes, seen), seed)
            stack.fit(known.columns, column)
            self.stacks.append(stack)
        share_by_error(self.stacks, known.importance)
        out_of_fold = np.stack([stack.out_of_fold for stack in self.stacks], axis=1)
        self.expected = known.joined(out_of_fold)
        """Total score of each trial as predicted from the other trials, ``[n]``."""
        self.error = float(np.sqrt(np.mean((self.expected - known.total) ** 2)))
        """Root mean square error of ``expected`` as a prediction of the measured total scores."""
        self.table: list[Skill] = [
            replace(skill, target=target)
            for target, stack in zip(known.targets, self.stacks, strict=True)
            for skill in stack.skills
        ]

    def exploring(self) -> "Surrogate":
        """Return the same predictors; each target has its own shares, as if it were the only one.

        A search that chooses its mixtures by these shares finds better ones, although the joint
        shares predict the total score better (docs/decisions/results.md). Only predictions and
        their sds differ; `error`, `expected` and `table` are those of the joint shares.
        """
        other = copy.copy(self)
        other.stacks = [copy.copy(stack) for stack in self.stacks]
        for stack in other.stacks:
            share_by_error([stack], np.ones(1))
        return other

    @property
    def useful(self) -> bool:
        """Whether out-of-fold predictions have smaller errors than the mean of all scores has."""
        return self.error < float(self.known.total.std())

    @property
    def surely_useful(self) -> bool:
        """Whether the errors of `useful` differ by more than chance: with 95 % confidence.

        The test compares the squared errors of each trial, one-sided. In some searches on pure
        noise, predictions are useful by chance, but they are not surely useful.
        """
        total = self.known.total
        saved = (total - total.mean()) ** 2 - (total - self.expected) ** 2
        return float(saved.mean()) > NORMAL_95 * float(saved.std(ddof=1)) / math.sqrt(len(saved))

    def fitted(self) -> Floats:
        """Predict the standardised scores of the trials in ``known``: float64 ``[n, T]``."""
        return np.stack([stack.predict(self.known.columns) for stack in self.stacks], axis=1)

    def scores(self, weights: Floats) -> Floats:
        """Predict the standardised scores of ``weights`` (``[m, K]``): float64 ``[m, T]``."""
        seen = self._columns.of(weights)
        return np.stack([stack.predict(seen) for stack in self.stacks], axis=1)

    def total(self, weights: Floats) -> Floats:
        """Predict the total scores of ``weights`` (``[m, K]``): float64 ``[m]``, less is better."""
        return self.known.joined(self.scores(weights))

    def again(self, scores: Floats) -> Callable[[Floats], Floats]:
        """Return a function like `total`, from predictor copies that are fitted to ``scores``.

        ``scores`` are standardised scores of the mixtures in ``known``, ``[n, T]``. The predictors
        of this surrogate do not change.
        """
        predict = [
            stack.again(self.known.columns, column)
            for stack, column in zip(self.stacks, scores.T, strict=True)
        ]

        def total(weights: Floats) -> Floats:
            seen = self._columns.of(weights)
            return self.known.joined(np.stack([each(seen) for each in predict], axis=1))

        return total

    def sd(self, weights: Floats) -> Floats:
        """Return the sd of the error of each result of `total`: float64 ``[m]``.

        Errors on different targets count as independent.
        """
        return np.asarray(np.sqrt(self.sds(weights) ** 2 @ self.known.importance**2), np.float64)

    @property
    def knows_gaps(self) -> bool:
        """Whether `gain` may be called: all stacks can estimate the sd of a difference."""
        return all(stack.knows_gaps for stack in self.stacks)

    def gain(self, weights: Floats, base: Floats) -> tuple[float, float]:
        """Return the predicted gain of ``weights`` over ``base`` (``[K]`` each), and its sd."""
        two = np.stack([weights, base])
        ours, theirs = self.total(two).tolist()
        return theirs - ours, math.hypot(*(self._gap_sds(two) * self.known.importance).tolist())

    def gains(self, weights: Floats, base: Floats) -> tuple[Floats, Floats]:
        """Return what `gain` returns, but for each target: ``[T]`` each, in sds of its scores."""
        two = np.stack([weights, base])
        ours, theirs = self.scores(two)
        return theirs - ours, self._gap_sds(two)

    def sds(self, weights: Floats) -> Floats:
        """Return the sd of the error of each result of `scores`: float64 ``[m, T]``."""
        seen = self._columns.of(weights)
        return np.stack([stack.sd(seen) for stack in self.stacks], axis=1)

    def _gap_sds(self, two: Floats) -> Floats:
        """Return the sd of the predicted difference between two mixtures, by target: ``[T]``."""
        return np.array([stack.gap_sd(self._columns.of(two)) for stack in self.stacks])

    def draw(self, weights: Floats, n: int, rng: np.random.Generator) -> Floats:
        """Draw ``n`` possible total scores for each of ``weights`` (``[m, K]``): ``[n, m]``."""
        seen = self._columns.of(weights)
        samples = np.stack(
            [stack.draw(seen, n, rng) + stack.predict(seen) for stack in self.stacks], axis=2
        )
        return np.stack([self.known.joined(each) for each in samples])


def _with(makes: Sequence[Make], features: Mapping[str, Feature]) -> list[Make]:
    """Return ``makes`` and, if it has a Gaussian process, one more with each of ``features``."""
    if GaussianProcess not in makes:
        return list(makes)
    return [*(partial(GaussianProcess, each, on) for on, each in features.items()), *makes]
