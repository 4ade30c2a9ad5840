"""Surrogate: predictors of every target, fitted to the trials, as one objective."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from climbstream.search.predictors.base import Floats, Make, Skill
from climbstream.search.predictors.gaussian_process import Feature, GaussianProcess
from climbstream.search.predictors.stacking import Stack, share_by_error

from .observations import Observations
from .transfer import Columns


class Surrogate:
    """Predicts the scores of mixtures from the trials: a `Stack` for each target.

    Args:
        known: Scored trials, at least one.
        makes: Predictors to stack.
        seed: Seed of the folds.
        features: Features by target and by their own name. The Gaussian process has one of them as
            its mean where cross-validation says that it helps.
        columns: What predictors see of a mixture; None: its weights.
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
        """Total of each trial as predicted from the others, ``[n]``."""
        self.error = float(np.sqrt(np.mean((self.expected - known.total) ** 2)))
        """Sd of the totals around ``expected``."""
        self.table: list[Skill] = [
            replace(skill, target=target)
            for target, stack in zip(known.targets, self.stacks, strict=True)
            for skill in stack.skills
        ]

    @property
    def useful(self) -> bool:
        """Whether predictions are better than the mean of all totals."""
        return self.error < float(self.known.total.std())

    def fitted(self) -> Floats:
        """Predict standardised scores of the trials: float64 ``[n, T]``."""
        return np.stack([stack.predict(self.known.columns) for stack in self.stacks], axis=1)

    def scores(self, weights: Floats) -> Floats:
        """Predict standardised scores of ``weights`` (``[m, K]``): float64 ``[m, T]``."""
        seen = self._columns.of(weights)
        return np.stack([stack.predict(seen) for stack in self.stacks], axis=1)

    def total(self, weights: Floats) -> Floats:
        """Predict the total of ``weights`` (``[m, K]``): float64 ``[m]``, less is better."""
        return self.known.joined(self.scores(weights))

    def again(self, scores: Floats) -> Callable[[Floats], Floats]:
        """Fit to other standardised ``scores`` (``[n, T]``) of the same mixtures.

        Returns `total` after that fit.
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
        """Uncertainty of `total`, as if targets erred independently: float64 ``[m]``."""
        seen = self._columns.of(weights)
        each = np.stack([stack.sd(seen) for stack in self.stacks], axis=1)
        return np.asarray(np.sqrt((each**2) @ self.known.importance**2), np.float64)

    @property
    def knows_gaps(self) -> bool:
        """Whether the predictors can tell `gain`."""
        return all(stack.knows_gaps for stack in self.stacks)

    def gain(self, weights: Floats, base: Floats) -> tuple[float, float]:
        """Return by how much ``weights`` beats ``base`` (``[K]`` each), and the sd of that."""
        two = np.stack([weights, base])
        ours, theirs = self.total(two).tolist()
        sds = [stack.gap_sd(self._columns.of(two)) for stack in self.stacks]
        return theirs - ours, math.hypot(*(np.array(sds) * self.known.importance).tolist())

    def draw(self, weights: Floats, n: int, rng: np.random.Generator) -> Floats:
        """Draw possible totals of ``weights`` (``[m, K]``): float64 ``[n, m]``."""
        seen = self._columns.of(weights)
        samples = np.stack(
            [stack.draw(seen, n, rng) + stack.predict(seen) for stack in self.stacks], axis=2
        )
        return np.stack([self.known.joined(each) for each in samples])


def _with(makes: Sequence[Make], features: Mapping[str, Feature]) -> list[Make]:
    """Add to ``makes`` a Gaussian process with each of ``features``, beside the one without."""
    if GaussianProcess not in makes:
        return list(makes)
    return [*(partial(GaussianProcess, each, on) for on, each in features.items()), *makes]
