"""Stacking: combine several predictors into one, by shares that follow from out-of-fold errors.

The prediction of a stack is the sum of the predictions of its predictors, each times its share.
Shares are not fitted, because there are too few trials (docs/decisions/predictors.md).

With one target, a share is proportional to the inverse square of the predictor's mean squared
error. Several targets may have joint shares, which are the same for all of them and follow from the
mean squared error of the joint score. In the joint score, noise partly averages out, but an error
that a predictor makes on all targets does not. The noise that remains is subtracted from the mean
squared error. A joint share is proportional to the inverse fourth power of the difference.

A predictor that is no better than the mean has share 0. If no predictor is better than the mean,
the stack predicts the mean, and its verdict is ``constant`` (`Skill`).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from .base import Floats, Make, Predictor, folds, judge
from .gaussian_process import GaussianProcess

FOLDS = 5
POWER = 2
"""With one target, shares are proportional to the inverse of this power of the mean squared error.
Noise is not subtracted from this error, because its estimate may be too large: the Gaussian process
also counts as noise those steps of a loss that it cannot fit."""
JOINT_POWER = 4
"""With several targets, shares are proportional to the inverse of this power of an error: the mean
squared error of the joint score, minus noise."""


class Stack:
    """Predicts one target by a combination of several predictors.

    Args:
        makes: Functions, each of which makes one of the predictors.
        seed: Seed of the split into folds.
    """

    name = "stack"

    def __init__(self, makes: Sequence[Make], seed: int = 0) -> None:
        self._makes = list(makes)
        self._seed = seed

    def fit(self, weights: Floats, scores: Floats) -> None:
        """Fit to the finite ``scores`` (``[n]``) of the mixtures ``weights`` (``[n, K]``).

        Sets ``skills`` (a `Skill` for each predictor and for the stack), ``shares`` (the share of
        each predictor) and ``out_of_fold`` (the out-of-fold predictions of the stack, ``[n]``).
        """
        n, members = len(scores), len(self._makes)
        self.scores, self._mean = scores, float(scores.mean())
        out_of_fold = np.empty((members, n))
        self.base, doubt = np.empty(n), np.zeros((members, n))
        constant = np.ones(members, np.bool_)
        for train, test in folds(weights, FOLDS, self._seed):
            self.base[test] = scores[train].mean() if len(train) else self._mean
            for i, make in enumerate(self._makes):
                if not len(train):
                    out_of_fold[i, test] = self._mean
                    continue
                model = make()
                model.fit(weights[train], scores[train])
                everywhere = model.predict(weights)
                out_of_fold[i, test] = everywhere[test]
                constant[i] &= np.ptp(everywhere) == 0
                if isinstance(model, GaussianProcess):
                    doubt[i, test] = np.hypot(model.sd(weights[test]), model.noise)
        self._skills = [
            judge(make().name, scores, predicted, self.base, constant=bool(same))
            for make, predicted, same in zip(self._makes, out_of_fold, constant, strict=True)
        ]
        self._models = []
        for make in self._makes:
            self._models.append(make())
            self._models[-1].fit(weights, scores)
        processes = [i for i, model in enumerate(self._models) if _is_process(model)]
        # Of the Gaussian processes (with and without a feature), only the best one has a share.
        self._process = min(processes, key=lambda i: self._skills[i].nmse, default=None)
        others = [i for i in range(members) if i not in processes]
        self._rivals = others if self._process is None else [self._process, *others]
        self.rivals = out_of_fold[self._rivals]
        """Out-of-fold predictions of the ``m`` predictors that may have a share, ``[m, n]``. If a
        Gaussian process is among these predictors, it is the first."""
        self.constant = constant[self._rivals]
        """Whether each predictor in ``rivals`` returned one score for all mixtures, ``[m]``."""
        self._doubt = np.zeros(n) if self._process is None else doubt[self._process]
        share_by_error([self], np.ones(1))

    def trust(self, shares: Floats) -> None:
        """Set the shares of the predictors; the sum of the shares is 1 or 0.

        ``shares``, ``[m]``, has one share for each predictor in ``rivals``. All other predictors
        get share 0.
        """
        self.shares = np.zeros(len(self._makes))
        self.shares[self._rivals] = shares
        self.out_of_fold = shares @ self.rivals + (1 - shares.sum()) * self.base
        self.skills = list(self._skills)
        if len(self._makes) > 1:
            flat = not shares.any()
            self.skills.append(
                judge(self.name, self.scores, self.out_of_fold, self.base, constant=flat)
            )
        errors = self.out_of_fold - self.scores
        self.error = float(np.sqrt(np.mean(errors**2)))
        self._stretch = _stretch(errors, self._doubt)

    @property
    def noise(self) -> float:
        """Sd of the scores of repeated runs of one mixture, as the Gaussian process estimates it.

        The sd is 0 if the stack has no Gaussian process.
        """
        process = self._gaussian_process()
        return 0.0 if process is None else process.noise

    def predict(self, weights: Floats) -> Floats:
        """Predict the scores of ``weights`` (``[m, K]``): float64 ``[m]``."""
        return self._joined(self._models, self._mean, weights)

    def again(self, weights: Floats, scores: Floats) -> Callable[[Floats], Floats]:
        """Fit new copies of the predictors to ``scores`` (``[n]``) of ``weights`` (``[n, K]``).

        The shares of the predictors do not change. Returns the new predictions as a function from
        mixtures ``[m, K]`` to scores ``[m]``.
        """
        models = [make() for make in self._makes]
        for share, model in zip(self.shares, models, strict=True):
            if share:
                model.fit(weights, scores)
        mean = float(scores.mean())
        return lambda w: self._joined(models, mean, w)

    def sd(self, weights: Floats) -> Floats:
        """Return the sd of the error of each prediction: float64 ``[m]``.

        With a Gaussian process, this is the sd of the process, scaled up if out-of-fold errors are
        larger. Without a process, it is the root mean square of the out-of-fold errors.
        """
        if (process := self._gaussian_process()) is not None:
            return process.sd(weights) * self._stretch
        return np.full(len(weights), self.error)

    @property
    def knows_gaps(self) -> bool:
        """Whether `gap_sd` may be called: only a Gaussian process models how errors correlate."""
        return self._gaussian_process() is not None

    def gap_sd(self, weights: Floats) -> float:
        """Return the sd of the error of a predicted difference between two scores.

        ``weights`` (``[2, K]``) are the two mixtures. The errors of predictions for similar
        mixtures are correlated. So this sd is smaller than the sd for two independent errors.
        """
        process = self._gaussian_process()
        assert process is not None
        (a, c), (_, b) = process.covariance(weights)
        return math.sqrt(max(a + b - 2 * c, 0.0)) * self._stretch

    def draw(self, weights: Floats, n: int, rng: np.random.Generator) -> Floats:
        """Draw ``n`` random errors of the predictions for ``weights``: float64 ``[n, m]``."""
        if (process := self._gaussian_process()) is not None:
            return process.draw(weights, n, rng) * self._stretch
        return self.error * rng.standard_normal((n, len(weights)))

    def _joined(self, models: Sequence[Predictor], mean: float, weights: Floats) -> Floats:
        """Return the sum of the predictions of ``models``, each times its share: ``[m]``.

        If the shares sum to less than 1, ``mean`` has the rest.
        """
        rest = (1 - self.shares.sum()) * mean
        return np.asarray(
            rest
            + sum(
                share * model.predict(weights)
                for share, model in zip(self.shares, models, strict=True)
                if share
            )
        ) + np.zeros(len(weights))

    def _gaussian_process(self) -> GaussianProcess | None:
        model = None if self._process is None else self._models[self._process]
        return model if isinstance(model, GaussianProcess) else None


def share_by_error(stacks: Sequence[Stack], importance: Floats) -> None:
    """Set the shares of all ``stacks``, one stack per target, by the errors of the joint score.

    ``importance`` (``[T]``) is the weight of each target in the joint score.
    """
    scores, base, rivals = (
        np.tensordot(importance, np.stack(parts), 1)
        for parts in (
            [stack.scores for stack in stacks],
            [stack.base for stack in stacks],
            [stack.rivals for stack in stacks],
        )
    )
    variance = float(((scores - base) ** 2).mean())
    errors = ((scores - rivals) ** 2).mean(axis=1)
    excess, power = errors, POWER
    if len(stacks) > 1:
        noise = float((importance**2) @ np.array([stack.noise**2 for stack in stacks]))
        # The total error is a mean of n squares, so its relative sd is sqrt(2 / n). The error
        # without noise is no more precise. So always keep at least this part of the total error.
        excess = np.maximum(errors - noise, errors * math.sqrt(2 / len(scores)))
        power = JOINT_POWER
    constant = np.all([stack.constant for stack in stacks], axis=0)
    useful = (errors < variance) & ~constant
    worth = np.zeros(len(errors))
    if useful.any():
        least = max(float(excess[useful].min()), 1e-12 * variance)
        worth[useful] = (np.maximum(excess[useful], least) / least) ** -power
        worth /= worth.sum()
    for stack in stacks:
        stack.trust(worth)


def _is_process(model: Predictor) -> bool:
    return isinstance(model, GaussianProcess)


def _stretch(errors: Floats, doubt: Floats) -> float:
    """Return the factor, at least 1, by which ``errors`` exceed ``doubt``, the predicted sd."""
    if not doubt.all():
        return 1.0
    return max(1.0, float(np.sqrt(np.mean((errors / doubt) ** 2))))
