"""Interpolation: integer weights between two mixtures, and weights without some of the clusters.

All arithmetic is exact, on int64, so results are the same on every machine. Every row of weights
sums to `ONE`. Rounding is by largest remainder, and of equal remainders the lowest index comes
first, as in `Mixture.integers`.
"""

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.formats.mixture import ONE

MOST_STEPS = 10**9
"""Largest length of a ramp, in steps: the product of a remainder and a step must fit into int64."""

_HALF = (ONE.bit_length() - 1) // 2


def interpolate(
    start: NDArray[np.int64], end: NDArray[np.int64], steps: int, at: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return weights on the line from ``start`` to ``end``, which takes ``steps`` steps.

    ``start`` and ``end`` are int64 ``[K]`` with sum `ONE`. ``at``, int64 ``[n]``, is the numbers of
    steps after which weights are wanted: 0 to ``steps``, which is at most `MOST_STEPS`. Returns
    int64 ``[n, K]``: ``start`` after 0 steps, ``end`` after ``steps``, and in between within one
    unit of the straight line. A cluster that is 0 in ``start`` and in ``end`` is always 0.
    """
    change, at = end - start, at[:, np.newaxis]
    # change * at may not fit into 64 bits, so quotient and remainder of change are used.
    done = change % steps * at
    return _give_out(start + change // steps * at + done // steps, done % steps)


def without_clusters(weights: NDArray[np.int64], out: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Set the clusters ``out``, bool ``[K]``, to 0; scale the others so that rows sum to `ONE`.

    ``weights`` and the result are int64 ``[n, K]``. Other positive weights stay positive. If a row
    has no other positive weight, the whole row is 0.
    """
    kept = np.where(out, 0, weights)
    total = np.maximum(kept.sum(axis=1, keepdims=True), 1)
    # kept * ONE has up to 80 bits, so kept * ONE / total is computed in two steps of 20 bits.
    high, rest = np.divmod(kept << _HALF, total)
    low, rest = np.divmod(rest << _HALF, total)
    return _give_out((high << _HALF) + low, rest)


def _give_out(weights: NDArray[np.int64], left: NDArray[np.int64]) -> NDArray[np.int64]:
    """In each row, add 1 to the weights with the largest remainders, until the row sums to `ONE`.

    ``left`` are the remainders, int64 ``[n, K]``; a weight with remainder 0 is not increased.
    """
    missing = ONE - weights.sum(axis=1)
    clusters = weights.shape[1]
    # The index in the key makes all keys different, and puts the first of equal remainders first.
    key = left * clusters + np.arange(clusters - 1, -1, -1)
    least = np.sort(key, axis=1)[np.arange(len(key)), -np.clip(missing, 1, clusters)]
    chosen = (key >= least[:, None]) & (left > 0) & (missing > 0)[:, None]
    result: NDArray[np.int64] = weights + chosen
    return result
