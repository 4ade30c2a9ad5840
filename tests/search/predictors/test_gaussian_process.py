"""A Gaussian process learns curves from few rows, and knows how far to believe itself."""

import numpy as np
import pytest
from mixture_curves import curve, mixtures, nmse

from climbstream.search.predictors.earlier_runs import EarlierRuns
from climbstream.search.predictors.gaussian_process import GaussianProcess


@pytest.mark.parametrize(("rows", "most"), [(16, 0.4), (32, 0.12), (112, 0.02)])
def test_a_process_learns_a_curve_from_few_rows(rows, most):
    model = GaussianProcess()
    model.fit(mixtures(rows), curve(mixtures(rows)))
    fresh = mixtures(500, seed=1)
    assert nmse(curve(fresh), model.predict(fresh)) < most


def test_the_gradient_of_a_process_is_that_of_its_loss():
    from scipy.optimize import check_grad

    model = GaussianProcess()
    weights = mixtures(20, k=4)
    model.fit(weights, curve(weights))
    y = (curve(weights) - curve(weights).mean()) / curve(weights).std()
    center, width = np.zeros(8), np.ones(8)
    for seed in range(3):
        theta = np.random.default_rng(seed).normal(0, 0.7, 8)
        wrong = check_grad(
            lambda t: model._loss(t, y, center, width)[0],
            lambda t: model._loss(t, y, center, width)[1],
            theta,
        )
        assert wrong < 1e-3


@pytest.mark.parametrize("knee", [0.002, 0.02, 0.2, 2.0])
def test_a_process_learns_where_the_logarithm_sets_in(knee):
    def bent(weights):
        return np.log1p(weights / knee) @ np.array([1.0, -0.7, 0.4, 0, 0, 0.2, -1, 0])

    weights, fresh = mixtures(48), mixtures(500, seed=1)
    noise = np.random.default_rng(0).normal(0, 0.2 * bent(weights).std(), 48)
    model = GaussianProcess()
    model.fit(weights, bent(weights) + noise)
    assert nmse(bent(fresh), model.predict(fresh)) < 0.04


def test_a_process_knows_how_noisy_runs_are():
    weights = mixtures(150)
    noise = np.random.default_rng(0).normal(0, 0.5, 150)
    model = GaussianProcess()
    model.fit(weights, curve(weights) + noise)
    assert 0.35 < model.noise < 0.65


def test_a_process_of_noise_alone_is_all_but_flat():
    weights = mixtures(64)
    model = GaussianProcess()
    model.fit(weights, np.random.default_rng(0).normal(size=64))
    assert model.predict(mixtures(200, seed=1)).std() < 0.4


def test_a_process_doubts_what_is_far_from_its_rows():
    weights = mixtures(40)
    model = GaussianProcess()
    model.fit(weights, curve(weights))
    assert model.sd(weights).max() < model.sd(np.eye(8)).max()


def test_curves_that_are_sampled_spread_as_a_process_says():
    weights, fresh = mixtures(40), mixtures(12, seed=1)
    model = GaussianProcess()
    model.fit(weights, curve(weights))
    curves = model.draw(fresh, 4000, np.random.default_rng(0))
    assert curves.std(axis=0) == pytest.approx(model.sd(fresh), rel=0.1)


def test_what_is_known_before_carries_where_rows_say_nothing():
    # Of the third weight the rows tell nothing: it is 0 in all of them.
    weights = mixtures(30) * [1, 1, 0, 1, 1, 1, 1, 1]
    weights /= weights.sum(axis=1, keepdims=True)
    fresh = mixtures(200, seed=1)
    plain, informed = GaussianProcess(), GaussianProcess(lambda w: 5 * curve(w) + 7)
    for model in (plain, informed):
        model.fit(weights, curve(weights))
    assert nmse(curve(fresh), informed.predict(fresh)) < 0.02
    assert nmse(curve(fresh), plain.predict(fresh)) > 0.1


# By the book: Rasmussen and Williams, equations 2.22 to 2.24 and 5.8.


def kernel(model, a, b, feature=None):
    """Covariance of mixtures ``a`` with ``b`` under the fitted parameters, one pair at a time."""
    lengths, (curved, linear, knee) = np.exp(model._theta[:-4]), np.exp(model._theta[-4:-1])
    rows = np.log1p(model._weights / knee)
    center = rows.mean(axis=0)
    spread = np.sqrt(((rows - center) ** 2).mean())
    x, y = ((np.log1p(w / knee) - center) / spread for w in (a, b))
    out = np.empty((len(a), len(b)))
    for i, j in np.ndindex(*out.shape):
        r = np.sqrt(5 * (((x[i] - y[j]) / lengths) ** 2).sum())
        out[i, j] = curved * (1 + r + r * r / 3) * np.exp(-r) + linear * (x[i] @ y[j]) / len(x[i])
    out += 1
    if feature is not None:
        there = feature(model._weights)
        f, g = ((feature(w) - there.mean()) / there.std() for w in (a, b))
        out += np.outer(f, g)
        if feature is EARLIER:
            process = EARLIER._process
            known = kernel(process, process._weights, process._weights)
            known += (np.exp(process._theta[-1]) + 1e-8) * np.eye(len(known))
            left, right = (kernel(process, w, process._weights) for w in (a, b))
            errors = kernel(process, a, b) - left @ np.linalg.solve(known, right.T)
            out += errors * (process._sd / there.std()) ** 2
    return out


EARLIER = EarlierRuns([(OLD := mixtures(30, 5, seed=3), 40 - 7 * curve(OLD))])
"""An estimate from runs of another model, in another unit."""


@pytest.fixture(
    scope="module",
    params=[None, lambda w: 4 * w[:, 0] + 2, EARLIER],
    ids=["plain", "informed", "uncertain"],
)
def fitted(request):
    """A process of 25 rows, their scores, the feature, and the covariance of what was measured."""
    weights = mixtures(25, 5)
    scores = 4 + 3 * curve(weights) + np.random.default_rng(0).normal(0, 0.8, 25)
    model = GaussianProcess(request.param)
    model.fit(weights, scores)
    noise = np.exp(model._theta[-1]) + 1e-8
    return (
        model,
        scores,
        request.param,
        kernel(model, weights, weights, request.param) + (noise * np.eye(25)),
    )


def test_predictions_and_their_covariance_are_those_of_the_book(fitted):
    model, scores, feature, total = fitted
    fresh = mixtures(6, 5, seed=1)
    mean, sd = scores.mean(), scores.std()
    cross = kernel(model, fresh, model._weights, feature)
    expected = mean + sd * cross @ np.linalg.solve(total, (scores - mean) / sd)
    assert model.predict(fresh) == pytest.approx(expected, rel=1e-6)
    own = kernel(model, fresh, fresh, feature) - cross @ np.linalg.solve(total, cross.T)
    assert model.covariance(fresh) == pytest.approx(sd**2 * own, rel=1e-5, abs=1e-7)
    assert model.sd(fresh) == pytest.approx(sd * np.sqrt(np.diag(own)), rel=1e-5)
    assert model.noise == pytest.approx(sd * np.exp(model._theta[-1] / 2))
    others = mixtures(4, 5, seed=2)
    there = kernel(model, others, model._weights, feature)
    both = kernel(model, fresh, others, feature) - cross @ np.linalg.solve(total, there.T)
    assert model.covariance(fresh, others) == pytest.approx(sd**2 * both, rel=1e-5, abs=1e-7)


def test_the_loss_is_the_posterior_of_the_parameters(fitted):
    from scipy.stats import multivariate_normal, norm

    model, scores, _, total = fitted
    y = (scores - scores.mean()) / scores.std()
    center, width = np.linspace(-1, 1, 9), np.linspace(0.5, 2, 9)
    loss, _ = model._loss(model._theta, y, center, width)
    # Up to the constants of the normal distributions.
    likelihood = multivariate_normal(np.zeros(25), total).logpdf(y) + 12.5 * np.log(2 * np.pi)
    priors = norm(center, width).logpdf(model._theta) + np.log(width) + 0.5 * np.log(2 * np.pi)
    assert loss == pytest.approx(-likelihood - priors.sum(), rel=1e-7)


def test_parameters_are_as_probable_as_a_longer_search_finds_them(fitted):
    from scipy.optimize import minimize

    model, scores, _, _ = fitted
    y = (scores - scores.mean()) / scores.std()
    center = np.log([*[3.5 * 5**0.5] * 5, 0.3, 0.1, 0.01, 0.2])
    width = np.array([*[0.8] * 5, 1.5, 1.5, 1.5, 1.2])
    best = minimize(lambda t: model._loss(t, y, center, width), center, jac=True, method="BFGS")
    loss, _ = model._loss(model._theta, y, center, width)
    assert loss == pytest.approx(best.fun, abs=0.02)


def test_curves_that_are_sampled_vary_together_as_a_process_says(fitted):
    model, _, _, _ = fitted
    fresh = mixtures(3, 5, seed=1)
    curves = model.draw(fresh, 20_000, np.random.default_rng(0))
    assert np.cov(curves.T) == pytest.approx(model.covariance(fresh), rel=0.1, abs=2e-3)
    assert curves.mean(axis=0) == pytest.approx(np.zeros(3), abs=0.03)


def test_curves_are_sampled_at_equal_mixtures_too(fitted):
    model, _, _, _ = fitted
    fresh = np.repeat(mixtures(3, 5, seed=1), 4, axis=0)
    curves = model.draw(fresh, 200, np.random.default_rng(0)).reshape(200, 3, 4)
    assert np.ptp(curves, axis=2).max() < 0.05 * curves.std()


@pytest.mark.parametrize("rows", [2, 3])
def test_under_three_rows_a_process_knows_the_mean_alone(rows):
    weights, fresh = mixtures(rows, 4), mixtures(5, 4, seed=1)
    scores = np.arange(rows) * 6.0 + 1
    model = GaussianProcess()
    model.fit(weights, scores)
    assert (np.ptp(model.predict(fresh)) == 0) == (rows < 3)
    if rows < 3:
        assert model.predict(fresh) == pytest.approx(np.full(5, 4.0))
        assert model.sd(fresh) == pytest.approx(np.full(5, 3.0))
        assert model.covariance(fresh) == pytest.approx(9 * np.eye(5))
        drawn = model.draw(fresh, 5000, np.random.default_rng(0))
        assert drawn.std(axis=0) == pytest.approx(np.full(5, 3.0), rel=0.05)


def test_features_that_are_all_the_same_do_not_break_a_fit():
    weights = np.repeat(mixtures(1, 4), 8, axis=0)
    model = GaussianProcess(lambda w: np.full(len(w), 0.3))
    model.fit(weights, np.arange(8.0))
    assert model.predict(weights) == pytest.approx(np.full(8, 3.5), abs=0.5)
    assert np.isfinite(model.sd(mixtures(3, 4))).all()


def test_its_name_says_whether_it_has_a_feature():
    assert GaussianProcess().name == "gaussian process"
    assert GaussianProcess(lambda w: w[:, 0]).name == "gaussian process on prior"


def test_equal_scores_are_a_constant_without_noise():
    model = GaussianProcess()
    model.fit(mixtures(9, 4), np.full(9, 2.5))
    assert model.noise == 0.0
    assert model.predict(mixtures(3, 4, seed=1)).tolist() == [2.5, 2.5, 2.5]


def test_the_search_for_parameters_begins_at_the_priors_and_is_held_by_them(monkeypatch):
    import scipy.optimize

    weights, seen = mixtures(12, 4), {}
    original = scipy.optimize.minimize

    def record(loss, start, **options):
        seen.update(options, start=start, there=loss(start + 0.3)[0])
        return original(loss, start, **options)

    monkeypatch.setattr(scipy.optimize, "minimize", record)
    model = GaussianProcess()
    model.fit(weights, curve(weights))
    center = np.log([*[3.5 * 4**0.5] * 4, 0.3, 0.1, 0.01, 0.2])
    width = np.array([*[0.8] * 4, 1.5, 1.5, 1.5, 1.2])
    y = (curve(weights) - curve(weights).mean()) / curve(weights).std()
    assert seen["start"] == pytest.approx(center)
    assert seen["there"] == pytest.approx(model._loss(center + 0.3, y, center, width)[0])
    assert np.array(seen["bounds"]) == pytest.approx(np.stack([center - 6, center + 6], axis=1))
    assert (seen["jac"], seen["options"]) == (True, {"maxiter": 25})
