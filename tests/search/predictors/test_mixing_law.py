"""The mixing law is found where it holds."""

import numpy as np
import pytest
from mixture_curves import curve, mixtures, nmse

from climbstream.search.predictors.mixing_law import MixingLaw, _fit, _slopes, _values


def test_the_law_is_found_where_it_holds():
    weights, fresh = mixtures(60), mixtures(300, seed=1)
    slopes = np.array([-3.0, -1, 0, 0, 1, 0, 0, 0.5])
    model = MixingLaw()
    model.fit(weights, 2 + np.exp(weights @ slopes))
    assert nmse(2 + np.exp(fresh @ slopes), model.predict(fresh)) < 0.03


def test_the_slopes_are_the_derivatives_of_the_values():
    weights = mixtures(12, 4)
    law = np.array([0.5, -0.3, 1.0, -2.0, 0.2, 0.7])
    step = 1e-6
    numeric = [
        (_values(weights, law + step * unit) - _values(weights, law - step * unit)) / (2 * step)
        for unit in np.eye(6)
    ]
    assert _slopes(weights, law) == pytest.approx(np.stack(numeric, axis=1), abs=1e-7)
    assert _values(weights, law) == pytest.approx(0.5 + np.exp(-0.3 + weights @ law[2:]))


def test_an_exponential_has_bounds():
    law = np.array([0.0, 0.0, 100.0, 0.0])
    assert _values(np.array([[1.0, 0.0]]), law) == pytest.approx([np.exp(5)])


@pytest.mark.parametrize(
    ("rows", "clusters", "noise", "steep", "penalty"),
    [(40, 4, 0.3, 1, 0.1), (40, 4, 0.3, 1, 10.0), (12, 8, 1.0, 1, 0.1), (30, 6, 0.0, 5, 0.1)],
)
def test_a_fit_is_the_least_of_squares_and_penalty(rows, clusters, noise, steep, penalty):
    from scipy.optimize import minimize

    weights = mixtures(rows, clusters)
    y = np.exp(steep * weights[:, 0]) + np.random.default_rng(1).normal(0, noise, rows)
    y = (y - y.mean()) / y.std()
    start = np.array([-2.0, np.log(2), *np.zeros(clusters)])
    held = penalty * np.array([0.1, 0.1, *np.ones(clusters)])

    def loss(law):
        return ((_values(weights, law) - y) ** 2).sum() + held @ (law - start) ** 2

    law, error = _fit(weights, y, penalty)
    best = minimize(loss, start, method="BFGS")
    assert loss(law) <= best.fun * (1 + 1e-5)
    slopes = _slopes(weights, law)
    used = np.trace(np.linalg.solve(slopes.T @ slopes + np.diag(held), slopes.T @ slopes))
    rest = ((_values(weights, law) - y) ** 2).sum()
    assert error == pytest.approx(rest / (rows - used) ** 2)


@pytest.mark.parametrize(
    ("noise", "best"), [(0.3, 0.1), (1.0, 1.0), (8.0, 10.0)], ids=["weak", "middle", "strong"]
)
def test_the_penalty_is_that_of_the_least_error(noise, best):
    weights, fresh = mixtures(30, 5), mixtures(9, 5, seed=1)
    y = curve(weights) + np.random.default_rng(2).normal(0, noise, 30)
    model = MixingLaw()
    model.fit(weights, y)
    mean, sd = y.mean(), y.std()
    tried = {penalty: _fit(weights, (y - mean) / sd, penalty) for penalty in (0.1, 1.0, 10.0)}
    assert min(tried, key=lambda penalty: tried[penalty][1]) == best
    assert model.predict(fresh) == pytest.approx(_values(fresh, tried[best][0]) * sd + mean)


@pytest.mark.parametrize("rows", [3, 4])
def test_under_four_rows_the_law_is_their_mean(rows):
    weights = mixtures(rows)
    model = MixingLaw()
    model.fit(weights, curve(weights))
    assert (np.ptp(model.predict(mixtures(5, seed=1))) == 0) == (rows < 4)
    if rows < 4:
        assert model.predict(weights) == pytest.approx(np.full(rows, curve(weights).mean()))


def levenberg_marquardt(weights, y, penalty):
    """Fit by least squares on the residuals of data, penalty and damping below each other."""
    k = weights.shape[1]
    start = np.array([-2.0, np.log(2), *np.zeros(k)])
    root = np.sqrt(penalty * np.array([0.1, 0.1, *np.ones(k)]))

    def residuals(law):
        return np.concatenate([_values(weights, law) - y, root * (law - start)])

    law, damping, refused = start, 1e-3, 0
    for _ in range(40):
        jacobian = np.vstack([_slopes(weights, law), np.diag(root)])
        damped = np.sqrt(damping) * np.diag(np.linalg.norm(jacobian, axis=0))
        rows = np.concatenate([residuals(law), np.zeros(k + 2)])
        step, *_ = np.linalg.lstsq(np.vstack([jacobian, damped]), rows)
        before, after = (np.sum(residuals(each) ** 2) for each in (law, law - step))
        if after >= before:
            damping, refused = 8 * damping, refused + 1
            continue
        law, damping = law - step, damping / 4
        if before - after < 1e-6 * before:
            break
    return law, refused


@pytest.mark.parametrize(
    ("seed", "noise", "steep", "scale"),
    [(0, 0.3, 1, 1), (1, 0.0, 5, 1), (2, 1.0, 9, 1), (3, 0.1, 30, 9)],
)
def test_steps_are_those_of_levenberg_and_marquardt(seed, noise, steep, scale):
    weights = mixtures(30, 5, seed=seed)
    y = np.exp(steep * weights[:, 0]) + noise * np.random.default_rng(1).normal(size=30)
    y = scale * (y - y.mean()) / y.std()
    law, refused = levenberg_marquardt(weights, y, 0.1)
    assert bool(refused) == (seed > 0)
    assert _fit(weights, y, 0.1)[0] == pytest.approx(law, rel=1e-6, abs=1e-8)
