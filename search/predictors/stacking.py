"""Stacking: several predictors as one, each weighted by its out-of-fold error.

Shares are proportional to the inverse square of the mean squared error, so a predictor with half
the error counts four times. Shares are not fitted, as the rows are few; least squares on the
out-of-fold predictions were no better (docs/decisions/predictors.md). A predictor that is no better
than the mean has no share. If no predictor is better, the stack predicts the mean, and says so.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from .base import Floats, Make, Predictor, folds, judge, standardised
from .gaussian_process import GaussianProcess

FOLDS = 5


class Stack:
    """Fits all of ``makes`` to one target, and weighs them by cross-validation.

    Args:
        makes: Functions that make the predictors.
        seed: Seed of the folds.
    """

    name = "stack"

    def __init__(self, makes: Sequence[Make], seed: int = 0) -> None:
        self._makes = list(makes)
        self._seed = seed

    def fit(self, weights: Floats, scores: Floats) -> None:
        """Learn ``scores`` (``[n]``, finite) of ``weights`` (``[n, K]``).

        Sets ``skills`` (how good each predictor is), ``shares`` (how much each counts) and
        ``out_of_fold`` (``[n]``, the out-of-fold predictions).
        """
        _, self._mean, self._sd = standardised(scores)
        n, members = len(scores), len(self._makes)
        out_of_fold = np.empty((members, n))
        base, doubt = np.empty(n), np.zeros((members, n))
        constant = np.ones(members, np.bool_)
        for train, test in folds(weights, FOLDS, self._seed):
            base[test] = scores[train].mean() if len(train) else self._mean
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
        self.skills = [
            judge(make().name, scores, predicted, base, constant=bool(same))
            for make, predicted, same in zip(self._makes, out_of_fold, constant, strict=True)
        ]
        processes = [i for i, make in enumerate(self._makes) if _is_process(make())]
        # Of two processes, with and without the feature, only the better one counts.
        self._process = min(processes, key=lambda i: self.skills[i].nmse, default=None)
        worth = np.array(
            [s.nmse**-2 if s.verdict == "useful" and s.nmse > 0 else 0.0 for s in self.skills]
        )
        worth[[i for i in processes if i != self._process]] = 0.0
        perfect = np.array([s.verdict == "useful" and s.nmse == 0 for s in self.skills])
        worth = perfect.astype(np.float64) if perfect.any() else worth
        self.shares = worth / worth.sum() if worth.any() else worth
        self.out_of_fold = self.shares @ out_of_fold + (1 - self.shares.sum()) * base
        if members > 1:
            flat = not self.shares.any()
            self.skills.append(judge(self.name, scores, self.out_of_fold, base, constant=flat))
        self.error = float(np.sqrt(np.mean((self.out_of_fold - scores) ** 2)))
        self._models = []
        for make in self._makes:
            self._models.append(make())
            self._models[-1].fit(weights, scores)
        self._stretch = 1.0
        if self._process is not None:
            self._stretch = _stretch(self.out_of_fold - scores, doubt[self._process])

    def predict(self, weights: Floats) -> Floats:
        """Predict the scores of ``weights`` (``[m, K]``): float64 ``[m]``."""
        return self._joined(self._models, self._mean, weights)

    def again(self, weights: Floats, scores: Floats) -> Callable[[Floats], Floats]:
        """Fit the predictors to other ``scores`` (``[n]``) of ``weights``, with the same shares.

        Returns the new predictions as a function from ``[m, K]`` to ``[m]``.
        """
        models = [make() for make in self._makes]
        for share, model in zip(self.shares, models, strict=True):
            if share:
                model.fit(weights, scores)
        mean = float(scores.mean())
        return lambda w: self._joined(models, mean, w)

    def sd(self, weights: Floats) -> Floats:
        """Uncertainty of predictions: float64 ``[m]``.

        It is that of the Gaussian process, scaled up to its out-of-fold errors; without a process,
        it is the out-of-fold error.
        """
        if (process := self._gaussian_process()) is not None:
            return process.sd(weights) * self._stretch
        return np.full(len(weights), self.error)

    @property
    def knows_gaps(self) -> bool:
        """Whether `gap_sd` works: only a Gaussian process knows how errors correlate."""
        return self._gaussian_process() is not None

    def gap_sd(self, weights: Floats) -> float:
        """Uncertainty of the difference between the two mixtures ``weights`` (``[2, K]``).

        Errors of similar mixtures are correlated, so it is smaller than the two sd suggest.
        """
        process = self._gaussian_process()
        assert process is not None
        (a, c), (_, b) = process.covariance(weights)
        return math.sqrt(max(a + b - 2 * c, 0.0)) * self._stretch

    def draw(self, weights: Floats, n: int, rng: np.random.Generator) -> Floats:
        """Draw ``n`` possible errors of the predictions for ``weights``: float64 ``[n, m]``."""
        if (process := self._gaussian_process()) is not None:
            return process.draw(weights, n, rng) * self._stretch
        return self.error * rng.standard_normal((n, len(weights)))

    def _joined(self, models: Sequence[Predictor], mean: float, weights: Floats) -> Floats:
        """Join the predictions of ``models``; the rest of their shares goes to ``mean``."""
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


def _is_process(model: Predictor) -> bool:
    return isinstance(model, GaussianProcess)


def _stretch(errors: Floats, doubt: Floats) -> float:
    """Factor, 1 or more, by which out-of-fold errors exceed the sd of the process."""
    if not doubt.all():
        return 1.0
    return max(1.0, float(np.sqrt(np.mean((errors / doubt) ** 2))))
