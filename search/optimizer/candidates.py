"""Candidates: pure functions that draw mixtures to try, around a prior and within limits.

In this module, mixtures are the rows of a float64 array ``[n, K]``. All random numbers come from a
generator that the caller seeds by (seed, round). So the candidates differ between rounds. If a
search is run again with the same seed, each round has the same candidates again.
"""

from collections.abc import Callable, Sequence

import numpy as np

from climbstream.search.predictors.base import Floats

from .constraints import WeightConstraints

TINY = 1e-3
"""Weights below this number become 0, because a proxy would read only a row or two for them."""
SAME = 3
"""Number of decimals to which weights are rounded to compare mixtures. Mixtures with equal rounded
weights count as equal."""


def generator(seed: int, round_: int) -> np.random.Generator:
    """Return the random generator of one round of the search with ``seed``."""
    return np.random.default_rng([seed, round_])


def split_budget(budget: int, rounds: Sequence[int]) -> list[int]:
    """Split ``budget`` trials in the ratio ``rounds``, by largest remainder, without empty rounds.

    >>> split_budget(112, (4, 2, 1)), split_budget(16, (4, 2, 1))
    ([64, 32, 16], [9, 5, 2])
    """
    shares = [divmod(budget * part, sum(rounds)) for part in rounds]
    sizes = [whole for whole, _ in shares]
    by_remainder = sorted(range(len(rounds)), key=lambda i: -shares[i][1])
    for i in by_remainder[: budget - sum(sizes)]:
        sizes[i] += 1
    return [size for size in sizes if size]


def candidates(
    n: int,
    priors: Sequence[Floats],
    limits: WeightConstraints,
    concentration: tuple[float, float],
    rng: np.random.Generator,
) -> Floats:
    """Draw ``n`` mixtures in total, around each of ``priors`` (``[K]``, sum 1) in turn.

    Each mixture is drawn from its own Dirichlet distribution, whose mean is the prior. The sum of
    the parameters of the distribution is drawn log-uniformly between the two numbers of
    ``concentration``. With a sum of 2, a mixture consists of a few clusters. With a sum of 50, a
    mixture is the prior with small changes. A cluster with prior weight 0 has weight 0.

    Returns:
        float64 ``[n, K]``, rows of sum 1 within ``limits``.
    """
    live = np.flatnonzero(priors[0] > 0)
    low, high = np.log(concentration)
    around = np.stack(priors)[:, live][np.arange(n) % len(priors)]
    alpha = np.exp(rng.uniform(low, high, (n, 1))) * around
    # Gamma(a) = Gamma(a + 1) * U ** (1 / a). It underflows for small a, so use its logarithm.
    logs = np.log(rng.standard_gamma(alpha + 1)) + np.log1p(-rng.random(alpha.shape)) / alpha
    weights = np.zeros((n, len(priors[0])))
    weights[:, live] = np.exp(logs - logs.max(axis=1, keepdims=True))
    return limits.project(snap(weights / weights.sum(axis=1, keepdims=True)))


def temper(prior: Floats, power: float) -> Floats:
    """Return ``prior`` (``[K]``) with each weight raised to ``power``, and scaled to sum 1.

    Power 1 keeps the prior. Power 0 gives equal weights to all clusters whose prior weight is above
    0. Weights of 0 stay 0.
    """
    raised = np.power(prior, power, where=prior > 0, out=np.zeros_like(prior))
    return np.asarray(raised / raised.sum(), np.float64)


def descend(
    score: Callable[[Floats], Floats],
    starts: Floats,
    limits: WeightConstraints,
    rng: np.random.Generator,
    *,
    keep: int = 100,
    steps: int = 15,
) -> tuple[Floats, Floats]:
    """Search locally from the best of ``starts`` (``[n, K]``) for mixtures with a lower ``score``.

    Each step makes four changed copies of each of the ``keep`` best mixtures:

    - one copy is moved towards (or away from) another of the best mixtures;
    - in one copy, the weight of each cluster is multiplied by its own random factor;
    - in one copy, weight is moved between two clusters;
    - one copy loses one of its clusters.

    Returns:
        The ``keep`` best different mixtures, ``[≤ keep, K]``, and their scores; the best is first.
    """
    rows, values = _best(starts, score(starts), keep)
    k = starts.shape[1]
    live = limits.prior > 0
    for step in range(steps):
        reach = 0.7 ** (step / 2)
        n = len(rows)
        pick = np.arange(n)
        towards = rows + rng.uniform(-0.5, 1.0, (n, 1)) * (rows[rng.integers(n, size=n)] - rows)
        factor = rows * np.exp(reach * rng.standard_normal((n, k)))
        moved = rows.copy()
        giver = np.argmax(rng.random((n, k)) * rows, axis=1)
        taker = rng.choice(np.flatnonzero(live), n)
        part = moved[pick, giver] * rng.random(n) * reach
        moved[pick, giver] -= part
        moved[pick, taker] += part
        fewer = rows.copy()
        fewer[pick, rng.integers(k, size=n)] = 0.0
        fresh = np.maximum(np.concatenate([towards, factor, moved, fewer]), 0.0)
        fresh = fresh[fresh.sum(axis=1) > 0]
        fresh = limits.project(snap(fresh / fresh.sum(axis=1, keepdims=True)))
        rows, values = _best(
            np.concatenate([rows, fresh]), np.concatenate([values, score(fresh)]), keep
        )
    return rows, values


def _best(rows: Floats, values: Floats, keep: int) -> tuple[Floats, Floats]:
    """Return the ``keep`` different ``rows`` with the lowest ``values``, and these values."""
    order = np.argsort(values, kind="stable")
    _, first = np.unique(np.round(rows[order], SAME), axis=0, return_index=True)
    chosen = order[np.sort(first)[:keep]]
    return rows[chosen], values[chosen]


def snap(weights: Floats) -> Floats:
    """Set weights below `TINY` to 0 in ``weights`` (``[n, K]``), and scale the rows to sum 1.

    With more than a hundred clusters, the threshold is a tenth of an equal share instead of `TINY`.
    """
    kept = np.where(weights < min(TINY, 0.1 / weights.shape[1]), 0.0, weights)
    return np.asarray(kept / kept.sum(axis=1, keepdims=True), np.float64)


def unmeasured(pool: Floats, measured: Floats) -> Floats:
    """Return ``pool`` (``[n, K]``) without repeated rows and without rows of ``measured``."""
    both = np.round(np.concatenate([measured, pool]), SAME)
    _, first = np.unique(both, axis=0, return_index=True)
    return pool[np.sort(first[first >= len(measured)]) - len(measured)]


def from_top(pool: Floats, predicted: Floats, top: int, n: int, rng: np.random.Generator) -> Floats:
    """Return ``n`` random rows among the ``top`` rows of ``pool`` with the lowest ``predicted``."""
    best = np.argsort(predicted, kind="stable")[: max(top, n)]
    return pool[best[np.sort(rng.permutation(len(best))[:n])]]
