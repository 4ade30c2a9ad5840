"""Ridge regression is the solution of its normal equations, with the penalty of least error."""

import numpy as np
import pytest
from mixture_curves import curve, mixtures

from climbstream.search.predictors.ridge import Ridge

PENALTIES = [10.0 ** (-4 + step / 4) for step in range(29)]


def by_hand(weights, scores, fresh, penalty):
    """Return predictions, and the generalised cross-validation error of what is fitted."""
    x, center = weights - weights.mean(axis=0), weights.mean(axis=0)
    y = scores - scores.mean()
    hat = x @ np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T)
    free = len(y) - 1 - np.trace(hat)
    error = ((y - hat @ y) ** 2).sum() / free**2
    slope = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    return (fresh - center) @ slope + scores.mean(), error


@pytest.mark.parametrize("noise", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("rows", [12, 60])
def test_the_penalty_is_that_of_the_least_generalised_cross_validation_error(rows, noise):
    weights, fresh = mixtures(rows), mixtures(9, seed=1)
    scores = 3 + 5 * curve(weights) + noise * np.random.default_rng(0).normal(size=rows)
    tried = [by_hand(weights, scores, fresh, penalty) for penalty in PENALTIES]
    expected, _ = min(tried, key=lambda pair: pair[1])
    model = Ridge()
    model.fit(weights, scores)
    assert model.predict(fresh) == pytest.approx(expected, rel=1e-6)


def test_a_direction_without_variance_gets_no_slope():
    weights = np.hstack([mixtures(20, 4), np.zeros((20, 1))])
    model = Ridge()
    model.fit(weights, curve(weights))
    shifted = weights + np.array([0, 0, 0, 0, 100.0])
    assert model.predict(shifted) == pytest.approx(model.predict(weights), abs=1e-9)
