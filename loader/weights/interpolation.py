"""Interpolation: integer weights between two mixtures, and weights without some of the clusters.

All arithmetic is exact, on int64, so results are the same on every machine. Every row of weights
sums to `ONE`, which stands for a weight of 1. Weights are first rounded down; the units that are
missing in the sum go to the weights with the largest remainders. Of equal remainders, the one with
the lowest index comes first, as in `Mixture.integers`.
"""

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.formats.mixture import ONE

MOST_STEPS = 10**9
"""Largest number of steps of a ramp: with it, products in `interpolate` still fit into int64."""

_HALF = (ONE.bit_length() - 1) // 2


def interpolate(
    start: NDArray[np.int64], end: NDArray[np.int64], steps: int, at: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return weights on the straight line from ``start`` to ``end``, int64 ``[n, K]``.

    A row is ``start`` after 0 steps, and ``end`` after ``steps`` steps. Between these, a weight
    differs from the straight line by less than one unit. A cluster that is 0 in ``start`` and in
    ``end`` is always 0.

    Args:
        start: Weights of the K clusters, int64 ``[K]`` with sum `ONE`.
        end: Weights like ``start``.
        steps: Number of steps from ``start`` to ``end``, 1 to `MOST_STEPS`.
        at: For each row of the result, the number of steps since ``start``, 0 to ``steps``, int64
            ``[n]``.
    """
    change, at = end - start, at[:, np.newaxis]
    # change * at may not fit into 64 bits, so the quotient and the remainder of change / steps are
    # multiplied by at separately.
    done = change % steps * at
    return _give_out(start + change // steps * at + done // steps, done % steps)


def without_clusters(weights: NDArray[np.int64], out: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return ``weights`` with 0 for the clusters ``out``, and the others scaled to sum `ONE`.

    ``weights`` and the result are int64 ``[n, K]``, ``out`` is bool ``[K]``. Positive weights of
    other clusters stay positive. If other clusters have no weight in a row, the whole row is 0.
    """
    kept = np.where(out, 0, weights)
    total = np.maximum(kept.sum(axis=1, keepdims=True), 1)
    # kept * ONE has up to 80 bits, so kept * ONE / total is computed in two steps of 20 bits.
    high, rest = np.divmod(kept << _HALF, total)
    low, rest = np.divmod(rest << _HALF, total)
    return _give_out((high << _HALF) + low, rest)


def _give_out(weights: NDArray[np.int64], left: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``weights`` with 1 added to those with the largest remainders, so rows sum to `ONE`.

    ``weights`` and the result are int64 ``[n, K]``. ``left``, int64 ``[n, K]``, are the remainders;
    a weight with remainder 0 is not increased.
    """
    missing = ONE - weights.sum(axis=1)
    clusters = weights.shape[1]
    # The index in the key makes all keys different, and puts the first of equal remainders first.
    key = left * clusters + np.arange(clusters - 1, -1, -1)
    least = np.sort(key, axis=1)[np.arange(len(key)), -np.clip(missing, 1, clusters)]
    chosen = (key >= least[:, None]) & (left > 0) & (missing > 0)[:, None]
    result: NDArray[np.int64] = weights + chosen
    return result
