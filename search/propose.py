"""Which mixtures to try: Dirichlet candidates around a prior, under caps; pure functions.

Mixtures are rows of float64 ``[n, K]`` here. Whatever is random comes from a generator that the
caller keys by (seed, round), so a pool differs from round to round and never between two runs.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.errors import UsageError

Floats = NDArray[np.float64]

TINY = 1e-3
"""Smaller weights become 0, so that a proxy need not open a cluster for a row or two."""
SAME = 3
"""Mixtures that agree to this many decimals count as one."""


def generator(seed: int, round_: int) -> np.random.Generator:
    """Return the random numbers of one round of the search with ``seed``."""
    return np.random.default_rng([seed, round_])


def split_budget(budget: int, rounds: Sequence[int]) -> list[int]:
    """Share ``budget`` trials in the ratio ``rounds``, by largest remainder; empty rounds fall out.

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
    prior: Floats,
    caps: Floats,
    concentration: tuple[float, float],
    rng: np.random.Generator,
) -> Floats:
    """Draw ``n`` mixtures around ``prior`` (``[K]``, sum 1), none above ``caps`` (``[K]``).

    Each comes from a Dirichlet distribution of its own, whose parameters sum to a number between
    the two of ``concentration``, drawn log-uniformly: at 2 a mixture is a few clusters, at 50 it is
    the prior with changes. A cluster without prior weight gets none.

    Returns:
        float64 ``[n, K]``, rows of sum 1.
    """
    live = np.flatnonzero(prior > 0)
    low, high = np.log(concentration)
    alpha = np.exp(rng.uniform(low, high, (n, 1))) * prior[live]
    # Gamma(a) = Gamma(a + 1) * U ** (1 / a), taken as logarithms: for small a it underflows.
    logs = np.log(rng.standard_gamma(alpha + 1)) + np.log1p(-rng.random(alpha.shape)) / alpha
    weights = np.zeros((n, len(prior)))
    weights[:, live] = np.exp(logs - logs.max(axis=1, keepdims=True))
    weights = snap(weights / weights.sum(axis=1, keepdims=True))
    for row in np.flatnonzero((weights > caps).any(axis=1)):
        weights[row] = cap_weights(weights[row], caps, prior)
    return weights


def snap(weights: Floats) -> Floats:
    """Set weights under `TINY` to 0 in ``[n, K]``, and scale the rows to sum 1 again.

    Among more than a hundred clusters the threshold is a tenth of an equal share.
    """
    kept = np.where(weights < min(TINY, 0.1 / weights.shape[1]), 0.0, weights)
    return np.asarray(kept / kept.sum(axis=1, keepdims=True), np.float64)


def cap_weights(weights: Floats, caps: Floats, spill: Floats) -> Floats:
    """Bring ``weights`` (``[K]``, sum 1) under ``caps`` (``[K]``) like water finding its level.

    What a capped cluster cannot hold goes to the other clusters of the mixture, in proportion,
    so ratios below the caps and zeros stay. Only if all of them are full, the rest goes to the
    clusters of ``spill`` (``[K]``), in proportion too. The caps must leave room: `check_caps`.
    """
    if (weights <= caps).all():
        return weights
    inside = weights > 0
    result = _fill(np.where(inside, weights, 0.0), caps, 1.0)
    rest = 1.0 - math.fsum(result)
    if rest > 1e-12:
        result += _fill(np.where(inside, 0.0, spill), caps, rest)
    return result


def check_caps(prior: Floats, caps: Floats) -> None:
    """Raise `UsageError` unless a mixture of the clusters in ``prior`` fits under ``caps``."""
    live = prior > 0
    if (room := math.fsum(np.minimum(caps[live], 1.0))) < 1 - 1e-12:
        raise UsageError(
            f"the largest weights of the {live.sum()} clusters with a prior sum to {room:.4g}, "
            "and a mixture sums to 1; raise max_weight to a mean of at least "
            f"{1 / live.sum():.4g}"
        )


def unmeasured(pool: Floats, measured: Floats) -> Floats:
    """Drop from ``pool`` (``[n, K]``) repeated rows and rows of ``measured`` (``[m, K]``)."""
    both = np.round(np.concatenate([measured, pool]), SAME)
    _, first = np.unique(both, axis=0, return_index=True)
    return pool[np.sort(first[first >= len(measured)]) - len(measured)]


def from_top(pool: Floats, predicted: Floats, top: int, n: int, rng: np.random.Generator) -> Floats:
    """Choose ``n`` at random from the ``top`` rows of ``pool`` that are predicted lowest."""
    best = np.argsort(predicted, kind="stable")[: max(top, n)]
    return pool[best[np.sort(rng.permutation(len(best))[:n])]]


def _fill(weights: Floats, caps: Floats, total: float) -> Floats:
    """Return ``min(caps, level * weights)`` with sum ``total``, or the caps if they sum to less."""
    result = np.zeros_like(weights)
    open_ = weights > 0
    while open_.any():
        level = weights * (max(total - math.fsum(result), 0.0) / math.fsum(weights[open_]))
        full = open_ & (level > caps)
        if not full.any():
            return np.where(open_, level, result)
        result[full] = caps[full]
        open_ &= ~full
    return result
